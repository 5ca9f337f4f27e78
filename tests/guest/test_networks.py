# SPDX-License-Identifier: MIT
"""Two stock guests on one wire: over an internal network, datagrams and a stream."""

import shutil
import socket
import time

import pytest

from guestkit import qmp as protocol

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
    second.type("nc -l -p 5000 >/tmp/received & until netstat -ltn | grep -q :5000; do sleep 0.1; "
                "done; echo lis''tening; wait; echo all-received\n")
    second.expect("^listening$")
    first.check("nc 192.168.9.2 5000 </tmp/sent", 120)
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
    first.check("uname -a")
    second.qmp.execute("cont")
    first.check("ping -c 3 -W 10 192.168.9.2")


def addresses_of(machine, netdev, wanted, within_s=30):
    """What evisor has seen, by address; waits until `wanted` is among it."""
    for _ in range(within_s * 4):
        nics = {nic["id"]: nic["addresses"] for nic in machine.qmp.execute("query-nic-addresses")}
        known = {entry["ip-address"]: entry for entry in nics[netdev]}
        if wanted in known:
            return known
        time.sleep(0.25)
    raise AssertionError(f"{wanted} is not among {known}")


def test_a_shared_nat_its_forwards_and_what_is_known_of_addresses(boot, tmp_path):
    """eth0 is on a NAT that machines share and held to its addresses, eth1 is free."""
    path = tmp_path / "guest.sock"
    machine = boot("-name", "vm", "-netdev",
                   f"nat,id=n0,folder={tmp_path}/net,net=10.9.0.0/24,antispoof=on,"
                   "guestfwd=tcp:10.9.0.100:80-cmd:echo from the host",
                   "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01",
                   "-netdev", "user,id=n1", "-device", "virtio-net-pci,netdev=n1")
    machine.check("udhcpc -n -q -i eth0 && udhcpc -n -q -i eth1")
    lease = addresses_of(machine, "n0", "10.9.0.15")["10.9.0.15"]
    assert lease["source"] == "dhcp" and lease["mac"] == "52:54:00:00:00:01"
    assert lease["expires"] > lease["first-seen"] <= lease["last-seen"]
    assert "from the host" in machine.check("nc 10.9.0.100 80 </dev/null")
    machine.check("ip addr add 10.9.0.77/24 dev eth0; ip addr add 10.0.2.77/24 dev eth1")
    machine.check("! ping -c 1 -W 2 -I 10.9.0.77 10.9.0.2")
    # The guest's own ARP, still asked in that name, has to fail first.
    machine.check("until ping -c 1 -W 2 -I 10.9.0.15 10.9.0.2; do :; done")
    machine.check("ping -c 1 -W 20 -I 10.0.2.77 10.0.2.2")
    assert addresses_of(machine, "n1", "10.0.2.77")["10.0.2.77"]["source"] == "arp"
    assert "10.9.0.77" not in addresses_of(machine, "n0", "10.9.0.15")
    assert machine.qmp.wait_event("NIC_IP_CHANGED")["data"]["id"]

    machine.qmp.execute("hostfwd-add", netdev="n0", rule=f"unix:{path}-:7777")
    forwards = machine.qmp.execute("query-forwards")
    assert forwards[0] == {"netdev": "n0", "hostfwd": [f"unix:{path}-:7777"],
                           "guestfwd": ["tcp:10.9.0.100:80-cmd:echo from the host"]}
    machine.type("(echo from the guest | nc -l -p 7777) &\n")
    machine.check("until netstat -ltn | grep -q :7777; do sleep 0.1; done")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        assert client.makefile().readline() == "from the guest\n"
    machine.qmp.execute("hostfwd-remove", netdev="n0", rule=f"unix:{path}")
    assert not path.exists()

    # A service that a chardev names, for each connection of the guest's one of its own.
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(tmp_path / "service.sock"))
        service.listen()
        machine.qmp.execute("chardev-add", id="way", backend={"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": str(tmp_path / "service.sock")}},
            "server": False}})
        machine.qmp.execute("guestfwd-add", netdev="n0", rule="tcp:10.9.0.101:81-chardev:way")
        service.settimeout(60)
        with service.accept()[0]:  # the chardev's own
            machine.type("(sleep 1 | nc 10.9.0.101 81 >/tmp/service) &\n")
            with service.accept()[0] as client:
                client.sendall(b"by a chardev\n")
        machine.check("until grep -q 'by a chardev' /tmp/service; do sleep 0.1; done")
    with pytest.raises(protocol.Error, match="no chardev with id=none"):
        machine.qmp.execute("guestfwd-add", netdev="n0", rule="tcp:10.9.0.102:81-chardev:none")

    machine.qmp.execute("system_reset")
    assert all(nic["addresses"] == [] for nic in machine.qmp.execute("query-nic-addresses"))
