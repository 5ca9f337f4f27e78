# SPDX-License-Identifier: MIT
"""figures: series of measured values by peer, their comparison, the table and the JSON form."""

import itertools
import random
import statistics

OURS = "evisor"
PERMUTATIONS = 5000


class Figure:
    """
    One quantity: `values` is {peer: [one value a run]}; `better` is "more" or "less". `notes` end
    a peer's line, `remarks` are lines below all, `details` what else the JSON form tells:
    {peer: {key: value}}.
    """

    def __init__(self, title, unit, better, values, notes=None, remarks=(),
                 details=None):
        self.title, self.unit, self.better = title, unit, better
        self.values = values
        self.notes = notes or {}
        self.remarks, self.details = list(remarks), details or {}

    def ratio(self, peer):
        """How much better evisor is than the peer: more than 1 is better, whatever the unit."""
        ours, theirs = self.values[OURS], self.values[peer]
        if not ours or not theirs or not statistics.median(ours) or not statistics.median(theirs):
            return None
        quotient = statistics.median(theirs) / statistics.median(ours)
        return quotient if self.better == "less" else 1 / quotient

    def spread(self, peer):
        """The least and the most ratio of runs that stood side by side; None where runs failed."""
        ours, theirs = self.values[OURS], self.values[peer]
        if len(ours) < 2 or len(ours) != len(theirs) or not all(ours) or not all(theirs):
            return None
        found = [b / a if self.better == "less" else a / b for a, b in zip(ours, theirs)]
        return [min(found), max(found)]

    def chance(self, peer):
        """The share of shuffles of both series that differ as much: small means a real difference."""
        return permutation_test(self.values[OURS], self.values[peer])

    def _can_tell(self, peer):
        return len(self.values[OURS]) > 1 and len(self.values[peer]) > 1

    def lines(self):
        yield f"\n{self.title}"
        for peer, found in self.values.items():
            yield self._line(peer, found)
        yield from self.remarks

    def _line(self, peer, found):
        if not found:
            return f"  {peer:16} did not get there"
        line = (f"  {peer:16} {statistics.median(found):12.2f} {self.unit}"
                f"  [{min(found):.2f} .. {max(found):.2f}]")
        if peer != OURS and self.values.get(OURS):
            ratio, spread = self.ratio(peer), self.spread(peer)
            line += f"  ratio {ratio:.2f}" if ratio else ""
            line += f" [{spread[0]:.2f} .. {spread[1]:.2f}]" if ratio and spread else ""
            line += f"  p={self.chance(peer):.3f}" if self._can_tell(peer) else ""
        return line + (f"  {self.notes[peer]}" if peer in self.notes else "")

    def as_json(self):
        peers = {}
        for peer, found in self.values.items():
            peers[peer] = {"values": found, "median": statistics.median(found) if found else None}
            if peer != OURS and found and self.values.get(OURS):
                peers[peer].update(ratio=self.ratio(peer), spread=self.spread(peer),
                                   p=self.chance(peer) if self._can_tell(peer) else None)
            peers[peer].update(self.details.get(peer, {}))
        return {"title": self.title, "unit": self.unit, "better": self.better, "peers": peers}


def permutation_test(a, b):
    """Two-sided, on the difference of means; exact where the splits are few, else sampled."""
    if not a or not b:
        return 1.0
    pool, size = a + b, len(a)
    observed = abs(statistics.fmean(a) - statistics.fmean(b)) * (1 - 1e-12)
    splits = list(itertools.islice(itertools.combinations(range(len(pool)), size),
                                   PERMUTATIONS + 1))
    if len(splits) > PERMUTATIONS:
        generator = random.Random(1)
        splits = [generator.sample(range(len(pool)), size) for _ in range(PERMUTATIONS)]
    total = sum(pool)

    def differs(split):
        part = sum(pool[i] for i in split)
        return abs(part / size - (total - part) / len(b)) >= observed
    return sum(map(differs, splits)) / len(splits)


def alternate(peers, runs, measure):
    """
    measure(peer) for each peer in turn, `runs` times; {name: [values]}, failed runs left out. One
    that failed at its first try is not tried again: it would take its whole time each time.
    """
    values = {peer.name: [] for peer in peers}
    for run in range(runs):
        for peer in peers:
            if run and not values[peer.name]:
                continue
            value = measure(peer)
            if value is not None:
                values[peer.name].append(value)
    return values


def pick(results, function):
    """{peer: [function(result)]} from {peer: [result]}."""
    return {name: [function(one) for one in got] for name, got in results.items()}
