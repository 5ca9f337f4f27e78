# SPDX-License-Identifier: MIT
"""A command that is interrupted leaves nothing that could pass for a whole image."""
import os
import re
import signal
import subprocess
import time

import pytest

from conftest import EVISOR_IMG, assert_clean, evisor_img, qemu_img, qemu_io

SIZE = 128 << 20


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Does not compress, so that there is time to interrupt."""
    path = tmp_path_factory.mktemp("noise") / "disk.raw"
    with open(path, "wb") as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))
    return path


def interrupt(words, started, sig=signal.SIGINT):
    """Runs a command and sends a signal as soon as `started` says so. Its status and errors."""
    process = subprocess.Popen([EVISOR_IMG, *map(str, words)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not started():
        time.sleep(0.002)
    process.send_signal(sig)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def has_grown(path, size=1 << 20):
    return lambda: path.exists() and path.stat().st_blocks * 512 >= size


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [["-O", "qcow2"], ["-c", "-O", "qcow2"], ["-O", "raw"],
                                   ["-O", "qcow2", "-o", "preallocation=metadata"]], ids=" ".join)
def test_convert(noise, tmp_path, words, sig):
    target = tmp_path / "target"
    status, err = interrupt(["convert", "-r", "20M", *words, noise, target], has_grown(target), sig)
    assert status == 1 and "interrupted" in err, (status, err)
    assert not target.exists()


def test_convert_over_an_older_file(noise, tmp_path):
    """What was there is lost by then, but half of the new contents is not taken for all of it."""
    target = tmp_path / "target"
    target.write_bytes(b"x" * 1000)
    status, err = interrupt(["convert", "-r", "20M", noise, target], has_grown(target))
    assert status == 1 and "interrupted" in err
    assert target.stat().st_size == 0


def test_killed_convert_is_no_image(noise, tmp_path):
    target = tmp_path / "target"
    status, _ = interrupt(["convert", "-r", "20M", "-O", "qcow2", noise, target],
                          has_grown(target), signal.SIGKILL)
    assert status == -signal.SIGKILL and target.exists()
    assert qemu_img("info", "-f", "qcow2", target).status == 1
    assert evisor_img("info", "-f", "qcow2", target).status == 1


def test_dd(noise, tmp_path):
    target = tmp_path / "target"
    status, err = interrupt(["dd", "bs=1M", f"if={noise}", f"of={target}"], has_grown(target))
    assert (status == 1 and not target.exists()) or (status == 0 and not err)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_create(tmp_path, form):
    target = tmp_path / "target"
    status, _ = interrupt(["create", "-f", form, "-o", "preallocation=full", target, "2G"],
                          has_grown(target))
    assert status == -signal.SIGINT and not target.exists()


def test_commit(noise, tmp_path):
    """The overlay keeps what it holds, so a second commit completes the first."""
    base, top = tmp_path / "base", tmp_path / "top"
    qemu_img("create", "-f", "raw", base, SIZE)
    evisor_img("create", "-f", "qcow2", "-b", base, "-F", "raw", top)
    assert evisor_img("convert", "-n", "-O", "qcow2", noise, top).status == 0
    status, err = interrupt(["commit", "-r", "20M", top], has_grown(base))
    assert status == 1 and err.count("\n") == 1, err
    assert_clean(top)
    assert qemu_img("compare", "-f", "raw", noise, top).status == 0
    assert evisor_img("commit", top).status == 0
    assert qemu_img("compare", "-f", "raw", "-F", "raw", noise, base).status == 0


def test_rebase(noise, tmp_path):
    """The name of the backing file changes last."""
    top = tmp_path / "top"
    evisor_img("create", "-f", "qcow2", "-b", noise, "-F", "raw", top)
    status, err = interrupt(["rebase", "-b", "", top], has_grown(top))
    if status == 0:
        pytest.skip("it was done before the signal came")
    assert status == 1 and "interrupted" in err
    assert evisor_img("info", "--output=json", top).json()["backing-filename"] == str(noise)
    assert_clean(top)
    assert qemu_img("compare", "-f", "raw", noise, top).status == 0


def test_usr1_tells_the_progress_once(noise, tmp_path):
    target = tmp_path / "target"
    process = subprocess.Popen([EVISOR_IMG, "convert", "-r", "100M", noise, target], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not has_grown(target)():
        time.sleep(0.002)
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and not out
    assert re.fullmatch(r"    \(\d+\.\d\d/100%\)\n", err), err


def test_progress(noise, tmp_path):
    result = evisor_img("convert", "-p", "-O", "qcow2", noise, tmp_path / "target")
    steps = result.out.splitlines()  # in text mode a carriage return ends a line, too
    assert result.status == 0 and len(steps) > 10
    assert all(re.fullmatch(r"    \(\d+\.\d\d/100%\)", step) for step in steps)
    assert steps[0] == "    (0.00/100%)" and steps[-1] == "    (100.00/100%)"


def test_rate(noise, tmp_path):
    """What is copied under -r is whole."""
    qemu_io(noise, "read 0 4k", options=("-f", "raw"))
    result = evisor_img("convert", "-r", "400M", "-O", "qcow2", noise, tmp_path / "target")
    assert result.status == 0
    assert qemu_img("compare", "-f", "raw", "-F", "qcow2", noise, tmp_path / "target").status == 0
