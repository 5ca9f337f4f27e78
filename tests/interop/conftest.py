# SPDX-License-Identifier: MIT
"""Runs evisor-img and QEMU's tools on the same inputs, each in a directory of its own."""
import json
import os
import pathlib
import shutil
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("EVISOR_BUILD", REPOSITORY / "build"))
if not BUILD.is_absolute():
    BUILD = REPOSITORY / BUILD
EVISOR_IMG = str(BUILD / "evisor-img")
TIMEOUT_S = 60


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
