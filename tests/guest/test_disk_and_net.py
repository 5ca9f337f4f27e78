# SPDX-License-Identifier: MIT
"""virtio-blk, virtio-net and the NAT under a real driver, with contents compared."""

import hashlib
import http.server
import os
import socket
import socketserver
import threading
import time

import pytest

from guestkit import rootfs


@pytest.mark.box
def test_files_survive_power_off(boot, disk, evisor_img, tmp_path):
    machine = boot("-nic", "none")
    machine.check("dd if=/dev/urandom of=/root/data bs=64k count=200 2>/dev/null")
    digest = machine.check("sha256sum /root/data").split()[0]
    machine.check("sync")
    machine.type("poweroff\n")
    assert machine.wait() == 0
    assert evisor_img("check", "-f", "qcow2", disk).returncode == 0
    evisor_img("convert", "-f", "qcow2", "-O", "raw", disk, tmp_path / "raw")
    assert hashlib.sha256(rootfs.read_file(tmp_path / "raw", "/root/data")).hexdigest() == digest


def test_synced_files_survive_sigkill(boot, disk, evisor_img, tmp_path):
    machine = boot("-nic", "none")
    machine.check("dd if=/dev/urandom of=/root/data bs=64k count=100 2>/dev/null; sync")
    digest = machine.check("sha256sum /root/data").split()[0]
    machine.type("dd if=/dev/zero of=/root/more bs=4k count=20000\n")
    machine._pump(0.3)
    machine.process.kill()
    machine.process.wait()
    # Clusters may leak when the power goes; that is 3, and nothing worse.
    assert evisor_img("check", "-f", "qcow2", disk, check=False).returncode in (0, 3)
    evisor_img("convert", "-f", "qcow2", "-O", "raw", disk, tmp_path / "raw")
    assert hashlib.sha256(rootfs.read_file(tmp_path / "raw", "/root/data")).hexdigest() == digest


@pytest.mark.box
@pytest.mark.parametrize("format_name", ["raw", "qcow2"])
def test_a_second_disk_with_a_thread_of_its_own(boot, tmp_path, evisor_img, format_name):
    path = tmp_path / "second"
    evisor_img("create", "-f", format_name, path, "256M")
    machine = boot("-nic", "none", "-object", "iothread,id=io0",
                   "-drive", f"file={path},format={format_name},if=none,id=second,discard=unmap",
                   "-device", "virtio-blk-pci,drive=second,addr=1c,serial=SECOND-DISK,iothread=io0")
    (thread,) = machine.qmp.execute("query-iothreads")
    assert thread["id"] == "io0"
    before = machine.ran_ns(thread)
    assert machine.check("cat /sys/block/vdb/serial") == "SECOND-DISK"
    assert machine.check("cat /sys/block/vdb/size") == str(256 * 2048)
    machine.check("dd if=/dev/urandom of=/tmp/r bs=1M count=20 2>/dev/null")
    machine.check("dd if=/tmp/r of=/dev/vdb bs=1M seek=100 conv=fsync 2>/dev/null")
    machine.check("echo 3 >/proc/sys/vm/drop_caches")
    machine.check("dd if=/dev/vdb bs=1M skip=100 count=20 2>/dev/null | cmp - /tmp/r", 120)
    # It has copied 40 MiB; while a loop is at home its thread rests.
    assert machine.ran_ns(thread) - before > 2_000_000
    used = path.stat().st_blocks * 512
    assert used >= 20 << 20
    machine.check("blkdiscard -o $((100 << 20)) -l $((20 << 20)) /dev/vdb")
    # Space goes back bit by bit, once a flush has made it durable that nothing points there.
    for _ in range(20):
        machine.check("dd if=/dev/zero of=/dev/vdb bs=4k count=1 conv=fsync 2>/dev/null")
        if path.stat().st_blocks * 512 < used - (18 << 20):
            break
        time.sleep(0.5)
    assert path.stat().st_blocks * 512 < used - (18 << 20)
    assert machine.check("dd if=/dev/vdb bs=1M skip=100 count=20 2>/dev/null | tr -d '\\0' | wc -c") == "0"


def test_a_read_only_disk(boot, tmp_path, evisor_img):
    path = tmp_path / "second"
    path.write_bytes(b"x" * 4096 + b"\0" * (1 << 20))
    machine = boot("-nic", "none", "-drive", f"file={path},format=raw,if=virtio,readonly=on")
    assert machine.check("cat /sys/block/vdb/ro") == "1"
    assert machine.check("head -c 4 /dev/vdb") == "xxxx"


def test_a_backing_file_is_read_and_kept(boot, start, initrd, disk, tmp_path, evisor_img):
    before = hashlib.sha256(disk.read_bytes()).hexdigest()
    overlay = tmp_path / "overlay.qcow2"
    evisor_img("create", "-f", "qcow2", "-b", disk, "-F", "qcow2", overlay)
    machine = start(initrd, "-drive", f"file={overlay},format=qcow2,if=virtio", "-nic", "none",
                    append="root=/dev/vda")
    machine.wait_shell()
    machine.check("echo overlay >/root/o; sync")
    machine.type("poweroff\n")
    assert machine.wait() == 0
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == before
    assert evisor_img("check", "-f", "qcow2", overlay).returncode == 0


@pytest.fixture
def web(tmp_path):
    """(port, SHA-256) of a file served on the host's loopback."""
    payload = os.urandom(8 << 20)
    (tmp_path / "payload").write_bytes(payload)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], hashlib.sha256(payload).hexdigest()
    server.shutdown()
    server.server_close()


@pytest.mark.box
def test_dhcp_and_http_through_the_nat(boot, web):
    port, digest = web
    machine = boot("-nic", "user,hostname=guest9,host-loopback=on")
    machine.check("udhcpc -n -q -i eth0")
    assert "10.0.2.15/24" in machine.check("ip addr show eth0")
    assert "nameserver 10.0.2.3" in machine.check("cat /etc/resolv.conf")
    machine.check("ping -c 1 -W 5 10.0.2.2")
    fetched = machine.check(f"wget -q -O - http://10.0.2.2:{port}/payload | sha256sum", 120)
    assert fetched.split()[0] == digest


def test_a_pause_loses_no_frame(boot, web):
    """What comes in while the guest stands still waits outside its memory."""
    port, digest = web
    machine = boot("-nic", "user,host-loopback=on")
    machine.check("udhcpc -n -q -i eth0")
    machine.type(f"for i in 1 2 3 4; do wget -q -O - http://10.0.2.2:{port}/payload; done"
                 " | sha256sum >/tmp/sums; echo all-''here\n")
    for _ in range(10):
        machine.qmp.execute("stop")
        time.sleep(0.05)
        machine.qmp.execute("cont")
        time.sleep(0.05)
    machine.expect("all-here")
    expected = machine.check(f"wget -q -O /tmp/one http://10.0.2.2:{port}/payload; "
                             "cat /tmp/one /tmp/one /tmp/one /tmp/one | sha256sum")
    assert machine.check("sha256sum /tmp/one").split()[0] == digest
    assert machine.check("cat /tmp/sums") == expected


def test_options_of_the_user_network(boot):
    machine = boot("-nic", "user,net=192.168.77.0/24,host=192.168.77.9,dhcpstart=192.168.77.40,"
                   "dns=192.168.77.8,mac=52:54:00:aa:bb:cc")
    machine.check("udhcpc -n -q -i eth0")
    assert "52:54:00:aa:bb:cc" in machine.check("ip link show eth0")
    assert "192.168.77.40/24" in machine.check("ip addr show eth0")
    assert "192.168.77.9" in machine.check("ip route")
    assert "192.168.77.8" in machine.check("cat /etc/resolv.conf")


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_forwards_tcp_and_udp(boot):
    tcp, udp = free_port(), free_port(socket.SOCK_DGRAM)
    machine = boot("-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{tcp}-:7777,hostfwd=udp::{udp}-:8888",
                   "-device", "virtio-net-pci,netdev=n0")
    machine.check("udhcpc -n -q -i eth0")
    machine.type("(echo from the guest | nc -l -p 7777) &\n")
    machine.check("until netstat -ltn | grep -q :7777; do sleep 0.1; done")
    with socket.create_connection(("127.0.0.1", tcp), 120) as client:
        assert client.makefile().readline() == "from the guest\n"
    # busybox has no UDP listener: the guest's own counter of datagrams without one tells.
    no_port = "awk '/^Udp: [0-9]/{print $3}' /proc/net/snmp"
    before = int(machine.check(no_port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(3):
            client.sendto(b"a datagram\n", ("127.0.0.1", udp))
    machine.check(f"until [ $({no_port}) -ge {before + 3} ]; do sleep 0.1; done")
    assert int(machine.check(no_port)) - before == 3


def test_the_hosts_loopback_is_shut_unless_asked_for(boot, web):
    port, _ = web
    machine = boot("-nic", "user")
    machine.check("udhcpc -n -q -i eth0")
    status, _ = machine.shell(f"wget -T 4 -q -O /dev/null http://10.0.2.2:{port}/payload")
    assert status != 0


def test_restrict_shuts_the_outside(boot, web):
    port, _ = web
    machine = boot("-nic", "user,restrict=on,host-loopback=on")
    machine.check("udhcpc -n -q -i eth0")
    status, _ = machine.shell(f"wget -T 4 -q -O /dev/null http://10.0.2.2:{port}/payload")
    assert status != 0


def test_upload_arrives_whole(boot):
    received = hashlib.sha256()
    done = threading.Event()

    class Sink(socketserver.BaseRequestHandler):
        def handle(self):
            while piece := self.request.recv(65536):
                received.update(piece)
            done.set()

    with socketserver.TCPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        machine = boot("-nic", "user,host-loopback=on")
        machine.check("udhcpc -n -q -i eth0")
        machine.check("dd if=/dev/urandom of=/tmp/u bs=1M count=10 2>/dev/null")
        digest = machine.check("sha256sum /tmp/u").split()[0]
        machine.check(f"nc 10.0.2.2 {server.server_address[1]} </tmp/u", 120)
        assert done.wait(120)
        server.shutdown()
    assert received.hexdigest() == digest
