# SPDX-License-Identifier: MIT
"""
path: the disk paths without a guest: the engine, and the engine behind virtio-blk.

The peers: fio's io_uring engine on the same file without any VMM; qemu-img bench for the engine;
for virtio-blk with the driver on a thread of its own, QEMU's storage daemon by vhost-user.
"""

import functools
import json
import pathlib
import re
import resource
import shutil
import statistics
import subprocess

from guestkit import packages

from . import storage_daemon, syscalls
from .figures import Figure, alternate, pick
from .peers import BENCH_PATH, EVISOR_IMG, run_json

MIB = 1 << 20


def check_room(options, folder):
    """Of qcow2 there are two for a while: it is converted."""
    wanted = options.image_mib * (2 if options.format == "qcow2" else 1)
    there = shutil.disk_usage(folder).free // MIB
    if wanted > there:
        raise packages.Failure(f"{folder.parent} has {there} MiB left, the image of the run takes "
                               f"{wanted}: use a smaller --image-mib, or name another folder by TMPDIR")


def make_image(options, folder):
    """The image given, or one of our own, wholly written: holes would flatter."""
    if options.image:
        return pathlib.Path(options.image)
    check_room(options, folder)
    raw = folder / "data.raw"
    size = options.image_mib * MIB
    block = bytes(range(256)) * 4096
    with open(raw, "wb") as stream:
        for at in range(0, size, len(block)):
            stream.write(at.to_bytes(8, "little") + block[8:min(len(block), size - at)])
    if options.format != "qcow2":
        return raw
    image = folder / "data.qcow2"
    subprocess.run([EVISOR_IMG, "convert", "-O", "qcow2", "-S", "0", raw, image], check=True)
    raw.unlink()
    return image


def is_write(options):
    return options.write or options.read_percent is not None


def path_command(kind, options, depth, where):
    command = [str(BENCH_PATH), kind, "--block", str(options.block), "--depth", str(depth),
               "--queues", str(min(options.queues, depth)), "--seconds", str(options.seconds),
               *where]
    for name in ("write", "random", "direct", "verify", "registered"):
        command += [f"--{name}"] if getattr(options, name) else []
    if options.read_percent is not None:
        command += ["--read-percent", str(options.read_percent)]
    return command


class Ours:
    """A path of this tree."""
    name = "evisor"

    def __init__(self, kind, options, depth, image):
        where = ["--format", options.format] + (["--image", str(image)] if image else [])
        self.command = path_command(kind, options, depth, where)

    def run(self):
        return normal(run_json(self.command))

    def count(self):
        return syscalls.count(self.command)


class AsRaw(Ours):
    """A qcow2 image's own file, read as raw: what the format costs, from the same page cache."""
    name = "its file as raw"

    def __init__(self, kind, options, depth, image):  # pylint: disable=super-init-not-called
        self.command = path_command(kind, options, depth, ["--format", "raw", "--image",
                                                           str(image)])


def ours(kind, options, depth, image):
    """This tree's path; for reads of qcow2 also without the format."""
    found = [Ours(kind, options, depth, image)]
    if options.format == "qcow2" and not is_write(options) and options.vs != "none":
        found.append(AsRaw(kind, options, depth, image))
    return found


def fio_command(options, depth, image, engine):
    mode = "rw" if options.read_percent is not None else "write" if options.write else "read"
    size = image.stat().st_size if options.format == "raw" else "100%"
    command = ["fio", "--name=peer", "--output-format=json",
               f"--rw={'rand' if options.random else ''}{mode}", f"--bs={options.block}",
               f"--iodepth={depth}", f"--runtime={options.seconds}", "--time_based=1",
               f"--direct={int(options.direct)}", "--invalidate=0", "--norandommap=1",
               f"--size={size}", *engine]
    if options.read_percent is not None:
        command.append(f"--rwmixread={options.read_percent}")
    return command


def children_cpu():
    """Seconds of CPU that ended children took, their threads in the kernel included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Fio(Ours):
    """The same file without any VMM."""
    name = "fio io_uring"

    def __init__(self, options, depth, image):  # pylint: disable=super-init-not-called
        self.command = fio_command(options, depth, image, ["--ioengine=io_uring",
                                                           f"--filename={image}"])

    @functools.cached_property
    def start_cpu(self):
        """What fio takes to start and to end."""
        before = children_cpu()
        run_json([word for word in self.command if not word.startswith(("--runtime", "--time"))]
                 + ["--number_ios=1"])
        return children_cpu() - before

    def run(self):
        """fio tells its own thread's CPU only; the kernel's workers, which write for it, count too."""
        overhead, before = self.start_cpu, children_cpu()
        result = normal(run_json(self.command))
        own = result["cpu"]
        result["cpu"] = max(children_cpu() - before - overhead, own)
        result["parts"] = {"loop": own, "pool": result["cpu"] - own}
        return result


class Vhost(Ours):
    """Our driver before QEMU's storage daemon."""
    name = "QEMU vhost-user"

    def __init__(self, options, depth, image, folder):  # pylint: disable=super-init-not-called
        self.daemon = storage_daemon.StorageDaemon(image, options, folder)
        self.command = path_command("vhost", options, depth,
                                    ["--socket", str(self.daemon.socket)])

    def run(self):
        with self.daemon:
            before = self.daemon.cpu_ns()
            result = run_json(self.command)
            after = self.daemon.cpu_ns()
        result["loop-cpu-ns"] = after[0] - before[0]
        result["pool-cpu-ns"] = after[1] - before[1]
        return normal(result)

    def count(self):
        with self.daemon:
            server = syscalls.count(self.command, self.daemon.process.pid)
        with self.daemon:
            driver = syscalls.count(self.command)
        if not server or not driver or None in (server[1], driver[1]):
            return None
        # The two runs differ in length: the server's share is scaled to the driver's.
        share = operations_in(driver[0]) / max(operations_in(server[0]), 1)
        return driver[0], driver[1] + server[1] * share


class ImgBench(Ours):
    """qemu-img bench: as many requests as take about the same time."""
    name = "qemu-img bench"

    def __init__(self, options, depth, image):  # pylint: disable=super-init-not-called
        self.options, self.count_of, self.depth = options, None, depth
        cache = "none" if options.direct else "writeback"
        self.command = ["qemu-img", "bench", "-f", options.format, "-t", cache, "-i", "io_uring",
                        "-d", str(depth), "-s", str(options.block), *(["-w"] if options.write
                                                                      else []), str(image)]

    def _run(self, requests):
        before = children_cpu()
        done = subprocess.run([*self.command[:2], "-c", str(requests), *self.command[2:]],
                              capture_output=True, text=True, check=False)
        used = children_cpu() - before
        found = re.search(r"completed in ([\d.]+) seconds", done.stdout)
        if not found:
            raise packages.Failure(f"qemu-img bench: {done.stderr.strip()}")
        return float(found.group(1)), used

    def run(self):
        if not self.count_of:
            took, _ = self._run(2000)
            self.count_of = max(int(2000 / max(took, 1e-3) * self.options.seconds), 2000)
        seconds, cpu = self._run(self.count_of)
        return {"operations": self.count_of, "seconds": seconds, "cpu": cpu, "p50": None,
                "p99": None, "raw": None, "parts": None}

    def count(self):
        return None


def operations_in(output):
    return normal(json.loads(output))["operations"]


def normal(result):
    """
    Of one run, from bench-path or fio: operations, seconds, CPU seconds, latencies; "parts" is
    {kind of thread: CPU seconds}, or None where that is not known.
    """
    if "jobs" not in result:
        parts = {kind: result[f"{kind}-cpu-ns"] / 1e9 for kind in ("loop", "driver", "pool")}
        return {"operations": result["operations"], "seconds": result["elapsed-ns"] / 1e9,
                "cpu": parts["loop"] + parts["pool"], "parts": parts,
                "p50": result["latency-ns"]["p50"] / 1000, "p99": result["latency-ns"]["p99"] / 1000,
                "raw": result}
    job = result["jobs"][0]
    sides = [job["read"], job["write"]]
    side = max(sides, key=lambda one: one["total_ios"])
    seconds = max(one["runtime"] for one in sides) / 1000
    share = side["clat_ns"].get("percentile", {})
    return {"operations": sum(one["total_ios"] for one in sides), "seconds": seconds,
            "cpu": (job["usr_cpu"] + job["sys_cpu"]) / 100 * seconds, "parts": None, "raw": None,
            "p50": share.get("50.000000", 0) / 1000, "p99": share.get("99.000000", 0) / 1000}


def present(results, key):
    return {name: [one[key] for one in got if one[key] is not None]
            for name, got in results.items()}


def figures(title, results):
    yield Figure(f"{title}: throughput", "kop/s", "more",
                 pick(results, lambda one: one["operations"] / one["seconds"] / 1000))
    yield Figure(f"{title}: CPU time for an operation", "us", "less",
                 pick(results, lambda one: 1e6 * one["cpu"] / max(one["operations"], 1)))
    for key, text in (("p50", "median"), ("p99", "99th percentile")):
        values = {name: got for name, got in present(results, key).items() if got}
        yield Figure(f"{title}: latency, {text}", "us", "less", values)


def title_of(options, depth, what):
    kind = ("random " if options.random else "") + ("writes" if options.write else "reads")
    if options.read_percent is not None:
        kind = f"{'random ' if options.random else ''}{options.read_percent} % reads, the rest writes"
    return (f"{what}, {kind} of {options.block} bytes at depth {depth}, {options.format}"
            f"{f', {options.queues} queues' if options.queues > 1 else ''}"
            f"{', O_DIRECT' if options.direct else ''}")


def split_lines(results):
    """CPU time for an operation by thread, of those who tell it."""
    for name, got in results.items():
        known = [one for one in got if one["parts"]]
        if not known:
            continue
        kinds = {"loop": "loop", "driver": "driver (as a vCPU)", "pool": "pool"}
        costs = {kind: statistics.median([1e9 * one["parts"][kind] / max(one["operations"], 1)
                                          for one in known]) for kind in known[0]["parts"]}
        yield f"  {name:16} CPU time an operation: " + ", ".join(
            f"{kinds[kind]} {cost:.0f} ns" for kind, cost in costs.items())


def turn_line(raw):
    thousands = max(raw["operations"], 1) / 1000
    return (f"  {'evisor':16} for 1,000 operations: {raw['loop-turns'] / thousands:.0f} loop turns, "
            f"{raw['kicks'] / thousands:.0f} kicks, {raw['interrupts'] / thousands:.0f} interrupts, "
            f"{raw['host-operations'] / thousands:.0f} operations on the host's file")


def syscall_figure(title, peers):
    """One more run of each peer, which only counts."""
    values = {}
    for peer in peers:
        counted = peer.count()
        if counted and counted[1] is not None:
            values[peer.name] = [1000 * counted[1] / max(operations_in(counted[0]), 1)]
    if not values:
        print("  system calls are not counted: this host permits neither perf's tracepoint nor "
              "strace; install linux-perf or strace, or run as root")
        return
    yield Figure(f"{title}: system calls for 1,000 operations, by {syscalls.way()}", "calls",
                 "less", values)


def compare(options, depth, what, peers):
    title = title_of(options, depth, what)
    results = alternate(peers, options.runs, lambda peer: peer.run())
    yield from figures(title, results)
    yield from syscall_figure(title, peers)
    print("\n".join(split_lines(results)))
    print(turn_line(results["evisor"][-1]["raw"]))
    for name, got in results.items():
        if got and got[-1]["raw"]:
            buckets = got[-1]["raw"]["latency-ns"]["buckets"]
            options.latencies[f"{name}, {what}, depth {depth}"] = buckets
    add_curve(options, depth, what, results)


def add_curve(options, depth, what, results):
    """One point of throughput over depth for each peer."""
    for name, got in results.items():
        rate = statistics.median([one["operations"] / one["seconds"] / 1000 for one in got])
        options.curves.setdefault(f"{name}, {what}", []).append((depth, rate))


def wants(options, peer):
    return options.vs in (peer, "all")


def fio_peer(options, depth, image):
    if not wants(options, "fio") or options.format != "raw":
        return []
    packages.install(["fio"], "the peer without a VMM")
    return [Fio(options, depth, image)]


def vhost_peer(options, depth, image, folder):
    if not wants(options, "qemu") or options.format == "null" or options.registered:
        return []
    if not storage_daemon.exists():
        print(f"{storage_daemon.PROGRAM} is not installed (package qemu-system-common or "
              "qemu-utils): it is left out")
        return []
    return [Vhost(options, depth, image, folder)]


def image_for(options, folder):
    return None if options.format == "null" else make_image(options, folder)


def measure_kick(options, folder, image=None):
    """virtio-blk with the driver on its own thread: doorbell to completion to interrupt."""
    image = image or image_for(options, folder)
    for depth in options.depth:
        peers = [*ours("kick", options, depth, image), *vhost_peer(options, depth, image, folder)]
        yield from compare(options, depth, "virtio-blk by eventfds", peers)


def measure_blk(options, folder):
    """virtio-blk and the engine below it, without a guest."""
    image = image_for(options, folder)
    for depth in options.depth:
        peers = [*ours("blk", options, depth, image), *fio_peer(options, depth, image)]
        yield from compare(options, depth, "virtio-blk", peers)
    if wants(options, "qemu") and options.format != "null" and not options.verify:
        yield from measure_kick(options, folder, image)


def measure_disk(options, folder):
    """The disk engine by itself."""
    image = image_for(options, folder)
    for depth in options.depth:
        peers = [*ours("disk", options, depth, image), *fio_peer(options, depth, image)]
        is_plain = not options.random and options.read_percent is None and image
        if wants(options, "qemu") and is_plain and shutil.which("qemu-img"):
            peers.append(ImgBench(options, depth, image))
        yield from compare(options, depth, "the engine", peers)
