# SPDX-License-Identifier: MIT
"""What a machine that has just started has, and has given back."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from conftest import BUILD, REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tools"))
from benchkit import machine  # noqa: E402
from guestkit import qmp  # noqa: E402


@pytest.fixture(params=[(), ("-S",)], ids=["running", "paused"])
def started(request, tmp_path):
    """A machine whose standard input is the null device; it runs unless the option says otherwise."""
    with subprocess.Popen([BUILD / "evisor", "-accel", "soft", "-nic", "none", "-m", "64",
                           "-display", "none", "-serial", "stdio", *request.param,
                           *machine.tiny_boot(tmp_path)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as process:
        if not request.param:
            assert process.stdout.read(1) == b"!"
        yield process.pid
        process.kill()


def code_of(pid, library):
    """Resident KiB of a library's code; None while it is not mapped yet."""
    text = pathlib.Path(f"/proc/{pid}/smaps").read_text()
    found = re.search(rf"r-xp .*/{library}[^\n]*\n(?:.*\n)*?Rss: +(\d+) kB", text)
    return int(found.group(1)) if found else None


def test_what_only_starting_needed_is_given_back(started):
    deadline = time.monotonic() + 60
    # Its constructors ran; nothing else of it is needed without a compressed image.
    while code_of(started, "libz") != 0:
        assert time.monotonic() < deadline, code_of(started, "libz")
        time.sleep(0.05)


def test_an_input_that_has_nothing_takes_no_threads(started):
    deadline = time.monotonic() + 60
    names = []
    while "vcpu0" not in names:
        assert time.monotonic() < deadline, names
        names = [path.read_text().strip() for path in pathlib.Path(f"/proc/{started}/task").glob(
            "*/comm")]
    # The loop, the CPU and what times it: the pool, which comes with its first job, has four.
    assert len(names) < 5, names


@contextlib.contextmanager
def without_network(tmp_path, **environment):
    """A machine without a NIC: its process and its control socket."""
    control = tmp_path / "control"
    with subprocess.Popen([BUILD / "evisor", "-accel", "soft", "-nic", "none", "-m", "64",
                           "-display", "none", "-serial", "stdio", "-qmp",
                           f"unix:{control},server=on,wait=off", *machine.tiny_boot(tmp_path)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          env={**os.environ, **environment}) as process:
        assert process.stdout.read(1) == b"!"
        yield process.pid, qmp.Client(control)
        process.kill()


def mapped(pid):
    return set(re.findall(r"/(lib\w+)[^/\n]*\.so", pathlib.Path(f"/proc/{pid}/maps").read_text()))


def test_libslirp_is_loaded_for_a_user_network_only(tmp_path):
    with without_network(tmp_path) as (pid, client):
        assert "libc" in mapped(pid)
        assert not {"libslirp", "libglib"} & mapped(pid)
        for _ in range(2):
            client.execute("netdev_add", type="user", id="late")
            assert "libslirp" in mapped(pid)
            client.execute("netdev_del", id="late")


def test_a_start_waits_for_no_library_that_is_linked_statically(tmp_path):
    linked = re.search(r"^program_libs = (.*)", (BUILD / "config.ninja").read_text(), re.M).group(1)
    static = set(re.findall(r"/(lib(?:uv|jansson|uring))\w*\.a\b", linked))
    with without_network(tmp_path) as (pid, _):
        assert not static & mapped(pid)
        assert {"libuv", "libjansson"} <= static | mapped(pid)


@pytest.fixture
def no_libslirp(tmp_path):
    """The environment of a program that finds a libslirp of no use."""
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "libslirp.so.0").touch()
    return {"LD_LIBRARY_PATH": str(folder)}


def test_a_machine_that_needs_libslirp_tells_where_to_get_it(tmp_path, no_libslirp):
    done = subprocess.run([BUILD / "evisor", "-accel", "soft", "-nic", "user,id=n", "-display", "none",
                           *machine.tiny_boot(tmp_path)], env={**os.environ, **no_libslirp},
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"evisor: netdev 'n': cannot load libslirp\.so\.0 \(.*\): "
                        r"apt-get install libslirp0\n", done.stderr)


def test_a_machine_that_runs_survives_without_libslirp(tmp_path, no_libslirp):
    with without_network(tmp_path, **no_libslirp) as (_, client):
        for _ in range(2):
            with pytest.raises(qmp.Error, match="apt-get install libslirp0"):
                client.execute("netdev_add", type="user", id="late")
        assert client.execute("query-status")["status"] == "running"


def test_memory_that_is_not_to_be_had_is_told(tmp_path):
    with subprocess.Popen([BUILD / "evisor", "-accel", "soft", "-nic", "none", "-m", "64",
                           "-display", "none", "-serial", "stdio", *machine.tiny_boot(tmp_path)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout.read(1) == "!"
        process.send_signal(signal.SIGBUS)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGBUS
    assert "is the file system of -mem-path or memory-backend-file full?" in said
    assert len(said.splitlines()) == 1


def test_a_file_that_may_not_grow_does_not_end_the_machine(tmp_path):
    """By ulimit -f: its signal is left aside, so that the write fails."""
    with subprocess.Popen([BUILD / "evisor", "-accel", "soft", "-nic", "none", "-m", "64",
                           "-display", "none", "-serial", "stdio", *machine.tiny_boot(tmp_path)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(1) == b"!"
        ignored = re.search(r"^SigIgn:\s*(\w+)", pathlib.Path(
            f"/proc/{process.pid}/status").read_text(), re.M)
        process.kill()
    assert int(ignored.group(1), 16) >> (signal.SIGXFSZ - 1) & 1
