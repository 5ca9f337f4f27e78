# SPDX-License-Identifier: MIT
"""peers: the machines that are compared, and the timing of one run of a program."""

import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time

from guestkit import packages
from guestkit.machine import kvm_is_native

TOP = pathlib.Path(__file__).resolve().parents[2]
EVISOR = TOP / "build/evisor"
EVISOR_IMG = TOP / "build/evisor-img"
BENCH_PATH = TOP / "build/bench-path"
BARE_EXIT = TOP / "build/bare-exit"
MICROVM, Q35 = "QEMU microvm", "QEMU q35"
END_TIMEOUT = 10
BOOT_TIMEOUT = 120  # seconds, after which a boot did not get there
SECONDS_MAX = 3600  # of one run
PROGRAM_TIMEOUT = SECONDS_MAX + 900


class Peer:
    def __init__(self, name, command):
        self.name, self.command = name, command

    def to_boot(self, arguments):
        """Its command line for a kernel, told by evisor's options."""
        return [*self.command, *arguments]


def check_accel(accel):
    """The one line that says why this host cannot measure under `accel`, if it cannot."""
    if accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise packages.Failure("/dev/kvm is not there, or not yours to open: measure with --accel "
                               "soft, or under tools/kvm-box -- tools/evisor-bench ...")


def can_boot_stock_kernel(accel, kernel):
    """Says so in one line where it cannot."""
    # The box exists for this; how fast it seems depends on who else is busy.
    if accel != "kvm" or "EVISOR_IN_KVM_BOX" in os.environ or kvm_is_native(EVISOR, kernel.image):
        return True
    print("a stock kernel is left out: this host's KVM only emulates instructions, and none gets up "
          "on it; tools/kvm-box -- tools/evisor-bench ... has a KVM where it does")
    return False


class Lkvm(Peer):
    """kvmtool, which has words of its own; bzImages only."""

    def __init__(self):
        super().__init__("lkvm", ["lkvm", "run", "--cpus", "1", "--mem", "256", "--network",
                                  "mode=none", "--console", "serial"])

    def to_boot(self, arguments):
        known = {"-kernel": "--kernel", "-initrd": "--initrd", "-append": "--params"}
        return [*self.command, *(known.get(word, word) for word in arguments)]


def machines(accel, with_others=True):
    """evisor, QEMU's two machines, each with one CPU, serial on standard output, no more."""
    check_accel(accel)
    qemu_accel = {"soft": "tcg"}.get(accel, accel)
    common = ["-m", "256", "-smp", "1", "-display", "none", "-serial", "stdio", "-no-reboot"]
    found = [Peer("evisor", [str(EVISOR), "-accel", accel, "-nic", "none", *common])]
    qemu = shutil.which("qemu-system-x86_64")
    if qemu and with_others:
        bare = ["-accel", qemu_accel, "-cpu", "max", "-nodefaults", "-no-user-config", *common]
        # Under TCG, Linux finds no timer on a microvm with ACPI: KVM's clock is not there.
        microvm = "microvm,x-option-roms=off,rtc=on,isa-serial=on"
        microvm += ",acpi=off" if qemu_accel == "tcg" else ""
        found.append(Peer(MICROVM, [qemu, "-M", microvm, *bare]))
        found.append(Peer(Q35, [qemu, "-M", "q35", *bare]))
    return found


def json_in(output):
    """fio's engine for NBD has something to say before."""
    return json.loads(output[max(output.find("{"), 0):])


def run_program(command):
    """What a program prints; its failure is ours."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, timeout=PROGRAM_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise packages.Failure(f"{command[0]}: does not end: ended after {PROGRAM_TIMEOUT} s; the "
                               f"command was: {' '.join(command)}") from None
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"ended with status {done.returncode}"
        # Our own program says whose it is.
        raise packages.Failure(said.removeprefix("evisor-bench: ") if command[0] == str(BENCH_PATH)
                               else f"{command[0]}: {said}")
    return done.stdout


def run_json(command):
    return json_in(run_program(command))


@contextlib.contextmanager
def running(command):
    """The process, its output on a pipe; it does not outlive the block."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=said)
        try:
            yield process
        finally:
            has_failed = process.poll()
            process.kill()
            process.wait()
            process.stdout.close()
            if has_failed:
                print_end(command, said)


def print_end(command, said):
    """Why a program that was to run has ended: what it said last."""
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    print(lines[-1] if lines else f"{command[0]}: ended by itself, without a word")


def await_end(process, has_closed):
    """Whose output has come to its end, ends at once, and then tells how."""
    if has_closed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT)


def await_marks(process, marks, timeout=BOOT_TIMEOUT):
    """When each mark appeared on its output, in this order; None if one does not in time."""
    ends = time.monotonic() + timeout
    seen, times = b"", []
    while len(times) < len(marks):
        left = max(ends - time.monotonic(), 0)
        ready = select.select([process.stdout], [], [], left)[0]
        piece = ready and os.read(process.stdout.fileno(), 65536)
        if not piece:
            await_end(process, bool(ready))
            return None
        seen += piece
        while len(times) < len(marks) and marks[len(times)] in seen:
            seen = seen[seen.index(marks[len(times)]) + len(marks[len(times)]):]
            times.append(time.monotonic())
    return times


def time_marks(command, marks, timeout=BOOT_TIMEOUT):
    """Seconds from the exec of a command until each mark appears on its output, in order."""
    began = time.monotonic()
    with running(command) as process:
        times = await_marks(process, marks, timeout)
    return times and [one - began for one in times]


def run_to_end(command, timeout=BOOT_TIMEOUT):
    """(seconds from exec to the end, output), or None if it fails or does not end in time."""
    began = time.monotonic()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              timeout=timeout)
    except subprocess.TimeoutExpired:
        return None
    took = time.monotonic() - began
    return (took, done.stdout.decode(errors="replace")) if done.returncode == 0 else None
