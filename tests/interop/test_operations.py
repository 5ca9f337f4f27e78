# SPDX-License-Identifier: MIT
"""Seeded lists of operations on one image, each by one of both tools, against a model in memory."""
import os
import random
import subprocess

import pytest

from conftest import BUILD, assert_clean, evisor_img, qemu_img, run

DRIVER = BUILD / "tests" / "disk_driver"
SEEDS = int(os.environ.get("INTEROP_SEEDS", "16"))
STEPS = 24


class Image:
    """An image under test, and what it must read as."""

    def __init__(self, folder, source):
        self.folder, self.source = folder, source
        self.path = folder / "image"
        self.snapshots = {}
        self.log = []
        self.base = None
        size = source.choice([1 << 20, 3 << 20, (1 << 20) + 512 * 7])
        self.cluster = source.choice([512, 4096, 16384, 65536, 65536, 2 << 20])
        self.bitmaps = {}
        self.is_v3 = source.random() >= 0.2
        self.refcount_bits, self.data_file, self.raw = 16, None, False
        options = [f"cluster_size={self.cluster}"]
        options += self.newer_options() if self.is_v3 else ["compat=0.10"]
        self.model = bytearray(size)
        words = ["create", "-f", "qcow2", "-o", ",".join(options)]
        if source.random() < 0.5 and not self.raw:
            self.base = folder / "base"
            data = source.randbytes(1 << 16) * (size >> 16)
            self.base.write_bytes(data)
            self.model[:len(data)] = data
            words += ["-b", "base", "-F", "raw"]
        self.tool(*words, self.path, size)

    def newer_options(self):
        """What only version 3 has, in any combination."""
        source, options = self.source, []
        self.refcount_bits = source.choice([1, 2, 4, 8, 16, 32, 64])
        options.append(f"refcount_bits={self.refcount_bits}")
        if source.random() < 0.3 and self.cluster >= 16384:
            options.append("extended_l2=on")
        if source.random() < 0.2:
            options.append("lazy_refcounts=on")
        if source.random() < 0.4:
            options.append("compression_type=zstd")
        if source.random() < 0.2:
            self.data_file = self.folder / "data"
            self.raw = source.random() < 0.5  # "raw" must hold the disk by itself
            options += ["data_file=data", f"data_file_raw={'on' if self.raw else 'off'}"]
        return options

    def tool(self, *words, statuses=(0,)):
        tool = self.source.choice([evisor_img, qemu_img])
        self.log.append((tool.__name__, *map(str, words)))
        result = tool(*words, cwd=self.folder)
        assert result.status in statuses, f"{self.log}\n{result}"
        return result

    def place(self):
        offset = self.source.randrange(len(self.model) // 512) * 512
        length = self.source.choice([512, 4096, 8192, 65536, 1 << 20])
        return offset, min(length, len(self.model) - offset)

    def act(self, verb_qemu, verb_ours, offset, length, value=None):
        """By qemu-io or by evisor's engine."""
        if DRIVER.exists() and self.source.random() < 0.5:
            line = " ".join(str(word) for word in (verb_ours, offset, length, value)
                            if word is not None)
            self.log.append(("disk_driver", line))
            done = subprocess.run([DRIVER, "-f", "qcow2", self.path], input=line + "\nflush\n",
                                  text=True, capture_output=True, timeout=120, check=False,
                                  cwd=self.folder)
            assert done.returncode == 0, f"{self.log}\n{done.stderr}"
            return
        pattern = f"-P {value} " if value is not None else ""
        line = f"{verb_qemu} {pattern}{offset} {length}"
        self.log.append(("qemu-io", line))
        result = run("qemu-io", "-f", "qcow2", "-d", "unmap", "-c", line, self.path,
                     cwd=self.folder)
        assert result.status == 0 and "failed" not in result.out, f"{self.log}\n{result}"

    def write(self):
        offset, length = self.place()
        value = self.source.randrange(1, 256)
        self.act("write", "write", offset, length, value)
        self.model[offset:offset + length] = bytes([value]) * length

    def zero(self):
        offset, length = self.place()
        self.act(self.source.choice(["write -z", "write -z -u"]),
                 self.source.choice(["zero", "unmap"]), offset, length)
        self.model[offset:offset + length] = bytes(length)

    def resize(self):
        if self.snapshots or self.base or self.bitmaps:
            return  # what shows beyond an old end is another story
        size = self.source.randrange(1, 4 << 20) // 512 * 512 + 512
        if size < len(self.model):
            # In whole clusters: theirs leaves what it cuts off within one to be seen again later.
            size = -(-size // self.cluster) * self.cluster
        if size < len(self.model):
            self.tool("resize", "-f", "qcow2", "--shrink", self.path, size)
            del self.model[size:]
        else:
            self.tool("resize", "-f", "qcow2", self.path, size)
            self.model.extend(bytes(size - len(self.model)))

    def act_on_snapshot(self, verb, name):
        """With the image closed, by either tool, or while the engine has it open."""
        if DRIVER.exists() and self.source.random() < 0.5:
            long = {"-c": "create", "-a": "apply", "-d": "delete"}[verb]
            self.log.append(("disk_driver", long, name))
            done = subprocess.run([DRIVER, "-f", "qcow2", self.path],
                                  input=f"{long} {name}\nflush\n", text=True,
                                  capture_output=True, timeout=120, check=False)
            assert done.returncode == 0, f"{self.log}\n{done.stderr}"
        else:
            self.tool("snapshot", verb, name, self.path)

    def snapshot(self):
        choice = self.source.randrange(3)
        if self.data_file or self.bitmaps:
            return  # neither tool snapshots the one; theirs loses a snapshot beside the other
        most = 5 if self.refcount_bits > 4 else min(5, 2 ** self.refcount_bits - 2)
        if choice == 0 and len(self.snapshots) < most:
            name = f"s{self.source.randrange(1000)}"
            if name not in self.snapshots:
                self.act_on_snapshot("-c", name)
                self.snapshots[name] = bytes(self.model)
        elif self.snapshots:
            name = self.source.choice(sorted(self.snapshots))
            if choice == 1:
                self.act_on_snapshot("-a", name)
                self.model = bytearray(self.snapshots[name])
            else:
                self.act_on_snapshot("-d", name)
                del self.snapshots[name]

    def convert(self):
        if self.snapshots:
            return
        words = ["convert", "-O", "qcow2"]
        if self.source.random() < 0.5:
            words.append("-c")
        if self.source.random() < 0.3:
            words += ["-o", "compression_type=zstd"]
        if self.bitmaps:
            words.append("--bitmaps")
        self.tool(*words, self.path, self.folder / "converted")
        os.replace(self.folder / "converted", self.path)
        self.base = None
        self.cluster, self.refcount_bits = 65536, 16
        self.is_v3, self.data_file = True, None

    def bitmap(self):
        """Adds or removes one; both tools then see the same ones, in the same state."""
        if not self.is_v3 or self.snapshots:
            return
        name = f"b{self.source.randrange(4)}"
        if name in self.bitmaps:
            self.tool("bitmap", "--remove", "-f", "qcow2", self.path, name)
            del self.bitmaps[name]
        else:
            on = self.source.random() < 0.6
            granularity = self.source.choice([4096, 65536])
            self.tool("bitmap", "--add", "--enable" if on else "--disable", "-g", granularity, "-f",
                      "qcow2", self.path, name)
            self.bitmaps[name] = (granularity, ["auto"] if on else [])

    def compare_bitmaps(self):
        for tool in (evisor_img, qemu_img):
            data = tool("info", "--output=json", self.path).json()["format-specific"]["data"]
            seen = {bitmap["name"]: (bitmap["granularity"], bitmap["flags"])
                    for bitmap in data.get("bitmaps", [])}
            assert seen == self.bitmaps, f"{tool.__name__}: {self.log}"

    def commit(self):
        if not self.base or self.snapshots or self.source.random() < 0.5:
            return
        self.tool("commit", "-q", "-f", "qcow2", self.path)

    def flatten(self):
        if not self.base or self.snapshots or self.source.random() < 0.7:
            return
        self.tool("rebase", "-f", "qcow2", "-b", "", self.path)
        self.base = None

    def compare(self):
        self.compare_bitmaps()
        back = self.folder / "back"
        self.tool("convert", "-f", "qcow2", "-O", "raw", self.path, back)
        contents = back.read_bytes()
        if contents != self.model:
            at = next(i for i, (a, b) in enumerate(zip(contents, self.model)) if a != b)
            raise AssertionError(f"differs at {at}\n" + "\n".join(map(str, self.log)))
        if self.data_file and self.raw:
            # Theirs may leave the end of a disk that has grown out of the file.
            data = self.data_file.read_bytes().ljust(len(contents), b"\0")
            assert data == contents, "\n".join(map(str, self.log))

    def check(self):
        try:
            assert_clean(self.path, cwd=self.folder)
        except AssertionError as error:
            raise AssertionError("\n".join(map(str, self.log)) + f"\n{error}") from None


@pytest.mark.parametrize("seed", range(SEEDS))
def test_operations(tmp_path, seed):
    source = random.Random(seed)
    image = Image(tmp_path, source)
    operations = [image.write] * 6 + [image.zero] * 3 + [
        image.resize, image.snapshot, image.snapshot, image.snapshot, image.convert, image.commit,
        image.flatten, image.bitmap]
    for step in range(STEPS):
        source.choice(operations)()
        if step % 6 == 5:
            image.check()
            image.compare()
    image.check()
    image.compare()
    for name in sorted(image.snapshots):
        image.tool("snapshot", "-a", name, image.path)
        image.model = image.snapshots[name]
        image.compare()
    image.check()
