# SPDX-License-Identifier: MIT
"""Runs evctl as a person does, with a home of its own for each test; all machines end with it."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tools"))
from guestkit import rootfs  # noqa: E402
from guestkit.kernel import QUICK, Kernel  # noqa: E402

BUILD = pathlib.Path(os.environ.get("EVISOR_BUILD", TOP / "build")).resolve()
TIMEOUT_S = 120


class Result:
    def __init__(self, done):
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr

    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"status {self.status}\nout: {self.out}\nerr: {self.err}"


class Evctl:
    """evctl("start", "web"): a Result; check=False for commands that must fail."""

    def __init__(self, home):
        self.home = home
        self.store = home / "evisor"
        self.environment = {**os.environ, "XDG_DATA_HOME": str(home), "NO_COLOR": ""}

    def command(self, *words):
        return [str(BUILD / "evctl"), *map(str, words)]

    def __call__(self, *words, check=True, **options):
        options = {"stdin": subprocess.DEVNULL, "env": self.environment, **options}
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False,
                              timeout=TIMEOUT_S, **options)
        result = Result(done)
        assert not check or result.status == 0, result
        return result

    def fails(self, status, words_of_error, *words, **options):
        """It ends with this status and one line that has these words."""
        result = self(*words, check=False, **options)
        assert result.status == status, result
        assert result.err.startswith("evctl: ") and result.err.count("\n") == 1, result
        for word in words_of_error:
            assert word in result.err, result
        return result

    def start_process(self, *words):
        """As in a terminal, where Ctrl-C counts, also if the test run's own parent ignores it."""
        return subprocess.Popen(self.command(*words), env=self.environment, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE,
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def state(self, name):
        return next(row["state"] for row in self("list", "--json").json() if row["name"] == name)

    def wait_console(self, name, text, seconds=180):
        """Until the guest has printed it."""
        log = self.store / name / "console.log"
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if log.exists() and text.encode() in log.read_bytes():
                return
            time.sleep(0.1)
        raise AssertionError(f"{text!r} was not seen: {log.read_bytes()[-2000:]!r}")

    def type(self, name, text, until, seconds=180):
        """Types into the console; until the guest has printed `until`. Returns all that was shown."""
        console = subprocess.Popen(self.command("console", name), env=self.environment,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL)
        console.stdin.write(text.encode())
        console.stdin.flush()
        try:
            self.wait_console(name, until, seconds)
        finally:
            console.stdin.close()
            shown = console.stdout.read()
            console.wait(120)
        return shown.decode(errors="replace")


@pytest.fixture
def evctl(tmp_path):
    tool = Evctl(tmp_path / "home")
    yield tool
    for name in tool("list", "--names", check=False).out.split("\n"):
        if name:
            tool("delete", "--force", name, check=False)


@pytest.fixture(scope="session")
def kernel():
    return Kernel()


@pytest.fixture(scope="session")
def guest(kernel, tmp_path_factory):
    """guest.image, guest.options: a small Linux with a shell on its console, as create wants it."""
    folder = tmp_path_factory.mktemp("guest")

    class Guest:
        image = folder / "root.raw"
        append = f"console=ttyS0 quiet panic=-1 {QUICK}"
        diskless = ["--kernel", kernel.image, "--initrd", folder / "diskless", "--memory", "128M",
                    "--append", append]
        options = ["--kernel", kernel.image, "--initrd", folder / "initrd", "--memory", "256M",
                   "--append", f"{append} root=/dev/vda", "--image", image]

    rootfs.make_raw(Guest.image, 96)
    modules = [*rootfs.MODULES, "virtio_balloon", "virtio_mem"]
    rootfs.make_initramfs(kernel, folder / "initrd", modules=modules)
    rootfs.make_initramfs(kernel, folder / "diskless", rootfs.DISKLESS_INIT)
    return Guest


@pytest.fixture(scope="session")
def qemu_img():
    if not shutil.which("qemu-img"):
        pytest.skip("qemu-img is missing: apt-get install qemu-utils")

    def run(*words):
        return subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True,
                              check=True).stdout
    return run
