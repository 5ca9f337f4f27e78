# SPDX-License-Identifier: MIT
"""Runs evisor-img and QEMU's tools on the same inputs, each in a directory of its own."""
import json
import os
import pathlib
import shlex
import shutil
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("EVISOR_BUILD", REPOSITORY / "build"))
if not BUILD.is_absolute():
    BUILD = REPOSITORY / BUILD
EVISOR_IMG = str(BUILD / "evisor-img")
TIMEOUT_S = 180


def pytest_collection_modifyitems(items):
    missing = [name for name in ("qemu-img", "qemu-io") if not shutil.which(name)]
    if missing:
        mark = pytest.mark.skip(reason=f"{', '.join(missing)} missing: apt-get install qemu-utils")
        for item in items:
            item.add_marker(mark)


class Result:
    def __init__(self, completed):
        self.status = completed.returncode
        self.out = completed.stdout
        self.err = completed.stderr

    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"status {self.status}\nout: {self.out}\nerr: {self.err}"


def run(*command, cwd=None, env=None):
    completed = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True,
        errors="replace", timeout=TIMEOUT_S, check=False)
    result = Result(completed)
    assert result.status >= 0, f"{command} died of a signal: {result}"
    return result


def evisor_img(*arguments, cwd=None):
    return run(EVISOR_IMG, *arguments, cwd=cwd)


def qemu_img(*arguments, cwd=None):
    return run("qemu-img", *arguments, cwd=cwd)


def qemu_io(path, *commands, options=(), cwd=None):
    words = []
    for command in commands:
        words += ["-c", command]
    result = run("qemu-io", *options, *words, path, cwd=cwd)
    # qemu-io reports a failed command in its output only.
    assert result.status == 0 and "failed" not in result.out, f"{commands}: {result}"
    return result


def assert_clean(path, cwd=None):
    """Both checkers find nothing, not even a leak."""
    for tool in (evisor_img, qemu_img):
        result = tool("check", "-f", "qcow2", path, cwd=cwd)
        assert result.status == 0, f"{tool.__name__}: {result}"


@pytest.fixture
def pair(tmp_path):
    """Two directories, for the same commands by either tool."""
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    return tmp_path / "ours", tmp_path / "theirs"


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Small images of all kinds, for command lines that both tools are given."""
    folder = tmp_path_factory.mktemp("images")

    def sparse(name, size, *pieces):
        with open(folder / name, "wb") as file:
            file.truncate(size)
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)
    noise = bytes(range(256)) * 256
    sparse("s.raw", 2 << 20, (4 << 16, noise))
    sparse("s2.raw", 2 << 20, (4 << 16, noise), (1000, b"x"))
    sparse("s3.raw", 3 << 20, (4 << 16, noise))
    sparse("s4.raw", 3 << 20, (4 << 16, noise), ((2 << 20) + 5000, b"x"))
    for name in ("base.q", "base2.q", "snap.q"):
        qemu_img("create", "-f", "qcow2", name, "4M", cwd=folder)
        qemu_io(name, "write 0 128k", "write -z 1M 128k", cwd=folder)
    qemu_img("snapshot", "-c", "first", "snap.q", cwd=folder)
    qemu_img("snapshot", "-c", "a name that is longer than its column", "snap.q", cwd=folder)
    qemu_img("create", "-f", "qcow2", "-b", "base.q", "-F", "qcow2", "top.q", cwd=folder)
    qemu_io("top.q", "write 64k 64k", "write -z 2M 64k", cwd=folder)
    qemu_img("create", "-f", "qcow2", "-o", "extended_l2=on", "ext.q", "1M", cwd=folder)
    qemu_io("ext.q", "write 4k 4k", "write -z 16k 8k", cwd=folder)
    qemu_img("convert", "-c", "-O", "qcow2", "s.raw", "c.q", cwd=folder)
    return folder


def assert_same(images, pair, command):
    """The same words, the same exit status; what is written is the same disk."""
    results = []
    for directory, tool in zip(pair, (evisor_img, qemu_img)):
        for file in images.iterdir():
            shutil.copy(file, directory)  # keeps holes
        results.append(tool(*shlex.split(command), cwd=directory))
    ours, theirs = results
    assert ours.status == theirs.status, f"{ours}\n{theirs}"
    assert ours.out == theirs.out
    assert ours.err == theirs.err.replace("qemu-img", "evisor-img")
    names = [sorted(file.name for file in directory.iterdir()) for directory in pair]
    assert names[0] == names[1]
    for name in names[0]:
        if (pair[0] / name).read_bytes() == (pair[1] / name).read_bytes():
            continue
        result = qemu_img("compare", pair[0] / name, pair[1] / name)
        assert result.status == 0, f"{name}: {result}"
