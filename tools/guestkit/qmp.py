# SPDX-License-Identifier: MIT
"""qmp: a small client for the control socket."""

import json
import socket
import time


class Error(Exception):
    """A reply with "error": .kind is its class, str() its description."""

    def __init__(self, reply):
        super().__init__(reply["desc"])
        self.kind = reply["class"]


class Client:
    def __init__(self, path, timeout=120):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self._pending = b""
        self.events = []
        self.greeting = self._read()
        self.execute("qmp_capabilities")

    def _read(self):
        while b"\n" not in self._pending:
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionError("the control socket was closed")
            self._pending += piece
        line, self._pending = self._pending.split(b"\n", 1)
        return json.loads(line)

    def send(self, message):
        self._socket.sendall(json.dumps(message).encode())

    def execute(self, command, **arguments):
        """The command's "return"; events met on the way are kept in .events."""
        message = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        self.send(message)
        while True:
            reply = self._read()
            if "event" in reply:
                self.events.append(reply)
            elif "error" in reply:
                raise Error(reply["error"])
            else:
                return reply["return"]

    def wait_event(self, name, timeout=180):
        """The first event of that name, taken out of .events or waited for."""
        deadline = time.monotonic() + timeout
        while True:
            for event in self.events:
                if event["event"] == name:
                    self.events.remove(event)
                    return event
            self._socket.settimeout(max(deadline - time.monotonic(), 0.01))
            self.events.append(self._read())

    def close(self):
        self._socket.close()
