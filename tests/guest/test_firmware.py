# SPDX-License-Identifier: MIT
"""Disks and CDs boot: SeaBIOS, then GRUB or ISOLINUX, then a stock kernel, all on the serial port."""

import re
import subprocess

import pytest

from guestkit import bootdisk, packages
from guestkit.kernel import QUICK
from guestkit.machine import Machine


def by_the_bios(text):
    """SeaBIOS says where the cursor is whenever its clock ticks, between two letters too."""
    return r"(?:\x1b\[[0-9;]*H)*".join(re.escape(letter) for letter in text)


SEABIOS = by_the_bios("SeaBIOS (version")
GRUB = by_the_bios("GRUB-STARTS-LINUX")
ISOLINUX = by_the_bios("ISOLINUX-STARTS-LINUX")


@pytest.fixture(scope="module")
def images(kernel, diskless, tmp_path_factory):
    """A disk with GRUB and a hybrid ISO."""
    packages.install(["seabios"], "the guest's firmware")
    folder = tmp_path_factory.mktemp("boot")
    append = f"console=ttyS0 quiet panic=-1 {QUICK}"
    bootdisk.make_grub(folder / "grub.raw", kernel.image, diskless, append)
    bootdisk.make_iso(folder / "live.iso", kernel.image, diskless, append)
    return folder


@pytest.fixture
def power_on(evisor, accel):
    """power_on(*arguments): a machine that starts by its firmware; it ends with the test."""
    machines = []

    def begin(*arguments, memory="256"):
        machine = Machine(evisor, [*accel, "-m", memory, "-nic", "none", *arguments])
        machines.append(machine)
        return machine

    yield begin
    for machine in machines:
        machine.__exit__(None, None, None)


def drive(path, more=""):
    return ["-drive", f"file={path},format=raw,if=virtio{more}"]


def test_a_disk_boots_through_grub(power_on, images):
    machine = power_on("-smp", "2", *drive(images / "grub.raw"))
    machine.expect(SEABIOS, 120)
    machine.expect(GRUB, 120)
    machine.expect("GUEST-INIT", 180)
    assert machine.check("nproc") == "2"
    assert machine.check("cat /proc/cmdline").startswith("BOOT_IMAGE=/boot/vmlinuz")
    # The firmware's memory map and the tables that it was told of.
    log = machine.check("dmesg")
    assert "EVISOR" in log and "ACPI: Interpreter enabled" in log
    for word in ("Call Trace", "BUG:", "WARNING:", "ACPI Error", "ACPI BIOS Error"):
        assert word not in log
    total = int(machine.check("awk '/MemTotal/ {print $2}' /proc/meminfo"))
    assert total > 180 * 1024
    assert machine.check("mount -t ext4 /dev/vda1 /mnt && cat /mnt/boot/grub/grub.cfg | head -1") \
        .startswith("serial")
    machine.type("umount /mnt; poweroff -f\n")
    assert machine.wait() == 0


def test_a_reset_goes_through_the_firmware_again(power_on, images):
    machine = power_on(*drive(images / "grub.raw"))
    for _ in range(2):
        machine.expect(SEABIOS, 120)
        machine.expect(GRUB, 120)
        machine.expect("GUEST-INIT", 180)
        machine.type("reboot -f\n")
    machine.expect(SEABIOS, 120)


def test_an_iso_boots_as_cd_and_as_disk(power_on, images):
    for arguments in (["-cdrom", images / "live.iso"],
                      drive(images / "live.iso", ",readonly=on")):
        machine = power_on(*arguments)
        machine.expect(ISOLINUX, 120)
        machine.expect("GUEST-INIT", 180)
        machine.type("poweroff -f\n")
        assert machine.wait() == 0


@pytest.mark.parametrize("words, first", [
    ([], GRUB),
    (["-boot", "d"], ISOLINUX),
    (["-boot", "order=c,once=d"], ISOLINUX),
], ids=["disk", "cd", "cd once"])
def test_the_order_of_boot(power_on, images, words, first):
    machine = power_on("-hda", images / "grub.raw", "-cdrom", images / "live.iso", *words)
    machine.expect(first, 120)
    if "order=c,once=d" in words:
        machine.expect("GUEST-INIT", 180)
        machine.type("reboot -f\n")
        machine.expect(GRUB, 120)


def test_bootindex(power_on, images):
    machine = power_on(*drive(images / "grub.raw"),
                       "-drive", f"file={images / 'live.iso'},format=raw,if=none,id=cd,readonly=on",
                       "-device", "virtio-blk-pci,drive=cd,bootindex=0")
    machine.expect(ISOLINUX, 120)


def test_more_memory_than_lies_below_the_hole(power_on, images):
    machine = power_on(*drive(images / "grub.raw"), memory="3072")
    machine.expect("GUEST-INIT", 240)
    assert int(machine.check("awk '/MemTotal/ {print $2}' /proc/meminfo")) > 2800 * 1024


def test_nothing_bootable_is_said_on_the_console(power_on, tmp_path):
    (tmp_path / "empty.raw").write_bytes(bytes(1 << 20))
    machine = power_on(*drive(tmp_path / "empty.raw"))
    machine.expect(by_the_bios("No bootable device"), 120)


@pytest.mark.parametrize("content, words", [
    (None, "cannot open firmware"),
    (b"", "multiple of 4096"),
    (b"x" * 5000, "multiple of 4096"),
])
def test_bad_firmware(evisor, tmp_path, content, words):
    path = tmp_path / "bios.bin"
    if content is not None:
        path.write_bytes(content)
    ended = subprocess.run([evisor, "-accel", "soft", "-bios", path, "-nographic"],
                           capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1 and words in ended.stderr and str(path) in ended.stderr
