#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""seeds.py qcow2|foreign FOLDER: the first inputs of the disk fuzzers, made by evisor-img and, where
there is one, qemu-img: small images in the encoding of fuzz_disk.h."""

import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile

BUILD = pathlib.Path(os.environ.get("EVISOR_BUILD", pathlib.Path(__file__).parents[2] / "build"))
SECTOR, SECTORS_MAX, OP_COUNT = 512, 16384, 8
FORMATS = ["vdi", "vmdk", "vpc", "vhdx"]


def encode(kind, image, operations):
    sectors = min(-(-len(image) // SECTOR), SECTORS_MAX)
    image = image.ljust(sectors * SECTOR, b"\0")[:sectors * SECTOR]
    pieces, first = [], 0
    while first < sectors:
        count = 0
        while (first + count < sectors and count < 255 and
               any(image[(first + count) * SECTOR:(first + count + 1) * SECTOR])):
            count += 1
        if count:
            pieces.append(struct.pack("<HB", first, count) +
                          image[first * SECTOR:(first + count) * SECTOR])
        first += max(count, 1)
    return (struct.pack("<BHB", kind, sectors, len(operations)) + b"".join(operations) +
            b"".join(pieces))


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True,
                          check=False).returncode == 0


def contents(chance, size):
    """Mostly empty, so that the seeds stay small."""
    disk = bytearray(size)
    for _ in range(3):
        at = chance.randrange(size // 4096) * 4096
        disk[at:at + 1024] = bytes(chance.randrange(4) for _ in range(1024))
    return bytes(disk)


def operations(chance):
    return [struct.pack("<BBHI", chance.randrange(OP_COUNT), chance.randrange(256),
                        chance.randrange(64), chance.randrange(4096))
            for _ in range(chance.randrange(1, 12))]


def qcow2(chance, folder, raw, tools):
    for number in range(40):
        image = folder / "image"
        cluster = 1 << chance.choice([9, 9, 9, 10, 12, 14, 16])
        options = [f"cluster_size={cluster}", f"compat={chance.choice(['1.1', '1.1', '0.10'])}"]
        if options[1] == "compat=1.1":
            options.append(f"refcount_bits={chance.choice([1, 2, 8, 16, 16, 64])}")
            options.append(f"lazy_refcounts={chance.choice(['on', 'off'])}")
            if cluster >= 16384:
                options.append(f"extended_l2={chance.choice(['on', 'off'])}")
        raw.write_bytes(contents(chance, chance.choice([65536, 262144, 1048576])))
        command = [chance.choice(tools), "convert", "-O", "qcow2", "-o", ",".join(options)]
        if chance.random() < 0.3:
            command.append("-c")
        if not run(*command, raw, image):
            continue
        if chance.random() < 0.4:
            run(tools[0], "snapshot", "-c", "a", image)
        yield number, encode(chance.choice([0, 2, 10, 8]), image.read_bytes(), operations(chance))


def foreign(chance, folder, raw, tools):
    kinds = [("vdi", ""), ("vdi", "static=on"), ("vmdk", "subformat=monolithicSparse"),
             ("vmdk", "subformat=streamOptimized"), ("vpc", "subformat=dynamic"),
             ("vpc", "subformat=fixed"), ("vhdx", "subformat=dynamic,block_size=1M")]
    number = 0
    for tool in tools:
        for name, options in kinds:
            for size in (65536, 1048576, 3 << 20):
                image = folder / "image"
                raw.write_bytes(contents(chance, size))
                if not run(tool, "convert", "-O", name, *(["-o", options] if options else []), raw,
                           image):
                    continue
                number += 1
                yield number, encode(FORMATS.index(name), image.read_bytes(), [])


def main():
    kind, target = sys.argv[1], pathlib.Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    tools = [BUILD / "evisor-img"] + ([shutil.which("qemu-img")] if shutil.which("qemu-img") else [])
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make = {"qcow2": qcow2, "foreign": foreign}[kind]
        for number, seed in make(chance, folder, folder / "raw", tools):
            if len(seed) <= 65536:
                (target / f"{kind}-{number}").write_bytes(seed)


if __name__ == "__main__":
    main()
