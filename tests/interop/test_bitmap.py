# SPDX-License-Identifier: MIT
"""Persistent bitmaps: made, kept right and read by either side, and known to be useless after a crash."""
import random
import signal

import pytest
from conftest import assert_clean, evisor_img, qemu_img, qemu_io
from nbd import dirty, needs_libnbd, qemu_nbd, serve, wait_until_unlocked

MIB = 1 << 20
TOOLS = {"ours": evisor_img, "theirs": qemu_img}


def make(path, size="64M", *options):
    assert qemu_img("create", "-q", "-f", "qcow2", *options, path, size).status == 0
    return path


def bitmap(tool, *words):
    result = tool("bitmap", *words)
    assert result.status == 0, result


def listed(image):
    """{name: (granularity, flags)}, the same from both tools."""
    answers = []
    for tool in (evisor_img, qemu_img):
        data = tool("info", "--output=json", image).json()["format-specific"]["data"]
        answers.append({entry["name"]: (entry["granularity"], sorted(entry["flags"]))
                        for entry in data.get("bitmaps", [])})
    assert answers[0] == answers[1]
    return answers[0]


def seen_by_both(image, name):
    """What both servers say of the bitmap."""
    with serve(image, "-r", "-B", name) as server:
        ours = dirty(server.uri, name)
        server.stop()
    with qemu_nbd(image, "-r", "-f", "qcow2", "-B", name) as server:
        theirs = dirty(server.uri, name)
        server.stop()
    assert ours == theirs
    return ours


@pytest.mark.parametrize("tool", TOOLS)
def test_actions(tmp_path, tool):
    image, run = make(tmp_path / "a.qcow2"), TOOLS[tool]
    bitmap(run, "--add", image, "one")
    bitmap(run, "--add", "--disable", "-g", "4k", image, "two")
    assert listed(image) == {"one": (65536, ["auto"]), "two": (4096, [])}
    bitmap(run, "--enable", image, "two")
    bitmap(run, "--disable", image, "one")
    assert listed(image) == {"one": (65536, []), "two": (4096, ["auto"])}
    assert_clean(image)
    bitmap(run, "--remove", image, "one")
    assert listed(image) == {"two": (4096, ["auto"])}
    bitmap(run, "--remove", image, "two")
    assert listed(image) == {}
    assert_clean(image)


def test_words(tmp_path, pair):
    """The messages are qemu-img's, but for the name of the image where QEMU has a number."""
    for words in (("--add", "IMAGE", "old"), ("--remove", "IMAGE", "none"), ("IMAGE", "old"),
                  ("--clear", "IMAGE", "none"), ("--merge", "none", "IMAGE", "old"),
                  ("--add", "-g", "100", "IMAGE", "new"), ("--add", "-g", "1q", "IMAGE", "new"),
                  ("--clear", "IMAGE"),
                  ("--clear", "-g", "64k", "IMAGE", "old"), ("--clear", "-b", "x", "IMAGE", "old"),
                  ("--merge", "old", "-F", "raw", "IMAGE", "old"), ("--add", "IMAGE", "")):
        errors = []
        for tool, folder in zip((evisor_img, qemu_img), pair):
            image = make(folder / "a.qcow2", "1M")
            bitmap(qemu_img, "--add", image, "old")
            result = tool("bitmap", *(str(image) if word == "IMAGE" else word for word in words))
            assert result.status == 1
            errors.append(result.err.replace("evisor-img", "qemu-img"))
        assert errors[0].split("\nTry")[0].strip() == errors[1].split("\nTry")[0].strip(), words
    old = make(tmp_path / "old.qcow2", "1M", "-o", "compat=0.10")
    assert "qcow2 v2 files" in evisor_img("bitmap", "--add", old, "x").err


@needs_libnbd
@pytest.mark.parametrize("options", [(), ("-o", "cluster_size=4k"), ("-o", "extended_l2=on")])
@pytest.mark.parametrize("maker", TOOLS)
def test_writes_of_both_are_recorded(tmp_path, maker, options):
    image = make(tmp_path / "a.qcow2", "64M", *options)
    bitmap(TOOLS[maker], "--add", "-g", "64k", image, "b")
    generator = random.Random(7)
    expected = set()
    for turn in range(4):
        commands = []
        for _ in range(10):
            offset = generator.randrange(64 * MIB - 300000) // 512 * 512
            length = generator.choice([512, 65536, 300032])
            kind = generator.choice([f"write -P {turn + 1}", "write -z", "discard"])
            commands.append(f"{kind} {offset} {length}")
            expected |= set(range(offset // 65536, (offset + length - 1) // 65536 + 1))
        if turn % 2:
            qemu_io(image, *commands, options=("-f", "qcow2", "-d", "unmap"))
        else:
            with serve(image, "-B", "b") as server:
                qemu_io(server.uri, *commands, options=("-f", "raw", "-d", "unmap"))
                live = dirty(server.uri, "b")
                assert granules(live) == expected
                assert server.stop() == 0
        assert granules(seen_by_both(image, "b")) == expected
        assert_clean(image)
    bitmap(evisor_img, "--clear", image, "b")
    assert seen_by_both(image, "b") == []
    assert_clean(image)


def granules(extents):
    return {granule for start, length in extents
            for granule in range(start // 65536, (start + length + 65535) // 65536)}


@needs_libnbd
@pytest.mark.parametrize("tool", TOOLS)
def test_merge(tmp_path, tool):
    image, other = make(tmp_path / "a.qcow2"), make(tmp_path / "b.qcow2")
    for path, offset in ((image, "1M"), (other, "5M")):
        bitmap(evisor_img, "--add", "-g", "64k", path, "from")
        qemu_io(path, f"write {offset} 100k", options=("-f", "qcow2"))
    bitmap(TOOLS[tool], "--add", "--disable", "-g", "32k", image, "to")
    bitmap(TOOLS[tool], "--merge", "from", image, "to")
    assert seen_by_both(image, "to") == [(MIB, 131072)]
    bitmap(TOOLS[tool], "--merge", "from", "-b", other, "-F", "qcow2", image, "to")
    assert seen_by_both(image, "to") == [(MIB, 131072), (5 * MIB, 131072)]
    for path in (image, other):
        assert_clean(path)


@needs_libnbd
def test_a_full_bitmap(tmp_path):
    """Clusters of ones take no space, and both sides know."""
    image = make(tmp_path / "a.qcow2", "256M", "-o", "cluster_size=512")
    bitmap(evisor_img, "--add", "-g", "512", image, "b")
    with serve(image) as server:
        qemu_io(server.uri, "write -z 0 256M", options=("-f", "raw"))
        assert server.stop() == 0
    assert seen_by_both(image, "b") == [(0, 256 * MIB)]
    assert image.stat().st_size < 16 * MIB
    assert_clean(image)


@needs_libnbd
@pytest.mark.parametrize("size", ["80M", "20M"])
def test_resize(tmp_path, size):
    image = make(tmp_path / "a.qcow2")
    bitmap(evisor_img, "--add", "-g", "64k", image, "b")
    qemu_io(image, "write 10M 64k", "write 63M 1M", options=("-f", "qcow2"))
    assert evisor_img("resize", "--shrink", image, size).status == 0
    expected = [(10 * MIB, 65536)] + ([(63 * MIB, MIB)] if size == "80M" else [])
    assert seen_by_both(image, "b") == expected
    assert_clean(image)


@needs_libnbd
@pytest.mark.parametrize("by", ["ours", "theirs"])
def test_after_a_crash(tmp_path, by):
    image = make(tmp_path / "a.qcow2")
    bitmap(evisor_img, "--add", image, "b")
    server_of = serve if by == "ours" else qemu_nbd
    with server_of(image) as server:
        qemu_io(server.uri, "write 1M 64k", "flush", options=("-f", "raw"))
        server.stop(signal.SIGKILL)
    wait_until_unlocked(image)
    assert listed(image) == {"b": (65536, ["auto", "in-use"])}
    for words in (("--clear",), ("--merge", "b"), ("--enable",)):
        result = evisor_img("bitmap", *words, image, "b")
        assert result.status == 1 and "is inconsistent and cannot be used" in result.err
    result = evisor_img("serve", "-B", "b", "-k", tmp_path / "s", image)
    assert result.status == 1 and "inconsistent" in result.err
    qemu_io(image, "write 2M 64k", options=("-f", "qcow2"))  # still a good image
    with serve(image) as server:
        qemu_io(server.uri, "write 3M 64k", options=("-f", "raw"))
        assert server.stop() == 0
    assert listed(image) == {"b": (65536, ["auto", "in-use"])}
    bitmap(evisor_img, "--remove", image, "b")
    assert listed(image) == {}
    assert evisor_img("check", "-q", "-r", "leaks", image).status == 0
    assert_clean(image)


def test_marked_before_the_first_write(tmp_path):
    image = make(tmp_path / "a.qcow2")
    bitmap(evisor_img, "--add", image, "b")
    with serve(image) as server:
        result = evisor_img("info", "-U", "--output=json", image).json()
        flags = result["format-specific"]["data"]["bitmaps"][0]["flags"]
        assert sorted(flags) == ["auto", "in-use"]
        assert server.stop() == 0
    assert listed(image) == {"b": (65536, ["auto"])}


def test_opening_that_fails_half_way(tmp_path):
    base, image = tmp_path / "base.raw", tmp_path / "a.qcow2"
    base.write_bytes(bytes(MIB))
    make(image, "1M", "-b", str(base), "-F", "raw")
    bitmap(evisor_img, "--add", image, "b")
    base.rename(tmp_path / "gone")
    assert evisor_img("serve", "-k", tmp_path / "s", image).status == 1
    (tmp_path / "gone").rename(base)
    assert listed(image) == {"b": (65536, ["auto"])}


def test_a_program_without_bitmaps_wrote(tmp_path):
    """The autoclear bit is gone: what the extension points at counts for nothing any more."""
    image = make(tmp_path / "a.qcow2")
    bitmap(qemu_img, "--add", image, "b")
    with open(image, "r+b") as file:
        file.seek(88)
        file.write(bytes(8))
    with serve(image) as server:
        qemu_io(server.uri, "write 1M 64k", options=("-f", "raw"))
        assert server.stop() == 0
    assert listed(image) == {}
    bitmap(evisor_img, "--add", image, "c")
    assert listed(image) == {"c": (65536, ["auto"])}
    assert evisor_img("check", "-q", "-r", "leaks", image).status == 0
    assert_clean(image)


@needs_libnbd
@pytest.mark.parametrize("tool", TOOLS)
def test_convert(tmp_path, tool):
    image, copy = make(tmp_path / "a.qcow2"), tmp_path / "copy.qcow2"
    bitmap(evisor_img, "--add", "-g", "32k", image, "b")
    bitmap(evisor_img, "--add", "--disable", image, "off")
    qemu_io(image, "write 1M 64k", options=("-f", "qcow2"))
    result = TOOLS[tool]("convert", "-f", "qcow2", "-O", "qcow2", "--bitmaps", image, copy)
    assert result.status == 0, result
    assert listed(copy) == {"b": (32768, ["auto"]), "off": (65536, [])}
    assert seen_by_both(copy, "b") == [(MIB, 65536)]
    assert_clean(copy)


def test_snapshots_beside_bitmaps(tmp_path):
    image = make(tmp_path / "a.qcow2")
    bitmap(evisor_img, "--add", image, "b")
    assert evisor_img("snapshot", "-c", "s", image).status == 0
    assert listed(image) == {"b": (65536, ["auto"])}
    assert_clean(image)
    for tool in (evisor_img, qemu_img):  # the bitmap would not know what changed
        result = tool("snapshot", "-a", "s", image)
        assert result.status == 1 and "Device has active dirty bitmaps" in result.err
    assert evisor_img("snapshot", "-d", "s", image).status == 0
    assert listed(image) == {"b": (65536, ["auto"])}
    assert_clean(image)
