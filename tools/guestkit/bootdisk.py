# SPDX-License-Identifier: MIT
"""
bootdisk: disks that a BIOS can boot: GRUB before an ext4 partition, and a hybrid ISO of ISOLINUX.

The boot loaders come out of Debian's packages, unpacked and not installed; nothing needs root.
"""

import os
import pathlib
import shutil
import struct
import subprocess
import tempfile

from . import packages, rootfs

SECTOR = 512
FIRST_SECTOR = 2048 # of the partition, where Debian's installer puts it
MODULES = ["biosdisk", "part_msdos", "ext2", "normal", "linux", "serial", "terminal", "echo",
           "configfile", "halt", "reboot"]
XORRISO_LIBRARIES = ["libisoburn1", "libisofs6", "libburn4", "libjte2"]

GRUB_CONFIG = """serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set timeout=0
menuentry 'guest' {{
    echo 'GRUB-STARTS-LINUX'
    linux /boot/vmlinuz {append}
    initrd /boot/initrd
}}
"""

ISOLINUX_CONFIG = """SERIAL 0 115200
DEFAULT guest
LABEL guest
    SAY ISOLINUX-STARTS-LINUX
    LINUX /vmlinuz
    INITRD /initrd
    APPEND {append}
"""


def _run(command, **options):
    made = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          check=False, **options)
    if made.returncode:
        raise packages.Failure(f"{pathlib.Path(command[0]).name} failed: {made.stderr.strip()}")


def _grub_core(folder):
    """GRUB's core image, whose first sector says that the rest follows from sector 2 on."""
    modules = packages.unpack("grub-pc-bin") / "usr/lib/grub/i386-pc"
    core = folder / "core.img"
    _run([packages.unpack("grub-common") / "usr/bin/grub-mkimage", "-O", "i386-pc", "-d", modules,
          "-p", "(hd0,msdos1)/boot/grub", "-o", core, *MODULES])
    return (modules / "boot.img").read_bytes(), core.read_bytes()


def _partition_table(sectors):
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", FIRST_SECTOR,
                        sectors)
    return entry + bytes(48) + b"\x55\xaa"


def make_grub(path, kernel, initrd, append, size_mib=96):
    """Writes a raw disk: MBR, GRUB, and one ext4 partition with busybox, kernel and initrd."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        boot, core = _grub_core(folder)
        if len(core) > (FIRST_SECTOR - 1) * SECTOR:
            raise packages.Failure("GRUB does not fit before the first partition")
        partition = folder / "partition"
        rootfs.make_raw(partition, size_mib, {
            "boot/vmlinuz": pathlib.Path(kernel).read_bytes(),
            "boot/initrd": pathlib.Path(initrd).read_bytes(),
            "boot/grub/grub.cfg": GRUB_CONFIG.format(append=append).encode()})
        content = partition.read_bytes()
        with open(path, "wb") as disk:
            disk.write(boot[:446] + _partition_table(len(content) // SECTOR) + core)
            disk.seek(FIRST_SECTOR * SECTOR)
            disk.write(content)


def make_iso(path, kernel, initrd, append):
    """Writes an ISO that boots as a CD and as a disk (isohybrid)."""
    bios = packages.unpack("syslinux-common") / "usr/lib/syslinux/modules/bios"
    isolinux = packages.unpack("isolinux") / "usr/lib/ISOLINUX"
    libraries = [packages.unpack(name) / "usr/lib/x86_64-linux-gnu" for name in XORRISO_LIBRARIES]
    with tempfile.TemporaryDirectory() as name:
        tree = pathlib.Path(name)
        (tree / "isolinux").mkdir()
        shutil.copy(isolinux / "isolinux.bin", tree / "isolinux")
        shutil.copy(bios / "ldlinux.c32", tree / "isolinux")
        shutil.copy(kernel, tree / "vmlinuz")
        shutil.copy(initrd, tree / "initrd")
        (tree / "isolinux/isolinux.cfg").write_text(ISOLINUX_CONFIG.format(append=append))
        _run([packages.unpack("xorriso") / "usr/bin/xorriso", "-as", "mkisofs", "-quiet", "-o", path,
              "-isohybrid-mbr", isolinux / "isohdpfx.bin", "-c", "isolinux/boot.cat",
              "-b", "isolinux/isolinux.bin", "-no-emul-boot", "-boot-load-size", "4",
              "-boot-info-table", tree],
             env={**os.environ, "LD_LIBRARY_PATH": ":".join(str(folder) for folder in libraries)})
