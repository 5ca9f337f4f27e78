# SPDX-License-Identifier: MIT
"""nbd: the engine behind an NBD server, beside QEMU's, both driven by fio."""

import shutil
import socket
import subprocess
import time

from guestkit import packages

from . import path
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
    name = folder / "nbd.sock"
    name.unlink(missing_ok=True)
    server = subprocess.Popen([*peer.command, "-t", "-e", "4", "-k", str(name), "-f",
                               options.format, str(image)], stdout=subprocess.DEVNULL)
    try:
        wait_for(name)
        return path.normal(run_json(path.fio_command(options, depth, image, [
            "--ioengine=nbd", f"--uri=nbd+unix:///?socket={name}"])))
    finally:
        server.terminate()
        server.wait()


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
