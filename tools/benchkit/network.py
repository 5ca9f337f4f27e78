# SPDX-License-Identifier: MIT
"""
network: iperf3, small packets, pings and idle wake-ups through evisor's backends and QEMU's.

The guest's stack is a network namespace. With evisor it drives a real virtio-net device before the
backend (build/net-guest); with QEMU a hub joins the backend to the namespace's TAP, so that QEMU is
spared its virtio-net. QEMU's hub knows no offloads; where evisor has them, that is its gain. All
peers stand ready side by side, idle but for the one that is measured, in alternation.
"""

import argparse
import json
import pathlib
import re
import statistics
import tempfile
import time

from guestkit import packages
from guestkit.netlab import PACKAGES, TOP, Lab, wait_for

from .figures import Figure, alternate, pick
from .storage_daemon import thread_cpu_ns

BUSY_TRIES = 100
DATAGRAM_BYTES = 64
WAYS = {"up": [], "down": ["-R"], "both ways": ["--bidir"]}
OF_DIRECTION = {"send": ["up"], "receive": ["down"], "both": ["both ways"], "all": ["up", "down"]}
QEMU = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none"]


class Path:
    """One peer: a client namespace, the address of its server, and the processes between them."""

    def __init__(self, name, client, server, address, pids):
        self.name, self.client, self.server = name, client, server
        self.address, self.pids = address, pids

    def cpu(self):
        """{kind of thread: CPU seconds} so far: the loops are the processes' first threads."""
        found = {"loop": 0, "pool": 0}
        for pid in self.pids:
            for thread, used_ns in thread_cpu_ns(pid).items():
                found["loop" if thread == pid else "pool"] += used_ns / 1e9
        return found

    def iperf3(self, *words):
        """What iperf3 tells, and the CPU seconds by thread that the processes took meanwhile."""
        for _ in range(BUSY_TRIES):
            before = self.cpu()
            done = self.client.run(["iperf3", "-c", self.address, "-J", *words], check=False,
                                   timeout=120)
            told = json.loads(done.stdout)
            if "error" not in told:
                return told["end"], {kind: used - before[kind] for kind, used in self.cpu().items()}
            # The server still ends the test before this one, on a slower path.
            if "busy" not in told["error"]:
                break
            time.sleep(0.2)
        return None

    def stream(self, seconds, count, way):
        """{rate: Gbit/s, costs: {kind of thread: CPU seconds a Gbit}}; None if it failed."""
        found = self.iperf3("-t", str(seconds), "-P", str(count), *WAYS[way])
        sums = found and [found[0][name] for name in ("sum_received", "sum_received_bidir_reverse")
                          if name in found[0]]
        gbit = sums and sum(one["bytes"] for one in sums) * 8 / 1e9
        if not gbit:
            return None
        return {"rate": gbit / sums[0]["seconds"],
                "costs": {kind: used / gbit for kind, used in found[1].items()}}

    def arrived(self):
        """Frames that the server's interfaces received so far."""
        counted = self.server.run(["sh", "-c", "cat /sys/class/net/*/statistics/rx_packets"])
        own = self.server.run("cat /sys/class/net/lo/statistics/rx_packets")
        return sum(map(int, counted.split())) - int(own)

    def small_packets(self, seconds, size):
        """
        Datagrams of so many bytes that came out of the network, in thousands a second. iperf3 itself
        reads fewer: what its socket then loses is not the network's doing.
        """
        before = self.arrived()
        found = self.iperf3("-u", "-l", str(size), "-b", "0", "-t", str(seconds))
        if not found:
            return None
        return (self.arrived() - before) / found[0]["sum"]["seconds"] / 1000

    def ping_us(self):
        """The median of 300: a mean would show who else was busy."""
        text = self.client.run(["ping", "-n", "-i", "0.002", "-c", "300", self.address],
                               check=False).stdout
        found = [float(time_ms) for time_ms in re.findall(r"time=([\d.]+) ms", text)]
        return statistics.median(found) * 1000 if found else None

    def switches(self):
        """How often the processes went to sleep so far."""
        text = "".join(status.read_text() for pid in self.pids
                       for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"))
        return sum(map(int, re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M)))


def tap_in(space, name, address=None, mtu=1500):
    space.run(f"ip tuntap add dev {name} mode tap")
    space.run(f"ip link set {name} mtu {mtu} up")
    if address:
        space.run(f"ip address add {address} dev {name}")


def serve(space):
    space.start("iperf3 -s")
    wait_for(lambda: space.listens(5201), f"iperf3 in {space.name}")


def qemu_beside(lab, name, host, backend):
    """A namespace whose eth0 is the TAP of a QEMU in `host`, which opens it there before it moves."""
    space, tap = lab.space(name), f"q{len(lab.spaces)}"
    process = host.start([*QEMU, "-netdev", backend + ",id=far", "-netdev",
                          f"tap,id=near,ifname={tap},script=no,downscript=no,vnet_hdr=off",
                          "-netdev", "hubport,id=h0,hubid=0,netdev=far",
                          "-netdev", "hubport,id=h1,hubid=0,netdev=near"])
    wait_for(lambda: "LOWER_UP" in host.run(f"ip link set {tap} up", check=False).stdout or
             "LOWER_UP" in host.run(f"ip link show {tap}", check=False).stdout, f"QEMU's {tap}")
    host.run(f"ip link set {tap} netns {space.pid} name eth0")
    space.run("ip link set eth0 up")
    return space, process


def copied_path(lab, host, number, name, *options):
    """The least that any NIC can do. One buffer stays in the cache, a guest's rings do not."""
    space, tap = lab.space(f"tap-copied-{number}"), f"t{number}"
    tap_in(space, "eth0", f"10.{number}.0.2/24")
    tap_in(host, tap, f"10.{number}.0.1/24")
    copy = host.start([TOP / "build/tap-copy", *options, space.path, "eth0", host.path, tap])
    return Path(name, space, host, f"10.{number}.0.1", [copy.pid])


def tap_paths(lab, host):
    """TAP to TAP: through virtio-net, through QEMU's hub, and by nothing but read and write."""
    tap_in(host, "t0", "10.1.0.1/24")
    guest = lab.guest("tap-evisor", host, "tap,ifname=t0,script=no,downscript=no")
    guest.address("10.1.0.2/24")
    yield Path("evisor", guest.space, host, "10.1.0.1", [guest.process.pid])
    yield copied_path(lab, host, 2, "copy loop, one buffer")
    yield copied_path(lab, host, 3, "copy loop, guest's rings", "--ring")
    tap_in(host, "t4", "10.4.0.1/24")
    space, qemu = qemu_beside(lab, "tap-qemu", host,
                              "tap,ifname=t4,script=no,downscript=no,vnet_hdr=off")
    space.run("ip address add 10.4.0.2/24 dev eth0")
    yield Path("QEMU tap, hub", space, host, "10.4.0.1", [qemu.pid])


def slirp_paths(lab, host):
    """To the host's own address by libslirp; the hosts's end is its ordinary stack on a cable."""
    far = lab.space("slirp-far")
    lab.cable(host, "up0", far, "eth0")
    host.run("ip address add 198.51.100.1/24 dev up0")
    far.run("ip address add 198.51.100.2/24 dev eth0")
    serve(far)
    host.run(["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"])
    guest = lab.guest("slirp-evisor", host, "user")
    guest.dhcp()
    yield Path("evisor", guest.space, far, "198.51.100.2", [guest.process.pid])
    space, qemu = qemu_beside(lab, "slirp-qemu", host, "user")
    space.script("ip address add 10.0.2.15/24 dev eth0\nip route add default via 10.0.2.2")
    yield Path("QEMU user", space, far, "198.51.100.2", [qemu.pid])


def pair_of_qemus(lab, host, number, name, backends):
    ends = [qemu_beside(lab, f"{name} {end}", host, backend) for end, backend in enumerate(backends)]
    for end, (space, _) in enumerate(ends):
        space.run(f"ip address add 10.{number}.0.{1 + end}/24 dev eth0")
    serve(ends[0][0])
    return Path(name, ends[1][0], ends[0][0], f"10.{number}.0.1", [end[1].pid for end in ends])


def internal_paths(lab, host, folder):
    """Machine to machine: evisor's internal network, QEMU's dgram and stream."""
    guests = [lab.guest(f"internal-{end}", host, f"internal,folder={folder}/net") for end in (0, 1)]
    for end, guest in enumerate(guests):
        guest.address(f"10.5.0.{1 + end}/24")
    serve(guests[0].space)
    yield Path("evisor", guests[1].space, guests[0].space, "10.5.0.1",
               [guest.process.pid for guest in guests])
    yield pair_of_qemus(lab, host, 6, "QEMU dgram", [
        f"dgram,local.type=unix,local.path={folder}/{one},remote.type=unix,"
        f"remote.path={folder}/{other}" for one, other in ("ab", "ba")])
    yield pair_of_qemus(lab, host, 7, "QEMU stream", [
        f"stream,server={server},addr.type=unix,addr.path={folder}/s" for server in ("on", "off")])


def cost_lines(found):
    for name, got in found.items():
        if got:
            yield f"  {name:24} CPU time a Gbit: " + ", ".join(
                f"{kind} {1000 * cost:.1f} ms" for kind, cost in costs_of(got).items())


def costs_of(got):
    return {kind: statistics.median([one["costs"][kind] for one in got]) for kind in got[0]["costs"]}


def measure_streams(title, paths, options):
    for count in [options.streams] if options.streams else (1, 4):
        for way in OF_DIRECTION[options.direction]:
            found = alternate(paths, options.runs,
                              lambda path: path.stream(options.seconds, count, way))
            what = f"{title}, TCP, {count} stream{'s' * (count > 1)} {way}"
            yield Figure(what, "Gbit/s", "more", pick(found, lambda one: one["rate"]),
                         remarks=cost_lines(found), details={
                             name: {"cpu-seconds-per-gbit": costs_of(got)}
                             for name, got in found.items() if got})
            yield Figure(f"{what}: CPU", "ms/Gbit", "less",
                         pick(found, lambda one: 1000 * sum(one["costs"].values())))


def measure_idle(title, paths, settle, seconds=5):
    """All at once: each is left alone until what the last connections left behind has run out."""
    time.sleep(settle)
    before = [path.switches() for path in paths]
    time.sleep(seconds)
    return Figure(f"{title}, wake-ups of an idle machine", "/s", "less", {
        path.name: [(path.switches() - was) / seconds] for path, was in zip(paths, before)})


def measure(title, paths, options):
    for path in paths:
        wait_for(lambda: path.client.reaches(path.address, 1), f"{title}, {path.name}")
    yield from measure_streams(title, paths, options)
    size = options.packet or DATAGRAM_BYTES
    yield Figure(f"{title}, datagrams of {size} bytes up", "k/s", "more", alternate(
        paths, options.runs, lambda path: path.small_packets(options.seconds, size)))
    yield Figure(f"{title}, ping", "us", "less",
                 alternate(paths, options.runs, lambda path: path.ping_us()))
    # libslirp keeps what it forwarded for 30 s.
    yield measure_idle(title, paths, 40 if title == "slirp" else 2)


def figures(options, folder, with_peers=True):
    with Lab() as lab:
        host = lab.space("host")
        serve(host)
        kinds = {"tap": lambda: tap_paths(lab, host), "slirp": lambda: slirp_paths(lab, host),
                 "internal": lambda: internal_paths(lab, host, folder)}
        for title, make in kinds.items():
            if title in (options.what or kinds):
                paths = make()  # evisor's is the first
                yield from measure(title, list(paths) if with_peers else [next(paths)], options)


def check():
    for name in ("build/net-guest", "build/tap-copy"):
        if not (TOP / name).exists():
            raise packages.Failure(f"{name} is not there: build it by ./configure && ninja")


def main():
    parser = argparse.ArgumentParser(
        prog="bench-net", description="Measures evisor's networks beside QEMU's, without a machine: "
        "a namespace's TCP/IP stack is the guest. Needs root; takes about six minutes.")
    parser.add_argument("what", nargs="*", choices=["tap", "slirp", "internal", []],
                        help="only these (default: all)")
    parser.add_argument("--runs", type=int, default=3, help="of each peer, in turn (default 3)")
    parser.add_argument("--seconds", type=int, default=2, help="of one run (default 2)")
    parser.add_argument("--json", metavar="FILE", help="write all values there")
    parser.set_defaults(streams=None, packet=None, direction="all")
    options = parser.parse_args()
    check()
    packages.install(PACKAGES, "bench-net")
    found = []
    with tempfile.TemporaryDirectory(prefix="evisor-net-") as folder:
        for figure in figures(options, pathlib.Path(folder)):
            print("\n".join(figure.lines()), flush=True)
            found.append(figure.as_json())
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(found, indent=2))
    return 0
