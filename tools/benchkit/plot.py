# SPDX-License-Identifier: MIT
"""plot: the figures of a run as an SVG: each quantity by peer, and the latency histogram."""

from guestkit import packages


def draw(figures, latencies, path):
    packages.install(["python3-matplotlib"], "--plot")
    import matplotlib  # noqa: PLC0415, only where a plot is wanted
    matplotlib.use("svg")
    from matplotlib import pyplot  # noqa: PLC0415
    rows = len(figures) + (1 if latencies else 0)
    drawing, axes = pyplot.subplots(rows, 1, figsize=(8, 2.2 * rows), squeeze=False)
    for axis, figure in zip(axes[:, 0], figures):
        names = [name for name, values in figure.values.items() if values]
        axis.boxplot([figure.values[name] for name in names], vert=False, labels=names)
        axis.set_title(figure.title, fontsize=9)
        axis.set_xlabel(f"{figure.unit} ({figure.better} is better)", fontsize=8)
    if latencies:
        axis = axes[-1, 0]
        for name, buckets in latencies.items():
            axis.step([floor / 1000 for floor, _ in buckets], [count for _, count in buckets],
                      where="post", label=name)
        axis.set(xscale="log", yscale="log", xlabel="latency, us", ylabel="operations")
        axis.legend(fontsize=8)
    drawing.tight_layout()
    drawing.savefig(path)
