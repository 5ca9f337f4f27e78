# SPDX-License-Identifier: MIT
"""A machine whose guest is halted costs nothing: with a disk, a NIC and a control socket, no thread wakes."""

import os
import pathlib
import re
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tools"))
from benchkit import machine, peers  # noqa: E402

WINDOW = 2  # seconds without any wake-up


def wake_ups(pid):
    return sum(sum(map(int, re.findall(r"^voluntary_ctxt_switches:\s+(\d+)",
                                       (task / "status").read_text(), re.M)))
               for task in pathlib.Path(f"/proc/{pid}/task").iterdir())


def test_an_idle_machine_never_wakes(tmp_path):
    (evisor,) = peers.machines("soft", with_qemu=False)
    command = machine.furnish(evisor, tmp_path)
    # The guest says '#' and halts with interrupts off.
    command += ["-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off", *machine.tiny_boot(tmp_path)]
    process = peers.start(command)
    try:
        seen = b""
        while b"#" not in seen:
            piece = os.read(process.stdout.fileno(), 100)
            assert piece, "evisor ended early"
            seen += piece
        counts = []
        for _ in range(30):  # what start-up left behind may take a while
            before = wake_ups(process.pid)
            time.sleep(WINDOW)
            counts.append(wake_ups(process.pid) - before)
            if counts[-1] == 0:
                break
        assert counts[-1] == 0, counts
    finally:
        process.kill()
        process.wait()
