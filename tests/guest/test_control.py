# SPDX-License-Identifier: MIT
"""The control socket while a real guest runs."""

import json
import socket
import time

import pytest

from guestkit import qmp


@pytest.fixture
def machine(start, diskless):
    machine = start(diskless, "-nic", "user", "-name", "control")
    machine.expect("GUEST-INIT", 120)
    return machine


@pytest.mark.box
def test_pause_stops_the_guest_and_cont_goes_on(machine):
    client = machine.qmp
    machine.type("i=0; while true; do i=$((i+1)); echo tick $i; sleep 0.05; done\n")
    machine.expect(r"tick 3\n")
    client.execute("stop")
    assert [event["event"] for event in client.events] == ["STOP"]
    assert client.execute("query-status") == {"running": False, "singlestep": False,
                                              "status": "paused"}
    machine._pump(0.3)
    before = machine.output
    time.sleep(0.6)
    machine._pump(0.1)
    assert machine.output == before
    client.execute("cont")
    machine.expect(r"tick \d+\n")
    assert [event["event"] for event in client.events] == ["STOP", "RESUME"]


def test_many_pauses(machine):
    client = machine.qmp
    for _ in range(200):
        client.execute("stop")
        client.execute("cont")
    assert machine.check("echo alive") == "alive"
    looks_and_the_nmi_button(machine, client)


def looks_and_the_nmi_button(machine, client):
    """What a monitor shows of a running guest, which goes on; a kernel counts the NMIs that it gets."""
    def say(line):
        return client.execute("human-monitor-command", **{"command-line": line})

    client.events.clear()
    for _ in range(100):
        assert "CPU#0" in say("info registers")
    assert "GS =" in say("info registers -a") and "PG disabled" not in say("info mem")
    assert client.execute("query-status")["running"] and not client.events
    machine.check("mount -t proc proc /proc 2>/dev/null; true")
    counts = "awk '/NMI:/ {print $2}' /proc/interrupts"
    before = int(machine.check(counts))
    client.execute("inject-nmi")
    assert int(machine.check(counts)) == before + 1
    assert machine.check("echo alive") == "alive"


@pytest.mark.box
def test_powerdown_reaches_the_guest(boot):
    machine = boot("-nic", "none")
    machine.qmp.execute("system_powerdown")
    assert machine.qmp.wait_event("POWERDOWN")
    assert machine.qmp.wait_event("SHUTDOWN")["data"]["reason"] == "guest-shutdown"
    assert machine.wait() == 0


def test_several_clients_and_one_that_breaks_the_rules(machine):
    clients = [qmp.Client(machine.socket) for _ in range(3)]
    for client in clients:
        assert client.greeting["QMP"]["capabilities"] is not None
        assert client.execute("query-name") == {"name": "control"}
    rude = socket.socket(socket.AF_UNIX)
    rude.connect(str(machine.socket))
    rude.sendall(b"[" * 10000)
    clients[0].execute("stop")
    clients[1].wait_event("STOP")
    clients[2].wait_event("STOP")
    clients[1].execute("cont")
    clients[0].wait_event("RESUME")
    rude.close()
    for client in clients:
        client.close()
    assert machine.check("echo alive") == "alive"


def test_a_client_that_never_reads_is_dropped(machine):
    deaf = socket.socket(socket.AF_UNIX)
    deaf.connect(str(machine.socket))
    deaf.sendall(b'{"execute":"qmp_capabilities"}')
    deaf.settimeout(120)
    sent = 0
    with pytest.raises(ConnectionError):
        while sent < 200000:
            deaf.sendall(b'{"execute":"query-commands"}' * 50)
            sent += 50
    assert machine.qmp.execute("query-status")["running"] is True
    assert machine.check("echo alive") == "alive"


def test_token_stream_and_errors(machine):
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(str(machine.socket))
    stream = raw.makefile("r")
    assert "QMP" in json.loads(stream.readline())
    raw.sendall(b"{'execute':'qmp_capabilities'}{'execute':'query-status','id':[1,'x']}"
                b'{"execute":"nonsense","id":7}{"execute":"stop","arguments":{"now":true}}nonsense ')
    assert json.loads(stream.readline()) == {"return": {}}
    assert json.loads(stream.readline())["id"] == [1, "x"]
    reply = json.loads(stream.readline())
    assert reply["id"] == 7 and reply["error"]["class"] == "CommandNotFound"
    assert json.loads(stream.readline())["error"]["desc"] == "Parameter 'now' is unexpected"
    assert "error" in json.loads(stream.readline())
    raw.close()
    assert machine.qmp.execute("query-status")["running"] is True


def test_the_socket_answers_while_the_guest_is_busy(machine):
    machine.type("while true; do dd if=/dev/urandom of=/dev/null bs=1M count=8 2>/dev/null; done &\n")
    machine.type("while true; do echo 0123456789; done\n")
    for _ in range(20):
        assert machine.qmp.execute("query-status")["running"] is True
        machine._pump(0.02)


def test_stats_count_exits_and_queues(machine):
    machine.check("ip link set eth0 up")
    stats = machine.qmp.execute("query-stats", target="vm")
    counts = {one["name"]: one["value"]
              for group in stats if group["qom-path"] == "bus" for one in group["stats"]}
    assert counts["ioapic@fec00000"] > 100 and counts["serial@3f8"] > 100, counts
    assert counts["pci-ports@cf8"] > 100 and "none@mmio" in counts, counts
    assert "pio" in json.dumps(machine.qmp.execute("query-stats", target="vcpu"))


def test_quit_ends_with_status_0(machine):
    machine.qmp.execute("quit")
    assert machine.wait() == 0
