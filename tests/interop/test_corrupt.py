# SPDX-License-Identifier: MIT
"""Images with single fields broken: refused in one line, or checked and repaired as QEMU does."""
import random
import re
import shutil
import struct

import pytest

from conftest import assert_clean, evisor_img, qemu_img, qemu_io

CLUSTER = 4096
SIZE = 4 << 20


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An image with a snapshot, a bitmap and a backing file, and one that is plain."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "base").write_bytes(b"base" * 1000)
    qemu_img("create", "-f", "qcow2", "-b", "base", "-F", "raw", "-o", "cluster_size=4k", "rich",
             SIZE, cwd=folder)
    qemu_io("rich", "write -P 1 0 100k", "write -P 2 2M 100k", cwd=folder)
    qemu_img("snapshot", "-c", "one", "rich", cwd=folder)
    qemu_img("bitmap", "--add", "rich", "bits", cwd=folder)
    qemu_io("rich", "write -P 3 50k 10k", cwd=folder)
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=4k", "plain", SIZE, cwd=folder)
    qemu_io("plain", "write -P 1 0 64k", "write -P 2 3M 64k", "write -z 1M 64k", cwd=folder)
    for name in ("rich", "plain"):
        assert_clean(name, cwd=folder)
    return folder


def broken(images, tmp_path, name, *changes):
    """A copy with (offset, struct format, value) changed."""
    for file in images.iterdir():
        shutil.copy(file, tmp_path)
    with open(tmp_path / name, "r+b") as image:
        for offset, layout, value in changes:
            image.seek(offset)
            image.write(struct.pack(layout, value) if isinstance(value, int) else value)
    return tmp_path / name


def assert_refused(result, path):
    assert result.status == 1 and not result.out, result
    assert result.err.count("\n") == 1, result
    assert result.err.startswith("evisor-img: ") and str(path) in result.err, result


# What the first cluster may say that must not be believed: (why, offset, layout, value).
HEADER = [
    ("magic", 0, ">I", 0x514649fc),
    ("version 0", 4, ">I", 0),
    ("version 4", 4, ">I", 4),
    ("backing offset far", 8, ">Q", 1 << 40),
    ("backing offset in header", 8, ">Q", 8),
    ("backing offset past cluster", 8, ">Q", CLUSTER + 8),
    ("backing length 1024", 16, ">I", 1024),
    ("backing length huge", 16, ">I", 0xffffffff),
    ("cluster bits 8", 20, ">I", 8),
    ("cluster bits 22", 20, ">I", 22),
    ("cluster bits huge", 20, ">I", 0xffffffff),
    ("size beyond the L1 table", 24, ">Q", 1 << 40),
    ("size 2^63", 24, ">Q", 1 << 63),
    ("size all ones", 24, ">Q", (1 << 64) - 1),
    ("crypt method 3", 32, ">I", 3),
    ("L1 size 0", 36, ">I", 0),
    ("L1 size huge", 36, ">I", 0x7fffffff),
    ("L1 size all ones", 36, ">I", 0xffffffff),
    ("L1 unaligned", 40, ">Q", 0x3008),
    ("L1 past the end", 40, ">Q", 1 << 40),
    ("L1 wraps", 40, ">Q", 0xfffffffffffff000),
    ("L1 on the header", 40, ">Q", 0),
    ("refcount table unaligned", 48, ">Q", 0x1010),
    ("refcount table wraps", 48, ">Q", 0xfffffffffffff000),
    ("refcount table past the end", 48, ">Q", 1 << 40),
    ("refcount table huge", 56, ">I", 0x7fffffff),
    ("snapshot count huge", 60, ">I", 0x10001),
    ("snapshots unaligned", 64, ">Q", 0x1008),
    ("snapshots wrap", 64, ">Q", 0xfffffffffffff000),
    ("unknown incompatible feature", 72, ">Q", 1 << 8),
    ("unknown incompatible feature 63", 72, ">Q", 1 << 63),
    ("compression bit without type", 72, ">Q", 1 << 3),
    ("extended L2 with small clusters", 72, ">Q", 1 << 4),
    ("refcount order 7", 96, ">I", 7),
    ("header length 0", 100, ">I", 0),
    ("header length 103", 100, ">I", 103),
    ("header length 108", 100, ">I", 108),
    ("header length past the cluster", 100, ">I", CLUSTER + 8),
    ("compression type without bit", 104, ">B", 1),
    ("extension too long", 112 + 4, ">I", 0xfffffff0),
    ("backing format too long", 112 + 4, ">I", 1000),
]


@pytest.mark.parametrize("change", HEADER, ids=lambda change: change[0])
def test_header_is_refused_in_one_line(images, tmp_path, change):
    path = broken(images, tmp_path, "rich", change[1:])
    commands = [("info", "-f", "qcow2", path), ("convert", "-f", "qcow2", path, tmp_path / "out")]
    if change[0] != "refcount table past the end":  # check -r can still repair that
        commands.append(("check", "-f", "qcow2", path))
    for command in commands:
        assert_refused(evisor_img(*command), path)
    assert not (tmp_path / "out").exists()


# QEMU takes these for good, for reasons that do not bind us.
QEMU_ACCEPTS = {
    "backing offset in header", "L1 on the header", "L1 past the end",
    "refcount table past the end", "header length 108",
}


@pytest.mark.parametrize("change", HEADER, ids=lambda change: change[0])
def test_header_in_the_words_of_qemu(images, tmp_path, change):
    path = broken(images, tmp_path, "rich", change[1:])
    ours, theirs = (tool("check", "-f", "qcow2", path) for tool in (evisor_img, qemu_img))
    if change[0] in QEMU_ACCEPTS:
        return
    assert theirs.status == 1, theirs
    if "Could not open" in theirs.err and theirs.err.count("\n") == 1:
        exact = {"crypt method 3", "extended L2 with small clusters", "header length 103",
                 "extension too long", "backing format too long", "snapshot count huge",
                 "size 2^63", "size all ones", "unknown incompatible feature 63"}
        if change[0] not in exact:
            assert ours.err == theirs.err.replace("qemu-img", "evisor-img")


@pytest.mark.parametrize("length", [0, 1, 71, 72, 103, 104, 111, 112, 200, 4095, 4096, 8192])
def test_truncated(images, tmp_path, length):
    path = broken(images, tmp_path, "rich")
    with open(path, "r+b") as image:
        image.truncate(length)
    assert_refused(evisor_img("info", "-f", "qcow2", path), path)
    assert_refused(evisor_img("convert", "-f", "qcow2", path, tmp_path / "out"), path)


def plain_tables(path):
    """Where the tables of the plain image are."""
    data = path.read_bytes()
    l1, reftable = struct.unpack_from(">Q", data, 40)[0], struct.unpack_from(">Q", data, 48)[0]
    l2 = struct.unpack_from(">Q", data, l1)[0] & 0x00fffffffffffe00
    block = struct.unpack_from(">Q", data, reftable)[0]
    entry = struct.unpack_from(">Q", data, l2)[0]
    return {"l1": l1, "l2": l2, "reftable": reftable, "block": block,
            "data": (entry & 0x00fffffffffffe00) // CLUSTER}


def table_changes(tables):
    """(why, changes) of tables: each must be found."""
    data, block, l2, l1 = (tables[key] for key in ("data", "block", "l2", "l1"))
    count = block + data * 2
    return {
        "refcount 0": [(count, ">H", 0)],
        "refcount 2": [(count, ">H", 2)],
        "refcount 2 and 0": [(count, ">H", 2), (count + 2, ">H", 0)],
        "leak at the end": [(block + 200, ">H", 1)],
        "header refcount 0": [(block, ">H", 0)],
        "L2 refcount 0": [(block + l2 // CLUSTER * 2, ">H", 0)],
        "COPIED missing": [(l2, ">Q", data * CLUSTER)],
        "entry lost": [(l2, ">Q", 0)],
        "entry doubled": [(l2 + 8, ">Q", data * CLUSTER | 1 << 63)],
        "entry unaligned": [(l2, ">Q", data * CLUSTER + 512 | 1 << 63)],
        "entry past the end": [(l2, ">Q", 1 << 40 | 1 << 63)],
        "entry with reserved bits": [(l2, ">Q", data * CLUSTER | 1 << 63 | 4)],
        "entry to the L2 table": [(l2, ">Q", l2 | 1 << 63)],
        "entry to the header": [(l2, ">Q", 1 << 63)],
        "L1 COPIED missing": [(l1, ">Q", l2)],
        "L1 entry lost": [(l1, ">Q", 0)],
        "L1 unaligned": [(l1, ">Q", l2 + 512 | 1 << 63)],
        "L1 past the end": [(l1, ">Q", 1 << 40 | 1 << 63)],
        "refblock lost": [(tables["reftable"], ">Q", 0)],
        "refblock unaligned": [(tables["reftable"], ">Q", block + 512)],
        "refblock reserved": [(tables["reftable"], ">Q", block + 1)],
        "refblock on data": [(tables["reftable"], ">Q", data * CLUSTER)],
        "compressed and COPIED": [(l2, ">Q", data * CLUSTER | 3 << 62)],
    }


NAMES = list(table_changes({"data": 9, "block": 1, "l2": 1, "l1": 1, "reftable": 1}))


def sorted_lines(text):
    return sorted(line for line in text.replace("qemu-img", "evisor-img").split("\n"))


@pytest.mark.parametrize("name", NAMES)
def test_check_finds_what_qemu_finds(images, tmp_path, name):
    tables = plain_tables(images / "plain")
    path = broken(images, tmp_path, "plain", *table_changes(tables)[name])
    ours, theirs = (tool("check", "-f", "qcow2", path) for tool in (evisor_img, qemu_img))
    if name == "refblock unaligned":  # theirs gives up
        assert ours.status == 2 and theirs.status == 1
        return
    assert ours.status == theirs.status, f"{ours}\n{theirs}"
    assert ours.out == theirs.out
    assert sorted_lines(ours.err) == sorted_lines(theirs.err)
    json = [tool("check", "-f", "qcow2", "--output=json", path).json()
            for tool in (evisor_img, qemu_img)]
    assert json[0] == json[1]


@pytest.mark.parametrize("repair", ["leaks", "all"])
@pytest.mark.parametrize("name", NAMES)
def test_repair(images, tmp_path, name, repair):
    tables = plain_tables(images / "plain")
    ours_dir, theirs_dir = tmp_path / "ours", tmp_path / "theirs"
    results = []
    for directory, tool in ((ours_dir, evisor_img), (theirs_dir, qemu_img)):
        directory.mkdir()
        path = broken(images, directory, "plain", *table_changes(tables)[name])
        results.append((tool("check", "-f", "qcow2", "-r", repair, path), path))
    (ours, path), (theirs, their_path) = results
    if name == "entry to the L2 table":  # which qemu-img takes for whole once it is counted twice
        assert ours.status == 2 and (repair == "leaks" or "a table and something else" in ours.err)
    else:
        assert ours.status <= theirs.status or theirs.status == 1, f"{ours}\n{theirs}"
    # What is left afterwards is no worse, in the eyes of either tool.
    order = {0: 0, 3: 1, 2: 2, 1: 3}
    for tool in (evisor_img, qemu_img):
        after = tool("check", "-f", "qcow2", path).status
        assert order[after] <= order[tool("check", "-f", "qcow2", their_path).status]
    # What can be read from the image did not change, where it could be read at all.
    before = qemu_img("convert", "-O", "raw", images / "plain", tmp_path / "before")
    after = qemu_img("convert", "-O", "raw", path, tmp_path / "after")
    if name.startswith(("refcount", "leak", "header", "L2 ref", "COPIED", "L1 COPIED", "refblock")):
        assert before.status == after.status == 0
        assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


def test_repair_keeps_snapshots_and_bitmaps(images, tmp_path):
    path = broken(images, tmp_path, "rich")
    before = evisor_img("info", "--output=json", path).json()
    block = struct.unpack_from(">Q", path.read_bytes(),
                               struct.unpack_from(">Q", path.read_bytes(), 48)[0])[0]
    with open(path, "r+b") as image:
        clusters = -(-path.stat().st_size // CLUSTER)
        image.seek(block + clusters * 2)
        image.write(b"\0\1")
        image.truncate((clusters + 1) * CLUSTER)
    assert evisor_img("check", path).status == 3
    result = evisor_img("check", "-r", "leaks", path)
    assert result.status == 0 and "1 leaked clusters" in result.out, result
    after = evisor_img("info", "--output=json", path).json()
    for key in ("snapshots", "format-specific"):
        assert before[key] == after[key] and before[key]


def test_rebuilding_is_reported_as_qemu_does(images, tmp_path):
    tables = plain_tables(images / "plain")
    path = broken(images, tmp_path, "plain", *table_changes(tables)["refcount 0"])
    copy = tmp_path / "copy"
    shutil.copy(path, copy)
    ours, theirs = (tool("check", "-f", "qcow2", "-r", "all", image)
                    for tool, image in ((evisor_img, path), (qemu_img, copy)))
    assert ours.status == theirs.status == 0
    assert ours.err == theirs.err
    strip = re.compile("Image end offset: .*")  # where the new table went is our own affair
    assert strip.sub("", ours.out) == strip.sub("", theirs.out)


def test_dirty_and_corrupt_bits(images, tmp_path):
    for bit, key in ((1, "dirty"), (2, "corrupt")):
        path = broken(images, tmp_path, "plain", (72, ">Q", bit))
        info = evisor_img("info", "--output=json", path).json()
        assert info == qemu_img("info", "--output=json", path).json()
        assert info["dirty-flag"] == (key == "dirty")
        assert info["format-specific"]["data"]["corrupt"] == (key == "corrupt")
        assert evisor_img("check", "-r", "all", path).status == 0
        assert struct.unpack_from(">Q", path.read_bytes(), 72)[0] == 0


def test_unknown_feature_is_refused_by_its_name(images, tmp_path):
    names = broken(images, tmp_path, "plain").read_bytes().find(b"dirty bit") - 2
    if names < 0:  # small clusters leave the table out
        extension = struct.pack(">II", 0x6803f857, 48) + b"\0\11new magic".ljust(48, b"\0")
        path = broken(images, tmp_path, "plain", (112, "", extension), (72, ">Q", 1 << 9 | 1 << 10))
    ours, theirs = (tool("info", path) for tool in (evisor_img, qemu_img))
    assert "new magic" in ours.err
    assert ours.err == theirs.err.replace("qemu-img", "evisor-img")


def test_unknown_extension_survives_a_header_rewrite(images, tmp_path):
    extension = struct.pack(">II", 0x12345678, 5) + b"hello\0\0\0" + bytes(8)
    path = broken(images, tmp_path, "plain", (112, "", extension), (72, ">Q", 2))
    assert evisor_img("check", "-r", "all", path).status == 0
    assert path.read_bytes()[112:112 + 16] == extension[:16]
    assert_clean(path)


def test_random_damage_never_kills(images, tmp_path):
    """Seeded: flips bytes in the metadata; whatever happens, it ends soon and in good order."""
    tables = plain_tables(images / "plain")
    spots = [(0, 600), (tables["l1"], 16), (tables["l2"], CLUSTER), (tables["reftable"], 64),
             (tables["block"], 512)]
    for seed in range(60):
        source = random.Random(seed)
        changes = []
        for _ in range(source.randrange(1, 6)):
            start, length = source.choice(spots)
            changes.append((start + source.randrange(length), ">B", source.randrange(256)))
        path = broken(images, tmp_path, "plain", *changes)
        for command in (("info", path), ("check", "-f", "qcow2", path),
                        ("check", "-f", "qcow2", "-r", "all", path),
                        ("convert", "-f", "qcow2", "-O", "qcow2", path, tmp_path / "out")):
            result = evisor_img(*command)
            assert result.status in (0, 1, 2, 3), f"seed {seed}: {command}: {result}"
            if result.status == 1:
                assert result.err, f"seed {seed}: {command}"
