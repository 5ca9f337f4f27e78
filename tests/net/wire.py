# SPDX-License-Identifier: MIT
"""
wire: what tests run inside a namespace.

  wire.py capture INTERFACE FROM     checks every TCP frame from that address until SIGTERM: lengths
                                     and checksums; prints one line of JSON
  wire.py echo PORT                  answers on any number of connections
  wire.py datagram PORT              prints the first datagram that comes
  wire.py connect ADDRESS PORT N     opens N connections at once, then speaks on each; prints how many
                                     were answered rightly
"""

import asyncio
import json
import select
import signal
import socket
import struct
import sys


def ones_sum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def judge(frame, sender):
    """None if it is not a TCP frame of that sender, else (bytes, whether all checksums are right)."""
    if frame[12:14] == b"\x08\x00":
        header = (frame[14] & 15) * 4
        packet = frame[14:14 + int.from_bytes(frame[16:18], "big")]
        if packet[9] != 6 or socket.inet_ntoa(packet[12:16]) != sender:
            return None
        segment = packet[header:]
        good = ones_sum(packet[:header]) == 0xffff
        pseudo = packet[12:20] + struct.pack("!HH", 6, len(segment))
    elif frame[12:14] == b"\x86\xdd":
        packet = frame[14:54 + int.from_bytes(frame[18:20], "big")]
        if packet[6] != 6 or socket.inet_ntop(socket.AF_INET6, packet[8:24]) != sender:
            return None
        segment, good = packet[40:], True
        pseudo = packet[8:40] + struct.pack("!II", len(segment), 6)
    else:
        return None
    return len(packet) + 14, good and ones_sum(pseudo + segment) == 0xffff


def capture(interface, sender):
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    wire.bind((interface, 0))
    found = {"frames": 0, "wrong": 0, "largest": 0}

    def end(*_):
        wire.setblocking(False)  # what is queued still counts
    signal.signal(signal.SIGTERM, end)
    print("ready", flush=True)
    while True:
        # Wait for a frame, or for the signal, which may come between two calls.
        if not select.select([wire], [], [], 0.2)[0] and not wire.getblocking():
            break
        try:
            frame, address = wire.recvfrom(70000)
        except BlockingIOError:
            continue
        told = None if address[2] == socket.PACKET_OUTGOING else judge(frame, sender)
        if told:
            found["frames"] += 1
            found["wrong"] += not told[1]
            found["largest"] = max(found["largest"], told[0])
    print(json.dumps(found), flush=True)


def datagram(port):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", port))
    print("ready", flush=True)
    print(server.recv(2000).decode(), end="", flush=True)


async def echo(port):
    async def on_connection(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
    server = await asyncio.start_server(on_connection, None, port, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


async def connect(address, port, count):
    opening = [asyncio.open_connection(address, port) for _ in range(count)]
    opened = await asyncio.gather(*opening)

    async def talk(number, reader, writer):
        writer.write(f"line {number}\n".encode())
        return await reader.readline() == f"LINE {number}\n".encode()
    answers = await asyncio.gather(*(talk(number, *ends) for number, ends in enumerate(opened)))
    print(sum(answers), flush=True)


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "capture":
        capture(*words)
    elif what == "datagram":
        datagram(int(words[0]))
    elif what == "echo":
        asyncio.run(echo(int(words[0])))
    else:
        asyncio.run(connect(words[0], int(words[1]), int(words[2])))
