# SPDX-License-Identifier: MIT
"""
Who reaches whom in the four modes: from a machine to the host, to another machine and to the outside,
and from the outside to a machine. All 16 cells by TCP, with two guests on each network; NAT and
host-only both as root makes them in the kernel and without root. In the end a stock guest with a NIC
in each mode goes through the 16 cells in one boot.
"""

import pytest
from conftest import BUILD, HOST, OUTSIDE

from guestkit.kernel import QUICK
from guestkit.machine import Machine

NO = 2  # seconds that tell a "no" from a slow answer


class Case:
    """Two machines on one network: `nics` are what follows -nic, and where things are."""

    def __init__(self, nics, host=HOST, static=None, forward=None):
        self.nics, self.host, self.static, self.forward = nics, host, static, forward


def nat_by_root(world):
    world.evctl("net", "create", "lab", "--mode", "nat", "--lease",
                "52:54:00:00:77:01=192.168.122.10", "--forward", "8080-192.168.122.10:80")
    return Case(["bridge,br=ev-lab"] * 2, forward=f"http://{HOST}:8080/who")


def nat_rootless(world):
    nic = f"nat,folder={world.folder}/shared"
    return Case([nic + ",hostfwd=tcp:0.0.0.0:8080-:80", nic],
                forward=f"http://{HOST}:8080/who")


def bridged(world):
    world.evctl("net", "create", "wire", "--mode", "bridged", "--uplink", "up0", "--move-ip",
                "--bridge", "br0")
    return Case(["bridge,br=br0"] * 2)


def hostonly_by_root(world):
    world.evctl("net", "create", "lab", "--mode", "hostonly")
    return Case(["bridge,br=ev-lab"] * 2, host="192.168.56.1")


def hostonly_rootless(world):
    return Case([f"hostonly,folder={world.folder}/shared"] * 2, host="192.168.56.1")


def internal(world):
    return Case([f"internal,folder={world.folder}/shared"] * 2, static="10.9.0")


CELLS = {  # VM to host, VM to VM, VM to outside, outside to VM
    nat_by_root: (True, True, True, False),
    nat_rootless: (True, True, True, False),
    bridged: (True, True, True, True),
    hostonly_by_root: (True, True, False, False),
    hostonly_rootless: (True, True, False, False),
    internal: (False, True, False, False),
}


def is_reached(space, address, word, expected):
    found = space.fetch(f"http://{address}/who", 20 if expected else NO)
    assert found in (None, word.encode())
    return found is not None


@pytest.mark.parametrize("mode", CELLS, ids=lambda mode: mode.__name__)
def test_cells(world, site, wire_dhcp, mode):
    expected = CELLS[mode]
    wire_dhcp()
    case = mode(world)
    site(world.host, "host")
    site(world.outside, "outside")
    guests, addresses = [], []
    for number, nic in enumerate(case.nics, 1):
        guest = world.lab.guest(f"guest{number}", world.host, nic)
        if case.static:
            addresses.append(f"{case.static}.{number}")
            guest.address(f"{addresses[-1]}/24")
            guest.space.run("ip route add default dev eth0")
        else:
            addresses.append(guest.dhcp()["ip"])
        if not guest.space.run("ip route show default"):
            # A network without a way out says so by DHCP; who tries anyway must fail too.
            guest.space.run(f"ip route add default via {case.host}")
        site(guest.space, f"guest{number}")
        guests.append(guest.space)
    assert len(set(addresses)) == 2
    found = (is_reached(guests[0], case.host, "host", expected[0]),
             is_reached(guests[0], addresses[1], "guest2", expected[1]) and
             is_reached(guests[1], addresses[0], "guest1", expected[1]),
             is_reached(guests[0], OUTSIDE, "outside", expected[2]),
             is_reached(world.outside, addresses[0], "guest1", expected[3]))
    assert found == expected
    if not expected[0]:
        assert not is_reached(guests[0], HOST, "host", False)
    if case.forward:
        assert world.outside.fetch(case.forward) == b"guest1"


NICS = {  # of the stock guest, by interface
    "eth0": ("bridge,br=ev-nat", "192.168.122", "192.168.122.1"),
    "eth1": ("bridge,br=br0", "198.51.100", HOST),
    "eth2": ("bridge,br=ev-only", "192.168.56", "192.168.56.1"),
    "eth3": ("internal,folder={}/inside", "10.9.0", None),
}
MODES = (nat_by_root, bridged, hostonly_by_root, internal)


def probe(machine, interface, address, seconds):
    """Whether a stock guest's TCP by that interface alone reaches the server at `address`."""
    machine.check(f"for i in eth0 eth1 eth2 eth3; do ip route flush dev $i scope global; "
                  f"ip link set $i down; done; ip link set {interface} up")
    _, base, host = NICS[interface]
    machine.check(f"ip addr replace {base}.77/24 dev {interface}")
    machine.check(f"ip route replace default {'via ' + host if host else ''} dev {interface}")
    status, said = machine.shell(f"timeout {seconds} wget -q -O - http://{address}/who")
    return status == 0 and bool(said)


def test_a_stock_guest_goes_through_the_matrix(world, site, kernel, diskless):
    for words in (("nat", "--mode", "nat"), ("only", "--mode", "hostonly"),
                  ("wire", "--mode", "bridged", "--uplink", "up0", "--move-ip", "--bridge", "br0")):
        world.evctl("net", "create", *words)
    site(world.host, "host")
    site(world.outside, "outside")
    neighbours = {}
    for interface, (nic, base, _) in NICS.items():
        guest = world.lab.guest(f"beside-{interface}", world.host, nic.format(world.folder))
        guest.address(f"{base}.78/24")
        site(guest.space, interface)
        neighbours[interface] = guest
    nics = [word for nic, _, _ in NICS.values() for word in ("-nic", nic.format(world.folder))]
    nics[-1] += ",host_mtu=1400"
    command = world.host.words([BUILD / "evisor"])
    with Machine(command, ["-accel", "soft", "-m", "192", "-kernel", kernel.image, "-initrd",
                           diskless, "-append", f"console=ttyS0 quiet panic=-1 {QUICK}",
                           *nics]) as machine:
        machine.expect("GUEST-INIT", 120)
        assert machine.check("cat /sys/class/net/eth3/mtu") == "1400"
        machine.check("mkdir -p /srv && echo -n stock >/srv/who && httpd -p 80 -h /srv")
        for interface, mode in zip(NICS, MODES):
            expected = CELLS[mode]
            _, base, host = NICS[interface]
            patience = [20 if cell else NO for cell in expected]
            found = (probe(machine, interface, host or HOST, patience[0]),
                     probe(machine, interface, f"{base}.78", patience[1]),
                     probe(machine, interface, OUTSIDE, patience[2]),
                     is_reached(world.outside, f"{base}.77", "stock", expected[3]))
            assert found == expected, interface
            assert is_reached(neighbours[interface].space, f"{base}.77", "stock", True)
        addresses = {entry["ip-address"] for nic in machine.qmp.execute("query-nic-addresses")
                     for entry in nic["addresses"]}
        assert {f"{base}.77" for _, base, _ in NICS.values()} <= addresses
