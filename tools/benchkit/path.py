# SPDX-License-Identifier: MIT
"""
path: the disk paths without a guest: the engine, the engine behind virtio-blk, and the NBD server.

The peers: fio's io_uring engine on the same file without any VMM, and QEMU's NBD server.
"""

import json
import pathlib
import shutil
import socket
import subprocess
import time

from guestkit import packages

from .figures import Figure, alternate, pick
from .peers import BENCH_PATH, EVISOR_IMG, Peer

MIB = 1 << 20


def make_image(options, folder):
    """The image given, or one of our own, wholly written: holes would flatter."""
    if options.image:
        return pathlib.Path(options.image)
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


def path_command(kind, options, image):
    command = [str(BENCH_PATH), kind, "--format", options.format, "--block",
               str(options.block), "--depth", str(options.depth), "--seconds", str(options.seconds)]
    command += ["--image", str(image)] if image else []
    for name in ("write", "random", "direct", "verify"):
        command += [f"--{name}"] if getattr(options, name) else []
    return command


def fio_command(options, image, engine):
    kind = ("rand" if options.random else "") + ("write" if options.write else "read")
    return ["fio", "--name=peer", "--output-format=json", f"--rw={kind}", f"--bs={options.block}",
            f"--iodepth={options.depth}", f"--runtime={options.seconds}", "--time_based=1",
            f"--direct={int(options.direct)}", "--invalidate=0", "--norandommap=1",
            f"--size={image.stat().st_size if options.format == 'raw' else '100%'}", *engine]


def run(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise packages.Failure(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout)


def normal(result):
    """Of one run, from bench-path or fio: operations, seconds, CPU seconds, latencies."""
    if "jobs" not in result:
        return {"operations": result["operations"], "seconds": result["elapsed-ns"] / 1e9,
                "cpu": (result["loop-cpu-ns"] + result["other-cpu-ns"]) / 1e9,
                "p50": result["latency-ns"]["p50"] / 1000, "p99": result["latency-ns"]["p99"] / 1000,
                "raw": result}
    job = result["jobs"][0]
    side = max((job["read"], job["write"]), key=lambda one: one["total_ios"])
    seconds = side["runtime"] / 1000
    share = side["clat_ns"].get("percentile", {})
    return {"operations": side["total_ios"], "seconds": seconds,
            "cpu": (job["usr_cpu"] + job["sys_cpu"]) / 100 * seconds,
            "p50": share.get("50.000000", 0) / 1000, "p99": share.get("99.000000", 0) / 1000}


def figures(title, results):
    yield Figure(f"{title}: throughput", "kop/s", "more",
                 pick(results, lambda one: one["operations"] / one["seconds"] / 1000))
    yield Figure(f"{title}: CPU time for an operation", "us", "less",
                 pick(results, lambda one: 1e6 * one["cpu"] / max(one["operations"], 1)))
    yield Figure(f"{title}: latency, median", "us", "less", pick(results, lambda one: one["p50"]))
    yield Figure(f"{title}: latency, 99th percentile", "us", "less",
                 pick(results, lambda one: one["p99"]))


def title_of(options, what):
    kind = ("random " if options.random else "") + ("writes" if options.write else "reads")
    return (f"{what}, {kind} of {options.block} bytes at depth {options.depth}, {options.format}"
            f"{', O_DIRECT' if options.direct else ''}")


def print_paths(results):
    """What only our own paths tell."""
    for one in results["evisor"][-1:]:
        raw = one["raw"]
        thousands = max(raw["operations"], 1) / 1000
        print(f"  for 1,000 operations: {raw['loop-turns'] / thousands:.0f} loop turns, "
              f"{raw['kicks'] / thousands:.0f} kicks, "
              f"{raw['interrupts'] / thousands:.0f} interrupts, "
              f"{raw['host-operations'] / thousands:.0f} operations on the host's file; CPU time: "
              f"{raw['loop-cpu-ns'] / thousands / 1000:.0f} us on the loop, "
              f"{raw['other-cpu-ns'] / thousands / 1000:.0f} us on other threads")


def measure_path(kind, options, folder):
    image = None if options.format == "null" else make_image(options, folder)
    peers = [Peer("evisor", path_command(kind, options, image))]
    if options.vs != "none" and options.format == "raw":
        packages.install(["fio"], "the peer without a VMM")
        peers.append(Peer("fio io_uring", fio_command(
            options, image, ["--ioengine=io_uring", f"--filename={image}"])))
    results = alternate(peers, options.runs, lambda peer: normal(run(peer.command)))
    what = {"disk": "the engine", "blk": "virtio-blk",
            "kick": "virtio-blk by eventfds"}[kind]
    yield from figures(title_of(options, what), results)
    print_paths(results)
    options.latencies = {what: results["evisor"][-1]["raw"]["latency-ns"]["buckets"]}


def measure_blk(options, folder):
    """virtio-blk and the engine below it, without a guest."""
    yield from measure_path("blk", options, folder)


def measure_kick(options, folder):
    """virtio-blk with the driver on its own thread: doorbell to completion to interrupt."""
    yield from measure_path("kick", options, folder)


def measure_disk(options, folder):
    """The disk engine by itself."""
    yield from measure_path("disk", options, folder)


def wait_for(path):
    for _ in range(200):
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
                return
        except OSError:
            time.sleep(0.05)
    raise packages.Failure(f"nobody listens on {path}")


def measure_nbd(options, folder):
    """The engine behind an NBD server, beside QEMU's, both driven by fio."""
    packages.install(["fio", "qemu-utils"], "the peers")
    image = make_image(options, folder)
    servers = [Peer("evisor", [str(EVISOR_IMG), "serve"])]
    if options.vs == "qemu" and shutil.which("qemu-nbd"):
        servers.append(Peer("qemu-nbd", ["qemu-nbd"]))

    def one(peer):
        path = folder / "nbd.sock"
        path.unlink(missing_ok=True)
        server = subprocess.Popen([*peer.command, "-t", "-e", "4", "-k", str(path), "-f",
                                   options.format, str(image)], stdout=subprocess.DEVNULL)
        try:
            wait_for(path)
            return normal(run(fio_command(options, image, [
                "--ioengine=nbd", f"--uri=nbd+unix:///?socket={path}"])))
        finally:
            server.terminate()
            server.wait()
    results = alternate(servers, options.runs, one)
    yield from figures(title_of(options, "NBD"), results)
