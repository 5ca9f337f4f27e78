# SPDX-License-Identifier: MIT
"""Image locks: evisor and QEMU keep each other out, and readers let each other in."""
import contextlib
import os
import signal
import subprocess
import time

import pytest

from conftest import evisor_img, qemu_img, run
from nbd import serve


@contextlib.contextmanager
def qemu_io_holds(path, *options):
    """A real qemu-io that has the image open."""
    with subprocess.Popen(["qemu-io", *options, str(path)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        process.stdin.write("length\n")
        process.stdin.flush()
        while "iB" not in (line := process.stdout.readline()):  # the answer: it is open now
            assert line, "qemu-io did not open the image"
        yield
        process.stdin.close()
        process.wait(timeout=120)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "x.qcow2"
    assert evisor_img("create", "-f", "qcow2", path, "4M").status == 0
    return path


def assert_locked(result, name):
    assert result.status == 1, result
    assert f'Failed to get {name} lock' in result.err and result.err.count("\n") == 1, result
    assert "-U" in result.err


def test_writer_keeps_everybody_out(image, tmp_path):
    (tmp_path / "raw").write_bytes(bytes(4096))
    with qemu_io_holds(image):
        for command in (["info", image], ["check", image],
                        ["convert", "-O", "raw", image, tmp_path / "out"]):
            assert_locked(evisor_img(*command), 'shared "write"')
        for command in (["check", "-r", "all", image], ["create", "-f", "qcow2", image, "1M"],
                        ["convert", "-O", "qcow2", tmp_path / "raw", image]):
            assert_locked(evisor_img(*command), '"write"')
        for command in (["info", "-U", image], ["check", "-U", image],
                        ["convert", "-U", "-O", "raw", image, tmp_path / "out"]):
            assert evisor_img(*command).status == 0
    assert evisor_img("info", "--output=json", image).json()["virtual-size"] == 4 << 20


def test_reader_lets_readers_in(image, tmp_path):
    with qemu_io_holds(image, "-r"):
        assert evisor_img("info", image).status == 0
        assert evisor_img("check", image).status == 0
        assert evisor_img("convert", "-O", "raw", image, tmp_path / "out").status == 0
        assert evisor_img("check", "-r", "all", image).status == 1
        assert evisor_img("create", "-f", "qcow2", image, "1M").status == 1


def test_raw(tmp_path):
    path = tmp_path / "x.raw"
    evisor_img("create", path, "4M")
    with qemu_io_holds(path, "-f", "raw"):
        for tool in (evisor_img, qemu_img):
            assert tool("info", "-f", "raw", path).status == 0




@contextlib.contextmanager
def evisor_holds(image, tmp_path, writable):
    """evisor's disk_driver with the image open, waiting for its next operation."""
    from conftest import BUILD
    driver = BUILD / "tests" / "disk_driver"
    if not driver.exists():
        pytest.skip(f"{driver} is not built: ninja build/tests/disk_driver")
    words = [str(driver)] + ([] if writable else ["-r"]) + ["-f", "qcow2", str(image)]
    ready = tmp_path / "ready"
    with subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as process:
        process.stdin.write(f"dump {ready}\n")
        process.stdin.flush()
        end = time.monotonic() + 60
        while not ready.exists() and time.monotonic() < end and process.poll() is None:
            time.sleep(0.01)
        assert ready.exists(), "the driver did not open the image"
        yield
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_qemu_respects_our_writer(image, tmp_path):
    with evisor_holds(image, tmp_path, writable=True):
        result = qemu_img("info", image)
        assert result.status == 1 and 'Failed to get shared "write" lock' in result.err, result
        result = run("qemu-io", "-c", "write 0 4k", image)
        assert result.status == 1 and 'Failed to get "write" lock' in result.err, result
        assert qemu_img("info", "-U", image).status == 0
        assert_locked(evisor_img("info", image), 'shared "write"')
    assert qemu_img("info", image).status == 0


def test_bytes_are_those_of_qemu(image, tmp_path):
    """/proc/locks shows the same ranges for evisor as for qemu-io."""
    def ranges():
        inode = f":{os.stat(image).st_ino} "
        held = set()
        for line in open("/proc/locks", encoding="ascii"):
            fields = line.split()
            if inode in line:
                assert fields[1] == "OFDLCK" and fields[3] == "READ", line
                held.update(range(int(fields[6]), int(fields[7]) + 1))
        return held
    with qemu_io_holds(image):
        theirs = ranges()
    with evisor_holds(image, tmp_path, writable=True):
        ours = ranges()
    if not theirs:
        pytest.skip("/proc/locks shows no OFD locks here")
    assert ours == theirs == {100, 101, 103, 201, 203}


def test_a_killed_process_leaves_no_lock(image):
    """Where nothing was in flight, the image can be used as soon as the process is gone."""
    for _ in range(3):
        with serve(image) as server:
            server.stop(signal.SIGKILL)
        result = evisor_img("resize", image, "+1M")
        assert result.status == 0, result
