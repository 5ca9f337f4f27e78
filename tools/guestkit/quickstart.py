# SPDX-License-Identifier: MIT
"""quickstart: builds evisor and shows a stock Debian kernel at work in it, step by step."""

import argparse
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guestkit import packages, rootfs  # noqa: E402
from guestkit.kernel import Kernel  # noqa: E402
from guestkit.machine import Machine  # noqa: E402
from guestkit.packages import Failure  # noqa: E402

TOP = pathlib.Path(__file__).resolve().parents[2]
EVISOR = TOP / "build/evisor"
EVISOR_IMG = TOP / "build/evisor-img"
PAYLOAD_BYTES = 3 << 20


class Steps:
    """Numbers the steps and remembers the one under way, so that a failure can be named."""

    def __init__(self):
        self.number = 0
        self.name = "start"
        self.began = time.monotonic()

    def __call__(self, name):
        self.number += 1
        self.name = name
        print(f"\n==> {self.number}. {name}  [{time.monotonic() - self.began:.1f} s]", flush=True)


step = Steps()


def run(*command, quiet=False):
    """Runs a tool, shows its command line and output; a failure ends the quickstart."""
    words = [str(word) for word in command]
    print("    $ " + " ".join(words), flush=True)
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=TOP)
    text = (done.stdout + done.stderr).strip()
    if text and (not quiet or done.returncode):
        print("      " + text.replace("\n", "\n      "), flush=True)
    if done.returncode:
        raise Failure(f"'{words[0]}' ended with status {done.returncode}")
    return done.stdout


def build():
    step("configure and build")
    run("./configure")
    run("ninja", quiet=True)


def make_images(folder, kernel):
    step("make a root file system in a qcow2 image, and an initramfs")
    raw, disk, initrd = folder / "root.raw", folder / "root.qcow2", folder / "initrd"
    rootfs.make_raw(raw, 96)
    run(EVISOR_IMG, "convert", "-f", "raw", "-O", "qcow2", raw, disk)
    raw.unlink()
    run(EVISOR_IMG, "info", "-f", "qcow2", disk)
    rootfs.make_initramfs(kernel, initrd)
    return disk, initrd


def serve(folder):
    """An HTTP server on the host's loopback: (its port, the SHA-256 of the file it serves)."""
    payload = os.urandom(PAYLOAD_BYTES)
    (folder / "payload").write_bytes(payload)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1], hashlib.sha256(payload).hexdigest()


def arguments_for(kernel, disk, initrd):
    return ["-name", "quickstart", "-m", "512", "-smp", "2",
            "-kernel", kernel.image, "-initrd", initrd, "-append", "console=ttyS0 quiet root=/dev/vda",
            "-drive", f"file={disk},format=qcow2,if=virtio,discard=unmap",
            "-nic", "user,model=virtio-net-pci,host-loopback=on", "-device", "virtio-rng-pci", "-no-reboot"]


def echo(text):
    sys.stdout.write("      " + text.replace("\n", "\n      "))
    sys.stdout.flush()


def boot(kernel, disk, initrd):
    step("boot it: stock kernel, root=/dev/vda")
    machine = Machine(EVISOR, arguments_for(kernel, disk, initrd))
    print("    $ " + " ".join(machine.command), flush=True)
    machine.wait_shell(110)
    for line in machine.output.splitlines():
        if line.startswith("evisor:"):
            print("      " + line)
    took = time.monotonic() - machine.started
    print(f"      a shell in the guest after {took:.1f} s: {machine.check('uname -a')}")
    return machine


def guest_command(machine, command):
    print(f"    guest# {command}", flush=True)
    output = machine.check(command)
    if output:
        print("      " + output.replace("\n", "\n      "), flush=True)
    return output


def use_guest(machine, port, digest):
    step("in the guest: DHCP by the NAT, a file by HTTP from the host, its checksum, to the disk")
    guest_command(machine, "udhcpc -n -q -i eth0")
    guest_command(machine, f"wget -q -O /root/payload http://10.0.2.2:{port}/payload")
    fetched = guest_command(machine, "sha256sum /root/payload").split()[0]
    if fetched != digest:
        raise Failure(f"the guest fetched other bytes than were served: {fetched} for {digest}")
    guest_command(machine, "sha256sum /root/payload >/root/payload.sha256 && sync")


def qmp_command(machine, name):
    answer = machine.qmp.execute(name)
    print(f"    -> {{\"execute\": \"{name}\"}}\n    <- {json.dumps({'return': answer})}", flush=True)
    return answer


def use_socket(machine):
    step("over the control socket: query-status, stop, cont, system_powerdown")
    for name, status in (("query-status", "running"), ("stop", None), ("query-status", "paused"),
                         ("cont", None), ("query-status", "running")):
        answer = qmp_command(machine, name)
        if status and answer["status"] != status:
            raise Failure(f"the machine is {answer['status']}, not {status}")
    qmp_command(machine, "system_powerdown")
    print("    <- " + json.dumps(machine.qmp.wait_event("SHUTDOWN")), flush=True)
    status = machine.wait(60)
    if status:
        raise Failure(f"evisor ended with status {status}")


def check_image(folder, disk, digest):
    step("after power-off: check the image, read the file back out of it")
    run(EVISOR_IMG, "check", "-f", "qcow2", disk)
    if shutil.which("qemu-img"):
        run("qemu-img", "check", "-f", "qcow2", disk)
    raw = folder / "after.raw"
    run(EVISOR_IMG, "convert", "-f", "qcow2", "-O", "raw", disk, raw)
    content = rootfs.read_file(raw, "/root/payload")
    noted = rootfs.read_file(raw, "/root/payload.sha256").decode().split()[0]
    found = hashlib.sha256(content).hexdigest()
    print(f"      served   {digest}\n      in image {found}", flush=True)
    if not digest == noted == found:
        raise Failure("the file in the image is not the one that was served")


def show():
    with tempfile.TemporaryDirectory(prefix="evisor-quickstart-") as name:
        folder = pathlib.Path(name)
        step("fetch a stock Debian kernel (unpacked into a cache folder, not installed)")
        kernel = Kernel()
        print(f"      {kernel.image}")
        disk, initrd = make_images(folder, kernel)
        port, digest = serve(folder)
        with boot(kernel, disk, initrd) as machine:
            use_guest(machine, port, digest)
            use_socket(machine)
        check_image(folder, disk, digest)
    print(f"\n[{time.monotonic() - step.began:.1f} s]\nquickstart: ok")
    return 0


def shell():
    """The same guest, with the person's terminal as its console."""
    with tempfile.TemporaryDirectory(prefix="evisor-quickstart-") as name:
        kernel = Kernel()
        disk, initrd = make_images(pathlib.Path(name), kernel)
        print("\nA shell in the guest follows: `poweroff` or Ctrl-a x ends it, Ctrl-a h helps.\n"
              "`udhcpc -i eth0` brings up the network.\n", flush=True)
        command = [str(EVISOR), *map(str, arguments_for(kernel, disk, initrd)), "-nographic"]
        return subprocess.run(command, check=False).returncode


def main():
    parser = argparse.ArgumentParser(
        prog="tools/quickstart", description="Installs what is missing, builds evisor, boots a "
        "stock Debian kernel with it and shows it working.")
    parser.add_argument("--no-install", action="store_true",
                        help="only print the line that would install what is missing")
    parser.add_argument("--shell", action="store_true", help="a shell in the guest instead")
    options = parser.parse_args()
    wanted = packages.BUILD + packages.GUEST
    if options.no_install:
        lacking = packages.missing(wanted)
        print("apt-get install " + " ".join(lacking) if lacking else "nothing is missing")
        return 0
    step("install what is missing (Debian packages)")
    packages.install(wanted, "building evisor and its first guest")
    build()
    return shell() if options.shell else show()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # pylint: disable=broad-except
        print(f"quickstart: step {step.number} ({step.name}) failed: {error}", file=sys.stderr)
        sys.exit(1)
