# SPDX-License-Identifier: MIT
"""
net: virtio-net without a guest: the device by itself, or two of them on an internal network; and
through TAP, slirp and internal networks with a real TCP stack before it (benchkit.network).
"""

import json

from guestkit import packages

from . import network, syscalls
from .figures import Figure, alternate, pick
from .peers import BENCH_PATH, run_json

OURS = "evisor"


def command(options, backend, direction):
    return [str(BENCH_PATH), "net", "--format", backend, "--direction", direction, "--block",
            str(options.packet), "--queues", str(options.streams), "--depth", str(options.depth[0]),
            "--seconds", str(options.seconds)]


def frames(result, backend, direction):
    """What came through: on an internal network only what arrived counts."""
    if backend == "internal" or direction == "receive":
        return result["received"]
    return result["operations"] + (result["received"] if direction == "both" else 0)


def print_turns(result, count):
    thousands = max(count, 1) / 1000
    print(f"  {OURS:16} for 1,000 frames: {result['loop-turns'] / thousands:.0f} loop turns, "
          f"{result['kicks'] / thousands:.0f} kicks, "
          f"{result['interrupts'] / thousands:.0f} interrupts")


def measure_one(options, backend, direction):
    line = command(options, backend, direction)
    results = alternate([type("Peer", (), {"name": OURS})], options.runs,
                        lambda _: run_json(line))

    def count(one):
        return frames(one, backend, direction)
    title = (f"virtio-net on {backend}, {direction}, {options.streams} "
             f"stream{'s' * (options.streams > 1)} of {options.packet} bytes")
    yield Figure(f"{title}: throughput", "kframe/s", "more",
                 pick(results, lambda one: count(one) / one["elapsed-ns"] * 1e6))
    yield Figure(f"{title}: rate", "Gbit/s", "more", pick(
        results, lambda one: count(one) * options.packet * 8 / one["elapsed-ns"]))
    yield Figure(f"{title}: CPU time for a frame, loop", "ns", "less",
                 pick(results, lambda one: one["loop-cpu-ns"] / max(count(one), 1)))
    counted = syscalls.count(line)
    if counted and counted[1] is not None:
        share = 1000 * counted[1] / max(count(json.loads(counted[0])), 1)
        yield Figure(f"{title}: system calls for 1,000 frames, by {syscalls.way()}", "calls", "less",
                     {OURS: [share]})
    print_turns(results[OURS][-1], count(results[OURS][-1]))


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
        packages.install(network.PACKAGES, "networks with a TCP stack before them")
        options.what = kinds
        yield from network.figures(options, folder, options.vs != "none")
