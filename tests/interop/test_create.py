# SPDX-License-Identifier: MIT
"""Images made by either tool are the same to both."""
import itertools

import pytest

from conftest import EVISOR_IMG, assert_clean, evisor_img, qemu_img, qemu_io, run

OPTIONS = [
    "",
    "compat=0.10",
    "compat=v2,preallocation=metadata",
    "compat=v3",
    "cluster_size=512",
    "cluster_size=512,preallocation=metadata",
    "cluster_size=4k,refcount_bits=1",
    "cluster_size=4k,refcount_bits=1,preallocation=falloc",
    "cluster_size=2M",
    "cluster_size=2M,preallocation=full",
    "cluster_size=1k,refcount_bits=64,preallocation=metadata",
    "refcount_bits=2",
    "refcount_bits=4,lazy_refcounts=on",
    "refcount_bits=8,preallocation=metadata",
    "refcount_bits=32,compression_type=zstd",
    "extended_l2=on",
    "extended_l2=on,preallocation=metadata",
    "extended_l2=on,preallocation=falloc,cluster_size=16k",
    "extended_l2=on,cluster_size=128k,compression_type=zstd,lazy_refcounts=on",
    "preallocation=metadata",
    "preallocation=falloc",
    "preallocation=full",
    "data_file=data.raw",
    "data_file=data.raw,data_file_raw=on",
    "data_file=data.raw,preallocation=metadata",
]
SIZES = ["0", "512", "1000", "1M", "5000k"]


def without_host(info):
    """What may differ: how much space the host's file system gave."""
    info.pop("actual-size")
    return info


@pytest.mark.parametrize("options", OPTIONS)
def test_same_image(pair, options):
    for size in SIZES:
        words = ["create", "-f", "qcow2"] + (["-o", options] if options else []) + ["x", size]
        infos, checks, outputs = [], [], []
        for directory, tool in zip(pair, (evisor_img, qemu_img)):
            result = tool(*words, cwd=directory)
            assert result.status == 0, result
            outputs.append(result.out)
            infos.append(without_host(evisor_img("info", "--output=json", "x",
                                                 cwd=directory).json()))
            infos.append(without_host(qemu_img("info", "--output=json", "x", cwd=directory).json()))
            for check in (evisor_img, qemu_img):
                result = check("check", "--output=json", "x", cwd=directory)
                assert result.status == 0, f"{check.__name__} {options} {size}: {result}"
                numbers = result.json()
                numbers.pop("image-end-offset", None)  # the layouts may differ
                checks.append(numbers)
        assert outputs[0] == outputs[1]
        assert all(info == infos[0] for info in infos), infos
        # In how many pieces a preallocated image lies is a matter of layout.
        for numbers in checks:
            numbers.pop("fragmented-clusters", None)
        assert all(numbers == checks[0] for numbers in checks), checks


@pytest.mark.parametrize("options", OPTIONS)
def test_qemu_writes_into_ours(tmp_path, options):
    words = ["-o", options] if options else []
    assert evisor_img("create", "-f", "qcow2", *words, "x", "5000k", cwd=tmp_path).status == 0
    qemu_io("x", "read -P 0 0 5000k", "write -P 1 0 1M", "write -P 2 3000000 70001",
            "read -P 1 0 1M", "read -P 2 3000000 70001", "read -P 0 4M 512k", cwd=tmp_path)
    assert_clean("x", cwd=tmp_path)
    qemu_io("x", "read -P 1 0 1M", "read -P 2 3000000 70001", cwd=tmp_path)


def test_large_sizes(tmp_path):
    for size, cluster in (("1T", "64k"), ("8E", "2M"), ("60T", "64k"), ("7G", "512")):
        ours = evisor_img("create", "-f", "qcow2", "-o", f"cluster_size={cluster}", "x", size,
                          cwd=tmp_path)
        theirs = qemu_img("create", "-f", "qcow2", "-o", f"cluster_size={cluster}", "y", size,
                          cwd=tmp_path)
        assert ours.status == theirs.status, f"{size} {cluster}: {ours} {theirs}"
        if ours.status == 0:
            assert_clean("x", cwd=tmp_path)
            assert (tmp_path / "x").stat().st_size == (tmp_path / "y").stat().st_size


@pytest.mark.parametrize("extended", ["off", "on"])
def test_backing(pair, extended):
    for directory in pair:
        (directory / "base.raw").write_bytes(b"\5" * 1000000)
    for directory, tool in zip(pair, (evisor_img, qemu_img)):
        result = tool("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "-o",
                      f"extended_l2={extended}", "top", cwd=directory)
        assert result.status == 0 and not result.out, result
        qemu_io("top", "write -P 9 64k 1000", "read -P 5 0 64k", cwd=directory)
        assert_clean("top", cwd=directory)
    infos = [without_host(tool("info", "--output=json", "top", cwd=directory).json())
             for tool, directory in itertools.product((evisor_img, qemu_img), pair)]
    assert all(info == infos[0] for info in infos), infos
    chains = [[without_host(info) for info in
               tool("info", "--output=json", "--backing-chain", "top", cwd=pair[0]).json()]
              for tool in (evisor_img, qemu_img)]
    assert chains[0] == chains[1] and len(chains[0]) == 2


def test_header_is_the_same_to_the_byte(pair):
    for options in ("cluster_size=4k", "cluster_size=64k", "compat=0.10"):
        heads = []
        for directory, tool in zip(pair, (evisor_img, qemu_img)):
            (directory / "base").write_bytes(bytes(4096))
            tool("create", "-f", "qcow2", "-b", "base", "-F", "raw", "-o", options, "x", "1M",
                 cwd=directory)
            heads.append((directory / "x").read_bytes()[:4096])
        assert heads[0] == heads[1], options


REFUSED = [
    ["-o", "foo=bar", "x", "1M"],
    ["-o", "cluster_size=1000", "x", "1M"],
    ["-o", "cluster_size=4M", "x", "1M"],
    ["-o", "compat=0.9", "x", "1M"],
    ["-o", "refcount_bits=7", "x", "1M"],
    ["-o", "refcount_bits=128", "x", "1M"],
    ["-o", "refcount_bits=8,compat=0.10", "x", "1M"],
    ["-o", "lazy_refcounts=on,compat=0.10", "x", "1M"],
    ["-o", "extended_l2=on,compat=0.10", "x", "1M"],
    ["-o", "extended_l2=on,cluster_size=8k", "x", "1M"],
    ["-o", "compression_type=zstd,compat=0.10", "x", "1M"],
    ["-o", "compression_type=lz4", "x", "1M"],
    ["-o", "preallocation=foo", "x", "1M"],
    ["-o", "lazy_refcounts=maybe", "x", "1M"],
    ["-o", "preallocation=metadata,backing_file=base,backing_fmt=raw", "x", "1M"],
    ["-o", "data_file=d,compat=0.10", "x", "1M"],
    ["-o", "data_file_raw=on", "x", "1M"],
    ["-o", "cluster_size=512", "x", "1T"],
    ["-o", "size=3M", "x", "4M"],
    ["-b", "", "-F", "raw", "x", "1M"],
    ["-b", "x", "-F", "raw", "x", "1M"],
    ["-F", "raw", "x", "1M"],
    ["-b", "nonexistent", "-F", "raw", "x"],
    ["-b", "base", "-F", "foo", "x"],
    ["-o", "size=foobar", "x"],
    ["-o", "cluster_size=-1", "x", "1M"],
    ["x", "1.1"],
    ["x"],
    ["x", "foo"],
    ["x", "--", "-1"],
    ["x", "9E"],
    ["x", "16E"],
    ["x", "1M", "2M"],
    ["/nonexistent/x", "1M"],
    ["/tmp", "1M"],
    [],
]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_refused_in_the_same_words(pair, words):
    results = []
    for directory, tool in zip(pair, (evisor_img, qemu_img)):
        (directory / "base").write_bytes(bytes(4096))
        results.append(tool("create", "-f", "qcow2", *words, cwd=directory))
    ours, theirs = results
    assert ours.status == theirs.status == 1
    assert ours.err.rstrip() == theirs.err.replace("qemu-img", "evisor-img").rstrip()


def test_backing_without_format(pair):
    """Refused as theirs does, with the exact remedy added."""
    for directory in pair:
        (directory / "base").write_bytes(bytes(4096))
    ours, theirs = (tool("create", "-f", "qcow2", "-b", "base", "x", cwd=directory)
                    for directory, tool in zip(pair, (evisor_img, qemu_img)))
    assert ours.status == theirs.status == 1
    assert ours.err.startswith(theirs.err.replace("qemu-img", "evisor-img").rstrip())
    assert "-F raw" in ours.err
    assert not (pair[0] / "x").exists()


def test_encryption_is_refused_in_one_line(tmp_path):
    result = evisor_img("create", "-f", "qcow2", "-o", "encrypt.format=luks", "x", "1M",
                        cwd=tmp_path)
    assert result.status == 1 and not result.out
    assert result.err.startswith("evisor-img: x: ") and result.err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_raw(pair):
    for words in (["x", "1M"], ["-o", "preallocation=full", "x", "1M"], ["x", "1000"],
                  ["-o", "preallocation=falloc", "x", "300k"],
                  ["-o", "preallocation=metadata", "x", "1M"], ["-b", "y", "x", "1M"]):
        results = [tool("create", "-f", "raw", *words, cwd=directory)
                   for directory, tool in zip(pair, (evisor_img, qemu_img))]
        assert results[0].status == results[1].status and results[0].out == results[1].out
        assert results[0].err == results[1].err.replace("qemu-img", "evisor-img")
        if results[0].status:
            continue  # theirs has emptied the file by then
        sizes = [(directory / "x").stat() for directory in pair]
        assert sizes[0].st_size == sizes[1].st_size
        assert abs(sizes[0].st_blocks - sizes[1].st_blocks) <= 8  # theirs may fill the first block


def _base_with_data(folder):
    base = folder / "base.raw"
    base.write_bytes(bytes(range(1, 129)) * 8192)
    return base


INTO_ITS_INPUT = [
    ["create", "-f", "qcow2", "-b", "./base.raw", "-F", "raw", "base.raw"],
    ["create", "-u", "-f", "qcow2", "-b", "./base.raw", "-F", "raw", "base.raw", "1M"],
    ["create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "-o", "data_file=./base.raw", "new"],
    ["create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "link"],
    ["convert", "-f", "raw", "-O", "qcow2", "-B", "base.raw", "-F", "raw", "other.raw", "link"],
    ["convert", "-U", "-f", "raw", "-O", "raw", "base.raw", "./base.raw"],
    ["convert", "-U", "-f", "qcow2", "-O", "raw", "over", "base.raw"],
    ["convert", "-U", "-f", "qcow2", "-O", "vdi", "over", "link"],
    ["dd", "-U", "-f", "raw", "-O", "raw", "if=base.raw", "of=link"],
    ["rebase", "-b", "./over", "-F", "qcow2", "over"],
    ["rebase", "-U", "-b", "over", "-F", "qcow2", "over"],
]


@pytest.mark.parametrize("words", INTO_ITS_INPUT, ids=" ".join)
def test_no_image_is_made_of_a_file_that_it_is_made_from(tmp_path, words):
    """Under another name, or past the locks: emptied first, there would be nothing to read."""
    base = _base_with_data(tmp_path)
    (tmp_path / "other.raw").write_bytes(bytes(1 << 20))
    (tmp_path / "link").symlink_to(base)
    evisor_img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "over", cwd=tmp_path)
    before = base.read_bytes(), (tmp_path / "over").read_bytes()
    result = evisor_img(*words, cwd=tmp_path)
    assert result.status == 1 and result.err.startswith("evisor-img: "), result
    assert (base.read_bytes(), (tmp_path / "over").read_bytes()) == before
    assert not (tmp_path / "new").exists()


def test_a_file_that_the_caller_holds_open_can_be_made(tmp_path):
    """As flock(1) does it."""
    assert run("flock", tmp_path / "new", EVISOR_IMG, "create", tmp_path / "new", "1M").status == 0
    assert (tmp_path / "new").stat().st_size == 1 << 20
