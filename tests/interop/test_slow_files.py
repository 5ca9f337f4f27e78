# SPDX-License-Identifier: MIT
"""
Images on a file system that does not answer: a FUSE whose server hears every request and says
nothing. The machine must run on, and end, while an image of it is being added, or made.
"""

import ctypes
import os
import select
import struct
import subprocess
import threading

import pytest

from conftest import BUILD
from test_monitor import Monitor

FUSE_INIT = 26


class SilentFiles:
    """Mounted at `path`. `asked` is set once somebody looks for a file there."""

    def __init__(self, path):
        self.path = path
        self.asked = threading.Event()
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0"
        if self.libc.mount(b"silent", bytes(path), b"fuse", 0, options.encode()):
            os.close(self.fd)
            raise OSError(ctypes.get_errno(), "mount")
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        """Requests after the first stay unread: who waits for such a one can still be killed."""
        request = os.read(self.fd, 1 << 20)
        opcode, unique = struct.unpack_from("<IQ", request, 4)
        assert opcode == FUSE_INIT
        answer = struct.pack("<IIIIHHIIHHI7I", 7, 31, 1 << 16, 0, 8, 8, 1 << 16, 1, 16, 0, 0,
                             *[0] * 7)
        os.write(self.fd, struct.pack("<IiQ", 16 + len(answer), 0, unique) + answer)
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        if any(events & select.POLLIN for _, events in poll.poll()):
            self.asked.set()

    def end(self):
        """Whoever waits is told that the file system is gone."""
        if self.fd < 0:
            return
        self.libc.umount2(bytes(self.path), 1 | 2)  # by force, and from under those who wait
        self.thread.join()
        os.close(self.fd)
        self.fd = -1


@pytest.fixture
def silent(tmp_path):
    folder = tmp_path / "silent"
    folder.mkdir()
    try:
        files = SilentFiles(folder)
    except OSError as error:
        pytest.skip(f"no FUSE can be mounted here: {error}")
    yield files
    files.end()


@pytest.fixture
def machine(tmp_path):
    path, disk = tmp_path / "qmp", tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    process = subprocess.Popen(
        [str(BUILD / "evisor"), "-m", "64", "-nodefaults", "-display", "none", "-S", "-accel",
         "soft", "-drive", f"file={disk},format=raw,id=d", "-qmp", f"unix:{path},server=on,wait=off"],
        stdin=subprocess.DEVNULL, cwd=tmp_path)
    yield process, path
    process.kill()
    process.wait()


def send(monitor, command, arguments):
    monitor.socket.sendall(
        b'{"execute": "%s", "arguments": %s}' % (command.encode(), arguments.encode()))


def test_the_machine_runs_on(machine, silent, tmp_path):
    process, path = machine
    good = tmp_path / "good.raw"
    good.write_bytes(bytes(1 << 20))
    waiting, other, human = Monitor(path), Monitor(path), Monitor(path)
    image = silent.path / "a.qcow2"
    send(waiting, "blockdev-add", '{"driver": "qcow2", "node-name": "slow", "file": '
         '{"driver": "file", "filename": "%s"}}' % image)
    assert silent.asked.wait(60)
    send(human, "human-monitor-command",
         '{"command-line": "drive_add 0 if=none,id=slow2,file=%s,format=raw"}' % image)
    assert other.ask("query-status")["return"]["status"] == "prelaunch"
    other.socket.sendall(b'{"execute": "blockdev-add", "arguments": {"driver": "raw", '
                         b'"node-name": "good", "file": {"driver": "file", "filename": "%s"}}}'
                         % bytes(good))
    assert other.hear() == {"return": {}}
    assert other.ask("device_add", driver="virtio-blk-pci", drive="good", id="d") == {"return": {}}
    assert other.ask("cont") == {"return": {}}
    assert other.ask("system_reset") == {"return": {}}
    names = [entry["node-name"] for entry in other.ask("query-named-block-nodes")["return"]]
    assert "good" in names and "slow" not in names
    # What never answers does not keep the machine from its end.
    assert other.ask("quit") == {"return": {}}
    assert process.wait(60) == 0


def test_its_client_is_told_in_the_end(machine, silent):
    _, path = machine
    waiting, other = Monitor(path), Monitor(path)
    send(waiting, "blockdev-add", '{"driver": "file", "node-name": "slow", "filename": "%s"}'
         % (silent.path / "a"))
    assert silent.asked.wait(60)
    assert other.ask("query-status")["return"]["status"] == "prelaunch"
    silent.end()
    error = waiting.hear()["error"]
    assert error["class"] == "GenericError" and str(silent.path / "a") in error["desc"]
    assert other.ask("query-status")["return"]["status"] == "prelaunch"


MAKERS = [
    ("drive-mirror", '{"device": "d", "sync": "full", "target": "FILE", "format": "qcow2"}'),
    ("drive-mirror", '{"device": "d", "sync": "full", "target": "FILE", "format": "raw", '
     '"mode": "existing"}'),
    ("drive-backup", '{"device": "d", "sync": "full", "target": "FILE", "format": "qcow2"}'),
    ("blockdev-snapshot-sync", '{"device": "d", "snapshot-file": "FILE"}'),
    ("transaction", '{"actions": [{"type": "blockdev-snapshot-sync", "data": '
     '{"device": "d", "snapshot-file": "FILE"}}]}'),
]


@pytest.mark.parametrize("command, arguments", MAKERS)
def test_the_machine_runs_on_while_a_file_is_made(machine, silent, tmp_path, command, arguments):
    process, path = machine
    waiting, other, third = Monitor(path), Monitor(path), Monitor(path)
    image = silent.path / "a.qcow2"
    send(waiting, command, arguments.replace("FILE", str(image)))
    assert silent.asked.wait(60)
    # The guest's disk is not held up: it does the same for another file meanwhile.
    assert other.ask("cont") == {"return": {}}
    assert other.ask("blockdev-snapshot-sync", device="d",
                     **{"snapshot-file": str(tmp_path / "over.qcow2")}) == {"return": {}}
    error = third.ask("drive-backup", device="d", sync="full", target=str(image))["error"]
    assert error["desc"].startswith(f"Another command is making '{image}'")
    assert other.ask("query-block-jobs") == {"return": []}
    assert other.ask("quit") == {"return": {}}
    assert process.wait(60) == 0


@pytest.mark.parametrize("command, arguments", MAKERS)
def test_a_file_that_fails_late_changes_nothing(machine, silent, command, arguments):
    _, path = machine
    waiting, other = Monitor(path), Monitor(path)
    send(waiting, command, arguments.replace("FILE", str(silent.path / "a")))
    assert silent.asked.wait(60)
    silent.end()
    error = waiting.hear()["error"]
    assert error["class"] == "GenericError" and str(silent.path / "a") in error["desc"]
    assert other.ask("query-block-jobs") == {"return": []}
    [block] = other.ask("query-block")["return"]
    assert block["inserted"]["backing_file_depth"] == 0
