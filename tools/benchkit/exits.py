# SPDX-License-Identifier: MIT
"""
exits: why a boot left the guest: evisor's own count by device, and KVM's of each peer by kind.

A boot of its own, apart from those that are timed.
"""

import pathlib

from guestkit import qmp

from .peers import await_marks, running

KVM_COUNTS = pathlib.Path("/sys/kernel/debug/kvm")  # for root, where debugfs is mounted
KVM_KINDS = ("exits", "io_exits", "mmio_exits", "irq_exits", "halt_exits", "pf_taken")
OURS = "evisor"


class Exits:
    """`kinds`: {kind: [count, nanoseconds]}, `regions`: {region: count}, `kvm`: {peer: {kind: count}}."""

    def __init__(self, title, kinds, regions, kvm):
        self.title, self.kinds, self.kvm = title, kinds, kvm
        self.regions = dict(sorted(regions.items(), key=lambda one: -one[1]))

    values = {}  # nothing by peer and run

    def lines(self):
        yield f"\n{self.title}"
        for kind, (count, took_ns) in self.kinds.items():
            yield f"  {OURS:16} {count:12} {kind}  {took_ns / count / 1000:.1f} us each"
        for region, count in self.regions.items():
            yield f"    {region:14} {count:12}"
        for peer, counts in self.kvm.items():
            yield f"  {peer:16} as KVM counts: " + ", ".join(
                f"{kind} {count}" for kind, count in counts.items())

    def as_json(self):
        return {"title": self.title, "regions": self.regions, "kvm": self.kvm, "kinds": {
            kind: {"count": count, "ns": took_ns} for kind, (count, took_ns) in self.kinds.items()}}


def of_stats(stats):
    """(kinds, regions), without what did not occur, of the answer to query-stats."""
    kinds, regions = {}, {}
    for group in stats:
        counters = {one["name"]: one["value"] for one in group["stats"]}
        if group["qom-path"] == "bus":
            regions.update({name: count for name, count in counters.items() if count})
        if not group["qom-path"].startswith("vcpu"):
            continue
        for name, count in counters.items():
            kind = name.removesuffix("-exits")
            if count and kind != name:
                total = kinds.setdefault(kind, [0, 0])
                total[0] += count
                total[1] += counters[kind + "-ns"]
    return kinds, regions


def count_by_kvm(pid):
    """{kind: count} of the machine of this process; empty where it cannot be read."""
    found = {}
    for folder in KVM_COUNTS.glob(f"{pid}-*"):
        for kind in KVM_KINDS:
            path = folder / kind
            if path.exists():
                found[kind] = int(path.read_text())
    return found


def measure(title, peers, boot, mark, folder):
    kinds, regions, kvm = {}, {}, {}
    for peer in peers:
        socket = folder / "qmp"
        control = ["-qmp", f"unix:{socket},server=on,wait=off"] if peer.name == OURS else []
        with running([*peer.to_boot(boot), *control]) as process:
            if not await_marks(process, [mark]):
                continue
            counts = count_by_kvm(process.pid)
            if counts:
                kvm[peer.name] = counts
            if control:
                kinds, regions = of_stats(qmp.Client(socket).execute("query-stats"))
    return Exits(title, kinds, regions, kvm)
