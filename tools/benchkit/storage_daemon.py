# SPDX-License-Identifier: MIT
"""storage_daemon: QEMU's virtio-blk and block layer without QEMU's machine, over vhost-user."""

import pathlib
import shutil
import subprocess
import time

from guestkit import packages

PROGRAM = "qemu-storage-daemon"


def exists():
    return shutil.which(PROGRAM) is not None


def thread_cpu_ns(pid):
    """{thread id: nanoseconds on a CPU} of a process, kernel workers included."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            found[int(task.name)] = int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue  # it has ended
    return found


class StorageDaemon:
    """Serves one image on a socket while entered."""

    def __init__(self, image, options, folder):
        self.socket = folder / "vhost.sock"
        direct = "on" if options.direct else "off"
        queues = options.queues
        self.command = [
            PROGRAM, "--blockdev", f"driver=file,filename={image},node-name=file,aio=io_uring,"
            f"cache.direct={direct},discard=unmap", "--blockdev",
            f"driver={options.format},file=file,node-name=disk,cache.direct={direct}", "--export",
            f"type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues={queues},"
            f"addr.type=unix,addr.path={self.socket}"]
        self.process = None

    def __enter__(self):
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(400):
            if self.socket.exists():
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.025)
        self.__exit__()
        raise packages.Failure(f"{PROGRAM} does not serve: "
                               + self.process.stderr.read().decode(errors="replace").strip())

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def cpu_ns(self):
        """(of its loop, of all its other threads), so far."""
        threads = thread_cpu_ns(self.process.pid)
        loop = threads.pop(self.process.pid, 0)
        return loop, sum(threads.values())
