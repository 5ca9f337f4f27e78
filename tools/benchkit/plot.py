# SPDX-License-Identifier: MIT
"""
plot: the figures of a run as an SVG: throughput over depth, the latency histograms, and each quantity
by peer.
"""

import importlib.util
import itertools
import math
import os
import statistics
import subprocess
import sys
import textwrap

from guestkit import packages

from .figures import OURS

DEBIAN_PYTHON = "/usr/bin/python3"
COLUMNS = 2
BUCKETS_OF_DOUBLING = 8
LEAST_SHARE = 0.001  # in %: what is rarer is not seen


def debian_python_has_it():
    return subprocess.run([DEBIAN_PYTHON, "-c", "import matplotlib"], check=False,
                          capture_output=True).returncode == 0


def prepare():
    """Before anything is measured: what --plot needs; if need be in the Python that has it."""
    if importlib.util.find_spec("matplotlib"):
        return
    if not os.path.exists(DEBIAN_PYTHON) or not debian_python_has_it():
        packages.install(["python3-matplotlib"], "--plot")
    if os.path.realpath(sys.executable) == os.path.realpath(DEBIAN_PYTHON):
        importlib.invalidate_caches()
        if importlib.util.find_spec("matplotlib"):
            return
    elif os.path.exists(DEBIAN_PYTHON) and debian_python_has_it():
        os.execv(DEBIAN_PYTHON, [DEBIAN_PYTHON, *sys.argv])
    raise packages.Failure("--plot needs matplotlib: install python3-matplotlib")


def draw(figures, latencies, curves, path):
    """`latencies`: {title: {peer: [[ns, count]]}}, `curves`: {title: {peer: [(depth, kop/s)]}}."""
    import matplotlib  # noqa: PLC0415, only where a plot is wanted
    matplotlib.use("svg")
    from matplotlib import pyplot  # noqa: PLC0415
    panels = [lambda axis, title=title, points=points: draw_curves(axis, title, points)
              for title, points in curves.items() if any(len(one) > 1 for one in points.values())]
    panels += [lambda axis, title=title, found=found: draw_latencies(axis, title, found)
               for title, found in latencies.items()]
    panels += [lambda axis, figure=figure: draw_figure(axis, figure) for figure in figures]
    if not panels:
        raise packages.Failure(f"{path}: nothing was measured that could be drawn")
    rows = -(-len(panels) // COLUMNS)
    drawing, axes = pyplot.subplots(rows, COLUMNS, figsize=(7 * COLUMNS, 3 * rows), squeeze=False,
                                    layout="constrained")
    for axis, panel in itertools.zip_longest(axes.flat, panels):
        if panel:
            panel(axis)
        else:
            axis.set_axis_off()
    drawing.savefig(path)
    pyplot.close(drawing)


def say(axis, title):
    axis.set_title(textwrap.fill(title, 75), fontsize=9)


def colour_of(names):
    """Evisor's is the first."""
    return {name: f"C{index}" for index, name in enumerate(sorted(names, key=lambda name: (
        name != OURS, name)))}


def draw_figure(axis, figure):
    """Each run a point, so that few of them look like few."""
    names = [name for name, values in figure.values.items() if values]
    for at, name in enumerate(names):
        values = figure.values[name]
        axis.barh(at, statistics.median(values), height=0.6, color=colour_of(names)[name], alpha=0.4)
        axis.plot(values, [at] * len(values), "o", markersize=4, color=colour_of(names)[name])
    axis.set_yticks(range(len(names)), names)
    axis.set(xlim=(0, None), ylim=(len(names) - 0.5, -0.5))
    say(axis, figure.title)
    axis.set_xlabel(f"{figure.unit} ({figure.better} is better); bars are medians", fontsize=8)


def draw_curves(axis, title, curves):
    for name, points in curves.items():
        axis.plot([depth for depth, _ in points], [rate for _, rate in points], marker="o",
                  label=name, color=colour_of(curves)[name])
    depths = sorted({depth for points in curves.values() for depth, _ in points})
    axis.set_xscale("log", base=2)
    axis.set_xticks(depths, depths)
    axis.minorticks_off()
    say(axis, f"{title}: throughput over depth")
    axis.set(xlabel="requests in flight", ylabel="kop/s", ylim=(0, None))
    axis.legend(fontsize=8)


def widened(buckets):
    """[(us, % of all)], in buckets wide enough that chance does not make teeth."""
    total = sum(count for _, count in buckets)
    wide = {}
    for floor_ns, count in buckets:
        at = math.floor(math.log2(max(floor_ns, 1)) * BUCKETS_OF_DOUBLING)
        wide[at] = wide.get(at, 0) + count
    # A bucket that stays empty is drawn as such.
    return [(2 ** (at / BUCKETS_OF_DOUBLING) / 1000, 100 * wide.get(at, 0) / total)
            for at in range(min(wide) - 1, max(wide) + 2)]


def draw_latencies(axis, title, latencies):
    for name, buckets in latencies.items():
        points = widened(buckets)
        axis.step([us for us, _ in points], [share for _, share in points], where="post", label=name,
                  color=colour_of(latencies)[name])
    say(axis, f"{title}: latency")
    axis.set(xscale="log", yscale="log", xlabel="us", ylabel="% of operations",
             ylim=(LEAST_SHARE, 100))
    axis.legend(fontsize=8)
