# SPDX-License-Identifier: MIT
"""Two stock guests on one wire: over an internal network, datagrams and a stream."""

import shutil

import pytest

WIRES = {
    "internal": ("internal,id=n0,folder={0}/net", "internal,id=n0,folder={0}/net"),
    "dgram": ("dgram,id=n0,local.type=unix,local.path={0}/a,remote.type=unix,remote.path={0}/b",
              "dgram,id=n0,local.type=unix,local.path={0}/b,remote.type=unix,remote.path={0}/a"),
    "stream": ("stream,id=n0,server=on,addr.type=unix,addr.path={0}/wire",
               "stream,id=n0,server=off,addr.type=unix,addr.path={0}/wire,reconnect=1"),
}


@pytest.fixture
def pair(start, initrd, root_image, tmp_path):
    """pair(wire): two machines on it, 192.168.9.1 and .2."""
    def begin(wire):
        machines = []
        for number, netdev in enumerate(WIRES[wire], 1):
            disk = tmp_path / f"disk{number}.qcow2"
            shutil.copy(root_image, disk)
            machines.append(start(
                initrd, "-name", f"vm{number}", "-netdev", netdev.format(tmp_path),
                "-device", f"virtio-net-pci,netdev=n0,mac=52:54:00:00:09:0{number}",
                "-drive", f"file={disk},format=qcow2,if=virtio", append="root=/dev/vda"))
        for number, machine in enumerate(machines, 1):
            machine.wait_shell()
            machine.check(f"ip addr add 192.168.9.{number}/24 dev eth0 && ip link set eth0 up")
        return machines
    return begin


@pytest.mark.parametrize("wire", WIRES)
def test_two_machines_talk(pair, wire):
    first, second = pair(wire)
    first.check("ping -c 2 -W 10 192.168.9.2")
    first.check("dd if=/dev/urandom of=/tmp/sent bs=1M count=4 2>/dev/null")
    digest = first.check("sha256sum /tmp/sent").split()[0]
    second.type("nc -l -p 5000 >/tmp/received; echo all-received\n")
    first.check("sleep 1; nc 192.168.9.2 5000 </tmp/sent", 120)
    second.expect("^all-received$")
    assert second.check("sha256sum /tmp/received").split()[0] == digest


def test_large_frames_travel_whole_on_an_internal_network(pair):
    first, second = pair("internal")
    counter = "cat /sys/class/net/eth0/statistics/tx_packets"
    second.check("dd if=/dev/urandom of=/tmp/sent bs=1M count=8 2>/dev/null; httpd -h /tmp")
    digest = second.check("sha256sum /tmp/sent").split()[0]
    before = int(second.check(counter))
    fetched = first.check("wget -q -O - http://192.168.9.2/sent | sha256sum", 120)
    assert fetched.split()[0] == digest
    assert int(second.check(counter)) - before < (8 << 20) // 1448 // 2


def test_a_machine_that_is_stopped_does_not_hold_up_its_peer(pair):
    first, second = pair("internal")
    first.check("ping -c 1 -W 10 192.168.9.2")
    second.qmp.execute("stop")
    first.check("ping -c 3 -W 1 192.168.9.2 || true")
    first.check("uname -a", 5)
    second.qmp.execute("cont")
    first.check("ping -c 3 -W 10 192.168.9.2")
