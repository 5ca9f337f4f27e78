# SPDX-License-Identifier: MIT
"""evisor-img serve under the clients that people use, and under some that nobody should."""
import json
import os
import random
import signal
import socket
import struct

import pytest
from conftest import assert_clean, evisor_img, qemu_img, qemu_io, run
from nbd import needs_fio, needs_libnbd, nbd_map, serve, wait_until_unlocked

MIB = 1 << 20


def make(path, size="64M", form="qcow2", *options):
    assert qemu_img("create", "-q", "-f", form, *options, path, size).status == 0
    return path


def compare(first, form, second, other="raw"):
    result = qemu_img("compare", "-f", form, "-F", other, first, second)
    assert result.status == 0, result


@needs_libnbd
def test_what_a_client_sees(tmp_path):
    image = make(tmp_path / "a.qcow2")
    qemu_io(image, "write -P 7 1M 2M", options=("-f", "qcow2"))
    with serve(image, "-D", "a disk", name="disk") as server:
        export = json.loads(run("nbdinfo", "--json", server.uri).out)["exports"][0]
        assert export["export-name"] == "disk" and export["description"] == "a disk"
        assert export["export-size"] == 64 * MIB and "base:allocation" in export["contexts"]
        for can in ("can_flush", "can_fua", "can_trim", "can_zero", "can_cache", "can_df",
                    "can_multi_conn", "can_fast_zero"):
            assert export[can] is True, can
        assert export["is_read_only"] is False
        assert nbd_map(server.uri) == [(0, MIB, 3), (MIB, 2 * MIB, 0), (3 * MIB, 61 * MIB, 3)]
        listing = json.loads(run("nbdinfo", "--json", "--list", server.uri).out)
        assert [entry["export-name"] for entry in listing["exports"]] == ["disk"]
        assert run("nbdinfo", server.uri.replace("disk", "other")).status != 0
        assert server.stop() == 0
    assert not os.path.exists(server.path)


@needs_libnbd
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_copy_both_ways(tmp_path, form):
    source = make(tmp_path / "source.raw", "33M", "raw")
    qemu_io(source, "write -P 1 0 1M", "write -P 2 10M 3M", "write -P 3 32M 1M",
            options=("-f", "raw"))
    image = make(tmp_path / "image", "33M", form)
    with serve(image, "-f", form, "-e", "8") as server:
        assert run("nbdcopy", "--connections=4", source, server.uri).status == 0
        back = tmp_path / "back.raw"
        assert run("nbdcopy", server.uri, back).status == 0
        assert server.stop() == 0
    compare(source, "raw", back)
    compare(source, "raw", image, form)
    if form == "qcow2":
        assert_clean(image)


@needs_libnbd
def test_status_of_a_chain_while_it_is_written(tmp_path):
    base, image = tmp_path / "base.qcow2", tmp_path / "top.qcow2"
    make(base, "8M")
    qemu_io(base, "write -P 1 1M 1M", options=("-f", "qcow2"))
    make(image, "8M", "qcow2", "-b", str(base), "-F", "qcow2")
    with serve(image) as server:
        assert nbd_map(server.uri) == [(0, MIB, 3), (MIB, MIB, 0), (2 * MIB, 6 * MIB, 3)]
        qemu_io(server.uri, "write -P 2 3M 1M", "write -z 1M 512k", options=("-f", "raw"))
        assert nbd_map(server.uri) == [
            (0, 3 * MIB // 2, 3), (3 * MIB // 2, MIB // 2, 0), (2 * MIB, MIB, 3), (3 * MIB, MIB, 0),
            (4 * MIB, 4 * MIB, 3)]
        assert server.stop() == 0
    assert_clean(image)


@pytest.mark.parametrize("options", [(), ("--cache=none",), ("--detect-zeroes=unmap",),
                                     ("--aio=threads",)])
def test_random_operations(tmp_path, options):
    """The same operations through our server and on a raw file, of any alignment."""
    seed = 4711
    generator = random.Random(seed)
    image, mirror = make(tmp_path / "a.qcow2", "16M"), make(tmp_path / "mirror.raw", "16M", "raw")
    commands = []
    for _ in range(120):
        offset = generator.randrange(16 * MIB)
        length = min(generator.choice([1, 511, 512, 4096, 70001, 300000]), 16 * MIB - offset)
        kind = generator.choice(["write", "write", "zero", "zeroes", "fua", "flush"])
        if kind == "write":
            commands.append(f"write -P {generator.randrange(1, 256)} {offset} {length}")
        elif kind == "fua":
            commands.append(f"write -f -P {generator.randrange(1, 256)} {offset} {length}")
        elif kind == "zero":
            commands.append(f"write -z {offset} {length}")
        elif kind == "zeroes":
            commands.append(f"write -P 0 {offset} {length}")
        else:
            commands.append("flush")
    with serve(image, *options) as server:
        qemu_io(server.uri, *commands, options=("-f", "raw"))
        assert server.stop() == 0
    qemu_io(mirror, *commands, options=("-f", "raw"))
    compare(image, "qcow2", mirror)
    assert_clean(image)


@needs_fio
def test_fio_verifies(tmp_path):
    image = make(tmp_path / "a.qcow2", "32M")
    with serve(image, "-e", "4") as server:
        result = run("fio", "--name=job", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randrw",
                     "--bsrange=512-64k", "--size=16M", "--iodepth=32", "--verify=crc32c",
                     "--verify_backlog=256", "--output-format=json", cwd=tmp_path)
        assert result.status == 0, result
        job = json.loads(result.out[result.out.index("{"):])["jobs"][0]
        assert job["error"] == 0 and job["write"]["total_ios"] > 100
        assert server.stop() == 0
    assert_clean(image)


def test_killed_while_writing(tmp_path):
    image = make(tmp_path / "a.qcow2", "256M")
    with serve(image) as server:
        qemu_io(server.uri, "write -P 5 0 4M", "flush", options=("-f", "raw"))
        client = server.connect()
        go(client)
        for index in range(40):
            client.sendall(request(1, index, MIB * (8 + index), MIB) + b"x" * MIB)
        server.stop(signal.SIGKILL)
        client.close()
    os.unlink(server.path)
    wait_until_unlocked(image)
    for tool in (evisor_img, qemu_img):
        assert tool("check", "-f", "qcow2", image).status in (0, 3)  # leaks at worst
    qemu_io(image, "read -P 5 0 4M", options=("-f", "qcow2"))


def test_read_only(tmp_path):
    image = make(tmp_path / "a.qcow2", "1M")
    before = image.read_bytes()
    with serve(image, "-r") as server:
        result = run("qemu-io", "-f", "raw", "-c", "write 0 512", server.uri)
        assert "Operation not permitted" in result.out + result.err or result.status
        client = server.connect()
        assert go(client)[1] & 2
        client.sendall(request(1, 1, 0, 512) + b"x" * 512 + request(0, 2, 0, 512))
        assert reply(client)[:2] == (1, 1)  # refused, and its payload skipped
        assert reply(client)[:2] == (0, 2)
    assert image.read_bytes() == before


def test_read_only_where_need_be(tmp_path):
    image = make(tmp_path / "a.vdi", "2M", "vdi")
    qemu_io(image, "write -P 3 1M 64k", options=("-f", "vdi"))
    assert evisor_img("serve", "-k", tmp_path / "s", image).status == 1
    with serve(image, "--auto-read-only") as server:
        qemu_io(server.uri, "read -P 3 1M 64k", options=("-r", "-f", "raw"))
        client = server.connect()
        assert go(client)[1] & 2


@needs_libnbd
def test_temporary_writes(tmp_path):
    image = make(tmp_path / "a.qcow2", "1M")
    before = image.read_bytes()
    with serve(image, "-s") as server:
        qemu_io(server.uri, "write -P 9 4k 64k", "read -P 9 4k 64k", "read -P 0 0 4k",
                options=("-f", "raw"))
        assert server.stop() == 0
    assert image.read_bytes() == before


def test_an_internal_snapshot(tmp_path):
    image = make(tmp_path / "a.qcow2", "1M")
    qemu_io(image, "write -P 1 0 64k", options=("-f", "qcow2"))
    assert qemu_img("snapshot", "-c", "before", image).status == 0
    qemu_io(image, "write -P 2 0 64k", options=("-f", "qcow2"))
    with serve(image, "-l", "before") as server:
        qemu_io(server.uri, "read -P 1 0 64k", options=("-r", "-f", "raw"))


def test_ends_with_its_last_client(tmp_path):
    image, path = make(tmp_path / "a.raw", "1M", "raw"), tmp_path / "s"
    with serve(image, "-f", "raw") as server:
        assert qemu_io(server.uri, "read 0 512", options=("-r", "-f", "raw"))
        assert server.process.poll() is None  # -t
    result = run("sh", "-c", f"'{evisor_img.__globals__['EVISOR_IMG']}' serve --fork "
                 f"--pid-file {tmp_path}/pid -k {path} -f raw {image} && "
                 f"qemu-io -r -f raw -c 'read 0 512' 'nbd+unix:///?socket={path}'")
    assert result.status == 0 and "read 512/512" in result.out, result
    pid = int((tmp_path / "pid").read_text()) if (tmp_path / "pid").exists() else 0
    while pid and os.path.exists(f"/proc/{pid}"):
        pass
    assert not path.exists()


def test_what_is_refused(tmp_path):
    image = make(tmp_path / "a.raw", "1M", "raw")
    for words, text in ((("-c", "/dev/nbd0"), "nbd-client"), (("-b", "0.0.0.0"), "only this host"),
                        (("--tls-creds", "x"), "TLS"), (("-e", "1000"), "shared"),
                        (("-p", "70000"), "Port out of range"), (("-B", "x"), "'x' is not found"),
                        (("--cache", "x"), "cache"), (("--discard", "x"), "discard"),
                        (("-s", "-r"), "choose one")):
        result = evisor_img("serve", "-f", "raw", "-k", tmp_path / "s", *words, image) \
            if words[0] not in "-b-p" else evisor_img("serve", "-f", "raw", *words, image)
        assert result.status == 1 and text in result.err, (words, result)
        assert result.err.count("\n") == 1 and not (tmp_path / "s").exists()


# --- a client by hand ---

def request(command, handle, offset, length, flags=0):
    return struct.pack(">IHHQQI", 0x25609513, flags, command, handle, offset, length)


def receive(client, length):
    data = b""
    while len(data) < length:
        piece = client.recv(length - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def reply(client, length=0):
    magic, error, handle = struct.unpack(">IIQ", receive(client, 16))
    assert magic == 0x67446698
    return error, handle, receive(client, length if not error else 0)


def go(client, name=b""):
    """Old clients' way in: (size, flags)."""
    assert receive(client, 18)[:16] == b"NBDMAGICIHAVEOPT"
    client.sendall(struct.pack(">IQII", 3, 0x49484156454F5054, 1, len(name)) + name)
    return struct.unpack(">QH", receive(client, 10))


def test_clients_do_not_hold_each_other_up(tmp_path):
    image = make(tmp_path / "a.raw", "64M", "raw")
    with serve(image, "-f", "raw", "-e", "8") as server:
        silent = server.connect()  # says nothing at all
        greedy = server.connect()
        go(greedy)
        greedy.setblocking(False)
        try:  # asks for more than it ever reads
            for index in range(10000):
                greedy.sendall(request(0, index, 0, 32 * MIB))
        except BlockingIOError:
            pass
        half = server.connect()
        go(half)
        half.sendall(request(1, 1, 0, MIB) + b"y" * 1000)  # the rest never comes
        polite = server.connect()
        go(polite)
        polite.sendall(request(0, 7, 0, 512))
        assert reply(polite, 512) == (0, 7, bytes(512))
        status = open(f"/proc/{server.process.pid}/status", encoding="ascii").read()
        resident = int(status.split("VmRSS:")[1].split()[0])
        assert resident < 200 * 1024
        for client in (silent, greedy, half):
            client.close()
        polite.sendall(request(0, 8, 0, 512))
        assert reply(polite, 512) == (0, 8, bytes(512))  # what was half sent was not written
        assert server.stop() == 0


def test_bad_messages(tmp_path):
    image = make(tmp_path / "a.raw", "1M", "raw")
    with serve(image, "-f", "raw", "-e", "0") as server:
        client = server.connect()
        go(client)
        for command, offset, length, flags, error in (
                (0, MIB, 1, 0, 22), (1, MIB, 1, 0, 28), (0, 2**64 - 1, 2, 0, 22), (99, 0, 0, 0, 22),
                (0, 0, 2**32 - 1, 0, 22), (3, 0, 0, 1 << 9, 22), (7, 0, 512, 0, 22), (0, 0, 0, 0, 0),
                (6, 0, 512, 16, 95), (4, 0, MIB + 1, 0, 22)):
            payload = b"z" * length if command == 1 else b""
            client.sendall(request(command, 5, offset, length, flags) + payload)
            assert reply(client)[:2] == (error, 5), (command, offset, length)
        client.sendall(b"\0" * 28)
        with pytest.raises((EOFError, ConnectionError)):
            receive(client, 1)
        other = server.connect()
        receive(other, 18)
        other.sendall(b"\xff\xff\xff\xff")
        with pytest.raises((EOFError, ConnectionError, socket.timeout)):
            receive(other, 1)
        assert server.stop() == 0
