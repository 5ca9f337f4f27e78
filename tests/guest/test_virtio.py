# SPDX-License-Identifier: MIT
"""What a stock driver meets seldom: rebinding, removal, INTx, resizing, a host without space."""

import subprocess

import pytest


@pytest.fixture(params=["the machine's loop", "an I/O thread"])
def guest(request, start, diskless, evisor_img, tmp_path):
    """guest(*arguments, path=, append=): a shell with a raw disk of 64 MiB as /dev/vda."""
    device = "virtio-blk-pci,drive=d0"
    if request.param == "an I/O thread":
        device += ",iothread=io0"

    def begin(*arguments, path=tmp_path / "data.raw", append="", options=""):
        evisor_img("create", "-f", "raw", path, "64M")
        machine = start(diskless, "-nic", "none", "-device", "virtio-rng-pci",
                        "-drive", f"file={path},format=raw,if=none,id=d0{options}",
                        "-object", "iothread,id=io0", "-device", device, *arguments,
                        append=append)
        machine.expect("GUEST-INIT", 120)
        machine.check("until [ -b /dev/vda ]; do sleep 0.1; done")
        return machine
    return begin


def fill(machine, mebibytes):
    machine.check(f"dd if=/dev/urandom of=/tmp/r bs=1M count={mebibytes} 2>/dev/null")
    machine.check("dd if=/tmp/r of=/dev/vda bs=256k oflag=direct 2>/dev/null", 120)


def compare(machine, mebibytes):
    machine.check("echo 3 >/proc/sys/vm/drop_caches")
    machine.check(f"dd if=/dev/vda bs=1M count={mebibytes} 2>/dev/null | cmp - /tmp/r", 120)


def test_rebinding_with_requests_in_flight(guest):
    machine = guest()
    fill(machine, 4)
    machine.check("driver=/sys/bus/virtio/drivers/virtio_blk")
    for _ in range(5):
        machine.check("dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2>/dev/null & "
                      "dd if=/dev/zero of=/dev/vda bs=64k seek=128 oflag=direct 2>/dev/null & "
                      "device=$(basename $(readlink -f /sys/block/vda/device)); sleep 0.05")
        machine.check("echo $device >$driver/unbind; wait", 120)
        machine.check("echo $device >$driver/bind; until [ -b /dev/vda ]; do sleep 0.1; done")
        compare(machine, 4)


def test_removed_and_found_again(guest):
    machine = guest()
    fill(machine, 2)
    machine.check("function=$(readlink -f /sys/block/vda/device/..)")
    machine.check("echo 1 >$function/remove; [ ! -e /sys/block/vda ]")
    machine.check("echo 1 >/sys/bus/pci/rescan; until [ -b /dev/vda ]; do sleep 0.1; done")
    compare(machine, 2)


def test_without_msi(guest):
    machine = guest(append="pci=nomsi")
    fill(machine, 4)
    compare(machine, 4)
    lines = machine.check("grep virtio /proc/interrupts")
    assert "fasteoi" in lines and "MSI" not in lines


def test_a_resize_is_seen(guest):
    machine = guest()
    machine.qmp.execute("block_resize", device="d0", size=96 << 20)
    machine.check(f"until [ $(cat /sys/block/vda/size) = {96 * 2048} ]; do sleep 0.1; done", 30)
    machine.check("dd if=/dev/zero of=/dev/vda bs=1M seek=95 count=1 oflag=direct 2>/dev/null")


def test_entropy(guest):
    machine = guest()
    assert machine.check("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")
    read = "dd if=/dev/hwrng bs=64 count=4 2>/dev/null | sha256sum"
    assert machine.check(read) != machine.check(read)


@pytest.fixture
def small_folder(tmp_path):
    """A file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)],
                             capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_no_space_stops_the_guest_and_loses_nothing(guest, small_folder):
    machine = guest(path=small_folder / "data.raw")
    machine.check("dd if=/dev/urandom of=/tmp/r bs=1M count=20 2>/dev/null")
    machine.type("dd if=/tmp/r of=/dev/vda bs=256k oflag=direct && echo WRITTEN\n")
    client = machine.qmp
    for _ in range(2):
        event = client.wait_event("BLOCK_IO_ERROR")
        assert event["data"] == {"device": "d0", "node-name": "d0", "operation": "write",
                                 "action": "stop", "nospace": True,
                                 "reason": "No space left on device"}
        client.wait_event("STOP")
        assert client.execute("query-status")["status"] == "io-error"
        assert client.execute("query-block")[0]["io-status"] == "nospace"
        client.execute("cont")
    client.wait_event("STOP")
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_folder)], check=True)
    client.execute("cont")
    machine.expect("^WRITTEN$", 120)
    assert client.execute("query-block")[0]["io-status"] == "ok"
    compare(machine, 20)


def test_errors_may_be_reported(guest, small_folder):
    machine = guest(path=small_folder / "data.raw", options=",werror=report")
    status, _ = machine.shell("dd if=/dev/zero of=/dev/vda bs=256k count=80 oflag=direct", 120)
    assert status
    assert machine.qmp.execute("query-status")["status"] == "running"


def test_a_reset_drops_what_waited(guest, small_folder):
    machine = guest(path=small_folder / "data.raw")
    machine.type("dd if=/dev/zero of=/dev/vda bs=256k oflag=direct\n")
    machine.qmp.wait_event("STOP")
    machine.forget()
    machine.qmp.execute("system_reset")
    assert machine.qmp.execute("query-status")["status"] == "paused"
    machine.qmp.execute("cont")
    machine.expect("GUEST-INIT", 120)
    machine.check("dd if=/dev/vda of=/dev/null bs=1M count=4 2>/dev/null")
