# SPDX-License-Identifier: MIT
"""machine: a running evisor: its console on pipes, its control socket, its end."""

import os
import pathlib
import re
import selectors
import shutil
import subprocess
import tempfile
import time

from . import qmp

PROMPT = "guest# "
PATIENCE_S = 180  # with a busy host; who is told of a failure at once does not wait


class Timeout(Exception):
    """The console did not show what was waited for; str() has its last lines."""


def kvm_is_native(program, kernel):
    """Does the host's KVM run guests natively? As evisor finds out: by timing, not by flags."""
    with Machine(program, ["-S", "-nic", "none", "-kernel", kernel]) as machine:
        return machine.qmp.execute("query-kvm")["enabled"]


class Machine:
    """
    Start with Machine(program, arguments); use as a context so that nothing is left behind. The
    program may be a list: what leads to evisor (nsenter), and evisor.
    """

    def __init__(self, program, arguments, echo=None, environment=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="evisor-test-"))
        self.socket = self.folder / "qmp"
        self.output = ""
        self._seen = 0
        self._commands = 0
        self._echo = echo
        self._qmp = None
        before = program if isinstance(program, list) else [program]
        command = [*map(str, before), "-qmp", f"unix:{self.socket},server=on,wait=off",
                   "-serial", "stdio", "-display", "none", *map(str, arguments)]
        self.command = command
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT,
                                        env={**os.environ, **(environment or {})})
        os.set_blocking(self.process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.process.stdout, selectors.EVENT_READ)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        self._selector.close()
        self.process.stdout.close()
        self.process.stdin.close()
        if self._qmp:
            self._qmp.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def qmp(self):
        if self._qmp is None:
            self._qmp = qmp.Client(self.socket)
        return self._qmp

    def ran_ns(self, iothread):
        """CPU time of a thread of evisor's, as query-iothreads tells of it."""
        task = pathlib.Path(f"/proc/{self.process.pid}/task/{iothread['thread-id']}")
        return int((task / "schedstat").read_text().split()[0])

    def _pump(self, timeout):
        """Reads what the console has; False once it is closed."""
        if not self._selector.select(timeout):
            return True
        piece = self.process.stdout.read()
        if piece is None:
            return True
        text = piece.decode(errors="replace").replace("\r", "")
        self.output += text
        if self._echo and text:
            self._echo(text)
        return bool(piece)

    def expect(self, pattern, timeout=PATIENCE_S):
        """Waits until the console, from where the last expect ended, matches; returns the match."""
        deadline = time.monotonic() + timeout
        while True:
            match = re.compile(pattern, re.MULTILINE).search(self.output, self._seen)
            if match:
                self._seen = match.end()
                return match
            left = deadline - time.monotonic()
            if left <= 0 or not self._pump(left):
                why = "was not seen in time" if left <= 0 else "was not seen before the end"
                raise Timeout(f"{pattern!r} {why}; the console's last lines:\n" +
                              "\n".join(self.output.splitlines()[-25:]))

    def forget(self):
        """What the console showed until now counts no more for expect."""
        self._pump(0)
        self._seen = len(self.output)

    def type(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def shell(self, command, timeout=PATIENCE_S):
        """Runs a command in the guest's shell: (exit status, its output)."""
        self._commands += 1
        self.type(f'{command}; echo "<{self._commands}:$?>"\n')
        start = self._seen
        match = self.expect(rf"<{self._commands}:(\d+)>\n", timeout)
        # The terminal and the shell's line editor may both have echoed what was typed.
        output = self.output[start:match.start()]
        return int(match.group(1)), output.split(f"<{self._commands}:$?>\"\n")[-1]

    def check(self, command, timeout=PATIENCE_S):
        """As shell, but a command that fails is an error; returns its output."""
        status, output = self.shell(command, timeout)
        if status:
            raise AssertionError(f"in the guest, {command!r} ended with {status}: {output}")
        return output.strip()

    def wait_shell(self, timeout=PATIENCE_S):
        self.expect(re.escape(PROMPT), timeout)

    def wait(self, timeout=PATIENCE_S):
        """Waits for evisor's end; returns its exit status."""
        deadline = time.monotonic() + timeout
        while self._pump(max(deadline - time.monotonic(), 0)):
            if time.monotonic() > deadline:
                raise Timeout("evisor did not end in time; the console's last lines:\n" +
                              "\n".join(self.output.splitlines()[-25:]))
        return self.process.wait(max(deadline - time.monotonic(), 1))
