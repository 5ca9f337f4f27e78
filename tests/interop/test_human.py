# SPDX-License-Identifier: MIT
"""The human monitor as people type at it, beside QEMU's: the very same text, and the same effect."""

import re
import time

import pytest

from conftest import qemu_img
from test_monitor import beside_qemu


def furnish(folder):
    qemu_img("create", "-f", "qcow2", "d.q", "4M", cwd=folder)
    return ["-drive", "file=d.q,format=qcow2,if=none,id=d1", "-device", "virtio-blk-pci,drive=d1,id=disk1",
            "-chardev", "ringbuf,id=ring,size=256"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with beside_qemu(tmp_path_factory, furnish) as both:
        yield both


def say(monitor, line):
    text = monitor.ask("human-monitor-command", **{"command-line": line})["return"]
    # What QEMU's library of formats prints by itself, and names that it invents.
    text = re.sub(r"^Formatting .*\r?\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"Completed \d+ of \d+", "Completed", text)  # QEMU leaves out what reads as zeroes
    text = re.sub(r" \(#block\d+\):", ":", text.replace("/virtio-backend", ""))
    text = re.sub(r"thread_id=\d+", "thread_id=N", text)
    return text.lstrip("\r\n")  # an empty line before all disks but the first


def assert_same(pair, *lines):
    differences = []
    for line in lines:
        ours, theirs = (say(monitor, line) for monitor in pair)
        if ours != theirs:
            differences.append(f"{line}\n  evisor {ours!r}\n  QEMU   {theirs!r}")
    assert not differences, "\n".join(differences)


def no_jobs(pair):
    for monitor in pair:
        deadline = time.monotonic() + 60
        while say(monitor, "info block-jobs") != "No active jobs\r\n":
            assert time.monotonic() < deadline
            time.sleep(0.02)


def size_of(monitor, device):
    return next(entry["inserted"]["image"]["virtual-size"]
                for entry in monitor.ask("query-block")["return"] if entry["device"] == device)


def test_wrong_words(pair):
    assert_same(pair, "block_job_cancel", "block_job_cancel -x d1", "block_job_cancel zz",
                "block_job_set_speed d1", "block_job_set_speed d1 zz", "block_job_pause zz",
                "block_job_resume zz", "block_job_complete zz", "block_set_io_throttle d1 1",
                "block_set_io_throttle d1 a 0 0 0 0 0", "block_set_io_throttle zz 0 0 0 0 0 0",
                "drive_mirror d1", "drive_backup d1", "snapshot_blkdev d1", "nbd_server_start zz",
                "nbd_server_start -w localhost:0", "nbd_server_add d1", "nbd_server_stop",
                "snapshot_delete_blkdev_internal d1 nope", "block_resize zz 1M", "block_resize d1",
                "block_resize d1 -1", "block_resize d1 zz", "block_resize d1 6 7", "ringbuf_read zz 10",
                "ringbuf_read ring", "chardev-send-break zz", "block_stream")


def test_a_disk_changes_its_size(pair):
    assert_same(pair, "block_resize d1 8")
    assert [size_of(monitor, "d1") for monitor in pair] == [8 << 20] * 2
    assert_same(pair, "block_resize d1 6M", "block_resize d1 6144k")
    assert [size_of(monitor, "d1") for monitor in pair] == [6 << 20] * 2


def test_limits(pair):
    assert_same(pair, "block_set_io_throttle d1 0x100000 0 0 0 7 9")
    for monitor in pair:
        inserted = next(entry["inserted"] for entry in monitor.ask("query-block")["return"]
                        if entry["device"] == "d1")
        assert (inserted["bps"], inserted["iops_rd"], inserted["iops_wr"]) == (1 << 20, 7, 9)
    assert_same(pair, "info block d1")
    assert_same(pair, "block_set_io_throttle d1 0 0 0 0 0 0")


def test_groups_of_limits(pair):
    assert_same(pair, "object_add throttle-group,id=tg,x-iops-total=7,limits.bps-read=3",
                "object_add throttle-group,id=tg",
                "object_add throttle-group,id=t2,x-iops-max=9",
                'qom-set -j /objects/tg limits {"iops-total": 90, "iops-total-max": 99}',
                'qom-set -j /objects/tg limits {"iops-total-max": 9}',
                'qom-set -j /objects/tg limits {"foo": 9}', "qom-get /objects/tg x-iops-total")
    for monitor in pair:
        limits = monitor.ask("qom-get", path="/objects/tg", property="limits")["return"]
        assert (limits["iops-total"], limits["iops-total-max"], limits["bps-read"]) == (90, 99, 3)
    assert_same(pair, "object_del tg", "object_del tg")


def test_copies_jobs_and_snapshots(pair):
    assert_same(pair, 'snapshot_blkdev d1 "a name.q"', "info block d1",
                "snapshot_blkdev_internal d1 one", "snapshot_delete_blkdev_internal d1 one",
                "drive_backup -f d1 backup.raw raw")
    no_jobs(pair)
    assert_same(pair, "drive_mirror -f d1 mirror.q qcow2")
    for monitor in pair:
        deadline = time.monotonic() + 60
        while not any(job["ready"] for job in monitor.ask("query-block-jobs")["return"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert_same(pair, "info block-jobs", "block_job_set_speed d1 2", "info block-jobs",
                "block_job_pause d1", "block_job_pause d1", "block_job_resume d1", "block_job_cancel d1")
    no_jobs(pair)
    for monitor in pair:
        assert qemu_img("compare", "a name.q", "backup.raw", "-U", cwd=monitor.folder).status == 0
        info = qemu_img("info", "-U", "--output=json", "mirror.q", cwd=monitor.folder).json()
        assert info["format"] == "qcow2" and info["virtual-size"] == size_of(monitor, "d1")
        assert "backing-filename" not in info
    assert_same(pair, "block_stream d1")
    no_jobs(pair)
    for monitor in pair:
        assert "backing-filename" not in qemu_img("info", "-U", "--output=json", "a name.q",
                                                  cwd=monitor.folder).json()


def test_nbd(pair):
    assert_same(pair, "nbd_server_start unix:nbd.sock", "nbd_server_start unix:nbd.sock",
                "nbd_server_add d1 other", "nbd_server_add zz", "nbd_server_remove nope")
    for monitor in pair:
        url = f"nbd+unix:///other?socket={monitor.folder}/nbd.sock"
        assert qemu_img("info", "--output=json", url).json()["virtual-size"] == size_of(monitor, "d1")
    assert_same(pair, "nbd_server_remove -f other", "nbd_server_stop", "nbd_server_stop",
                "nbd_server_start -a unix:nbd.sock")
    for monitor in pair:
        assert sorted(export["id"] for export in monitor.ask("query-block-exports")["return"]) == \
            ["d0", "d1"]
    assert_same(pair, "nbd_server_stop")


def test_memory_in_numbers(pair):
    assert_same(pair, "xp", "xp/2zw 0", "xp/2xw zz", "xp/2xb 0xffffffffffff", "xp/3xw 0x1000",
                "xp/8xg 0x10", "xp/3dh 0", "xp/17xb 0", "xp/5ow 0x10", "xp/3ug 0", "xp/1xw 16",
                "x/4xw 0x1000", "x/2dg 0x1000", "xp/4cb 0x1000", "info iothreads")


def test_the_tree_of_objects(pair):
    assert_same(pair, "info qom-tree /nope", "info qom-tree zz")
    ours, theirs = (say(monitor, "info qom-tree").splitlines() for monitor in pair)
    # QEMU's has more in each; what evisor has stands in the same places.
    assert ours[0] == theirs[0] == "/machine (pc-q35-7.2-machine)"
    devices = [line for line in ours if line.startswith("    /") and "device[" not in line]
    assert len(devices) > 5 and set(devices) <= set(theirs)
    assert "  /peripheral (container)" in ours
    assert say(pair[0], "info qom-tree disk1") == "/disk1 (virtio-blk-pci)\r\n"


def test_a_ring(pair):
    assert_same(pair, r'ringbuf_write ring "a\\b\nc d"', "ringbuf_read ring 3", "ringbuf_read ring 99",
                "ringbuf_read ring 1", "ringbuf_write ring plain", "ringbuf_read ring 99")


def first_names(text):
    """Of a list of commands: "print" of "print|p /fmt expr -- ...", "info cpus"."""
    return {re.match(r"(info )?[^ |]*", line).group(0) for line in text.splitlines()
            if line[:1].isalpha()}


def test_what_evisor_has_not_is_one_line(pair):
    """Each command of QEMU's: evisor has it, or says in one line why not."""
    ours, theirs = (first_names(say(monitor, "help")) | first_names(say(monitor, "info"))
                    for monitor in pair)
    assert len(theirs) > 150
    for name in sorted(theirs - ours):
        answer = say(pair[0], name)
        assert answer.count("\n") == 1 and "unknown" not in answer, (name, answer)


def test_expressions(pair):
    assert_same(pair, "print 1+2&3", "print/x $zz", "print/d 5/0", "print", "print 1 2", "print (1",
                "print 'a'", "print 'a", "print/x -1", "print/o 8", "print/u -1", "print/d -1",
                "p/c 65", "p /c 10", "p/z 10", "print/x (1+2)*3", "print 1 + 2 * 3 ^ 7", "print ~0",
                "print 0x1ffffffffffffffffff", "print 7%0", "print -7/2", "print 5 % -3",
                "xp/2xb 0x1000 + 0x10", "xp /2xb 0x1000", "xp 0 0", "xp/9dh 0x1000", "x 0x1000",
                "x/2xb $pc*0", "sum 0x1000 16", "sum 0x1000", "gva2gpa 0x1000", "gva2gpa",
                "gpa2hva 0x100000000000", "info mem", "info tlb", "info mtree -z",
                "print " + "(" * 40 + "1" + ")" * 40)
    for monitor in pair:
        assert re.fullmatch(r"Host virtual address for 0x1000 \(pc.ram\) is 0x[0-9a-f]+\r\n",
                            say(monitor, "gpa2hva 0x1000"))
    assert "too deep" in say(pair[0], "print " + "(" * 4000)


def test_cpus_memory_and_ports(pair):
    assert_same(pair, "cpu 5", "cpu", "cpu zz", "cpu 0", "info cpus", "info registers 7",
                "info registers zz", "info numa", "info memdev", "i /b 0x61", "i /b 0x70.0x0f",
                "i /b 0x70 1", "o /b 0x80 1", "o /b 0x80", "i", "i/xb 0x61")


def test_disks_as_nodes_and_their_images(pair):
    qcow2_only = r"(disk size: .*\r\n)|(cluster_size: .*\r\n)|(Format specific information:\r\n(    .*\r\n)+)"
    for line in ("info block -v d1", "info block -z", "info block d1"):
        ours, theirs = (re.sub(qcow2_only, "", say(monitor, line)) for monitor in pair)
        assert ours == theirs, line
    assert "\nimage: " in say(pair[0], "info block -n -v d1")
    name = say(pair[0], "info block -n d1").split(":")[0]
    assert say(pair[0], f"info block -n {name}").startswith(f"{name}: ")
    assert "Attached" not in say(pair[0], "info block -n")
