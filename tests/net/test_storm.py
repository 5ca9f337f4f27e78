# SPDX-License-Identifier: MIT
"""Every byte of many TCP connections through the user network, however they end."""

import json
import pathlib
import subprocess
import sys

import pytest

from conftest import HOST, OUTSIDE, OUTSIDE6, wait_for

STORM = pathlib.Path(__file__).with_name("storm.py")
PORT = "7000"


def serve(space):
    server = space.start([sys.executable, STORM, "serve", PORT], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    return server


def start_calls(space, address, count, seed):
    return space.start([sys.executable, STORM, "call", address, PORT, count, seed],
                       stdout=subprocess.PIPE, text=True)


def lose_frames(space, percent):
    space.run("nft add table inet lossy")
    for way in ("input", "output"):
        space.run(["nft", f"add chain inet lossy {way} {{ type filter hook {way} priority 0 ; }}"])
        space.run(["nft", f"add rule inet lossy {way} meta length gt 100 numgen random mod 100 "
                   f"lt {percent} drop"])


def check_calls(calls, *servers):
    for call in calls:
        told = json.loads(call.communicate(timeout=300)[0])
        assert not told["wrong"], "\n".join(told["wrong"])
        assert told["whole"] and told["broken"]
    for server in servers:
        server.terminate()
        assert server.stdout.read() == ""


@pytest.mark.parametrize("kind", ("offloads", "plain", "lossy"))
def test_every_byte_and_every_end(world, kind):
    """Downloads, uploads and both at once, out and in by a forward, of which some break off."""
    guest = world.lab.guest("guest", world.host, f"user,hostfwd=tcp:0.0.0.0:{PORT}-:{PORT}",
                            plain=kind == "plain", limit=4096)
    guest.dhcp()
    wait_for(lambda: "fec0:" in guest.space.run("ip -6 address show dev eth0 -tentative"),
             "an IPv6 address by slirp's router advertisement")
    if kind == "lossy":
        lose_frames(guest.space, 1)
    servers = serve(world.outside), serve(guest.space)
    counts = (30, 30, 20) if kind == "lossy" else (60, 40, 40)
    check_calls([start_calls(guest.space, OUTSIDE, counts[0], 1),
                 start_calls(guest.space, OUTSIDE6, counts[1], 2),
                 start_calls(world.outside, HOST, counts[2], 3)], *servers)
