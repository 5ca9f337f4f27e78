# SPDX-License-Identifier: MIT
"""peers: the machines that are compared, and the timing of one run of a program."""

import json
import os
import pathlib
import shutil
import subprocess
import time

from guestkit import packages

TOP = pathlib.Path(__file__).resolve().parents[2]
EVISOR = TOP / "build/evisor"
EVISOR_IMG = TOP / "build/evisor-img"
BENCH_PATH = TOP / "build/bench-path"
BARE_EXIT = TOP / "build/bare-exit"
MICROVM, Q35 = "QEMU microvm", "QEMU q35"


class Peer:
    def __init__(self, name, command):
        self.name, self.command = name, command


def machines(accel, with_qemu=True):
    """evisor and QEMU's two machines, each with one CPU, serial on standard output, no more."""
    qemu_accel = {"soft": "tcg"}.get(accel, accel)
    common = ["-m", "256", "-smp", "1", "-display", "none", "-serial", "stdio", "-no-reboot"]
    found = [Peer("evisor", [str(EVISOR), "-accel", accel, "-nic", "none", *common])]
    qemu = shutil.which("qemu-system-x86_64")
    if qemu and with_qemu:
        bare = ["-accel", qemu_accel, "-cpu", "max", "-nodefaults", "-no-user-config", *common]
        # Under TCG, Linux finds no timer on a microvm with ACPI: KVM's clock is not there.
        microvm = "microvm,x-option-roms=off,rtc=on,isa-serial=on"
        microvm += ",acpi=off" if qemu_accel == "tcg" else ""
        found.append(Peer(MICROVM, [qemu, "-M", microvm, *bare]))
        found.append(Peer(Q35, [qemu, "-M", "q35", *bare]))
    return found


def run_json(command):
    """What a program prints, as JSON; its failure is ours."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise packages.Failure(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout)


def start(command):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL)


def time_marks(command, marks, timeout=120):
    """Starts a command; seconds from its exec until each mark appears on its output, in order."""
    began = time.monotonic()
    process = start(command)
    seen, times = b"", []
    try:
        os.set_blocking(process.stdout.fileno(), False)
        while len(times) < len(marks) and time.monotonic() - began < timeout:
            piece = process.stdout.read()
            if piece == b"":
                break
            if not piece:
                time.sleep(0.0002)
                continue
            seen += piece
            while len(times) < len(marks) and marks[len(times)] in seen:
                seen = seen[seen.index(marks[len(times)]) + len(marks[len(times)]):]
                times.append(time.monotonic() - began)
    finally:
        process.kill()
        process.wait()
    return times if len(times) == len(marks) else None


def run_to_end(command, timeout=120):
    """(seconds from exec to the end, output), or None if it fails or does not end in time."""
    began = time.monotonic()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              timeout=timeout)
    except subprocess.TimeoutExpired:
        return None
    took = time.monotonic() - began
    return (took, done.stdout.decode(errors="replace")) if done.returncode == 0 else None
