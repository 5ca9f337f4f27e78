# SPDX-License-Identifier: MIT
"""
net: virtio-net without a guest: the device by itself, or two of them on an internal network; and
through TAP, slirp and internal networks with a real TCP stack before it (benchkit.network).
"""

import json
import statistics

from guestkit import packages

from . import network, syscalls
from .figures import OURS, Figure, alternate, pick
from .peers import BENCH_PATH, Peer, run_json

FRAME_BYTES, STREAMS = 1514, 1


def command(options, backend, direction):
    return [str(BENCH_PATH), "net", "--format", backend, "--direction", direction, "--block",
            str(options.packet or FRAME_BYTES), "--queues", str(options.streams or STREAMS),
            "--depth", str(options.depth[0]), "--seconds", str(options.seconds)]


def frames(result, backend, direction):
    """What came through: on an internal network only what arrived counts."""
    if backend == "internal" or direction == "receive":
        return result["received"]
    return result["operations"] + (result["received"] if direction == "both" else 0)


def turn_line(found):
    return (f"  {OURS:16} for 1,000 frames: {found['loop-turns']:.0f} loop turns, "
            f"{found['kicks']:.0f} kicks, {found['interrupts']:.0f} interrupts")


def cpu_ns(results, count):
    """For a frame, by thread, medians; the driver has none of its own."""
    return {kind: statistics.median([one[f"{kind}-cpu-ns"] / max(count(one), 1) for one in results])
            for kind in ("loop", "pool")}


def measure_one(options, backend, direction):
    line = command(options, backend, direction)
    packet, streams = options.packet or FRAME_BYTES, options.streams or STREAMS
    results = alternate([Peer(OURS, line)], options.runs, lambda _: run_json(line))

    def count(one):
        return frames(one, backend, direction)
    title = (f"virtio-net on {backend}, {direction}, {streams} stream{'s' * (streams > 1)} of "
             f"{packet} bytes")
    last = results[OURS][-1]
    turns = {key: 1000 * last[key] / max(count(last), 1) for key in ("loop-turns", "kicks",
                                                                    "interrupts")}
    costs = cpu_ns(results[OURS], count)
    yield Figure(f"{title}: throughput", "kframe/s", "more",
                 pick(results, lambda one: count(one) / one["elapsed-ns"] * 1e6),
                 remarks=[f"  {OURS:16} CPU time a frame: " + ", ".join(
                     f"{kind} {cost:.0f} ns" for kind, cost in costs.items()), turn_line(turns)],
                 details={OURS: {"cpu-ns-per-frame": costs, "per-1000-frames": turns}})
    yield Figure(f"{title}: rate", "Gbit/s", "more", pick(
        results, lambda one: count(one) * packet * 8 / one["elapsed-ns"]))
    yield Figure(f"{title}: CPU time for a frame, loop", "ns", "less",
                 pick(results, lambda one: one["loop-cpu-ns"] / max(count(one), 1)))
    if last["latency-ns"]["buckets"]:
        options.latencies[f"{title}, frames sent"] = {OURS: last["latency-ns"]["buckets"]}
    counted = syscalls.count(line)
    if counted and counted[1] is not None:
        share = 1000 * counted[1] / max(count(json.loads(counted[0])), 1)
        yield Figure(f"{title}: system calls for 1,000 frames, by {syscalls.way()}", "calls", "less",
                     {OURS: [share]})


def measure_net(options, folder):
    """virtio-net: the device by itself, and before TAP, slirp and internal networks."""
    for direction in ("send", "receive", "both") if options.direction == "all" else (
            options.direction,):
        for backend in {"null": ["null"], "internal": ["internal"]}.get(
                options.backend, ["null", "internal"] if options.backend == "all" else []):
            yield from measure_one(options, backend, direction)
    kinds = {"all": ["tap", "slirp", "internal"], "null": []}.get(options.backend,
                                                                  [options.backend])
    if kinds:
        network.check()
        packages.install(network.PACKAGES, "networks with a TCP stack before them")
        options.what = kinds
        yield from network.figures(options, folder, options.vs != "none")
