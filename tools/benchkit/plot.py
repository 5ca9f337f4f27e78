# SPDX-License-Identifier: MIT
"""
plot: the figures of a run as an SVG: each quantity by peer, throughput over depth, and the latency
histogram.
"""

import importlib.util
import os
import sys

from guestkit import packages


DEBIAN_PYTHON = "/usr/bin/python3"


def prepare():
    """Before anything is measured: what --plot needs; if need be in the Python that has it."""
    packages.install(["python3-matplotlib"], "--plot")
    if importlib.util.find_spec("matplotlib"):
        return
    if os.path.realpath(sys.executable) == os.path.realpath(DEBIAN_PYTHON):
        raise packages.Failure("--plot needs matplotlib: install python3-matplotlib")
    os.execv(DEBIAN_PYTHON, [DEBIAN_PYTHON, *sys.argv])


def draw(figures, latencies, curves, path):
    import matplotlib  # noqa: PLC0415, only where a plot is wanted
    matplotlib.use("svg")
    from matplotlib import pyplot  # noqa: PLC0415
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    panels = [lambda axis, figure=figure: draw_figure(axis, figure) for figure in figures]
    panels += [lambda axis: draw_curves(axis, curves)] if curves else []
    panels += [lambda axis: draw_latencies(axis, latencies)] if latencies else []
    if not panels:
        raise packages.Failure(f"{path}: nothing was measured that could be drawn")
    drawing, axes = pyplot.subplots(len(panels), 1, figsize=(8, 2.4 * len(panels)), squeeze=False)
    for axis, panel in zip(axes[:, 0], panels):
        panel(axis)
    drawing.tight_layout()
    drawing.savefig(path)


def draw_figure(axis, figure):
    names = [name for name, values in figure.values.items() if values]
    axis.boxplot([figure.values[name] for name in names], vert=False, labels=names)
    axis.set_title(figure.title, fontsize=9)
    axis.set_xlabel(f"{figure.unit} ({figure.better} is better)", fontsize=8)


def draw_curves(axis, curves):
    for name, points in curves.items():
        axis.plot([depth for depth, _ in points], [rate for _, rate in points], marker="o",
                  label=name)
    axis.set_xscale("log", base=2)
    axis.set_title("throughput over depth", fontsize=9)
    axis.set(xlabel="requests in flight", ylabel="kop/s", ylim=(0, None))
    axis.legend(fontsize=8)


def draw_latencies(axis, latencies):
    for name, buckets in latencies.items():
        axis.step([floor / 1000 for floor, _ in buckets], [count for _, count in buckets],
                  where="post", label=name)
    axis.set_title("latency", fontsize=9)
    axis.set(xscale="log", yscale="log", xlabel="latency, us", ylabel="operations")
    axis.legend(fontsize=8)
