# SPDX-License-Identifier: MIT
"""What evisor-img converts reads the same to both tools, in every direction."""
import random
import resource
import signal
import subprocess
import time

import pytest

from conftest import EVISOR_IMG, assert_clean, evisor_img, qemu_img, qemu_io

SIZE = (20 << 20) + 3 * 512


def disk_contents(seed, size=SIZE):
    """A third text, some noise, the rest zeroes, with ragged edges."""
    source = random.Random(seed)
    data = bytearray(size)
    for i in range(60):
        start, length = source.randrange(size), source.randrange(1, 150000)
        piece = source.randbytes(length) if i % 3 else (b"line %d\n" % i * length)[:length]
        data[start:start + length] = piece[:size - start]
    return bytes(data)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    path = tmp_path_factory.mktemp("convert") / "disk.raw"
    with open(path, "wb") as file:  # sparse
        data = disk_contents(7)
        for at in range(0, SIZE, 4096):
            if any(data[at:at + 4096]):
                file.seek(at)
                file.write(data[at:at + 4096])
        file.truncate(SIZE)
    return path


OPTIONS = [
    [], ["-c"], ["-S", "0"], ["-S", "64k"], ["-m", "1"], ["-m", "16", "-W"], ["-t", "writeback"],
    ["-o", "compat=0.10"], ["-o", "compat=0.10", "-c"],
    ["-o", "cluster_size=512"], ["-o", "cluster_size=512", "-c"],
    ["-o", "cluster_size=4k,refcount_bits=1", "-c"], ["-o", "cluster_size=2M"],
    ["-o", "cluster_size=2M,refcount_bits=8", "-c"], ["-o", "refcount_bits=64"],
    ["-c", "-o", "compression_type=zstd"], ["-o", "extended_l2=on"],
    ["-o", "extended_l2=on,cluster_size=16k", "-c"], ["-o", "lazy_refcounts=on"],
    ["-o", "preallocation=metadata"], ["-o", "preallocation=falloc"],
    ["-o", "preallocation=full,cluster_size=4k"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_to_qcow2_and_back(raw, tmp_path, options):
    image, back = tmp_path / "x.qcow2", tmp_path / "back.raw"
    result = evisor_img("convert", "-O", "qcow2", *options, raw, image)
    assert result.status == 0 and not result.out + result.err, result
    assert_clean(image)
    assert qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, image).status == 0
    assert evisor_img("convert", "-O", "raw", image, back).status == 0
    assert back.read_bytes() == raw.read_bytes()
    assert back.stat().st_blocks <= raw.stat().st_blocks + 64 or "0" in options


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_reads_what_qemu_converts(raw, tmp_path, options):
    image, back, again = tmp_path / "x.qcow2", tmp_path / "back.raw", tmp_path / "y.qcow2"
    assert qemu_img("convert", "-O", "qcow2", *options, raw, image).status == 0
    assert evisor_img("check", image).out == qemu_img("check", image).out
    assert evisor_img("convert", image, back).status == 0
    assert back.read_bytes() == raw.read_bytes()
    assert evisor_img("convert", "-c", "-O", "qcow2", image, again).status == 0
    assert_clean(again)
    assert qemu_img("compare", image, again).status == 0


@pytest.mark.parametrize("options", [[], ["-c"], ["-o", "cluster_size=4k"]], ids=" ".join)
def test_is_as_small_as_theirs(raw, tmp_path, options):
    sizes = []
    for name, tool in (("ours", evisor_img), ("theirs", qemu_img)):
        image = tmp_path / name
        assert tool("convert", "-O", "qcow2", *options, raw, image).status == 0
        sizes.append(image.stat().st_size)
    assert sizes[0] <= sizes[1] * 1.02 + 300000, sizes


def test_into_what_exists(raw, tmp_path):
    for form in ("raw", "qcow2"):
        target = tmp_path / form
        assert evisor_img("create", "-f", form, target, SIZE).status == 0
        qemu_io(target, f"write -P 77 0 {SIZE}", options=("-f", form))
        assert evisor_img("convert", "-n", "-O", form, raw, target).status == 0
        assert qemu_img("compare", "-f", "raw", "-F", form, raw, target).status == 0
    assert_clean(tmp_path / "qcow2")
    small = tmp_path / "small"
    evisor_img("create", "-f", "qcow2", small, "1M")
    result = evisor_img("convert", "-n", "-O", "qcow2", raw, small)
    assert result.status == 1 and "smaller" in result.err and result.err.count("\n") == 1


def test_several_sources(raw, tmp_path):
    parts = []
    data = raw.read_bytes()
    for i, length in enumerate((512, 70000 // 512 * 512, 1 << 20, 512 * 3)):
        part = tmp_path / f"part{i}"
        part.write_bytes(data[:length])
        parts.append(part)
    results = []
    for name, tool in (("ours", evisor_img), ("theirs", qemu_img)):
        assert tool("convert", "-f", "raw", "-O", "qcow2", *parts, tmp_path / name).status == 0
    assert qemu_img("compare", tmp_path / "ours", tmp_path / "theirs").status == 0
    assert_clean(tmp_path / "ours")
    assert not results


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("clusters", [("4k", "64k"), ("64k", "4k"), ("64k", "64k")])
def test_with_a_backing_file(raw, tmp_path, compat, clusters):
    base, top, ours = tmp_path / "base", tmp_path / "top", tmp_path / "ours"
    evisor_img("convert", "-O", "qcow2", raw, base)
    evisor_img("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "-o",
               f"cluster_size={clusters[0]}", top)
    qemu_io(top, "write -P 9 1M 100000", "write -z 3M 1M", "write -z 5000000 6000",
            "write -P 8 10M 1")
    result = evisor_img("convert", "-O", "qcow2", "-B", base, "-F", "qcow2", "-o",
                        f"cluster_size={clusters[1]},compat={compat}", top, ours)
    assert result.status == 0, result
    assert_clean(ours)
    assert qemu_img("compare", top, ours).status == 0
    assert ours.stat().st_size < 4 << 20  # the base was not copied


def test_chain_is_flattened(raw, tmp_path):
    evisor_img("convert", "-O", "qcow2", raw, tmp_path / "l0")
    for level in range(1, 5):
        evisor_img("create", "-f", "qcow2", "-b", f"l{level - 1}", "-F", "qcow2",
                   tmp_path / f"l{level}", 0 + SIZE + level * 512)
        qemu_io(tmp_path / f"l{level}", f"write -P {level} {level}M 100k",
                f"write -z {level * 2}500k 100k" if level < 3 else "read 0 512")
    assert evisor_img("convert", "-O", "qcow2", tmp_path / "l4", tmp_path / "flat").status == 0
    assert qemu_img("compare", tmp_path / "l4", tmp_path / "flat").status == 0
    assert_clean(tmp_path / "flat")


def test_progress(raw, tmp_path):
    ours = evisor_img("convert", "-p", "-O", "qcow2", raw, tmp_path / "x")
    steps = ours.out.split("\n")  # carriage returns, to Python's universal newlines
    assert steps[0] == "    (0.00/100%)" and "    (100.00/100%)" in steps[-3:]


def test_interrupted_leaves_nothing(tmp_path):
    big = tmp_path / "big"
    with open(big, "wb") as file:
        file.write(random.Random(1).randbytes(1 << 20) * 48)
    for form in ("raw", "qcow2"):
        target = tmp_path / form
        words = [EVISOR_IMG, "convert", "-m", "1", "-O", form] + ["-c"] * (form == "qcow2")
        with subprocess.Popen(words + [str(big), str(target)], stderr=subprocess.PIPE) as process:
            while not target.exists() and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        if process.returncode == 0:
            continue  # it was faster than the signal
        assert process.returncode == 1 and b"interrupted" in err
        assert not target.exists()


@pytest.mark.parametrize("words", [["-O", "raw"], ["-O", "qcow2"], ["-O", "qcow2", "-c"],
                                   ["-O", "qcow2", "-o", "preallocation=metadata"]],
                         ids=" ".join)
def test_host_out_of_space(tmp_path, words):
    """A limit on the file's size stands for a full disk: one line, and nothing is left behind."""
    noise = tmp_path / "noise"
    noise.write_bytes(random.Random(2).randbytes(8 << 20))

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, 5 << 20))
    done = subprocess.run([EVISOR_IMG, "convert", *words, noise, tmp_path / "out"],
                          preexec_fn=limit, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done
    assert done.stderr.startswith("evisor-img: ") and done.stderr.count("\n") == 1, done
    assert not (tmp_path / "out").exists()


REFUSED = [
    ["x"],
    ["-O", "foo", "raw", "out"],
    ["-O", "qcow2", "nonexistent", "out"],
    ["-O", "raw", "-c", "raw", "out"],
    ["-O", "qcow2", "-o", "foo=1", "raw", "out"],
    ["-O", "qcow2", "-m", "0", "raw", "out"],
    ["-O", "qcow2", "-m", "17", "raw", "out"],
    ["-O", "qcow2", "-S", "3", "raw", "out"],
    ["-O", "qcow2", "-t", "foo", "raw", "out"],
    ["-O", "qcow2", "-B", "raw", "raw", "out"],
    ["-n", "-o", "size=1M", "-O", "qcow2", "raw", "out"],
    ["-O", "qcow2", "raw", "/nonexistent/out"],
]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_refused(pair, words):
    results = []
    for directory, tool in zip(pair, (evisor_img, qemu_img)):
        (directory / "raw").write_bytes(bytes(1 << 20))
        results.append(tool("convert", *words, cwd=directory))
    assert not (pair[0] / "out").exists()
    assert results[0].status == results[1].status == 1
    assert results[0].err.startswith("evisor-img: ")


def test_a_raw_file_that_ends_within_a_sector_keeps_its_last_bytes(tmp_path):
    (tmp_path / "odd.raw").write_bytes(bytes(range(250)) * 4)
    assert evisor_img("convert", "-f", "raw", "-O", "qcow2", "odd.raw", "odd.qcow2",
                      cwd=tmp_path).status == 0
    for tool in (evisor_img, qemu_img):
        assert tool("compare", "-f", "raw", "-F", "qcow2", "odd.raw", "odd.qcow2",
                    cwd=tmp_path).status == 0
    assert qemu_img("info", "--output=json", "odd.qcow2", cwd=tmp_path).json()["virtual-size"] == 1024


@pytest.mark.parametrize("count", [0, 4, 5])
def test_dd_copies_so_many_blocks(tmp_path, count):
    """Of an image that ends within a block."""
    source, target = tmp_path / "source", tmp_path / "target"
    data = random.Random(count).randbytes(4 * 65536 + 512)
    source.write_bytes(data)
    assert evisor_img("dd", "-f", "raw", "bs=64k", f"count={count}", f"if={source}",
                      f"of={target}").status == 0
    assert target.read_bytes() == data[:count * 65536]


BLOCKS = [None, 1, 500, 512, 4096, 70000]
HUGE = 2**62


def dd_by_both(pair, output_format, operands):
    results = [tool("dd", "-f", "raw", "-O", output_format, *operands, "if=in", "of=out",
                    cwd=directory) for directory, tool in zip(pair, (evisor_img, qemu_img))]
    assert results[0].status == results[1].status == 0, (operands, results)
    assert results[0].err == results[1].err.replace("qemu-img", "evisor-img"), operands


@pytest.mark.parametrize("size", [0, 512, 5000])
def test_dd_takes_the_same_part_as_qemu_img(pair, size):
    """Whatever the block, and however much is left out, counted, or not there."""
    grid = [(bs, skip, count) for bs in BLOCKS for skip in (None, 0, 1, 3, 10, HUGE)
            for count in (None, 0, 1, 3, 4, 12, HUGE)]
    for directory in pair:
        (directory / "in").write_bytes(random.Random(size).randbytes(size))
    for row in random.Random(size).sample(grid, 40):
        operands = [f"{key}={value}" for key, value in zip(("bs", "skip", "count"), row)
                    if value is not None]
        dd_by_both(pair, "raw", operands)
        outputs = [directory / "out" for directory in pair]
        assert outputs[0].read_bytes() == outputs[1].read_bytes(), operands
        for output in outputs:
            output.unlink()


def test_dd_into_qcow2_takes_the_same_part_as_qemu_img(pair):
    for directory in pair:
        (directory / "in").write_bytes(random.Random(1).randbytes(300001))
    dd_by_both(pair, "qcow2", ["bs=70000", "skip=1", "count=3"])
    outputs = [directory / "out" for directory in pair]
    sizes = [qemu_img("info", "--output=json", out).json()["virtual-size"] for out in outputs]
    assert sizes[0] == sizes[1]
    result = qemu_img("compare", "-f", "qcow2", "-F", "qcow2", *outputs)
    assert result.status == 0, result
