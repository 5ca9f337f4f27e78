# SPDX-License-Identifier: MIT
"""evctl net, as root makes networks: all of it comes, or nothing stays; what was the host's returns."""

import pytest
from conftest import HOST, OUTSIDE, wait_for


def state_of(host):
    """All that a network may change."""
    return [host.run(words) for words in (
        "ip -brief address", "ip route", "ip -6 route show default", "nft list ruleset",
        "sysctl net.ipv4.ip_forward", "ss -Hlnup", "bridge link")]


def settle(host):
    """IPv6's own addresses and their routes come a little later than the interface."""
    wait_for(lambda: "tentative" not in host.run("ip -6 address"), "addresses without doubt")


def failing(world, program):
    """A PATH on which one of the host's programs fails."""
    folder = world.folder / "failing"
    folder.mkdir(exist_ok=True)
    (folder / program).write_text("#!/bin/sh\necho it is broken today >&2\nexit 1\n")
    (folder / program).chmod(0o755)
    return f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.mark.parametrize("mode", ["nat", "hostonly"])
def test_nothing_stays_of_what_fails_half_way(world, mode):
    settle(world.host)
    before = state_of(world.host)
    for program in ("nft", "dnsmasq"):
        said = world.evctl("net", "create", "lab", "--mode", mode, status=1,
                           PATH=failing(world, program))
        assert program in said and "it is broken today" in said
        (world.folder / "failing" / program).unlink()
        assert state_of(world.host) == before
    assert world.evctl("net", "list", "--json") == "[]\n"
    world.evctl("net", "create", "lab", "--mode", mode)
    assert state_of(world.host) != before
    assert "already" in world.evctl("net", "create", "lab", "--mode", mode, status=1)
    world.evctl("net", "delete", "lab")
    assert state_of(world.host) == before


def test_forwarding_ends_with_the_last_nat(world):
    forwarding = "sysctl -n net.ipv4.ip_forward"
    assert world.host.run(forwarding) == "0\n"
    world.evctl("net", "create", "one", "--mode", "nat")
    world.evctl("net", "create", "two", "--mode", "nat")
    listed = world.evctl("net", "list")
    assert "192.168.122.0/24" in listed and "192.168.123.0/24" in listed
    world.evctl("net", "delete", "one")
    assert world.host.run(forwarding) == "1\n"
    world.evctl("net", "delete", "two")
    assert world.host.run(forwarding) == "0\n"


def test_the_only_uplink_moves_only_when_told(world):
    settle(world.host)
    before = state_of(world.host)
    words = ("net", "create", "wire", "--mode", "bridged", "--uplink", "up0")
    said = world.evctl(*words, status=1)
    assert "only way out" in said and "--move-ip" in said
    assert state_of(world.host) == before
    world.evctl(*words, "--move-ip")
    assert world.host.reaches(OUTSIDE, 20) and world.outside.reaches(HOST, 20)
    assert f"{OUTSIDE} dev ev-wire" in world.host.run("ip route show default")
    world.evctl("net", "delete", "wire")
    settle(world.host)
    assert state_of(world.host) == before
    assert world.host.reaches(OUTSIDE, 20)


def test_an_uplink_that_would_be_lost_comes_back(world):
    """The gateway knows the host by a MAC address that the bridge is made not to have."""
    settle(world.host)
    before = state_of(world.host)
    folder = world.folder / "failing"
    folder.mkdir()
    # After the move nothing passes: as behind a switch that allows one MAC address.
    (folder / "ip").write_text("""#!/bin/sh
/usr/sbin/ip "$@" || exit
case "$*" in *master*)
    /usr/sbin/nft add table bridge cut
    /usr/sbin/nft 'add chain bridge cut everything { type filter hook input priority 0; policy drop; }';;
*"link del"*) /usr/sbin/nft delete table bridge cut;;
esac
""")
    (folder / "ip").chmod(0o755)
    assert world.host.reaches(OUTSIDE, 20)
    said = world.evctl("net", "create", "wire", "--mode", "bridged", "--uplink", "up0", "--move-ip",
                       status=1, PATH=f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin")
    assert "does not answer" in said and OUTSIDE in said
    settle(world.host)
    assert state_of(world.host) == before
    assert world.host.reaches(OUTSIDE, 20)


def test_what_is_refused_is_refused_before_anything_changes(world):
    before = state_of(world.host)
    nat = ("net", "create", "lab", "--mode", "nat")
    for status, words, parts in (
            (1, (*nat, "--subnet", "198.51.100.128/25"), ["--subnet", "up0", "choose another"]),
            (1, (*nat, "--bridge", "up0"), ["already", "--bridge"]),
            (1, (*nat, "--ipv6", "2001:db8::/64"), ["--ipv6", "up0", "choose another"]),
            (2, (*nat, "--ipv6", "fd00::1/64"), ["fd00:1:2:3::/64"]),
            (2, (*nat, "--ipv6", "fd00::/48"), ["fd00:1:2:3::/64"]),
            (2, (*nat, "--forward", "80"), ["--forward 80", "PORT-ADDRESS:PORT"]),
            (2, (*nat, "--forward", "80-10.0.0.1:80"), ["outside the subnet"]),
            (2, (*nat, "--lease", "52:54=1.2.3.4"), ["MAC=ADDRESS"]),
            (2, ("net", "create", "lab", "--mode", "hostonly", "--forward", "1-2:3"), ["--mode"]),
            (3, ("net", "create", "lab", "--mode", "bridged", "--uplink", "eth9"),
             ["eth9", "no such interface"])):
        said = world.evctl(*words, status=status)
        assert said.count("\n") == 1 and all(part in said for part in parts), said
        assert state_of(world.host) == before


def test_a_plain_user_hears_which_command_helps(world):
    """As nobody, with a folder of its own: what needs root says so and how."""
    home = world.folder / "nobody"
    home.mkdir()
    home.chmod(0o777)
    for parent in list(home.parents)[:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    nobody = {"XDG_DATA_HOME": str(home)}
    said = world.evctl("net", "create", "wire", "--mode", "bridged", "--uplink", "up0", status=1,
                       user="nobody", **nobody)
    assert "sudo evctl net create wire --mode bridged --uplink up0" in said
    # NAT without root lives in the machines: nothing changes here.
    before = state_of(world.host)
    world.evctl("net", "create", "lab", "--mode", "nat", user="nobody", **nobody)
    assert state_of(world.host) == before
    said = world.evctl("net", "create", "br", "--mode", "bridged", "--bridge", "br7", status=1,
                       user="nobody", **nobody)
    assert "ip link add br7 type bridge" in said


def test_a_machine_joins_by_the_networks_name(world, kernel, diskless):
    world.evctl("net", "create", "lab", "--mode", "nat")
    world.evctl("create", "web", "--kernel", kernel.image, "--initrd", diskless, "--net", "lab",
                "--memory", "128M")
    try:
        world.evctl("start", "web", "--paused")
        ports = [line for line in world.host.run("bridge link").splitlines() if "ev-lab" in line]
        assert len(ports) == 1 and "LOWER_UP" in ports[0]
        assert "web" in world.evctl("net", "list", "--json")
        assert "used by the machine 'web'" in world.evctl("net", "delete", "lab", status=5)
        world.evctl("stop", "--force", "web")
        # As the host's restart leaves it: whoever may, makes it again.
        world.host.run("ip link del ev-lab")
        assert "down" in world.evctl("net", "list")
        world.evctl("start", "web", "--paused")
        assert "ev-lab" in world.host.run("bridge link")
    finally:
        world.evctl("stop", "--force", "web")
    wait_for(lambda: "ev-lab" not in world.host.run("bridge link"), "the TAP to go")
    world.evctl("delete", "--force", "web")
    world.evctl("net", "delete", "lab")
