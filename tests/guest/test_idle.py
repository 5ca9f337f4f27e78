# SPDX-License-Identifier: MIT
"""A halted guest costs nothing: with a disk, a NIC, an I/O thread and a control socket, no thread wakes."""

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
    (evisor,) = peers.machines("soft", with_others=False)
    command = machine.furnish(evisor, tmp_path)
    command += ["-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off", "-object", "iothread,id=io0",
                *machine.tiny_boot(tmp_path)]
    with peers.running(command) as process:
        assert peers.await_marks(process, [b"+"])  # the last it says; it halts then, interrupts off
        counts = []
        for _ in range(30):  # what start-up left behind may take a while
            before = wake_ups(process.pid)
            time.sleep(WINDOW)
            counts.append(wake_ups(process.pid) - before)
            if counts[-1] == 0:
                break
        assert counts[-1] == 0, counts
