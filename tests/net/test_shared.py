# SPDX-License-Identifier: MIT
"""Networks that machines share without root: what happens to the others when one of them is killed."""

import subprocess
import sys

from conftest import OUTSIDE
from test_traffic import start_wire

CLIENT = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 7000), 60)
for line in sys.stdin:
    peer.sendall(line.encode())
    print(peer.makefile().readline(), end="", flush=True)
"""


class Conversation:
    """One TCP connection from `space` to the echo outside, a line at a time."""

    def __init__(self, space):
        self.process = space.start([sys.executable, "-c", CLIENT, OUTSIDE], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)

    def says(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == word.upper() + "\n"


def test_a_killed_machine_takes_nothing_from_the_others(world):
    nic = f"nat,folder={world.folder}/net"
    first, second, third = (world.lab.guest(name, world.host, nic) for name in "abc")
    leases = [guest.dhcp() for guest in (first, second, third)]
    assert [lease["ip"] for lease in leases] == ["10.0.2.15", "10.0.2.16", "10.0.2.17"]
    assert {lease["router"] for lease in leases} == {"10.0.2.2"}
    start_wire(world.outside, "echo", "7000")
    before = Conversation(second.space)
    assert before.says("before")
    assert second.space.reaches("10.0.2.15", 20) and second.space.reaches("10.0.2.17", 20)
    first.process.kill()
    first.process.wait(60)
    assert before.says("after")
    assert Conversation(third.space).says("new")
    assert second.space.reaches("10.0.2.17", 20)
    assert not second.space.reaches("10.0.2.15", 1)
    fourth = world.lab.guest("d", world.host, nic)
    assert fourth.dhcp()["ip"] not in ("10.0.2.16", "10.0.2.17")
    assert fourth.space.reaches("10.0.2.16", 20)
