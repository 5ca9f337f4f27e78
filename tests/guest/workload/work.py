# SPDX-License-Identifier: MIT
"""Big integers, floats, JSON, threads: what an interpreter does all day, and its digests."""

import hashlib
import json
import math
import threading
import zlib
from fractions import Fraction


def show(name, value):
    print(name, hashlib.sha256(repr(value).encode()).hexdigest(), flush=True)


def floats(count):
    x, found = 0.5, []
    for turn in range(count):
        x = 3.9 * x * (1 - x)
        found.append(math.sin(x) + math.exp(-x) * math.atan(turn) + math.fmod(turn, x + 0.1) +
                     math.ldexp(x, turn % 40 - 20) + float(f"{x:.12e}"))
    return found


def rounding():
    extremes = [5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1, 1 / 3, -0.0, 1e16 + 1]
    return [[a + b, a * b, a - b, a / b if b else None, round(a, 3), a.hex(), int(b)]
            for a in extremes for b in extremes]


def threads():
    digests = [None] * 4

    def work(number):
        data = bytes([number]) * 300000
        for _ in range(3):
            data = hashlib.sha512(data).digest() + data[64:]
        digests[number] = (zlib.crc32(data), zlib.adler32(data), hashlib.sha256(data).hexdigest())

    running = [threading.Thread(target=work, args=(number,)) for number in range(len(digests))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return digests


def main():
    show("python-int", [math.factorial(600), pow(3, 10 ** 30, 10 ** 40 + 7), 7 ** 3000 // 5 ** 900,
                        math.isqrt(10 ** 301), str(2 ** 5000)])
    show("python-float", floats(5000))
    show("python-rounding", rounding())
    show("python-fraction", sum((Fraction(1, n) for n in range(1, 300)), Fraction(0)))
    tree = {f"key{n}": [n / 7, {"text": chr(0x400 + n % 200) * 3, "none": None}] for n in range(1500)}
    text = json.dumps(tree, sort_keys=True)
    assert json.loads(text) == tree
    show("python-json", text)
    show("python-threads", threads())


main()
