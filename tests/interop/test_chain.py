# SPDX-License-Identifier: MIT
"""Overlays: rebase and commit keep what the images show, by either tool."""
import random
import resource
import subprocess

import pytest

from conftest import EVISOR_IMG, assert_clean, evisor_img, qemu_img, qemu_io

SIZE = 6 << 20


def contents(path, tool=qemu_img):
    out = path.parent / "contents"
    result = tool("convert", "-O", "raw", path, out)
    assert result.status == 0, result
    return out.read_bytes()


@pytest.fixture
def overlay(tmp_path):
    """base <- middle <- top, and another image that looks like base only in part."""
    source = random.Random(3)
    for name in ("base", "other"):
        evisor_img("create", "-f", "qcow2", tmp_path / name, SIZE if name == "base" else SIZE // 2)
        for i in range(12):
            offset = source.randrange(SIZE // 2 // 4096 - 16) * 4096
            qemu_io(tmp_path / name, f"write -P {source.randrange(1, 255)} {offset} 50k")
    for below, name in (("base", "middle"), ("middle", "top")):
        evisor_img("create", "-f", "qcow2", "-b", below, "-F", "qcow2", tmp_path / name)
        qemu_io(tmp_path / name, "write -P 7 1M 70k", f"write -P 9 {len(name)}00k 10k",
                "write -z 2M 100k", "write -P 11 5M 3k")
    return tmp_path


@pytest.mark.parametrize("target", ["other", "base", ""])
def test_safe_rebase(overlay, target):
    top = overlay / "top"
    before = contents(top)
    words = ["-b", target] + (["-F", "qcow2"] if target else [])
    result = evisor_img("rebase", *words, top)
    assert result.status == 0 and not result.out, result
    assert_clean(top)
    info = qemu_img("info", "--output=json", top).json()
    assert info.get("backing-filename") == (target or None)
    assert contents(top) == before == contents(top, evisor_img)


def test_unsafe_rebase(overlay):
    top = overlay / "top"
    (overlay / "middle").rename(overlay / "moved")
    assert evisor_img("rebase", "-u", "-b", "moved", "-F", "qcow2", top).status == 0
    assert_clean(top)
    before = contents(top)
    assert evisor_img("rebase", "-u", "-b", "nonexistent", "-F", "raw", top).status == 0
    assert evisor_img("info", top).status == 0
    assert evisor_img("rebase", "-u", "-b", "moved", "-F", "qcow2", top).status == 0
    assert contents(top) == before


def test_backing_name_that_does_not_fit(overlay):
    small = overlay / "small"
    evisor_img("create", "-f", "qcow2", "-o", "cluster_size=512", small, "1M")
    before = small.read_bytes()
    result = evisor_img("rebase", "-u", "-b", "x" * 500, "-F", "raw", small)
    assert result.status == 1 and "No space left in the file header" in result.err
    assert small.read_bytes() == before


@pytest.mark.parametrize("words", [["rebase", "-b", ""], ["rebase", "-u", "-b", ""],
                                   ["amend", "-o", "lazy_refcounts=on"]], ids=" ".join)
def test_a_host_that_takes_no_writes(overlay, words):
    """A limit on files' sizes stands for it: one line names the image, which stays as it was."""
    before = (overlay / "top").read_bytes()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    done = subprocess.run([EVISOR_IMG, *words, "top"], cwd=overlay, preexec_fn=limit,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "'top'" in done.stderr, done
    assert (overlay / "top").read_bytes() == before


@pytest.mark.parametrize("base", [None, "base"])
@pytest.mark.parametrize("keep", [[], ["-d"]], ids=["empty", "keep"])
def test_commit(overlay, base, keep):
    top = overlay / "top"
    before = contents(top)
    words = ["-b", overlay / base] if base else []
    result = evisor_img("commit", *words, *keep, top)
    assert result.status == 0 and result.out == "Image committed.\n", result
    for name in ("base", "middle", "top"):
        assert_clean(overlay / name)
    assert contents(overlay / (base or "middle")) == before
    assert contents(top) == before
    if not base and not keep:
        spans = qemu_img("map", "--output=json", top).json()
        assert all(span["depth"] > 0 for span in spans)
        assert top.stat().st_size <= 6 * 65536


def test_commit_into_a_smaller_base(tmp_path):
    (tmp_path / "base").write_bytes(b"b" * (1 << 20))
    evisor_img("create", "-f", "qcow2", "-b", "base", "-F", "raw", tmp_path / "top", "3M")
    qemu_io(tmp_path / "top", "write -P 5 2M 64k")
    before = contents(tmp_path / "top")
    assert evisor_img("commit", tmp_path / "top").status == 0
    assert (tmp_path / "base").read_bytes() == before


def test_a_circle_is_refused(tmp_path):
    for name, below in (("a", "b"), ("b", "a")):
        qemu_img("create", "-f", "qcow2", "-u", "-b", below, "-F", "qcow2", name, "1M",
                 cwd=tmp_path)
    for words in (("info", "--backing-chain", "a"), ("convert", "a", "out"), ("commit", "a"),
                  ("compare", "a", "b"), ("map", "a")):
        result = evisor_img(*words, cwd=tmp_path)
        assert result.status in (1, 2) and result.err.count("\n") == 1, result
    assert evisor_img("info", "a", cwd=tmp_path).status == 0


def test_a_backing_file_is_not_probed(tmp_path):
    """A raw backing file whose guest wrote a qcow2 header into it stays raw."""
    evisor_img("create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", tmp_path / "trap",
               "1M")
    evisor_img("create", "-f", "qcow2", "-b", "trap", "-F", "raw", tmp_path / "top")
    assert contents(tmp_path / "top", evisor_img)[:4] == b"QFI\xfb"


@pytest.mark.parametrize("name", ["json:{}", "nbd://host/export", "http://host/image", "fat:/etc"])
def test_protocols_are_refused(tmp_path, name):
    top = tmp_path / "top"
    evisor_img("create", "-f", "qcow2", "-u", "-b", name, "-F", "raw", top, "1M")
    result = evisor_img("convert", top, tmp_path / "out")
    assert result.status == 1 and result.err.count("\n") == 1 and name in result.err, result
    assert not (tmp_path / "out").exists()


def test_a_missing_data_file_is_an_error(tmp_path):
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/data", tmp_path / "x", "1M")
    (tmp_path / "data").unlink()
    result = evisor_img("convert", tmp_path / "x", tmp_path / "out")
    assert result.status == 1 and result.err.count("\n") == 1 and "data" in result.err, result
    assert evisor_img("info", tmp_path / "x").status == 0  # which opens no second file


def test_amend(tmp_path):
    path = tmp_path / "x"
    evisor_img("create", "-f", "qcow2", "-o", "compat=0.10,cluster_size=4k", path, "8M")
    qemu_io(path, "write -P 5 0 3M", "write -P 6 5M 1M")
    before = contents(path)
    steps = ["compat=1.1", "lazy_refcounts=on", "refcount_bits=1", "refcount_bits=64",
             "refcount_bits=8", "compat=0.10,refcount_bits=16", "compat=v3,refcount_bits=2"]
    for step in steps:
        result = evisor_img("amend", "-o", step, path)
        assert result.status == 0 and not result.out, f"{step}: {result}"
        assert_clean(path)
        assert contents(path) == before
        wanted = step.rpartition("refcount_bits=")[2] if "refcount" in step[-16:] else None
        data = qemu_img("info", "--output=json", path).json()["format-specific"]["data"]
        assert not (wanted or "").isdigit() or data["refcount-bits"] == int(wanted)


def test_amend_refuses_what_does_not_fit(tmp_path):
    path = tmp_path / "x"
    evisor_img("create", "-f", "qcow2", path, "1M")
    qemu_io(path, "write 0 64k")
    evisor_img("snapshot", "-c", "one", path)
    result = evisor_img("amend", "-o", "refcount_bits=1", path)
    assert result.status == 1 and "has a refcount of 2" in result.err
    assert result.err.count("\n") == 1
    assert_clean(path)
    qemu_img("resize", path, "2M")
    result = evisor_img("amend", "-o", "compat=0.10", path)
    assert result.status == 1 and result.err.count("\n") == 1 and "snapshots" in result.err
    assert_clean(path)


@pytest.mark.parametrize("has_backing", [False, True])
def test_amend_expands_zero_clusters(tmp_path, has_backing):
    path = tmp_path / "x"
    backing = ["-b", tmp_path / "base", "-F", "qcow2"] if has_backing else []
    qemu_img("create", "-f", "qcow2", tmp_path / "base", "4M")
    qemu_io(tmp_path / "base", "write -P 9 0 4M")
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=4k", *backing, path, "4M")
    qemu_io(path, "write -P 1 0 1M", "write -z 512k 64k", "write -z 2M 64k")
    qemu_img("snapshot", "-c", "one", path)
    qemu_io(path, "write -z 0 128k", "write -P 2 600k 8k", "write -z 3M 8k", "write -zu 2M 32k")
    qemu_img("snapshot", "-c", "two", path)
    qemu_io(path, "write -P 3 64k 8k", "write -z 1M 512k")
    copies = [qemu_img("convert", "-O", "raw", "-l", f"snapshot.name={name}", path, tmp_path / name)
              and (tmp_path / name).read_bytes() for name in ("one", "two")]
    before = contents(path)
    result = evisor_img("amend", "-o", "compat=0.10", path)
    assert result.status == 0 and not result.err, result
    assert_clean(path)
    assert qemu_img("info", "--output=json", path).json()["format-specific"]["data"] == \
        {"compat": "0.10", "compression-type": "zlib", "refcount-bits": 16}
    assert contents(path) == before
    for name, copy in zip(("two", "one"), reversed(copies)):
        qemu_img("snapshot", "-a", name, path)
        assert contents(path) == copy
        assert_clean(path)


def test_a_snapshot_is_of_the_image_on_top(tmp_path):
    """The image below has one of the same name, which shows something else."""
    base, top, out = tmp_path / "base", tmp_path / "top", tmp_path / "out"
    evisor_img("create", "-f", "qcow2", base, "1M")
    qemu_io(base, "write -P 1 0 64k")
    evisor_img("snapshot", "-c", "s", base)
    qemu_io(base, "write -P 2 0 64k")
    evisor_img("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", top)
    qemu_io(top, "write -P 3 64k 64k")
    for name in ("s", "t"):
        assert evisor_img("snapshot", "-c", name, top).status == 0
        result = evisor_img("convert", "-l", name, "-O", "raw", top, out)
        assert result.status == 0, result
        shown = out.read_bytes()
        assert shown[0] == 2 and shown[65536] == 3 and not any(shown[131072:])


@pytest.mark.parametrize("options", ["compat=1.1", "compat=0.10"])
def test_a_flat_image_becomes_an_overlay(tmp_path, options):
    """What it does not have is zero, though the backing file has something there."""
    base, flat, top = tmp_path / "base", tmp_path / "flat", tmp_path / "top"
    for path, written in ((base, "write -P 1 0 1M"), (flat, "write -P 2 100k 70k")):
        evisor_img("create", "-f", "qcow2", path, "1M")
        qemu_io(path, written)
    assert evisor_img("convert", "-O", "qcow2", "-o", options, "-B", base, "-F", "qcow2", flat,
                      top).status == 0
    assert contents(top) == contents(flat)


def test_commit_past_a_short_image(tmp_path):
    """What lies below the end of an image does not show above it, nor where it is committed."""
    base, middle, top = tmp_path / "base", tmp_path / "middle", tmp_path / "top"
    evisor_img("create", "-f", "qcow2", base, "1M")
    qemu_io(base, "write -P 1 0 1M")
    evisor_img("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", middle, "200k")
    evisor_img("create", "-f", "qcow2", "-b", "middle", "-F", "qcow2", top, "1M")
    qemu_io(top, "write -P 3 500k 30k")
    before = contents(top)
    assert evisor_img("commit", "-q", "-b", "base", top).status == 0
    assert contents(base) == before
    assert contents(top) == before
