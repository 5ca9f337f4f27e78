# SPDX-License-Identifier: MIT
"""nbd: the engine behind an NBD server, beside QEMU's, both driven by fio."""

import shutil
import socket
import subprocess
import time

from guestkit import packages

from . import path, storage_daemon
from .figures import alternate
from .peers import EVISOR_IMG, Peer, run_json


def wait_for(name):
    for _ in range(200):
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(name))
                return
        except OSError:
            time.sleep(0.05)
    raise packages.Failure(f"nobody listens on {name}")


def serve_and_drive(peer, options, depth, image, folder):
    """What fio saw, and the CPU time that the server took meanwhile."""
    name = folder / "nbd.sock"
    name.unlink(missing_ok=True)
    server = subprocess.Popen([*peer.command, "-t", "-e", "4", "-k", str(name), "-f",
                               options.format, str(image)], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        wait_for(name)
        before = server_cpu(server.pid)
        result = path.normal(run_json(path.fio_command(options, depth, image, [
            "--ioengine=nbd", f"--uri=nbd+unix:///?socket={name}"])))
        parts = {kind: used - before[kind] for kind, used in server_cpu(server.pid).items()}
        return {**result, "cpu": sum(parts.values()), "parts": parts}
    finally:
        server.terminate()
        server.wait()


def server_cpu(pid):
    """{kind of thread: CPU seconds}"""
    threads = storage_daemon.thread_cpu_ns(pid)
    loop = threads.pop(pid, 0)
    return {"loop": loop / 1e9, "pool": sum(threads.values()) / 1e9}


def measure_nbd(options, folder):
    """The engine behind an NBD server, beside QEMU's, both driven by fio."""
    packages.install(["fio", "qemu-utils"], "the peers")
    image = path.make_image(options, folder)
    servers = [Peer("evisor", [str(EVISOR_IMG), "serve"])]
    if path.wants(options, "qemu") and shutil.which("qemu-nbd"):
        servers.append(Peer("qemu-nbd", ["qemu-nbd"]))
    for depth in options.depth:
        results = alternate(servers, options.runs, lambda peer, depth=depth: serve_and_drive(
            peer, options, depth, image, folder))
        yield from path.figures(path.title_of(options, depth, "NBD"), results)
        print("\n".join(path.split_lines(results)))
        path.add_curve(options, depth, "NBD", results)
