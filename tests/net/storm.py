# SPDX-License-Identifier: MIT
"""
storm: many TCP connections at once, each of another kind, each byte of which is compared.

  storm.py serve PORT                    prints "ready", then what went wrong
  storm.py call ADDRESS PORT N SEED      N connections, a few dozen at a time; prints one line of JSON:
                                         how many were whole, how many broke off where they might,
                                         and what went wrong

A connection begins with its Order. Either side may break off where the order says so; then what came
must be a beginning of what was sent, and the end must be heard as an error, not as the end of the data.
"""

import asyncio
import dataclasses
import json
import random
import socket
import struct
import sys

PIECE = 1 << 16
PERIOD = 1000003
TEXT = random.Random(7).randbytes(PERIOD) * 2
AT_ONCE = 40
STATE_CLOSED = b"\x07"  # of TCP_INFO; after a FIN alone a socket is not there
PATIENCE_S = 90  # a connection that stands still for so long is wrong


def data(seed, at, size):
    """Bytes `at` and on of an endless text, not more than PIECE."""
    at = (seed + at) % PERIOD
    return TEXT[at:at + min(size, PIECE)]


@dataclasses.dataclass
class Order:
    """What either side sends, and where it breaks off (0: nowhere); who reads slowly."""

    seed: int
    down: int
    up: int
    server_breaks: int
    client_breaks: int
    server_waits: int  # ms between two reads
    client_waits: int
    FORMAT = "!7I"

    def packed(self):
        return struct.pack(self.FORMAT, *dataclasses.astuple(self))

    @classmethod
    def unpacked(cls, text):
        return cls(*struct.unpack(cls.FORMAT, text))


def make_order(dice):
    size = lambda most: int(most ** dice.random())  # noqa: E731 as many small as large ones
    order = Order(dice.randrange(1 << 30), size(3 << 20), size(3 << 20), 0, 0, 0, 0)
    kind = dice.randrange(10)
    if kind < 3:
        order.up = 0
    elif kind < 5:
        order.down = 0
    elif kind == 5:
        order.server_breaks = dice.randrange(1, 1 << 20)
    elif kind == 6:
        order.client_breaks = dice.randrange(1, 1 << 20)
    elif kind == 7:
        order.client_waits, order.down, order.up = 30, size(100000), 0
    elif kind == 8:
        order.server_waits, order.up, order.down = 10, size(1 << 20), 0
    return order


class End:
    """One end of a connection: sends and reads at once. OSError where it was broken off."""

    def __init__(self, sock, order, waits):
        self.sock, self.seed, self.waits = sock, order.seed, waits
        self.may_break = order.server_breaks or order.client_breaks
        self.has_sent = False  # then Linux may tell a reset as the end
        self.loop = asyncio.get_running_loop()
        self.taken = 0

    async def send(self, total, breaks):
        at = 0
        while at < total:
            piece = data(self.seed, at, total - at)
            await self.loop.sock_sendall(self.sock, piece)
            at += len(piece)
            if 0 < breaks <= at:
                self.break_off()
        self.sock.shutdown(socket.SHUT_WR)
        self.has_sent = True

    async def take(self, total):
        """Until the end, which must be where it was promised."""
        while piece := await self.loop.sock_recv(self.sock, PIECE):
            if piece != data(self.seed, self.taken, len(piece)):
                raise ValueError(f"wrong bytes near {self.taken}")
            self.taken += len(piece)
            await asyncio.sleep(self.waits / 1000)
        if self.taken != total:
            await asyncio.sleep(0.1)  # if send() was told of the reset, that counts
            if self.may_break and (self.has_sent or self.is_closed()):
                raise ConnectionResetError
            raise ValueError(f"{self.taken} of {total} bytes, then the end")

    def is_closed(self):
        return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == STATE_CLOSED

    def break_off(self):
        """By a reset, when the socket is closed."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise BrokenPipeError

    async def exchange(self, sends, breaks, takes):
        tasks = [asyncio.ensure_future(self.send(sends, breaks)),
                 asyncio.ensure_future(self.take(takes))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def answer(sock):
    """What was wrong, or None."""
    order, text = None, b""
    with sock:
        try:
            while missing := struct.calcsize(Order.FORMAT) - len(text):
                more = await asyncio.get_running_loop().sock_recv(sock, missing)
                if not more:
                    return f"{len(text)} bytes of an order"
                text += more
            order = Order.unpacked(text)
            end = End(sock, order, order.server_waits)
            await end.exchange(order.down, order.server_breaks, order.up)
        except OSError as error:
            if order and not (order.server_breaks or order.client_breaks):
                return f"{order}: {error}"
        except ValueError as error:
            return f"{order}: {error}"
    return None


async def serve(port):
    listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True,
                                    backlog=1024)
    listener.setblocking(False)
    print("ready", flush=True)
    tasks = set()

    async def tell(sock):
        wrong = await answer(sock)
        if wrong:
            print(wrong, flush=True)
    while True:
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        task = asyncio.ensure_future(tell(sock))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def call_one(address, port, order):
    """What was wrong, "" for a connection that was whole, None for one that broke off."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        if order.client_waits:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            await asyncio.get_running_loop().sock_sendall(sock, order.packed())
            end = End(sock, order, order.client_waits)
            await end.exchange(order.up, order.client_breaks, order.down)
            return ""
        except OSError as error:
            may_break = order.server_breaks or order.client_breaks
            return None if may_break else f"{order}: {error}"
        except ValueError as error:
            return f"{order}: {error}"


async def call(address, port, count, seed):
    dice = random.Random(seed)
    slots = asyncio.Semaphore(AT_ONCE)
    told = {"whole": 0, "broken": 0, "wrong": []}

    async def one(order):
        async with slots:
            try:
                wrong = await asyncio.wait_for(call_one(address, port, order), PATIENCE_S)
            except asyncio.TimeoutError:
                wrong = f"{order}: stands still"
        if wrong:
            told["wrong"].append(wrong)
        else:
            told["whole" if wrong == "" else "broken"] += 1
    await asyncio.gather(*(one(make_order(dice)) for _ in range(count)))
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "serve":
        asyncio.run(serve(int(words[0])))
    else:
        asyncio.run(call(words[0], *map(int, words[1:])))
