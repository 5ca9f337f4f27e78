# SPDX-License-Identifier: MIT
"""blockdev-reopen: images in use that are accessed in another way, all of a list or none."""

import errno
import os

import pytest

from conftest import assert_clean, qemu_img, qemu_io, run
from test_jobs import Load, assert_holds, drive, machine, make_chain
from test_lock import qemu_io_holds

__all__ = ["machine"]


def node(name, driver="qcow2", **more):
    return {"driver": driver, "node-name": name,
            "file": {"driver": "file", "filename": f"{name}.{driver}"}, **more}


def state(box, name):
    [found] = [one for one in box.ok("query-named-block-nodes") if one["node-name"] == name]
    return found["ro"], found["cache"]["direct"], found["cache"]["no-flush"]


def may_be_read(path):
    return run("qemu-io", "-r", "-f", "qcow2", "-c", "read 0 64k", path).status == 0


class Export:
    """Writes to a node as a guest would."""

    def __init__(self, box, name):
        self.box, self.name = box, name
        if not (box.folder / "nbd").exists():
            box.ok("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd"}})
        box.ok("block-export-add", type="nbd", id="e", node__name=name, writable=True)

    def write(self, *commands):
        path = os.path.relpath(self.box.folder / "nbd")
        qemu_io(f"nbd+unix:///{self.name}?socket={path}", *commands, options=("-f", "raw"))

    def close(self):
        self.box.ok("block-export-del", id="e", mode="hard")  # its client may still be leaving
        self.box.until("BLOCK_EXPORT_DELETED", id="e")


def write(box, name, *commands):
    export = Export(box, name)
    export.write(*commands)
    export.close()


def with_one_disk(machine, folder):
    """A machine wants something to boot from."""
    (folder / "boot.raw").write_bytes(bytes(1 << 20))
    return machine("-drive", "file=boot.raw,format=raw,if=virtio")


@pytest.fixture
def images(tmp_path):
    for name in ("a", "b"):
        qemu_img("create", "-q", "-f", "qcow2", tmp_path / f"{name}.qcow2", "4M")
    return tmp_path


def test_writable_and_back_with_the_locks(machine, images):
    box = with_one_disk(machine, images)
    path = images / "a.qcow2"
    box.ok("blockdev-add", **node("a", **{"read-only": True}))
    assert may_be_read(path)
    with qemu_io_holds(path, "-r", "-f", "qcow2"):
        box.refused("lock", "blockdev-reopen", options=[node("a")])
        assert state(box, "a") == (True, False, False)
    box.ok("blockdev-reopen", options=[node("a")])
    assert state(box, "a") == (False, False, False) and not may_be_read(path)
    write(box, "a", "write -P 7 0 1M")
    box.ok("block-dirty-bitmap-add", node="a", name="kept", persistent=True)
    export = Export(box, "a")
    box.refused("cannot support read-write users", "blockdev-reopen",
                options=[node("a", **{"read-only": True})])
    export.write("write -P 8 1M 1M")
    export.close()
    box.ok("blockdev-reopen", options=[node("a", **{"read-only": True})])
    assert state(box, "a")[0] and may_be_read(path)
    assert qemu_img("info", path).status == 0
    qemu_io(path, "read -P 7 0 1M", "read -P 8 1M 1M", options=("-r", "-f", "qcow2"))
    box.ok("blockdev-reopen", options=[node("a")])
    write(box, "a", "read -P 8 1M 1M", "write -P 9 0 64k")
    box.quit()
    qemu_io(path, "read -P 9 0 64k", "read -P 7 64k 960k", options=("-f", "qcow2"))
    assert "kept" in qemu_img("info", path).out
    assert_clean(path)


def test_all_of_a_list_or_none(machine, images):
    box = with_one_disk(machine, images)
    box.ok("blockdev-add", **node("a"))
    box.ok("blockdev-add", **node("b", **{"read-only": True}))
    write(box, "a", "write -P 5 0 64k")
    wanted = [node("a", cache={"no-flush": True}, **{"read-only": True}), node("b")]
    for nodes in (wanted, wanted[::-1]):
        with qemu_io_holds(images / "b.qcow2", "-r", "-f", "qcow2"):
            box.refused("lock", "blockdev-reopen", options=nodes)
        assert state(box, "a") == (False, False, False) and state(box, "b")[0]
        assert not may_be_read(images / "a.qcow2") and may_be_read(images / "b.qcow2")
        write(box, "a", "write -P 6 64k 64k")
    box.ok("blockdev-reopen", options=wanted)
    assert state(box, "a") == (True, False, True) and state(box, "b") == (False, False, False)
    os.unlink(images / "a.qcow2")
    box.refused("a.qcow2", "blockdev-reopen", options=[node("b", cache={"no-flush": True}),
                                                       node("a")])
    assert state(box, "a")[0] and state(box, "b") == (False, False, False)
    write(box, "b", "write -P 6 64k 64k")
    box.quit()
    assert_clean(images / "b.qcow2")


def test_what_stays_as_it_is(machine, images):
    make_chain(images)
    qemu_img("create", "-q", "-f", "raw", images / "t.raw", "4M")
    box = machine(*drive())
    box.ok("blockdev-add", **node("a"))
    box.ok("blockdev-add", **node("b"))
    box.ok("blockdev-add", driver="file", **{"node-name": "f"}, filename="t.raw")
    top = {**node("d"), "file": {"driver": "file", "filename": "top"}}
    for words, options in (
            ("Cannot change the option 'backing'", {**top, "backing": None}),
            ("use blockdev-snapshot", {**top, "backing": "b"}),
            ("Cannot change the option 'file'", {**node("a"), "file": "f"}),
            ("blockdev-del", {**node("a"), "l2-cache-size": 65536}),
            ("zero detection is not there", {**node("a"), "detect-zeroes": "on"}),
            ("reopen the node of the image", {"driver": "file", "node-name": "f",
                                              "filename": "t.raw"})):
        box.refused(words, "blockdev-reopen", options=[options])
    box.ok("blockdev-mirror", device="a", target="b", sync="full", job__id="m", speed=1)
    box.refused("is busy", "blockdev-reopen", options=[node("a")])
    box.refused("is busy", "blockdev-reopen", options=[node("b", **{"read-only": True})])
    box.ok("block-job-cancel", device="m", force=True)
    box.until("JOB_STATUS_CHANGE", id="m", status="null")
    box.ok("blockdev-reopen", options=[node("a"), node("b")])
    box.ok("blockdev-reopen", options=[])
    box.quit()


def test_the_cache_under_load(machine, tmp_path):
    make_chain(tmp_path)
    try:
        os.close(os.open(tmp_path / "top", os.O_RDONLY | os.O_DIRECT))
    except OSError as refusal:
        assert refusal.errno == errno.EINVAL
        pytest.skip("the file system has no O_DIRECT")
    box = machine(*drive())
    load = Load(box)
    load.wait_for(5)
    top = {**node("d"), "file": {"driver": "file", "filename": "top"}}
    for turn in range(6):
        cache = {"direct": turn % 2 == 0, "no-flush": turn % 3 == 0}
        box.ok("blockdev-reopen", options=[{**top, "cache": cache}])
        assert state(box, "d") == (False, cache["direct"], cache["no-flush"])
        load.wait_for(5)
    load.stop()
    box.quit()
    assert_holds(tmp_path / "top", load.model)
    assert_clean(tmp_path / "top")


def test_discards_go_to_the_host_or_not(machine, tmp_path):
    path = tmp_path / "t.raw"
    with open(path, "wb") as file:
        file.write(b"x" * (4 << 20))
        os.fsync(file.fileno())
    box = with_one_disk(machine, tmp_path)
    box.ok("blockdev-add", **node("t", "raw", discard="unmap"))
    full = path.stat().st_blocks
    box.ok("blockdev-reopen", options=[node("t", "raw", discard="ignore")])
    write(box, "t", "discard 0 4M", "flush")
    assert path.stat().st_blocks == full
    box.ok("blockdev-reopen", options=[node("t", "raw", discard="unmap")])
    write(box, "t", "discard 0 4M", "flush")
    assert path.stat().st_blocks < full
    box.quit()
