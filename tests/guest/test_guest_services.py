# SPDX-License-Identifier: MIT
"""Balloon, memory devices, virtio ports and Debian's guest agent in a stock guest: one boot."""

import hashlib
import json
import pathlib
import re
import socket
import subprocess
import time

import pytest

from guestkit import packages, qmp as protocol, rootfs
from guestkit.kernel import QUICK

MIB = 1 << 20
PATTERN_MD5 = hashlib.md5(b"0123456789abcdef\n" * 1024 * 64 * 240).hexdigest()
MODULES = rootfs.MODULES + ["virtio_balloon", "virtio_console", "virtio_mem"]


def libraries(program):
    """The shared libraries of a program, from this Debian, by their paths."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return [pathlib.Path(path) for path in re.findall(r"(/\S+) \(0x", listing)]


@pytest.fixture(scope="module")
def agent_initrd(kernel, tmp_path_factory):
    """The diskless initramfs with Debian's qemu-guest-agent in it."""
    packages.install(["libglib2.0-0", "libpcre2-8-0", "libudev1", "libnuma1", "liburing2"],
                     "the libraries of the guest agent")
    program = packages.unpack("qemu-guest-agent") / "usr/sbin/qemu-ga"
    extra = {"usr/sbin/qemu-ga": program.read_bytes()}
    for path in libraries(program):
        extra[str(path).lstrip("/")] = path.read_bytes()
    path = tmp_path_factory.mktemp("agent") / "initrd"
    rootfs.make_initramfs(kernel, path, rootfs.DISKLESS_INIT, MODULES, extra)
    return path


class Agent:
    """The host's end of org.qemu.guest_agent.0."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.stream = self.socket.makefile("r")

    def ask(self, command, **arguments):
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(self.stream.readline())


def wait_for(condition, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.1)


def read_kib(machine, name):
    return int(machine.check(f"sed -n 's/^{name}: *//p' /proc/meminfo").split()[0])


def resident_kib(machine):
    """
    What the guest's memory takes from the host: the mappings of its sizes, 256 MiB and 1 GiB. The
    lowest 2 MiB may be a mapping of their own.
    """
    maps = pathlib.Path(f"/proc/{machine.process.pid}/smaps").read_text()
    parts = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", maps)
    return sum(int(re.search(r"Rss: +(\d+)", part).group(1))
               for part in parts if re.search(r"^Size: +(260096|262144|1048576) kB$", part, re.M))


@pytest.fixture(scope="module")
def machine(evisor, accel, kernel, agent_initrd, tmp_path_factory):
    from guestkit.machine import Machine
    folder = tmp_path_factory.mktemp("services")
    arguments = [
        "-kernel", kernel.image, "-initrd", agent_initrd, "-m", "256,maxmem=2G",
        "-append", f"console=ttyS0 quiet panic=-1 memhp_default_state=online_movable {QUICK}",
        "-nic", "user",
        "-device", "virtio-balloon-pci,id=balloon0,deflate-on-oom=on,free-page-reporting=on",
        "-object", "memory-backend-ram,id=mem0,size=1G",
        "-device", "virtio-mem-pci,id=vmem0,memdev=mem0",
        "-device", "virtserialport,chardev=qga0,name=org.qemu.guest_agent.0,id=port0",
        "-chardev", f"socket,path={folder}/qga,server=on,wait=off,id=qga0",
        "-device", "virtio-serial-pci,id=serial0",
        "-chardev", f"socket,path={folder}/hvc,server=on,wait=off,id=hvc0",
        "-device", "virtconsole,chardev=hvc0,id=con0"]
    with Machine(evisor, [*accel, *arguments]) as running:
        running.folder_of_sockets = folder
        running.expect("GUEST-INIT", 120)
        running.qmp.execute("query-status")
        yield running


def test_the_agent_answers_through_a_named_port(machine):
    client = machine.qmp
    machine.check("ls /sys/class/virtio-ports")
    assert machine.check("cat /sys/class/virtio-ports/vport*p1/name") == "org.qemu.guest_agent.0"
    machine.check("ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0")
    agent = Agent(machine.folder_of_sockets / "qga")
    machine.check("mkdir -p /run /var/run; P=$(echo /dev/vport*p1); "
                  "qemu-ga -m virtio-serial -p $P -d -l /tmp/qga.log -f /run/qga.pid -t /run")
    event = client.wait_event("VSERPORT_CHANGE", 60)
    assert event["data"] == {"id": "port0", "open": True}
    assert agent.ask("guest-ping") == {"return": {}}
    assert agent.ask("guest-sync", id=4711) == {"return": 4711}
    interfaces = agent.ask("guest-network-get-interfaces")["return"]
    eth0 = next(entry for entry in interfaces if entry["name"] == "eth0")
    assert eth0["hardware-address"] == "52:54:00:12:34:56"
    assert "10.0.2.15" in [entry["ip-address"] for entry in eth0["ip-addresses"]]
    labels = {entry["label"]: entry for entry in client.execute("query-chardev")}
    assert labels["qga0"]["frontend-open"] is True
    machine.check("kill $(cat /run/qga.pid)")
    assert client.wait_event("VSERPORT_CHANGE", 60)["data"] == {"id": "port0", "open": False}


def test_a_virtconsole_is_a_terminal(machine):
    console = socket.socket(socket.AF_UNIX)
    console.settimeout(60)
    console.connect(str(machine.folder_of_sockets / "hvc"))
    # The terminal forgets its settings when nobody has it open.
    machine.check("( (stty raw -echo; echo ready; head -c 5 >/tmp/heard; echo done-$(cat /tmp/heard); "
                  "dd if=/dev/zero bs=4096 count=64 2>/dev/null | tr '\\0' x) "
                  "<>/dev/hvc0 >&0 2>/dev/null & )")
    heard = b""
    while b"ready" not in heard:
        heard += console.recv(100)
    console.sendall(b"hello")
    heard = b""
    while b"done-hello" not in heard:
        heard += console.recv(100)
    # Much in one go.
    total = heard.split(b"done-hello")[1].count(b"x")
    while total < 64 * 4096:
        piece = console.recv(65536)
        assert piece
        total += piece.count(b"x")
    assert total == 64 * 4096
    # The window at the other end is the guest's window, of a terminal that is open.
    machine.check("sleep 1000 </dev/hvc0 & echo $! >/tmp/holder")
    for cols, rows in ((123, 45), (80, 24)):
        machine.qmp.execute("chardev-resize", id="hvc0", cols=cols, rows=rows)
        machine.check(f"for i in $(seq 100); do [ \"$(stty -F /dev/hvc0 size)\" = '{rows} {cols}' ] && "
                      "break; sleep 0.1; done; [ $i -lt 100 ]")
    machine.check("kill $(cat /tmp/holder)")


def test_the_balloon_takes_memory_and_gives_it_back(machine):
    client = machine.qmp
    assert client.execute("query-balloon") == {"actual": 256 * MIB}
    # The guest touches memory and frees it; then the host has it no more.
    machine.check("mount -t tmpfs none /mnt; dd if=/dev/zero of=/mnt/x bs=1M count=64 2>/dev/null")
    touched = resident_kib(machine)
    machine.check("rm /mnt/x")
    wait_for(lambda: resident_kib(machine) < touched - 32 * 1024, "free page reporting")
    before = read_kib(machine, "MemFree")
    client.execute("balloon", value=160 * MIB)
    wait_for(lambda: client.execute("query-balloon")["actual"] == 160 * MIB, "inflation")
    assert client.wait_event("BALLOON_CHANGE", 60)["data"]["actual"] < 256 * MIB
    assert read_kib(machine, "MemFree") <= before - 80 * 1024
    path = "/machine/peripheral/balloon0"
    client.execute("qom-set", path=path, property="guest-stats-polling-interval", value=1)
    wait_for(lambda: client.execute("qom-get", path=path, property="guest-stats")["last-update"],
             "statistics")
    stats = client.execute("qom-get", path=path, property="guest-stats")["stats"]
    assert 0 < stats["stat-free-memory"] < stats["stat-total-memory"] < 256 * MIB
    client.execute("balloon", value=256 * MIB)
    wait_for(lambda: client.execute("query-balloon")["actual"] == 256 * MIB, "deflation")
    wait_for(lambda: read_kib(machine, "MemFree") >= before - 10 * 1024, "free memory again")


def test_the_balloon_deflates_when_the_guest_runs_out_of_memory(machine):
    client = machine.qmp
    client.execute("balloon", value=110 * MIB)
    wait_for(lambda: client.execute("query-balloon")["actual"] <= 130 * MIB, "inflation")
    # More than is left outside the balloon.
    machine.check("mount -o remount,size=200m /mnt; dd if=/dev/zero of=/mnt/y bs=1M count=110 2>/dev/null", 120)
    assert client.execute("query-balloon")["actual"] > 130 * MIB
    machine.check("rm /mnt/y")
    client.execute("balloon", value=256 * MIB)
    wait_for(lambda: client.execute("query-balloon")["actual"] == 256 * MIB, "deflation")


def test_memory_grows_and_shrinks(machine):
    client = machine.qmp
    before = read_kib(machine, "MemTotal")
    path = "/machine/peripheral/vmem0"

    def plugged():
        return client.execute("query-memory-devices")[0]["data"]["size"]

    assert plugged() == 0
    client.execute("qom-set", path=path, property="requested-size", value=512 * MIB)
    wait_for(lambda: plugged() == 512 * MIB, "512 MiB more")
    wait_for(lambda: read_kib(machine, "MemTotal") >= before + 500 * 1024, "memory comes online")
    assert client.wait_event("MEMORY_DEVICE_SIZE_CHANGE", 60)["data"]["id"] == "vmem0"
    assert client.execute("query-memory-size-summary")["plugged-memory"] == 512 * MIB
    # It holds what is written: more than the memory the guest began with.
    machine.check("mount -o remount,size=500m /mnt; cd /mnt; yes 0123456789abcdef | head -c 17408 >a; "
                  "for i in 1 2 3 4 5 6; do cat a a >b; mv b a; done; "  # 1088 KiB
                  "i=0; while [ $i -lt 240 ]; do cat a; i=$((i+1)); done >all; cd /", 120)
    assert machine.check("md5sum </mnt/all", 240).split()[0] == PATTERN_MD5
    used = resident_kib(machine)
    machine.check("rm /mnt/a*")
    client.execute("qom-set", path=path, property="requested-size", value=0)
    wait_for(lambda: plugged() == 0, "all of it given back", 240)
    assert read_kib(machine, "MemTotal") <= before + 1024
    wait_for(lambda: resident_kib(machine) < used - 200 * 1024, "the host has it again")


def test_a_reset_leaves_ports_and_memory_as_at_the_start(machine):
    client = machine.qmp
    client.execute("qom-set", path="vmem0", property="requested-size", value=128 * MIB)
    wait_for(lambda: client.execute("query-memory-devices")[0]["data"]["size"] == 128 * MIB, "more")
    client.execute("balloon", value=200 * MIB)
    wait_for(lambda: client.execute("query-balloon")["actual"] == 200 * MIB, "inflation")
    machine.forget()
    client.execute("system_reset")
    machine.expect("GUEST-INIT", 120)
    wait_for(lambda: client.execute("query-balloon")["actual"] == 200 * MIB, "inflation again")
    wait_for(lambda: client.execute("query-memory-devices")[0]["data"]["size"] == 128 * MIB,
             "memory again")


def wait_deleted(client, name):
    while client.wait_event("DEVICE_DELETED", 120)["data"].get("device") != name:
        pass


def test_memory_comes_with_its_device(machine):
    client = machine.qmp

    def plugged():
        return client.execute("query-memory-devices")[1]["data"]["size"]

    before = read_kib(machine, "MemTotal")
    client.execute("object-add", **{"qom-type": "memory-backend-ram", "id": "mem1",
                                    "size": 512 * MIB})
    client.execute("device_add", driver="virtio-mem-pci", id="vmem1", memdev="mem1",
                   **{"requested-size": 256 * MIB})
    wait_for(lambda: plugged() == 256 * MIB, "256 MiB of a new device")
    wait_for(lambda: read_kib(machine, "MemTotal") >= before + 250 * 1024, "it comes online")
    with pytest.raises(protocol.Error, match="cannot be unplugged"):
        client.execute("device_del", id="vmem1")
    client.execute("qom-set", path="vmem1", property="requested-size", value=0)
    wait_for(lambda: plugged() == 0, "all of it given back", 240)


def test_ports_and_balloon_come_and_go(machine):
    client = machine.qmp
    client.execute("chardev-add", id="hot0",
                   backend={"type": "ringbuf", "data": {"size": 4096}})
    client.execute("device_add", driver="virtio-serial-pci", id="serial1")
    for cycle in range(2):
        client.execute("device_add", driver="virtserialport", id="hot", bus="serial1.0",
                       chardev="hot0", name="org.hot.0")
        wait_for(lambda: machine.shell("grep -q org.hot.0 /sys/class/virtio-ports/*/name")[0] == 0,
                 "a port of that name")
        machine.check("P=$(grep -l org.hot.0 /sys/class/virtio-ports/*/name); P=${P%/name}; "
                      f"echo said {cycle} >/dev/${{P##*/}}")
        wait_for(lambda: client.execute("ringbuf-read", device="hot0", size=99) ==
                 f"said {cycle}\n", "what the guest said")
        if cycle == 0:
            client.execute("device_del", id="hot")
            wait_deleted(client, "hot")
            wait_for(lambda: machine.shell(
                "grep -q org.hot.0 /sys/class/virtio-ports/*/name")[0] == 1, "no such port")
    client.execute("device_del", id="serial1")
    wait_deleted(client, "hot")  # goes with its bus
    wait_deleted(client, "serial1")
    client.execute("chardev-remove", id="hot0")
    client.execute("device_del", id="balloon0")
    wait_deleted(client, "balloon0")
    with pytest.raises(protocol.Error, match="No balloon device"):
        client.execute("query-balloon")
    client.execute("device_add", driver="virtio-balloon-pci", id="balloon1")
    with pytest.raises(protocol.Error, match="Only one balloon"):
        client.execute("device_add", driver="virtio-balloon-pci")
    client.execute("balloon", value=220 * MIB)
    wait_for(lambda: client.execute("query-balloon")["actual"] == 220 * MIB, "inflation")
