# SPDX-License-Identifier: MIT
"""What passes through each backend: a real TCP/IP stack as the guest, real peers at the other end."""

import hashlib
import json
import pathlib
import signal
import subprocess
import sys
import time

from conftest import HOST, OUTSIDE, OUTSIDE6, wait_for

WIRE = pathlib.Path(__file__).with_name("wire.py")
MIB = 1 << 20
BIG = hashlib.sha256(bytes(range(256)) * (3 << 12)).hexdigest()


def start_wire(space, *words):
    process = space.start([sys.executable, WIRE, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def stop_capture(process):
    process.send_signal(signal.SIGTERM)
    return json.loads(process.stdout.readline())


def fetch_big(space, host, port=80):
    body = space.fetch(f"http://{host}:{port}/big", 60)
    assert body is not None and hashlib.sha256(body).hexdigest() == BIG


def iperf3(client, address, *words):
    """Bytes that arrived; iperf3's own time is 1 s. Its server may still be at the last test."""
    deadline = time.monotonic() + 60
    while True:
        done = json.loads(client.run(["iperf3", "-c", address, "-J", "-t", "1", *words],
                                     timeout=120))
        if "busy" not in done.get("error", "") or time.monotonic() > deadline:
            return done["end"]["sum_received"]["bytes"]
        time.sleep(0.1)


def serve_iperf3(space):
    space.start("iperf3 -s")
    wait_for(lambda: space.listens(5201), "an iperf3 server")


def test_slirp_carries_what_guests_use(world, site, wire_dhcp, tmp_path):
    """DHCP, DNS, TFTP, HTTP and iperf3 both ways, forwards from outside, ICMP, IPv6."""
    wire_dhcp()
    site(world.outside, "outside")
    boot = tmp_path / "boot"
    boot.mkdir()
    (boot / "kernel").write_bytes(bytes(range(256)) * 400)
    guest = world.lab.guest("guest", world.host, f"user,tftp={boot},bootfile=kernel,"
                            "hostname=box,hostfwd=tcp:0.0.0.0:8080-:80,"
                            "hostfwd=tcp:0.0.0.0:5201-:5201,hostfwd=udp:0.0.0.0:5300-:5300")
    lease = guest.dhcp()
    assert (lease["ip"], lease["router"], lease["dns"]) == ("10.0.2.15", "10.0.2.2", "10.0.2.3")
    assert (lease["boot_file"], lease["hostname"]) == ("kernel", "box")
    space = guest.space
    assert OUTSIDE in space.run("busybox nslookup -type=a name.test 10.0.2.3")
    space.run(["busybox", "tftp", "-g", "-r", "kernel", "-l", tmp_path / "fetched", "10.0.2.2"])
    assert (tmp_path / "fetched").read_bytes() == (boot / "kernel").read_bytes()
    assert space.reaches("10.0.2.2") and space.reaches(OUTSIDE)
    fetch_big(space, OUTSIDE)
    site(space, "guest")
    fetch_big(world.outside, HOST, 8080)
    serve_iperf3(world.outside)
    assert iperf3(space, OUTSIDE) > MIB and iperf3(space, OUTSIDE, "-R") > MIB
    assert iperf3(space, OUTSIDE, "-u", "-b", "20M") > MIB // 4
    serve_iperf3(space)
    assert iperf3(world.outside, HOST) > MIB and iperf3(world.outside, HOST, "-R") > MIB
    listener = start_wire(space, "datagram", "5300")
    world.outside.run(["bash", "-c", f"echo datagram >/dev/udp/{HOST}/5300"])
    assert listener.stdout.readline() == "datagram\n"
    wait_for(lambda: "fec0:" in space.run("ip -6 address show dev eth0 -tentative"),
             "an IPv6 address by slirp's router advertisement")
    fetch_big(space, f"[{OUTSIDE6}]")


def test_downloads_fit_the_guest(world, site):
    """Its MSS, its window and its losses, with offloads and without."""
    site(world.outside, "outside")
    for plain in (False, True):
        guest = world.lab.guest(f"guest-{plain}", world.host, "user", plain=plain)
        guest.dhcp()
        space = guest.space
        for mtu in (1500, 700):
            space.run(f"ip link set eth0 mtu {mtu}")
            capture = start_wire(space, "capture", "eth0", OUTSIDE)
            fetch_big(space, OUTSIDE)
            seen = stop_capture(capture)
            # Without offloads no frame is longer than the guest asked for, and each is summed up.
            assert seen["largest"] == mtu + 14 and not seen["wrong"] if plain else \
                seen["largest"] > 1514
        space.run("sysctl -qw net.ipv4.tcp_window_scaling=0")
        fetch_big(space, OUTSIDE)
        space.run(["sysctl", "-qw", "net.ipv4.tcp_rmem=2300 4600 9000"])
        fetch_big(space, OUTSIDE)
        space.run(["sysctl", "-qw", "net.ipv4.tcp_rmem=4096 131072 6291456"])
        space.run("nft add table inet lossy")
        space.run(["nft", "add chain inet lossy input { type filter hook input priority 0 ; }"])
        space.run(["nft", "add rule inet lossy input meta length gt 100 numgen random mod 100 lt 3 "
                   "drop"])
        fetch_big(space, OUTSIDE)
        guest.close()


def test_a_thousand_connections_through_slirp(world):
    guest = world.lab.guest("guest", world.host, "user", limit=4096)
    guest.dhcp()
    start_wire(world.outside, "echo", "7000")
    told = guest.space.run(["prlimit", "--nofile=4096", sys.executable, WIRE, "connect", OUTSIDE,
                            "7000", "1000"], timeout=300)
    assert int(told) == 1000


def plug_tap(world, name="t0", address="10.1.0.1/24", mtu=1500):
    world.host.script(f"""
        ip tuntap add dev {name} mode tap
        ip link set {name} mtu {mtu} up
        ip address add {address} dev {name}""")


def test_frames_of_9000_bytes_over_a_tap(world, site):
    plug_tap(world, mtu=9000)
    site(world.host, "host")
    for number, plain in ((2, False), (3, True)):
        guest = world.lab.guest(f"guest{number}", world.host,
                                "tap,ifname=t0,script=no,host_mtu=9000", mtu=9000, plain=plain)
        guest.address(f"10.1.0.{number}/24")
        guest.space.run("ping -c 1 -W 20 -M do -s 8972 10.1.0.1")
        site(guest.space, f"guest{number}")
        capture = start_wire(guest.space, "capture", "eth0", "10.1.0.1")
        fetch_big(guest.space, "10.1.0.1")
        seen = stop_capture(capture)
        fetch_big(world.host, f"10.1.0.{number}")
        # Without offloads nothing larger than the MTU arrives, and every checksum is filled in.
        assert seen["largest"] == 9014 and not seen["wrong"] if plain else seen["largest"] > 9014
        guest.close()


def test_segments_are_right_for_who_does_not_offload(world, site):
    """A guest with TSO; its frames are seen where no offload is left, IPv4 and IPv6."""
    world.evctl("net", "create", "wire", "--mode", "bridged", "--uplink", "up0", "--move-ip",
                "--bridge", "br0")
    world.host.run("ethtool -K up0 tx off tso off gso off")
    guest = world.lab.guest("guest", world.host, "bridge,br=br0")
    guest.address("198.51.100.9/24")
    guest.space.run("ip address add 2001:db8::9/64 dev eth0 nodad")
    site(guest.space, "guest")
    for address, url in (("198.51.100.9", "198.51.100.9"), ("2001:db8::9", "[2001:db8::9]")):
        capture = start_wire(world.outside, "capture", "eth0", address)
        fetch_big(world.outside, url)
        seen = stop_capture(capture)
        assert seen["frames"] > 2000 and seen["wrong"] == 0 and seen["largest"] == 1514, address
    sent = int(guest.space.run("cat /sys/class/net/eth0/statistics/tx_packets"))
    assert sent < 4 * MIB // 1448, "the guest did not leave its segmentation to the device"


def test_an_internal_network_of_unequal_members(world, site):
    """One member with offloads, one without: the sender's large frames are cut for the latter."""
    nic = f"internal,folder={world.folder}/net"
    one, other = (world.lab.guest(name, world.host, nic, plain=plain)
                  for name, plain in (("one", False), ("other", True)))
    one.address("10.9.0.1/24")
    other.address("10.9.0.2/24")
    site(one.space, "one")
    capture = start_wire(other.space, "capture", "eth0", "10.9.0.1")
    fetch_big(other.space, "10.9.0.1")
    seen = stop_capture(capture)
    assert seen["frames"] > 2000 and seen["wrong"] == 0 and seen["largest"] == 1514
    sent = int(one.space.run("cat /sys/class/net/eth0/statistics/tx_packets"))
    assert sent < 3 * MIB // 1448


def start_qemu(world, netdev):
    """QEMU 7.2 itself now and then dies of a signal while it starts: then once more."""
    for _ in range(5):
        qemu = try_qemu(world, netdev)
        if qemu.poll() is None:
            return qemu
        assert qemu.returncode < 0, qemu.stderr.read()
    raise AssertionError(f"QEMU died five times of signal {-qemu.returncode}")


def try_qemu(world, netdev):
    """QEMU without a machine: its netdev joined to the TAP q0 of the host by a hub."""
    qemu = world.host.start(
        ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none",
         "-netdev", netdev + ",id=far", "-netdev",
         "tap,id=near,ifname=q0,script=no,downscript=no,vnet_hdr=off",
         "-netdev", "hubport,id=h0,hubid=0,netdev=far",
         "-netdev", "hubport,id=h1,hubid=0,netdev=near"], stderr=subprocess.PIPE)
    wait_for(lambda: "LOWER_UP" in world.host.run("ip link show q0") or qemu.poll() is not None,
             "QEMU with its TAP")
    return qemu


def test_qemu_at_the_other_end(world, site):
    plug_tap(world, "q0")
    site(world.host, "host")
    folder = world.folder
    wires = {
        "stream, QEMU serves": (
            f"stream,server=on,addr.type=unix,addr.path={folder}/a",
            f"stream,server=off,addr.type=unix,addr.path={folder}/a,reconnect=1", True),
        "stream, evisor serves": (
            f"stream,server=off,addr.type=unix,addr.path={folder}/b",
            f"stream,server=on,addr.type=unix,addr.path={folder}/b", False),
        "stream by TCP": ("stream,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=4000",
                          "stream,addr.type=inet,addr.host=127.0.0.1,addr.port=4000,reconnect=1",
                          True),
        "dgram": (f"dgram,local.type=unix,local.path={folder}/c,remote.type=unix,"
                  f"remote.path={folder}/d",
                  f"dgram,local.type=unix,local.path={folder}/d,remote.type=unix,"
                  f"remote.path={folder}/c", True),
        "a multicast group": ("socket,mcast=230.0.0.9:4321,localaddr=127.0.0.1",
                              "dgram,remote.type=inet,remote.host=230.0.0.9,remote.port=4321,"
                              "local.type=inet,local.host=127.0.0.1", True),
    }
    for number, (title, (theirs, ours, qemu_first)) in enumerate(wires.items(), 2):
        qemu = start_qemu(world, theirs) if qemu_first else None
        guest = world.lab.guest(f"guest{number}", world.host, ours)
        qemu = qemu or start_qemu(world, theirs)
        guest.address(f"10.1.0.{number}/24")
        assert wait_for(lambda s=guest.space: s.reaches("10.1.0.1"), title), title
        fetch_big(guest.space, "10.1.0.1")
        site(guest.space, f"guest{number}")
        fetch_big(world.host, f"10.1.0.{number}")
        guest.close()
        qemu.kill()
        qemu.wait()


def test_passt_at_the_other_end(world, site, tmp_path):
    site(world.outside, "outside")
    # It gives up its rights, and needs a folder that it may write to then.
    tmp_path.chmod(0o755)
    socket = pathlib.Path(world.host.run("mktemp -d /tmp/evisor-passt.XXXXXX").strip()) / "socket"
    socket.parent.chmod(0o777)
    try:
        passt = world.host.start(["passt", "-f", "-s", socket, "--no-map-gw", "-t", "8080:80"],
                                 stderr=subprocess.PIPE, text=True)
        wait_for(lambda: socket.exists() or passt.poll() is not None, "passt's socket")
        assert passt.poll() is None, passt.stderr.read()
        guest = world.lab.guest("guest", world.host, f"stream,addr.type=unix,addr.path={socket}")
        lease = guest.dhcp()
        assert lease["ip"] == HOST  # passt gives the guest the host's own address
        fetch_big(guest.space, OUTSIDE)
        site(guest.space, "guest")
        fetch_big(world.outside, HOST, 8080)
    finally:
        for path in socket.parent.iterdir():
            path.unlink()
        socket.parent.rmdir()


def test_eight_machines_of_which_one_stands_still(world, site):
    nic = f"internal,folder={world.folder}/net"
    guests = [world.lab.guest(f"guest{number}", world.host, nic) for number in range(1, 9)]
    for number, guest in enumerate(guests, 1):
        guest.address(f"10.9.0.{number}/24")
    first, second, still = guests[0].space, guests[1].space, guests[7]
    for number in range(2, 9):
        assert first.reaches(f"10.9.0.{number}", 20), number
    still.process.send_signal(signal.SIGSTOP)
    # Enough for its queue to run over, from a second machine too.
    for space in (first, second):
        space.start("ping -q -i 0.002 -c 400 -s 1400 10.9.0.8")
    site(second, "second")
    fetch_big(first, "10.9.0.2")
    for number in range(2, 8):
        assert first.reaches(f"10.9.0.{number}", 20), number
    assert not first.reaches("10.9.0.8", 1)
    still.process.send_signal(signal.SIGCONT)
    assert first.reaches("10.9.0.8", 30)


def test_a_tap_goes_and_another_backend_comes(world, site):
    plug_tap(world)
    site(world.host, "host")
    site(world.outside, "outside")
    guest = world.lab.guest("guest", world.host, "tap,ifname=t0,script=no", "tap,ifname=t1,script=no")
    guest.address("10.1.0.2/24")
    assert guest.space.reaches("10.1.0.1", 20)
    mac = world.host.run("cat /sys/class/net/t0/address").strip()
    guest.space.start("ping -q -i 0.002 10.1.0.1")
    world.host.run("ip link del t0")
    assert not guest.space.reaches("10.1.0.1", 1)
    assert guest.process.poll() is None
    # Where it had been: the guest's tables stay right.
    world.host.script(f"ip link set t1 address {mac} up\nip address add 10.1.0.1/24 dev t1")
    guest.swap()
    assert guest.space.reaches("10.1.0.1", 20)
    fetch_big(guest.space, "10.1.0.1")


def test_the_backend_is_swapped_under_load(world, site):
    """Both are ports of one bridge: a transfer goes on over each change."""
    world.evctl("net", "create", "lab", "--mode", "hostonly")
    guest = world.lab.guest("guest", world.host, "bridge,br=ev-lab", "bridge,br=ev-lab")
    guest.address("192.168.56.9/24")
    site(world.host, "host")
    serve_iperf3(world.host)
    assert guest.space.reaches("192.168.56.1", 20)
    load = guest.space.start(["iperf3", "-c", "192.168.56.1", "-t", "4", "-J", "--bidir"],
                             stdout=subprocess.PIPE)
    wait_for(lambda: "ESTAB" in world.host.run("ss -Htn state established sport = :5201") or
             world.host.run("ss -Htn state established sport = :5201"), "the load")
    swaps = 0
    while load.poll() is None and swaps < 12:
        guest.swap()
        swaps += 1
        # A bridge learns where the guest is from what it says.
        guest.space.reaches("192.168.56.1", 1)
    told = json.loads(load.communicate(timeout=120)[0])
    assert "error" not in told and told["end"]["sum_received"]["bytes"] > MIB
    assert swaps >= 2
    fetch_big(guest.space, "192.168.56.1")
