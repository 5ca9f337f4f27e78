# SPDX-License-Identifier: MIT
"""
path: the disk paths without a guest: the engine, and the engine behind virtio-blk.

The peers: fio's io_uring engine on the same file without any VMM; qemu-img bench for the engine;
for virtio-blk with the driver on a thread of its own, QEMU's storage daemon by vhost-user. Several
disks at once are on one loop here, and each has an I/O thread of its own there. With --iothreads
each disk and its device also have a loop and a thread of their own here, beside the one loop.
"""

import concurrent.futures
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
from .figures import OURS, Figure, alternate, pick
from .peers import BENCH_PATH, EVISOR_IMG, json_in, run_json, run_program

MIB = 1 << 20


def check_room(options, folder):
    """Of a qcow2 image there are two for a while: it is converted."""
    wanted = options.image_mib * (options.disks + (options.format == "qcow2"))
    there = shutil.disk_usage(folder).free // MIB
    if wanted > there:
        raise packages.Failure(f"{folder.parent} has {there} MiB left, what the run makes takes "
                               f"{wanted}: use a smaller --image-mib, or name another folder by TMPDIR")


def make_images(options, folder):
    """The images given, or our own, wholly written: holes would flatter."""
    if options.image:
        return list(map(pathlib.Path, options.image))
    check_room(options, folder)
    return [make_image(options, folder, index) for index in range(options.disks)]


def make_image(options, folder, index):
    raw = folder / f"data{index}.raw"
    size = options.image_mib * MIB
    block = bytes(range(256)) * 4096
    with open(raw, "wb") as stream:
        for at in range(0, size, len(block)):
            stream.write(at.to_bytes(8, "little") + block[8:min(len(block), size - at)])
    if options.format != "qcow2":
        return raw
    image = folder / f"data{index}.qcow2"
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


def without_verify(command):
    return [word for word in command if word != "--verify"]


def check_limits(kind, options):
    """What a run would refuse is refused before an image is made for it."""
    for depth in options.depth:
        run_program([*without_verify(path_command(kind, options, depth, [
            "--format", "null", "--disks", str(options.disks)])), "--check"])


def each(option, names):
    """The option once for each of the names."""
    return [word for name in names for word in (option, str(name))]


def where(options, images):
    """Which disks a path of this tree drives."""
    return ["--format", options.format, "--disks", str(options.disks), *each("--image", images)]


class Ours:
    """A path of this tree."""
    name = "evisor"

    def __init__(self, kind, options, depth, images):
        self.command = path_command(kind, options, depth, where(options, images))

    def run(self):
        return normal(run_json(self.command))

    def count(self):
        return syscalls.count(self.command)


def data_part(image):
    """Where data, and nothing else, lies in the file of an allocated qcow2 image: from where, how
    much."""
    mapped = subprocess.run([EVISOR_IMG, "map", "--output=json", image], check=True,
                            capture_output=True)
    first = json.loads(mapped.stdout)[0]
    return ["--skip", str(first["offset"]), "--span", str(first["length"])]


class AsRaw(Ours):
    """A qcow2 image's own file as raw: what the format costs, from the same page cache. Writes leave
    its metadata alone."""
    name = "its file as raw"

    def __init__(self, kind, options, depth, images):  # pylint: disable=super-init-not-called
        part = data_part(images[0]) if is_write(options) else []
        self.command = path_command(kind, options, depth, ["--format", "raw", *part,
                                                           *each("--image", images)])


class IoThreads(Ours):
    """Each disk and its device on a loop of their own, which a thread turns."""
    name = "evisor iothreads"

    def __init__(self, kind, options, depth, images):
        super().__init__(kind, options, depth, images)
        self.command.append("--iothreads")


class ProcessEach(Ours):
    """As many processes at once, each with one of the disks: what loops that share nothing give."""
    name = "a process each"

    def __init__(self, kind, options, depth, images):  # pylint: disable=super-init-not-called
        alone = [["--format", options.format, *each("--image", images[index:index + 1])]
                 for index in range(options.disks)]
        self.commands = [path_command(kind, options, depth, one) for one in alone]

    def _all(self, function):
        with concurrent.futures.ThreadPoolExecutor(len(self.commands)) as pool:
            return list(pool.map(function, self.commands))

    def run(self):
        return normal(merged(self._all(run_json)))

    def count(self):
        syscalls.way()  # is found out once
        counted = self._all(syscalls.count)
        if any(one is None or one[1] is None for one in counted):
            return None
        return (json.dumps(merged([json.loads(one[0]) for one in counted])),
                sum(one[1] for one in counted))


def merged(raws):
    """One result of several that ran at once."""
    total = {key: sum(raw[key] for raw in raws) for key in raws[0] if key != "latency-ns"}
    total["elapsed-ns"] = max(raw["elapsed-ns"] for raw in raws)
    buckets = {}
    for floor, count in (bucket for raw in raws for bucket in raw["latency-ns"]["buckets"]):
        buckets[floor] = buckets.get(floor, 0) + count
    buckets = sorted(map(list, buckets.items()))
    total["latency-ns"] = {"buckets": buckets, **{
        name: percentile(buckets, share) for name, share in (("p50", .5), ("p99", .99),
                                                              ("p99.9", .999))}}
    return total


def percentile(buckets, share):
    """The floor of the bucket above which less than the share of all values lie; 0 without values."""
    left = int(sum(count for _, count in buckets) * share)
    for floor, count in buckets:
        left -= count
        if left < 0:
            return floor
    return 0


def can_be_raw(options):
    """Of an image given nobody knows how its data lies."""
    writes_here = is_write(options) and not options.image and options.disks == 1
    return (options.format == "qcow2" and options.vs != "none" and
            (writes_here or not is_write(options)))


def ours(kind, options, depth, images):
    """This tree's path; with a loop for each disk where asked for, of qcow2 also without the format,
    of several disks also in processes of their own."""
    found = [Ours(kind, options, depth, images)]
    if options.iothreads:
        found.append(IoThreads(kind, options, depth, images))
    if can_be_raw(options):
        found.append(AsRaw(kind, options, depth, images))
    if options.disks > 1 and options.vs != "none":
        found.append(ProcessEach(kind, options, depth, images))
    return found


def size_of(image):
    """In bytes; of a block device, too."""
    with open(image, "rb") as stream:
        return stream.seek(0, 2)


def fio_command(options, depth, size, jobs):
    """
    `jobs`: the options of each job, which run at once. In threads: a process of fio's own begins a
    session, which the scheduler gives as much of a busy CPU as all of the others' together.
    """
    mode = "rw" if options.read_percent is not None else "write" if options.write else "read"
    command = ["fio", "--output-format=json+", "--name=global", "--group_reporting=1", "--thread=1",
               f"--rw={'rand' if options.random else ''}{mode}", f"--bs={options.block}",
               f"--iodepth={depth}", f"--runtime={options.seconds}", "--time_based=1",
               f"--direct={int(options.direct)}", "--invalidate=0", "--norandommap=1",
               f"--size={size}", "--clat_percentiles=0", "--lat_percentiles=1"]
    if options.read_percent is not None:
        command.append(f"--rwmixread={options.read_percent}")
    for index, job in enumerate(jobs):
        command += [f"--name=peer{index}", *job]
    return command


def for_fio(path):
    """As a value of --filename."""
    return re.sub(r"([\\:])", r"\\\1", str(path))


def children_cpu():
    """Seconds of CPU that ended children took, their threads in the kernel included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Fio(Ours):
    """The same file without any VMM."""
    name = "fio io_uring"

    def __init__(self, options, depth, images):  # pylint: disable=super-init-not-called
        self.command = fio_command(options, depth, min(map(size_of, images)), [
            ["--ioengine=io_uring", f"--filename={for_fio(image)}"] for image in images])

    @functools.cached_property
    def start_cpu(self):
        """What fio takes to start and to end."""
        before = children_cpu()
        run_json(["--number_ios=1" if word.startswith("--runtime") else word
                  for word in self.command if not word.startswith("--time")])
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
    """Our drivers before QEMU's storage daemon."""

    def __init__(self, options, depth, images, folder):  # pylint: disable=super-init-not-called
        self.name = "QEMU vhost-user" if len(images) == 1 else "QEMU iothreads"
        self.daemon = storage_daemon.StorageDaemon(images, options, folder)
        self.command = without_verify(path_command("vhost", options, depth,
                                                   each("--socket", self.daemon.sockets)))

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
        return driver[0], driver[1] + server[1] * share  # both sides


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
                "p99": None, "raw": None, "parts": None, "buckets": None}

    def count(self):
        return None


KINDS = {"loop": "loop", "iothread": "I/O threads", "driver": "driver (as a vCPU)", "pool": "pool"}


def operations_in(output):
    return normal(json_in(output))["operations"]


def normal(result):
    """
    Of one run, from bench-path or fio: operations, seconds, CPU seconds, latencies; "parts" is
    {kind of thread: CPU seconds}, or None where that is not known, "buckets" the latencies.
    """
    if "jobs" not in result:
        parts = {kind: result[f"{kind}-cpu-ns"] / 1e9 for kind in KINDS
                 if kind != "iothread" or result["iothread-cpu-ns"]}
        return {"operations": result["operations"], "seconds": result["elapsed-ns"] / 1e9,
                "cpu": sum(parts.values()) - parts["driver"], "parts": parts,
                "p50": result["latency-ns"]["p50"] / 1000, "p99": result["latency-ns"]["p99"] / 1000,
                "buckets": result["latency-ns"]["buckets"], "raw": result}
    job = result["jobs"][0]
    sides = [job["read"], job["write"]]
    buckets = sorted([int(ns), count] for one in sides
                     for ns, count in one["lat_ns"].get("bins", {}).items())
    return {"operations": sum(one["total_ios"] for one in sides),
            "seconds": max(one["runtime"] for one in sides) / 1000,
            "cpu": (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000,
            "parts": None, "raw": None, "buckets": buckets,
            "p50": percentile(buckets, .5) / 1000, "p99": percentile(buckets, .99) / 1000}


def present(results, key):
    return {name: [one[key] for one in got if one[key]] for name, got in results.items()}


def figures(title, results):
    yield Figure(f"{title}: throughput", "kop/s", "more",
                 pick(results, lambda one: one["operations"] / one["seconds"] / 1000),
                 remarks=[*split_lines(results), *turn_lines(results)], details=details(results))
    yield Figure(f"{title}: CPU time for an operation", "us", "less",
                 pick(results, lambda one: 1e6 * one["cpu"] / max(one["operations"], 1)))
    histograms = {name: {"buckets-ns": got[-1]["buckets"]} for name, got in results.items()
                  if got and got[-1]["buckets"]}
    for key, text in (("p50", "median"), ("p99", "99th percentile")):
        values = {name: got for name, got in present(results, key).items() if got}
        yield Figure(f"{title}: latency, {text}", "us", "less", values,
                     details=histograms if key == "p50" else None)


def title_of(options, depth, what):
    queues = min(options.queues, depth)
    kind = ("random " if options.random else "") + ("writes" if options.write else "reads")
    if options.read_percent is not None:
        kind = f"{'random ' if options.random else ''}{options.read_percent} % reads, the rest writes"
    return (f"{what}, {kind} of {options.block} bytes at depth {depth}, {options.format}"
            f"{f', {options.disks} disks' if options.disks > 1 else ''}"
            f"{f', {queues} queues' if queues > 1 else ''}"
            f"{', O_DIRECT' if options.direct else ''}")


def split(got):
    """{kind of thread: nanoseconds of CPU for an operation}, medians; empty where nobody told it."""
    known = [one for one in got if one["parts"]]
    kinds = [kind for kind in KINDS if any(kind in one["parts"] for one in known)]
    return {kind: statistics.median([1e9 * one["parts"].get(kind, 0) / max(one["operations"], 1)
                                     for one in known]) for kind in kinds}


def split_lines(results):
    """CPU time for an operation by thread, of those who tell it."""
    for name, got in results.items():
        costs = split(got)
        if costs:
            yield f"  {name:16} CPU time an operation: " + ", ".join(
                f"{KINDS[kind]} {cost:.0f} ns" for kind, cost in costs.items())


TURNS = {"loop-turns": "loop turns", "kicks": "kicks", "interrupts": "interrupts",
         "host-operations": "operations on the host's file"}


def turns(raw):
    """For 1,000 operations. Of one loop also its turns, and the share of the time that it was on a
    CPU."""
    thousands = max(raw["operations"], 1) / 1000
    is_one = not raw["iothread-cpu-ns"]
    found = {key: raw[key] / thousands for key in TURNS if is_one or key != "loop-turns"}
    if is_one:
        found["loop-busy"] = raw["loop-cpu-ns"] / max(raw["elapsed-ns"], 1)
    return found


def raw_of_one_process(results):
    """What the last run of each that is one process of ours counted."""
    last = {name: results[name][-1]["raw"] for name in (OURS, IoThreads.name) if results.get(name)}
    return {name: raw for name, raw in last.items() if raw}


def turn_lines(results):
    for name, raw in raw_of_one_process(results).items():
        found = turns(raw)
        line = f"  {name:16} for 1,000 operations: " + ", ".join(
            f"{found[key]:.0f} {text}" for key, text in TURNS.items() if key in found)
        if "loop-busy" in found:
            line += f"; its loop was busy for {100 * found['loop-busy']:.0f} % of the time"
        yield line


def details(results):
    """What the JSON form tells beside the rates."""
    found = {name: {"cpu-ns-per-operation": split(got)} for name, got in results.items()
             if split(got)}
    for name, raw in raw_of_one_process(results).items():
        found[name]["per-1000-operations"] = turns(raw)
    return found


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
    add_histograms(options, title, results)
    add_curve(options, depth, title.replace(f" at depth {depth}", ""), results)


def add_histograms(options, title, results):
    for name, got in results.items():
        if got and got[-1]["buckets"]:
            options.latencies.setdefault(title, {})[name] = got[-1]["buckets"]


def add_curve(options, depth, title, results):
    """One point of throughput over depth for each peer."""
    for name, got in results.items():
        rate = statistics.median([one["operations"] / one["seconds"] / 1000 for one in got])
        options.curves.setdefault(title, {}).setdefault(name, []).append((depth, rate))


def wants(options, peer):
    return options.vs in (peer, "all")


def fio_peer(options, depth, images):
    if not wants(options, "fio") or options.format != "raw":
        return []
    if not shutil.which("fio"):
        try:
            packages.install(["fio"], "the peer without a VMM")
        except packages.Failure as failure:
            if options.vs == "fio":
                raise
            print(f"fio is left out: {failure}")
            return []
    return [Fio(options, depth, images)]


def vhost_peer(options, depth, images, folder):
    if not wants(options, "qemu") or options.format == "null" or options.registered:
        return []
    if not storage_daemon.exists():
        print(f"{storage_daemon.PROGRAM} is not installed (package qemu-system-common or "
              "qemu-utils): it is left out")
        return []
    return [Vhost(options, depth, images, folder)]


def images_for(options, folder):
    return [] if options.format == "null" else make_images(options, folder)


def measure_kick(options, folder, images=None):
    """virtio-blk with the driver on its own thread: doorbell to completion to interrupt."""
    images = images_for(options, folder) if images is None else images
    for depth in options.depth:
        peers = [*ours("kick", options, depth, images),
                 *vhost_peer(options, depth, images, folder)]
        yield from compare(options, depth, "virtio-blk by eventfds", peers)


def measure_blk(options, folder):
    """virtio-blk and the engine below it, without a guest."""
    images = images_for(options, folder)
    for depth in options.depth:
        peers = [*ours("blk", options, depth, images), *fio_peer(options, depth, images)]
        yield from compare(options, depth, "virtio-blk", peers)
    if wants(options, "qemu") and options.format != "null" and not options.verify:
        yield from measure_kick(options, folder, images)


def img_bench_peer(options, depth, image):
    reason = ("it goes through an image in order only" if options.random
              or options.read_percent is not None else
              None if shutil.which("qemu-img") else "package qemu-utils is not installed")
    if reason:
        print(f"qemu-img bench is left out: {reason}")
        return []
    return [ImgBench(options, depth, image)]


def measure_disk(options, folder):
    """The disk engine by itself."""
    images = images_for(options, folder)
    for depth in options.depth:
        peers = [*ours("disk", options, depth, images), *fio_peer(options, depth, images)]
        if images and wants(options, "qemu"):
            peers += img_bench_peer(options, depth, images[0])
        yield from compare(options, depth, "the engine", peers)
