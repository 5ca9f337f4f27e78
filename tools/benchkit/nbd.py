# SPDX-License-Identifier: MIT
"""nbd: the engine behind an NBD server, beside QEMU's, both driven by fio."""

import contextlib
import shutil
import socket
import subprocess
import time

from guestkit import packages

from . import path, storage_daemon, syscalls
from .peers import EVISOR_IMG, run_json


class Server:
    """One of both servers, as often as it is asked."""

    def __init__(self, name, program, options, depth, image, folder):
        self.name, self.socket = name, folder / "nbd.sock"
        direct = ["--cache=none"] if options.direct else []
        self.command = [*program, "-t", "-e", "4", "-k", str(self.socket), "-f", options.format,
                        *direct, str(image)]
        size = path.size_of(image) if options.format == "raw" else "100%"
        self.client = path.fio_command(options, depth, size, [
            ["--ioengine=nbd", f"--uri=nbd+unix:///?socket={self.socket}"]])

    @contextlib.contextmanager
    def serving(self):
        self.socket.unlink(missing_ok=True)
        server = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE)
        try:
            self.wait_for(server)
            yield server.pid
        finally:
            server.terminate()
            server.wait()
            server.stderr.close()

    def wait_for(self, server):
        for _ in range(400):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self.socket))
                return
            if server.poll() is not None:
                raise packages.Failure(server.stderr.read().decode(errors="replace").strip())
            time.sleep(0.025)
        raise packages.Failure(f"{self.command[0]}: nobody listens on {self.socket}")

    def run(self):
        """What fio saw, and the CPU time that the server took meanwhile."""
        with self.serving() as pid:
            before = server_cpu(pid)
            result = path.normal(run_json(self.client))
            parts = {kind: used - before[kind] for kind, used in server_cpu(pid).items()}
        return {**result, "cpu": sum(parts.values()), "parts": parts}

    def count(self):
        """The server's only: fio's are the same for both."""
        with self.serving() as pid:
            return syscalls.count(self.client, pid)


def server_cpu(pid):
    """{kind of thread: CPU seconds}"""
    threads = storage_daemon.thread_cpu_ns(pid)
    loop = threads.pop(pid, 0)
    return {"loop": loop / 1e9, "pool": sum(threads.values()) / 1e9}


def measure_nbd(options, folder):
    """The engine behind an NBD server, beside QEMU's, both driven by fio."""
    if not shutil.which("fio"):
        packages.install(["fio"], "the client of both servers")
    programs = {"evisor": [str(EVISOR_IMG), "serve"]}
    if path.wants(options, "qemu") and shutil.which("qemu-nbd"):
        programs["qemu-nbd"] = ["qemu-nbd"]
    elif options.vs != "none":
        print("qemu-nbd is not installed (package qemu-utils): it is left out")
    image = path.make_images(options, folder)[0]
    for depth in options.depth:
        yield from path.compare(options, depth, "NBD", [
            Server(name, program, options, depth, image, folder)
            for name, program in programs.items()])
