# SPDX-License-Identifier: MIT
"""evctl net on root's networks in use: IPv6, forwarded ports that come and go, a host that restarts."""

import json
import re

import pytest
from conftest import HOST, OUTSIDE, OUTSIDE6, wait_for

MACHINE = ("--memory", "128M", "--disk", "1M")


def restart(host, folder):
    """What a restart of the host leaves of networks: nothing; and the time has another name."""
    pid = (folder / "home/evisor/.networks/lab/dnsmasq.pid").read_text().strip()
    host.run(f"kill {pid}")
    wait_for(lambda: not host.run("ss -Hlnup").strip(), "dnsmasq to end")
    host.script("""
        ip link del ev-lab
        nft flush ruleset
        sysctl -qw net.ipv4.ip_forward=0
        sysctl -qw net.ipv6.conf.all.forwarding=0""")
    other = folder / "boot_id"
    other.write_text("00000000-1111-2222-3333-444444444444\n")
    host.run(["mount", "--bind", other, "/proc/sys/kernel/random/boot_id"])


def what_there_is(host):
    return [host.run(words) for words in (
        "nft list ruleset", "ip -brief -4 address show dev ev-lab", "sysctl net.ipv4.ip_forward",
        "sysctl net.ipv6.conf.all.forwarding", "ss -Hlnu4 sport = :67")]


def test_networks_come_back_after_a_restart(world):
    world.evctl("net", "create", "lab", "--mode", "nat", "--ipv6", "auto", "--forward",
                "8080-192.168.122.10:80", "--lease", "52:54:00:00:00:10=192.168.122.10")
    before = what_there_is(world.host)
    world.evctl("net", "start", "lab")
    assert what_there_is(world.host) == before
    restart(world.host, world.folder)
    assert "down" in world.evctl("net", "list")
    world.evctl("net", "start", "--all")
    assert what_there_is(world.host) == before
    assert " up " in world.evctl("net", "list")
    guest = world.lab.guest("leased", world.host, "bridge,br=ev-lab", mac="52:54:00:00:00:10")
    assert guest.dhcp()["ip"] == "192.168.122.10"


def test_what_was_before_a_restart_is_not_reversed_after_it(world):
    """Somebody else turned forwarding on at boot, and has a process by dnsmasq's old number."""
    world.evctl("net", "create", "lab", "--mode", "nat")
    restart(world.host, world.folder)
    world.host.run("sysctl -qw net.ipv4.ip_forward=1")
    pid_file = world.folder / "home/evisor/.networks/lab/dnsmasq.pid"
    other = world.host.start(["sh", "-c", "printf dnsmasq >/proc/self/comm; read -r line </dev/zero"])
    pid_file.write_text(f"{other.pid}\n")
    world.evctl("net", "delete", "lab")
    assert world.host.run("sysctl -n net.ipv4.ip_forward") == "1\n"
    assert other.poll() is None


def test_a_network_stops_and_keeps_what_it_was(world):
    world.evctl("net", "create", "lab", "--mode", "hostonly")
    assert "lives in its machines" in started_in_machines(world)
    guest = world.lab.guest("member", world.host, "bridge,br=ev-lab")
    assert "in use" in world.evctl("net", "stop", "lab", status=5)
    guest.close()
    wait_for(lambda: "ev-lab" not in world.host.run("bridge link"), "the TAP to go")
    world.evctl("net", "stop", "lab")
    assert "ev-lab" not in world.host.run("ip link") + world.host.run("nft list ruleset")
    world.evctl("net", "start", "lab")
    assert "192.168.56.1/24" in world.host.run("ip -brief address show dev ev-lab")


def started_in_machines(world):
    world.evctl("net", "create", "inside", "--mode", "internal")
    return world.evctl("net", "start", "inside", status=2)


def test_a_dhcp_server_that_ended_is_mended(world):
    world.evctl("net", "create", "lab", "--mode", "nat")
    folder = world.folder / "home/evisor/.networks/lab"
    world.host.run(["kill", "-9", (folder / "dnsmasq.pid").read_text().strip()])
    wait_for(lambda: not world.host.run("ss -Hlnup").strip(), "dnsmasq to end")
    world.evctl("net", "start", "lab")
    assert world.lab.guest("late", world.host, "bridge,br=ev-lab").dhcp()["router"] == "192.168.122.1"


@pytest.mark.parametrize("mode", ["nat", "hostonly"])
def test_ipv6(world, mode):
    host, outside = world.host, world.outside
    settings = ["sysctl net.ipv6.conf.all.forwarding", "sysctl net.ipv6.conf.up0.accept_ra",
                "sysctl net.ipv6.conf.up0.forwarding"]
    before = [host.run(words) for words in settings]
    made = json.loads(world.evctl("net", "create", "lab", "--mode", mode, "--ipv6", "auto", "--json"))
    prefix = made["ipv6"].removesuffix("::/64")
    assert re.fullmatch("fd[0-9a-f:]+", prefix)
    if mode == "nat":
        assert host.run("sysctl -n net.ipv6.conf.up0.accept_ra") == "2\n"
    guests = [world.lab.guest(f"six{i}", host, "bridge,br=ev-lab") for i in (0, 1)]
    addresses = [wait_for(lambda space=guest.space: re.search(
        rf"inet6 ({prefix}[0-9a-f:]+)/64(?!.* tentative)",
        space.run("ip -6 address show dev eth0 scope global")), "an address by advertisement")[1]
        for guest in guests]
    space = guests[0].space
    assert space.reaches(f"{prefix}::1", 20) and space.reaches(addresses[1], 20)
    assert space.reaches(OUTSIDE6, 20 if mode == "nat" else 1) == (mode == "nat")
    assert ("default" in space.run("ip -6 route")) == (mode == "nat")
    outside.run(f"ip route add {made['ipv6']} via {'2001:db8::1'}")
    assert not outside.reaches(addresses[0], 1)
    for guest in guests:
        guest.close()
    world.evctl("net", "delete", "lab")
    assert [host.run(words) for words in settings] == before


def test_forwards_come_and_go_while_all_runs(world, site):
    world.evctl("net", "create", "lab", "--mode", "nat")
    world.evctl("create", "web", *MACHINE, "--net", "lab", "--forward", "0.0.0.0:8080:80")
    mac = json.loads(world.evctl("info", "web", "--json"))["nics"][0]["mac"]
    guest = world.lab.guest("web", world.host, "bridge,br=ev-lab", mac=mac)
    address = guest.dhcp()["ip"]
    site(guest.space, "web")
    assert f"{address}:80" in world.evctl("forward", "list", "web")
    assert world.outside.fetch(f"http://{HOST}:8080/who") == b"web"
    assert world.host.fetch("http://127.0.0.1:8080/who") == b"web"
    assert world.outside.fetch(f"http://{HOST}:8081/who", 2) is None
    world.evctl("forward", "add", "web", "8081:80")
    assert world.host.fetch("http://127.0.0.1:8081/who") == b"web"
    assert world.outside.fetch(f"http://{HOST}:8081/who", 2) is None
    world.evctl("forward", "del", "web", "8081")
    assert world.host.fetch("http://127.0.0.1:8081/who", 2) is None
    # What was given stays given: in the description of the network, after it is down and up.
    guest.close()
    wait_for(lambda: "ev-lab" not in world.host.run("bridge link"), "the TAP to go")
    world.evctl("net", "stop", "lab")
    world.evctl("net", "start", "lab")
    assert f"dnat ip to {address}:80" in world.host.run("nft list ruleset")
    world.evctl("delete", "web")
    assert "dnat ip to" not in world.host.run("nft list ruleset")
    assert address not in world.evctl("net", "list", "--json")


def test_the_hosts_loopback_stays_its_own(world, site):
    """Its ports can be forwarded, so the bridge routes its address: a machine must not use that."""
    world.evctl("net", "create", "lab", "--mode", "nat")
    site(world.host, "private", 8070)
    guest = world.lab.guest("nosy", world.host, "bridge,br=ev-lab")
    guest.dhcp()
    guest.space.script("""
        sysctl -qw net.ipv4.conf.eth0.route_localnet=1
        ip route del table local 127.0.0.1 dev lo
        ip route del table local 127.0.0.0/8 dev lo
        ip route add 127.0.0.1 via 192.168.122.1 dev eth0""")
    assert guest.space.fetch("http://192.168.122.1:8070/who") == b"private"
    assert guest.space.fetch("http://127.0.0.1:8070/who", 2) is None
    dropped = world.host.run("nft list chain inet evisor-lab guard")
    assert int(re.search(r"127.0.0.0/8 counter packets (\d+)", dropped)[1]) > 0


def test_forwards_that_cannot_be(world):
    world.evctl("net", "create", "lab", "--mode", "nat")
    for name in ("one", "two"):
        world.evctl("create", name, *MACHINE, "--net", "lab")
    world.evctl("forward", "add", "one", "8080:80")
    world.host.serve("/", 8090)
    before = world.host.run("nft list ruleset")
    for words, status, part in (
            (("two", "0.0.0.0:8080:80"), 1, "forwarded on the network 'lab' already"),
            (("one", "8080:81"), 1, "take it back first"),
            (("two", "0.0.0.0:8090:80"), 1, "used by another program"),
            (("two", f"{OUTSIDE}:8091:80"), 1, "no address"),
            (("two", "8091-10.9.9.9:80"), 2, "outside the subnet")):
        said = world.evctl("forward", "add", *words, status=status)
        assert part in said and said.count("\n") == 1, said
    assert world.host.run("nft list ruleset") == before
    for name in ("one", "two"):
        world.evctl("delete", name)
