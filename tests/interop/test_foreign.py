# SPDX-License-Identifier: MIT
"""VDI, VMDK, VHD and VHDX images: made by qemu-img and read by evisor-img, and the other way."""
import random
import struct

import pytest

from conftest import evisor_img, qemu_img

MIB = 1 << 20

# name -> (format, options, what the tools are to be told with -f)
KINDS = {
    "vdi": ("vdi", ""),
    "vdi-static": ("vdi", "static=on"),
    "vmdk": ("vmdk", "subformat=monolithicSparse"),
    "vmdk-zeroed": ("vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
    "vmdk-flat": ("vmdk", "subformat=monolithicFlat"),
    "vmdk-split": ("vmdk", "subformat=twoGbMaxExtentSparse"),
    "vmdk-split-flat": ("vmdk", "subformat=twoGbMaxExtentFlat"),
    "vmdk-stream": ("vmdk", "subformat=streamOptimized"),
    "vhd": ("vpc", "subformat=dynamic"),
    "vhd-exact": ("vpc", "subformat=dynamic,force_size=on"),
    "vhd-fixed": ("vpc", "subformat=fixed"),
    "vhdx": ("vhdx", "subformat=dynamic"),
    "vhdx-small": ("vhdx", "subformat=dynamic,block_size=1M,log_size=2M"),
    "vhdx-fixed": ("vhdx", "subformat=fixed"),
}
WRITTEN = {
    "vdi": ("vdi", ""),
    "vmdk": ("vmdk", "subformat=monolithicSparse"),
    "vmdk-stream": ("vmdk", "subformat=streamOptimized"),
    "vhd": ("vpc", ""),
    "vhdx": ("vhdx", "subformat=dynamic"),
}


def make_disk(path, seed, size=37 * MIB + 5 * 512):
    """Runs of noise, text, zeroes and holes, to the last sector."""
    chance = random.Random(seed)
    with open(path, "wb") as disk:
        disk.truncate(size)
        for _ in range(24):
            at = chance.randrange(size // 512) * 512
            length = min(chance.choice([512, 4096, 65536, 700 * 512]), size - at)
            disk.seek(at)
            disk.write(chance.choice([chance.randbytes(length), b"words and " * length,
                                      bytes(length)])[:length])
        disk.seek(size - 512)
        disk.write(chance.randbytes(512))


@pytest.fixture(params=KINDS, name="image")
def fixture_image(request, tmp_path):
    """An image by qemu-img beside the raw disk it holds."""
    kind, options = KINDS[request.param]
    make_disk(tmp_path / "disk.raw", request.param)
    made = qemu_img("convert", "-f", "raw", "-O", kind, *(["-o", options] if options else []),
                    "disk.raw", "image", cwd=tmp_path)
    assert made.status == 0, made
    return tmp_path, kind


def test_contents_are_those_that_qemu_wrote(image):
    folder, kind = image
    same = evisor_img("compare", "-f", kind, "-F", "raw", "image", "disk.raw", cwd=folder)
    assert same.status == 0 and "identical" in same.out, same
    assert evisor_img("convert", "-f", kind, "-O", "qcow2", "image", "o.qcow2", cwd=folder).status == 0
    assert qemu_img("compare", "o.qcow2", "disk.raw", cwd=folder).status == 0
    assert evisor_img("check", "-f", kind, "image", cwd=folder).status == 0


def test_info_says_the_same(image):
    folder, kind = image
    words = ("info", "-f", kind, "image")
    assert evisor_img(*words, cwd=folder).out == qemu_img(*words, cwd=folder).out
    words = ("info", "-f", kind, "--output=json", "image")
    assert evisor_img(*words, cwd=folder).json() == qemu_img(*words, cwd=folder).json()


def test_map_covers_the_same_data(image):
    folder, kind = image
    words = ("map", "-f", kind, "--output=json", "image")
    ours, theirs = evisor_img(*words, cwd=folder).json(), qemu_img(*words, cwd=folder).json()
    if kind != "vhdx":  # of which qemu-img tells nothing
        keys = ("start", "length", "present", "zero", "offset")
        assert [[e.get(k) for k in keys] for e in ours] == [[e.get(k) for k in keys] for e in theirs]
    assert sum(extent["length"] for extent in ours) == sum(extent["length"] for extent in theirs)


def test_overlay_on_a_foreign_image_reads_through(image):
    folder, kind = image
    made = evisor_img("create", "-f", "qcow2", "-b", "image", "-F", kind, "top.qcow2", cwd=folder)
    assert made.status == 0, made
    assert evisor_img("compare", "top.qcow2", "disk.raw", cwd=folder).status == 0


def test_writing_is_refused_in_one_line(image):
    folder, kind = image
    refused = evisor_img("bench", "-f", kind, "-w", "-c", "1", "image", cwd=folder)
    assert refused.status == 1 and refused.err.count("\n") == 1 and "convert" in refused.err, refused


def test_a_file_cut_short_is_one_line(image):
    folder, kind = image
    whole = (folder / "image").read_bytes()
    for part in (0, 100, 512, 1024, 4096, len(whole) // 2, len(whole) - 512):
        if part >= len(whole):
            continue
        (folder / "image").write_bytes(whole[:part])
        for command in (("convert", "-f", kind, "-O", "raw", "image", "out.raw"),
                        ("info", "-f", kind, "image"), ("check", "-f", kind, "image")):
            result = evisor_img(*command, cwd=folder)
            if result.status and command[0] != "check":
                assert result.err.count("\n") == 1 and "image" in result.err, (part, result)


def test_damaged_tables_never_kill(image):
    folder, kind = image
    whole = bytearray((folder / "image").read_bytes())
    chance = random.Random(kind)
    for _ in range(12):
        broken = bytearray(whole)
        for _ in range(8):
            at = chance.choice([chance.randrange(min(len(whole), 4096)), chance.randrange(len(whole))])
            broken[at] ^= 1 << chance.randrange(8)
        (folder / "image").write_bytes(broken)
        for command in ("info", "check", "map"):
            evisor_img(command, "-f", kind, "image", cwd=folder)  # `run` fails on a signal


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("size", [512, 37 * MIB + 512, 96 * MIB])
def test_what_evisor_writes_qemu_reads(tmp_path, name, size):
    kind, options = WRITTEN[name]
    extra = ["-o", options] if options else []
    make_disk(tmp_path / "disk.raw", name, size)
    made = evisor_img("convert", "-f", "raw", "-O", kind, *extra, "disk.raw", "image", cwd=tmp_path)
    assert made.status == 0, made
    for tool in (qemu_img, evisor_img):
        # qemu-img has no checks for VHD.
        assert tool("check", "-f", kind, "image", cwd=tmp_path).status in (0, 63)
        same = tool("compare", "-f", kind, "-F", "raw", "image", "disk.raw", cwd=tmp_path)
        assert same.status == 0, same
    words = ("info", "--output=json", "-f", kind, "image")
    told = evisor_img(*words, cwd=tmp_path).json()
    assert told == qemu_img(*words, cwd=tmp_path).json() and told["virtual-size"] == size


def test_an_empty_vmdk_is_refused(tmp_path):
    refused = evisor_img("create", "-f", "vmdk", "image", "0", cwd=tmp_path)
    assert refused.status == 1 and "empty" in refused.err, refused
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize("name", WRITTEN)
def test_created_images_are_empty(tmp_path, name):
    kind, options = WRITTEN[name]
    extra = ["-o", options] if options else []
    assert evisor_img("create", "-f", kind, *extra, "image", "5G", cwd=tmp_path).status == 0
    assert qemu_img("info", "--output=json", "image", cwd=tmp_path).json()["virtual-size"] == 5 << 30
    assert qemu_img("map", "--output=json", "image", cwd=tmp_path).json()[0]["length"] == 5 << 30


def test_stream_is_in_the_order_of_the_disk_with_a_footer(tmp_path):
    """What readers that cannot seek rely on: grains rise, the directory is behind them."""
    make_disk(tmp_path / "disk.raw", "stream")
    evisor_img("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "disk.raw", "image",
               cwd=tmp_path)
    stream = (tmp_path / "image").read_bytes()
    assert struct.unpack_from("<Q", stream, 56)[0] == (1 << 64) - 1
    at, grains, markers = 65536, [], []
    while at < len(stream):
        first, length, kind = struct.unpack_from("<QII", stream, at)
        if length:
            grains.append(first)
            at += -(-(12 + length) // 512) * 512
        else:
            markers.append(kind)
            at += 512 + first * 512
    assert grains == sorted(grains) and grains
    assert markers[-3:] == [2, 3, 0] and set(markers[:-3]) == {1}


def test_delta_and_differencing_images_are_refused(tmp_path):
    qemu_img("create", "-f", "vmdk", "base.vmdk", "1M", cwd=tmp_path)
    qemu_img("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "delta.vmdk", cwd=tmp_path)
    refused = evisor_img("info", "delta.vmdk", cwd=tmp_path)
    assert refused.status == 1 and "delta of 'base.vmdk'" in refused.err, refused
    qemu_img("create", "-f", "vdi", "image.vdi", "1M", cwd=tmp_path)
    bytes_of = bytearray((tmp_path / "image.vdi").read_bytes())
    bytes_of[0x4c] = 4
    (tmp_path / "image.vdi").write_bytes(bytes_of)
    refused = evisor_img("info", "image.vdi", cwd=tmp_path)
    assert refused.status == 1 and "differencing" in refused.err, refused


def test_an_extent_outside_of_the_directory_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(MIB))
    (tmp_path / "image.vmdk").write_text(
        '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
        f'RW 2048 FLAT "{tmp_path}/secret" 0\n')
    refused = evisor_img("info", "image.vmdk", cwd=tmp_path)
    assert refused.status == 1 and "same directory" in refused.err, refused


def vhdx_with_log(path):
    """Moves the change of a BAT entry into the log, as a crash would leave it."""
    image = bytearray(path.read_bytes())
    regions = {bytes(image[at:at + 16]): struct.unpack_from("<Q", image, at + 16)[0]
               for at in (196608 + 16, 196608 + 48)}
    bat = next(offset for guid, offset in regions.items() if guid[0] == 0x66)
    sector = bytes(image[bat:bat + 4096])
    image[bat:bat + 4096] = bytes(4096)
    guid, sequence = bytes(range(16)), 7
    log_bytes, log_offset = struct.unpack_from("<IQ", image, 65536 + 68)
    entry = bytearray(8192)
    struct.pack_into("<4sIIIQII16sQQ", entry, 0, b"loge", 0, len(entry), 0, sequence, 1, 0, guid,
                     len(image), len(image))
    entry[64:96] = struct.pack("<4s4s8sQQ", b"desc", sector[-4:], sector[:8], bat, sequence)
    entry[4096:] = b"data" + struct.pack("<I", 0) + sector[8:-4] + struct.pack("<I", sequence)
    struct.pack_into("<I", entry, 4, crc32c(entry))
    image[log_offset:log_offset + len(entry)] = entry
    assert log_bytes >= len(entry)
    for at in (65536, 131072):
        image[at + 48:at + 64] = guid
        image[at + 4:at + 8] = bytes(4)
        struct.pack_into("<I", image, at + 4, crc32c(image[at:at + 4096]))
    path.write_bytes(image)
    return log_offset


def _crc_entry(value):
    for _ in range(8):
        value = value >> 1 ^ (0x82f63b78 if value & 1 else 0)
    return value


CRC_TABLE = [_crc_entry(value) for value in range(256)]


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xff]
    return crc ^ 0xffffffff


def vhdx_with_zeroes_in_its_log(path, count):
    """A log of its own, behind everything else, that zeroes the same place so many times."""
    image = bytearray(path.read_bytes())
    image += bytes(-len(image) % MIB)
    guid, sequence, log_offset, log_bytes = bytes(range(16)), 7, len(image), 4 * MIB
    entry = bytearray(-(-(64 + count * 32) // 4096) * 4096)
    struct.pack_into("<4sIIIQII16sQQ", entry, 0, b"loge", 0, len(entry), 0, sequence, count, 0,
                     guid, len(image), len(image))
    entry[64:64 + count * 32] = struct.pack("<4sIQQQ", b"zero", 0, 4096, 1 << 40, sequence) * count
    struct.pack_into("<I", entry, 4, crc32c(entry))
    image += entry + bytes(log_bytes - len(entry))
    for at in (65536, 131072):
        image[at + 48:at + 64] = guid
        struct.pack_into("<IQ", image, at + 68, log_bytes, log_offset)
        image[at + 4:at + 8] = bytes(4)
        struct.pack_into("<I", image, at + 4, crc32c(image[at:at + 4096]))
    path.write_bytes(image)


def test_a_vhdx_with_a_log_of_too_many_entries_is_refused(tmp_path):
    """Every read would look through all of them."""
    make_disk(tmp_path / "disk.raw", "log")
    for count in (60000, 70000):
        qemu_img("convert", "-O", "vhdx", "disk.raw", "image.vhdx", cwd=tmp_path)
        vhdx_with_zeroes_in_its_log(tmp_path / "image.vhdx", count)
        result = evisor_img("compare", "-f", "vhdx", "-F", "raw", "image.vhdx", "disk.raw",
                            cwd=tmp_path)
        if count == 60000:
            assert result.status == 0, result
    assert result.status != 0 and "more than 65536 entries" in result.err, result


def test_a_vhdx_that_was_not_closed_is_replayed(tmp_path):
    make_disk(tmp_path / "disk.raw", "log")
    qemu_img("convert", "-O", "vhdx", "disk.raw", "image.vhdx", cwd=tmp_path)
    log_offset = vhdx_with_log(tmp_path / "image.vhdx")
    before = (tmp_path / "image.vhdx").read_bytes()
    same = evisor_img("compare", "image.vhdx", "disk.raw", cwd=tmp_path)
    assert same.status == 0, same
    assert (tmp_path / "image.vhdx").read_bytes() == before
    qemu_img("check", "-r", "all", "image.vhdx", cwd=tmp_path)
    assert qemu_img("compare", "image.vhdx", "disk.raw", cwd=tmp_path).status == 0
    broken = bytearray(before)
    broken[log_offset + 5000] ^= 1
    (tmp_path / "image.vhdx").write_bytes(broken)
    refused = evisor_img("info", "image.vhdx", cwd=tmp_path)
    assert refused.status == 1 and "log is damaged" in refused.err, refused
