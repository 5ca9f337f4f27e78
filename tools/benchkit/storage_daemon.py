# SPDX-License-Identifier: MIT
"""storage_daemon: QEMU's virtio-blk and block layer without QEMU's machine, over vhost-user."""

import pathlib
import shutil
import subprocess
import time

from guestkit import packages

PROGRAM = "qemu-storage-daemon"
END_TIMEOUT = 10  # seconds


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


def escaped(path):
    """As a value among others that commas part."""
    return str(path).replace(",", ",,")


class StorageDaemon:
    """Serves images, each on a socket, while entered; several have an I/O thread each."""

    def __init__(self, images, options, folder):
        self.sockets = [folder / f"vhost{index}.sock" for index in range(len(images))]
        self.command = [PROGRAM]
        for index, image in enumerate(images):
            self.command += self._export(index, image, options, len(images) > 1)
        self.process, self.loops = None, ()

    def _export(self, index, image, options, has_thread):
        direct = "on" if options.direct else "off"
        thread = ["--object", f"iothread,id=thread{index}"] if has_thread else []
        return [*thread, "--blockdev",
                f"driver=file,filename={escaped(image)},node-name=file{index},aio=io_uring,"
                f"cache.direct={direct},discard=unmap", "--blockdev",
                f"driver={options.format},file=file{index},node-name=disk{index},"
                f"cache.direct={direct}", "--export",
                f"type=vhost-user-blk,id=export{index},node-name=disk{index},writable=on,"
                f"num-queues={options.queues},addr.type=unix,addr.path={escaped(self.sockets[index])}"
                + (f",iothread=thread{index}" if has_thread else "")]

    def __enter__(self):
        for socket in self.sockets:
            socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(400):
            if all(socket.exists() for socket in self.sockets):
                # Those of its pool come with the first requests.
                self.loops = set(thread_cpu_ns(self.process.pid))
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.025)
        self.process.kill()
        said = self.process.communicate()[1].decode(errors="replace").strip()
        raise packages.Failure(f"{PROGRAM} does not serve: {said}")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()  # now and then one with several I/O threads hangs in its last loop
            self.process.wait()
        self.process.stderr.close()

    def cpu_ns(self):
        """(of its loops, of all its other threads), so far."""
        threads = thread_cpu_ns(self.process.pid)
        loops = sum(used for thread, used in threads.items() if thread in self.loops)
        return loops, sum(threads.values()) - loops
