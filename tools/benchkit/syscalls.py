# SPDX-License-Identifier: MIT
"""
syscalls: how many system calls a run makes: by perf's tracepoint, or by strace where that is denied.

Both count every thread. The run is one of its own: strace slows what it watches down, which changes
the pace but hardly the number of calls for an operation.
"""

import functools
import re
import shutil
import subprocess
import tempfile

PERF = ["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter"]


@functools.lru_cache(maxsize=1)
def way():
    """"perf", "strace", or None: what this host permits."""
    if shutil.which("perf") and _perf(PERF + ["-o"], ["true"], None)[1] is not None:
        return "perf"
    if shutil.which("strace") and _strace(["true"], None)[1] is not None:
        return "strace"
    return None


def count(command, pid=None):
    """(output of the command, system calls of it, or of the process `pid` meanwhile), or None."""
    if way() == "perf":
        return _perf(PERF + (["-p", str(pid)] if pid else []) + ["-o"], command, pid)
    if way() == "strace":
        return _strace(command, pid)
    return None


def _run(command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)


def _perf(perf, command, _pid):
    with tempfile.NamedTemporaryFile("r", prefix="evisor-bench-") as report:
        done = _run([*perf, report.name, "--", *command])
        found = re.search(r"^(\d+),", report.read(), re.M)
    return done.stdout, int(found.group(1)) if found and done.returncode == 0 else None


def _total(text):
    found = re.search(r"^\s*(\d+)\s+(?:\d+\s+)?total", text, re.M)
    return int(found.group(1)) if found else None


def _strace(command, pid):
    with tempfile.NamedTemporaryFile("r", prefix="evisor-bench-") as report:
        strace = ["strace", "-f", "-q", "-c", "-U", "calls,errors,name", "-o", report.name]
        if not pid:
            done = _run([*strace, *command])
        else:
            with subprocess.Popen([*strace, "-p", str(pid)], stderr=subprocess.DEVNULL) as watcher:
                done = _run(command)
                watcher.send_signal(2)
        return done.stdout, _total(report.read()) if done.returncode == 0 else None
