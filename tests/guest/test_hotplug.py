# SPDX-License-Identifier: MIT
"""Devices and CPUs that a stock kernel picks up while it runs, and gives back."""

import contextlib
import hashlib
import os
import time

import pytest

from guestkit import qmp as protocol


@contextlib.contextmanager
def fails(class_name, text):
    with pytest.raises(protocol.Error) as caught:
        yield
    assert caught.value.kind == class_name
    assert text in str(caught.value)


def until(machine, command, deadline=60):
    """Runs the command in the guest until it succeeds."""
    for _ in range(deadline * 2):
        status, text = machine.shell(command)
        if status == 0:
            return text
        time.sleep(0.5)
    raise AssertionError(f"{command}: still fails: {text}")


def add_disk(machine, path, name="d1", **device):
    machine.qmp.execute("blockdev-add", **{
        "driver": "raw", "node-name": f"{name}-node",
        "file": {"driver": "file", "filename": str(path)}})
    machine.qmp.execute("device_add", driver="virtio-blk-pci", id=name, drive=f"{name}-node",
                        **device)


def wait_deleted(machine, name):
    while True:
        event = machine.qmp.wait_event("DEVICE_DELETED", 120)
        if event["data"].get("device") == name:
            return event["data"]


def check_disk(machine, tmp_path):
    qmp, path = machine.qmp, tmp_path / "hot.raw"
    path.write_bytes(bytes(64 << 20))
    qmp.execute("object-add", **{"qom-type": "iothread", "id": "io1"})
    for cycle in range(3):
        add_disk(machine, path, serial=f"HOT{cycle}", addr="1c", iothread="io1")
        until(machine, "test -b /dev/vdb")
        assert machine.check("cat /sys/block/vdb/serial") == f"HOT{cycle}"
        machine.check(f"dd if=/dev/urandom of=/tmp/r{cycle} bs=1M count=4 2>/dev/null")
        machine.check(f"dd if=/tmp/r{cycle} of=/dev/vdb bs=1M seek={cycle * 4} conv=fsync 2>/dev/null")
        with fails("GenericError", "Node d1-node is in use"):
            qmp.execute("blockdev-del", **{"node-name": "d1-node"})
        with fails("GenericError", "object 'io1' is in use"):
            qmp.execute("object-del", id="io1")
        qmp.execute("device_del", id="d1")
        assert wait_deleted(machine, "d1")["path"] == "/machine/peripheral/d1"
        until(machine, "! test -b /dev/vdb")
        qmp.execute("blockdev-del", **{"node-name": "d1-node"})
    qmp.execute("object-del", id="io1")
    assert not qmp.execute("query-iothreads")
    for cycle in range(3):
        digest = machine.check(f"sha256sum /tmp/r{cycle}").split()[0]
        part = path.read_bytes()[cycle * 4 << 20:(cycle + 1) * 4 << 20]
        assert hashlib.sha256(part).hexdigest() == digest


def written_bytes(machine, node):
    for entry in machine.qmp.execute("query-blockstats"):
        if entry.get("node-name") == node:
            return entry["stats"]["wr_bytes"]
    raise AssertionError(f"{node} is not there")


def check_resize(machine, tmp_path):
    path = tmp_path / "grow.raw"
    path.write_bytes(bytes(32 << 20))
    add_disk(machine, path, "grow")
    until(machine, "test -b /dev/vdb")
    machine.qmp.execute("block_resize", **{"node-name": "grow-node", "size": 48 << 20})
    until(machine, f"test $(cat /sys/block/vdb/size) = {(48 << 20) // 512}")
    # Asked to go while the guest writes: what was acknowledged is in the file.
    machine.check("dd if=/dev/zero bs=64k count=8 2>/dev/null | tr '\\0' x >/tmp/x")
    machine.type("while cat /tmp/x; do :; done >/dev/vdb 2>/tmp/log; echo ended >/tmp/status\n")
    while not written_bytes(machine, "grow-node"):
        time.sleep(0.05)
    machine.qmp.execute("device_del", id="grow")
    wait_deleted(machine, "grow")
    machine.qmp.execute("blockdev-del", **{"node-name": "grow-node"})
    until(machine, "test -s /tmp/status")
    written = path.read_bytes().rstrip(b"\0")
    assert written == b"x" * len(written)


def check_nic(machine):
    qmp = machine.qmp
    qmp.execute("netdev_add", type="user", id="hot", restrict=True,
                net="10.7.0.0/24")
    qmp.execute("device_add", driver="virtio-net-pci", id="nic1", netdev="hot",
                mac="52:54:00:aa:bb:cc", host_mtu=1400)
    with fails("GenericError", "it's in use"):
        qmp.execute("device_add", driver="virtio-net-pci", id="nic2", netdev="hot")
    until(machine, "grep -q 52:54:00:aa:bb:cc /sys/class/net/eth0/address")
    assert machine.check("cat /sys/class/net/eth0/mtu").strip() == "1400"
    machine.check("udhcpc -i eth0 -n -q -s /etc/udhcpc/default.script", 120)
    assert "inet 10.7.0.15" in machine.check("ip addr show dev eth0")
    (wanted,) = qmp.execute("query-rx-filter", name="nic1")
    assert wanted["main-mac"] == "52:54:00:aa:bb:cc" and not wanted["promiscuous"]
    assert "01:00:5e:00:00:01" in wanted["multicast-table"] and wanted["broadcast-allowed"]
    machine.check("ip link set eth0 promisc on")
    assert qmp.wait_event("NIC_RX_FILTER_CHANGED")["data"] == {
        "name": "nic1", "path": "/machine/peripheral/nic1/virtio-backend"}
    assert qmp.execute("query-rx-filter", name="nic1")[0]["promiscuous"]
    qmp.execute("netdev_add", type="user", id="other", net="10.8.0.0/24")
    qmp.execute("set_link", name="nic1", up=False)
    until(machine, "test $(cat /sys/class/net/eth0/carrier) = 0")
    qmp.execute("nic-set-netdev", id="nic1", netdev="other")
    assert qmp.execute("qom-get", path="nic1", property="host_mtu") == 1400
    qmp.execute("set_link", name="nic1", up=True)
    until(machine, "test $(cat /sys/class/net/eth0/carrier) = 1")
    machine.check("udhcpc -i eth0 -n -q -s /etc/udhcpc/default.script", 120)
    assert "inet 10.8.0.15" in machine.check("ip addr show dev eth0")
    qmp.execute("netdev_del", id="hot")
    qmp.execute("netdev_del", id="other")
    assert {"id": "", "nic": "nic1", "addresses": []} in qmp.execute("query-nic-addresses")
    qmp.execute("device_del", id="nic1")
    wait_deleted(machine, "nic1")
    until(machine, "! test -e /sys/class/net/eth0")


def check_rng(machine):
    qmp = machine.qmp
    qmp.execute("object-add", **{"qom-type": "rng-random", "id": "r0", "filename": "/dev/urandom"})
    qmp.execute("device_add", driver="virtio-rng-pci", id="rng1", rng="r0")
    with fails("GenericError", "in use"):
        qmp.execute("object-del", id="r0")
    until(machine, "grep -q virtio_rng /sys/class/misc/hw_random/rng_available")
    qmp.execute("device_del", id="rng1")
    wait_deleted(machine, "rng1")
    qmp.execute("object-del", id="r0")


def check_cpus(machine):
    qmp = machine.qmp
    slots = qmp.execute("query-hotpluggable-cpus")
    assert [slot["props"]["core-id"] for slot in slots] == [2, 1, 0]
    assert [slot.get("qom-path") for slot in slots] == [None, None, "/machine/unattached/device[0]"]
    for cycle in range(2):
        qmp.execute("device_add", driver=slots[0]["type"], id="cpu2", **slots[0]["props"])
        assert len(qmp.execute("query-cpus-fast")) == 2
        until(machine, "test -e /sys/devices/system/cpu/cpu1")
        machine.check("echo 1 >/sys/devices/system/cpu/cpu1/online; "
                      "test $(cat /sys/devices/system/cpu/cpu1/online) = 1")
        assert machine.check("nproc") == "2"
        machine.check("taskset 2 sha256sum /bin/busybox")
        qmp.execute("device_del", id="cpu2")
        assert wait_deleted(machine, "cpu2")["path"] == "/machine/peripheral/cpu2"
        assert machine.check("nproc") == "1"
    with fails("GenericError", "exists"):
        qmp.execute("device_add", driver=slots[2]["type"], id="again", **slots[2]["props"])


def check_pauses(machine, tmp_path):
    """Asked while the guest stands still: it goes when the guest runs again; and at a reset."""
    path = tmp_path / "paused.raw"
    path.write_bytes(bytes(8 << 20))
    machine.qmp.execute("stop")
    add_disk(machine, path, "paused")
    machine.qmp.execute("cont")
    until(machine, "test -b /dev/vdb")
    machine.qmp.execute("stop")
    machine.qmp.execute("device_del", id="paused")
    with fails("GenericError", "already in the process of unplug"):
        machine.qmp.execute("device_del", id="paused")
    machine.qmp.execute("system_reset")
    wait_deleted(machine, "paused")
    machine.qmp.execute("blockdev-del", **{"node-name": "paused-node"})
    machine.qmp.execute("cont")
    machine.forget()
    machine.wait_shell()
    assert machine.check("ls /dev/vd*") == "/dev/vda"


def check_cycle(machine, path, cycle):
    """A disk that grows, a NIC and a CPU come, are used, and go."""
    qmp = machine.qmp
    add_disk(machine, path, serial=f"HOT{cycle}")
    until(machine, "test -b /dev/vdb")
    assert machine.check("cat /sys/block/vdb/serial") == f"HOT{cycle}"
    size = (16 + cycle) << 20
    qmp.execute("block_resize", **{"node-name": "d1-node", "size": size})
    until(machine, f"test $(cat /sys/block/vdb/size) = {size // 512}")
    machine.check(f"dd if=/tmp/x of=/dev/vdb bs=4k seek={cycle} conv=fsync 2>/dev/null")
    qmp.execute("netdev_add", type="user", id="hot", restrict=True, net="10.7.0.0/24")
    qmp.execute("device_add", driver="virtio-net-pci", id="nic1", netdev="hot")
    until(machine, "test -e /sys/class/net/eth0 && ip link set eth0 up")
    until(machine, "test $(cat /sys/class/net/eth0/carrier) = 1")
    machine.check("ip addr add 10.7.0.9/24 dev eth0; ping -c 1 -w 60 10.7.0.2", 120)
    cpu = qmp.execute("query-hotpluggable-cpus")[0]
    qmp.execute("device_add", driver=cpu["type"], id="cpu1", **cpu["props"])
    until(machine, "echo 1 >/sys/devices/system/cpu/cpu1/online; "
          "test $(cat /sys/devices/system/cpu/cpu1/online) = 1")
    machine.check("taskset 2 sha256sum /bin/busybox")
    for name in ("cpu1", "nic1", "d1"):
        qmp.execute("device_del", id=name)
        wait_deleted(machine, name)
    until(machine, "! test -e /sys/class/net/eth0 && ! test -b /dev/vdb")
    assert machine.check("nproc") == "1"
    qmp.execute("netdev_del", id="hot")
    qmp.execute("blockdev-del", **{"node-name": "d1-node"})
    assert path.read_bytes()[cycle << 12:(cycle + 1) << 12] == b"x" * 4096


@pytest.mark.box
@pytest.mark.skipif("EVISOR_IN_KVM_BOX" not in os.environ,
                    reason="the test of all kinds does it where guests run faster")
def test_cycles_under_a_slow_kvm(boot, tmp_path):
    machine = boot("-nic", "none", "-smp", "1,maxcpus=2")
    path = tmp_path / "hot.raw"
    path.write_bytes(bytes(16 << 20))
    machine.check("dd if=/dev/zero bs=4k count=1 2>/dev/null | tr '\\0' x >/tmp/x")
    for cycle in range(3):
        check_cycle(machine, path, cycle)
    machine.type("poweroff\n")
    assert machine.wait(120) == 0


def test_a_stock_guest_takes_and_gives_back(boot, tmp_path):
    machine = boot("-nic", "none", "-smp", "1,maxcpus=3")
    check_disk(machine, tmp_path)
    check_resize(machine, tmp_path)
    check_nic(machine)
    check_rng(machine)
    check_cpus(machine)
    check_pauses(machine, tmp_path)
    machine.type("poweroff\n")
    assert machine.wait() == 0
