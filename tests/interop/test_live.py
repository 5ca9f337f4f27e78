# SPDX-License-Identifier: MIT
"""What the engine does with an image in use: internal snapshots, VM state, external data files."""
import os
import random
import subprocess
import zlib

import pytest

from conftest import BUILD, assert_clean, evisor_img, qemu_img, qemu_io

DRIVER = BUILD / "tests" / "disk_driver"
pytestmark = pytest.mark.skipif(not DRIVER.exists(), reason="not built: ninja tests")
OPTIONS = ["cluster_size=64k", "cluster_size=4k", "cluster_size=64k,extended_l2=on",
           "cluster_size=512,refcount_bits=8"]


def drive(path, lines, options=(), status=0):
    done = subprocess.run([DRIVER, *options, path], input="\n".join(lines) + "\n", text=True,
                          capture_output=True, timeout=60, check=False, cwd=os.path.dirname(path))
    assert done.returncode == status, f"{lines}\n{done.stderr}"
    return done.stdout if status == 0 else done.stderr


@pytest.mark.parametrize("options", OPTIONS)
def test_snapshots_in_use(tmp_path, options):
    image = tmp_path / "image"
    assert qemu_img("create", "-q", "-f", "qcow2", "-o", options, image, "8M").status == 0
    out = drive(image, [
        "write 0 300000 17", "wait", "create one",
        "write 65536 65536 34", "write 1048576 65536 51", "wait",
        "vmstate 3000000", "vmwrite 0 2000000 90", "wait", "vmis 0 2000000 90", "create two",
        "is 65536 65536 34", "apply one", "is 0 300000 17", "is 1048576 65536 0",
        "write 0 65536 99", "wait", "apply two", "is 65536 65536 34", "is 0 65536 17",
        "vmis 0 2000000 90", "snapshots", "delete one", "is 0 65536 17",
        "write 200000 400000 68", "flush",
    ])
    assert out.splitlines() == ["1 one 0 8388608", "2 two 3000000 8388608"]
    assert_clean(image)
    # QEMU finds what the engine made, and the disk as it was at that moment.
    assert "two" in qemu_img("snapshot", "-l", image).out
    assert qemu_img("snapshot", "-a", "two", image).status == 0
    qemu_io(image, "read -P 17 0 65536", "read -P 34 65536 65536", "read -P 51 1048576 65536",
            options=("-f", "qcow2"))
    assert_clean(image)


def test_trimmed_space_goes_back_without_a_flush(tmp_path):
    image = tmp_path / "image"
    qemu_img("create", "-q", "-f", "qcow2", image, "8M")
    drive(image, ["write 0 8388608 17", "flush"])
    # A hole may cost the host's file system a block for its own map of the file.
    most = image.stat().st_blocks * 512 + 65536
    drive(image, ["discard 0 4194304", "wait", f"shrinks {most - 4194304}"], ("-i", "20"))
    # While it is open, and killed then: what was given back was unmapped before.
    assert "is" in drive(image, ["discard 4194304 2097152", "wait", f"shrinks {most - 6291456}",
                                 "is 0 512 99"], ("-i", "20"), status=1)
    assert qemu_img("check", image).status in (0, 3)
    qemu_io(image, "read -P 0 0 6291456", "read -P 17 6291456 2097152", options=("-f", "qcow2"))


@pytest.mark.parametrize("entry", [512, 4096, 65536])
def test_small_cache_of_any_unit(tmp_path, entry):
    image = tmp_path / "image"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=64k", image, "20G")
    places = range(0, 20 << 30, 600 << 20)
    lines = [f"write {at} 4096 {at % 251 + 1}" for at in places] + ["wait"]
    drive(image, lines + [f"is {at} 4096 {at % 251 + 1}" for at in places],
          ("-c", str(128 * 1024), "-e", str(entry)))
    assert_clean(image)


def test_unit_of_the_cache_must_fit(tmp_path):
    image = tmp_path / "image"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image, "1M")
    for entry in ("8192", "1000", "256"):
        assert "power of two" in drive(image, ["size"], ("-e", entry), status=1)


def test_unit_of_the_cache_is_of_the_image_on_top(tmp_path):
    base, top = tmp_path / "base", tmp_path / "top"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", base, "1M")
    qemu_io(base, "write -P 5 0 1M", options=("-f", "qcow2"))
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    drive(top, ["is 0 1048576 5"], ("-e", "65536"))


def test_unused_tables_leave_the_cache(tmp_path):
    image = tmp_path / "image"
    qemu_img("create", "-q", "-f", "qcow2", image, "4G")
    drive(image, ["write 0 65536 17", "write 3221225472 65536 34", "flush", "idle 2200",
                  "is 0 65536 17", "is 3221225472 65536 34", "write 65536 4096 51", "flush"],
          ("-C", "1"))
    assert_clean(image)


def test_vm_state_does_not_show_when_the_disk_grows(tmp_path):
    image = tmp_path / "image"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image, "2M")
    drive(image, ["vmstate 4194304", "vmwrite 0 4194304 90", "wait", "create s", "apply s",
                  "vmis 0 4194304 90", "resize 8388608", "is 0 8388608 0"])
    assert_clean(image)


def test_snapshot_that_is_not_there(tmp_path):
    image = tmp_path / "image"
    qemu_img("create", "-q", "-f", "qcow2", image, "1M")
    assert "No such file" in drive(image, ["write 0 512 1", "apply nothing"], status=1)
    assert_clean(image)


def test_a_snapshot_that_cannot_be_counted(tmp_path):
    """It is refused, and the disk goes on."""
    image = tmp_path / "image"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "refcount_bits=1", image, "1M")
    lines = ["write 0 65536 17", "wait", "create one"]
    assert "cannot grow" in drive(image, lines, status=1)
    drive(image, ["refused one", "write 65536 65536 34", "flush", "wait", "is 0 65536 17"])
    qemu_io(image, "read -P 34 65536 65536", options=("-f", "qcow2"))
    assert_clean(image)


@pytest.fixture
def small_host(tmp_path):
    """A file system of 4 MiB, in a folder."""
    folder = tmp_path / "host"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], check=False,
                          capture_output=True)
    if made.returncode:
        pytest.skip("needs root, to make a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill_up(folder, left):
    with open(folder / "filler", "wb", buffering=0) as filler:
        size = 0
        try:
            while True:
                size += filler.write(bytes(4096))
        except OSError:
            filler.truncate(size - left)


@pytest.mark.parametrize("options", ["cluster_size=4k", "cluster_size=512,refcount_bits=64"])
def test_a_snapshot_on_a_host_without_space(small_host, options):
    """However far it came: nothing has changed, and the disk goes on."""
    image = small_host / "image"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, image, "32M")
    drive(image, ["write 0 1048576 17", "flush", "create old", "write 0 4096 18", "flush"])
    refused = 0
    for left in range(0, 65536, 4096):
        before, name = image.stat().st_size, f"at-{left}"
        fill_up(small_host, left)
        try:
            drive(image, [f"refused {name}", "is 0 4096 18", "write 0 4096 19", "flush", "wait",
                          "apply old", "is 0 8192 17"] if left == 8192 else
                  [f"refused {name}", "write 0 4096 18", "flush", "wait"])
        except AssertionError as reason:
            assert "was not refused" in str(reason)
            break
        refused += 1
        assert_clean(image)
        assert image.stat().st_size == before
        (small_host / "filler").unlink()
    assert refused
    assert name in qemu_img("snapshot", "-l", image).out
    assert_clean(image)


def test_a_bitmap_on_a_host_without_space(small_host):
    image = small_host / "image"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image, "32M")
    before = image.read_bytes()
    for left in (0, 4096):
        fill_up(small_host, left)
        result = evisor_img("bitmap", "--add", image, "b")
        assert result.status == 1 and "No space left" in result.err, result
        (small_host / "filler").unlink()
        assert image.read_bytes() == before
    assert evisor_img("bitmap", "--add", image, "b").status == 0
    assert_clean(image)


def test_raw_has_no_snapshots(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(65536))
    assert "no internal snapshots" in drive(image, ["create s"], ("-f", "raw"), status=1)


@pytest.mark.parametrize("raw", ["on", "off"])
def test_data_file(tmp_path, raw):
    image, data = tmp_path / "image", tmp_path / "data"
    made = evisor_img("create", "-q", "-f", "qcow2", "-o", f"data_file=data,data_file_raw={raw}",
                      image, "4M", cwd=tmp_path)
    assert made.status == 0, made
    drive(image, ["write 0 200000 17", "wait", "zero 65536 65536", "wait", "unmap 196608 131072",
                  "wait", "resize 8388608", "write 8000000 4096 34", "flush"])
    assert data.stat().st_size == 8388608
    qemu_io(image, "read -P 17 0 65536", "read -P 0 65536 65536", "read -P 17 131072 65536",
            "read -P 0 196608 131072", "read -P 34 8000000 4096", options=("-f", "qcow2"),
            cwd=tmp_path)
    assert_clean(image, cwd=tmp_path)
    if raw == "on":
        assert evisor_img("compare", "-f", "qcow2", "-F", "raw", image, data,
                          cwd=tmp_path).status == 0
    # The space is given back, and is not what the image is made of.
    assert data.stat().st_blocks * 512 <= 300000
    data.unlink()
    assert "data file of" in drive(image, ["is 0 512 17"], status=1)


def test_data_file_with_data_at_another_place(tmp_path):
    """The entry of the first cluster points elsewhere: refused, and the image marked corrupt."""
    image = tmp_path / "image"
    evisor_img("create", "-q", "-f", "qcow2", "-o", "data_file=data", image, "1M", cwd=tmp_path)
    drive(image, ["write 0 131072 17", "flush"])
    contents = bytearray(image.read_bytes())
    l1 = int.from_bytes(contents[40:48], "big")
    l2 = int.from_bytes(contents[l1:l1 + 8], "big") & 0x00fffffffffffe00
    contents[l2:l2 + 8] = (1 << 63 | 65536).to_bytes(8, "big")
    image.write_bytes(contents)
    result = evisor_img("bench", "-w", "-c", "1", "-f", "qcow2", image, cwd=tmp_path)
    assert result.status == 1 and "is corrupt" in result.err, result
    assert image.read_bytes()[79] & 2


def test_data_file_of_a_backing_image(tmp_path):
    evisor_img("create", "-q", "-f", "qcow2", "-o", "data_file=data", "base", "1M", cwd=tmp_path)
    drive(tmp_path / "base", ["write 0 131072 17", "flush"])
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top", cwd=tmp_path)
    drive(tmp_path / "top", ["write 512 512 34", "wait", "is 0 512 17", "is 512 512 34"])
    result = evisor_img("convert", "-O", "qcow2", "-o", "data_file=other", "top", "copy",
                        cwd=tmp_path)
    assert result.status == 0, result
    assert qemu_img("compare", "top", "copy", cwd=tmp_path).status == 0


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_small_reads_of_compressed_clusters(tmp_path, kind):
    """In any order and size: a cluster is unpacked as far as needed, then further."""
    image, raw = tmp_path / "image", tmp_path / "raw"
    generator = random.Random(7)
    words = [generator.randbytes(5) for _ in range(50)]
    contents = b"".join(generator.choices(words, k=400000))[:1 << 20]
    raw.write_bytes(contents)
    made = qemu_img("convert", "-c", "-O", "qcow2", "-o", f"compression_type={kind}", raw, image)
    assert made.status == 0, made
    lines, sums = [], []
    for _ in range(400):
        offset = generator.randrange(1 << 11) * 512
        length = min(generator.choice([512, 4096, 20480, 65536, 200704]), len(contents) - offset)
        lines.append(f"read {offset} {length}")
        sums.append(f"{zlib.crc32(contents[offset:offset + length]):08x}")
    assert drive(image, lines, ("-r",)).split() == sums


@pytest.mark.parametrize("cluster", ["512", "4k", "2M"])
@pytest.mark.parametrize("bits", [1, 2, 8, 64])
def test_every_width_of_refcounts(tmp_path, cluster, bits):
    image = tmp_path / "image"
    made = qemu_img("create", "-q", "-f", "qcow2", "-o",
                    f"cluster_size={cluster},refcount_bits={bits}", image, "16M")
    assert made.status == 0, made
    drive(image, ["write 0 5000192 17", "write 9000448 3000320 34", "wait", "flush",
                  "unmap 1048576 2097152", "wait", "flush", "write 2097152 1024 51", "wait",
                  "zero 9000448 4096", "flush", "resize 33554432", "write 33000448 4096 68"])
    assert_clean(image)
    qemu_io(image, "read -P 17 0 1048576", "read -P 0 1048576 1048576", "read -P 51 2097152 1024",
            "read -P 17 3145728 1854464", "read -P 0 9000448 4096", "read -P 34 9004544 2996224",
            "read -P 68 33000448 4096", options=("-f", "qcow2"))
