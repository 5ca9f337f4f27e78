/* SPDX-License-Identifier: MIT */
/* firmware: reads the image, maps it, and tells it about the machine. */
#include "vmm/boot/firmware.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"

#define ROM_END         UINT64_C(0x100000000)
#define ROM_ALIGNMENT   4096
#define ROM_MAX_BYTES   (8 * MIB)
#define SHADOW_BYTES    (128 * KIB)
#define SHADOW_END      UINT64_C(0x100000)
#define E820_RAM        1
#define E820_RESERVED   2
#define E820_BYTES      20
#define LOADER_BYTES    128
#define LOADER_ALLOCATE 1
#define LOADER_FSEG     2
#define BOOT_PATH_BYTES 48
#define COM1_PORT       0x3f8
#define HALT_LINE       "HALT\n" /* try nothing else */

static const char rsdp_name[] = "etc/acpi/rsdp";

/* --- The image --- */

static int open_default(struct error *err)
{
    static const char *const paths[] = {"/usr/share/seabios/bios-256k.bin",
                                        "/usr/share/qemu/bios-256k.bin",
                                        "/usr/share/seabios/bios.bin"};
    for (unsigned i = 0; i < ARRAY_SIZE(paths); i++) {
        int fd = open(paths[i], O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            return fd;
    }
    return error_set(err, ENOENT,
                     "there is no firmware to boot a disk with: install the package seabios, name "
                     "an image with -bios FILE, or a Linux kernel with -kernel FILE");
}

static int read_all(int fd, struct firmware *firmware)
{
    size_t done = 0;
    while (done < firmware->size) {
        ssize_t count = read(fd, firmware->bytes + done, firmware->size - done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count < 0 ? -errno : -EIO;
        done += (size_t)count;
    }
    return 0;
}

static int take_image(struct firmware *firmware, int fd, const char *path, struct error *err)
{
    struct stat info;
    if (fstat(fd, &info) < 0)
        return error_set_errno(err, errno, "cannot look at firmware '%s'", path);
    if (!S_ISREG(info.st_mode))
        return error_set(err, EINVAL, "firmware '%s' is not a regular file", path);
    if (info.st_size == 0 || info.st_size % ROM_ALIGNMENT || info.st_size > (off_t)ROM_MAX_BYTES)
        return error_set(err, EINVAL,
                         "firmware '%s' has %lld bytes: an image has a multiple of 4096, at most "
                         "%llu MiB",
                         path, (long long)info.st_size, (unsigned long long)(ROM_MAX_BYTES / MIB));
    void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        return error_set_errno(err, errno, "cannot get memory for firmware '%s'", path);
    *firmware = (struct firmware){bytes, (size_t)info.st_size};
    int result = read_all(fd, firmware);
    if (!result)
        return 0;
    firmware_close(firmware);
    return error_set_errno(err, -result, "cannot read firmware '%s'", path);
}

int firmware_open(struct firmware *firmware, const char *path, struct error *err)
{
    *firmware = (struct firmware){0};
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : open_default(err);
    if (fd < 0)
        return path ? error_set_errno(err, errno, "cannot open firmware '%s'", path) : fd;
    int result = take_image(firmware, fd, path ? path : "SeaBIOS", err);
    close(fd);
    return result;
}

void firmware_close(struct firmware *firmware)
{
    if (firmware->bytes)
        munmap(firmware->bytes, firmware->size);
    *firmware = (struct firmware){0};
}

int firmware_map(const struct firmware *firmware, struct accel_vm *vm, unsigned slot,
                 struct error *err)
{
    int result = vm->ops->set_memslot(vm, slot, ROM_END - firmware->size, firmware->size,
                                      firmware->bytes, true);
    return result ? error_set_errno(err, -result, "cannot give the firmware to %s", vm->ops->name)
                  : 0;
}

void firmware_load(const struct firmware *firmware, const struct memory *memory)
{
    size_t size = MIN(firmware->size, SHADOW_BYTES);
    const uint8_t *from = firmware->bytes + firmware->size - size;
    CHECK(guest_mem_write(&memory->guest, SHADOW_END - size, from, size));
}

uint64_t firmware_acpi_gpa(const struct memory *memory)
{
    return align_down(memory->guest.regions[0].size - ACPI_AREA_SIZE, 4096);
}

/* --- What it is told --- */

static int add_number(struct fw_cfg *fw_cfg, const char *name, uint64_t value, struct error *err)
{
    uint8_t bytes[8];
    store_le64(bytes, value);
    return fw_cfg_add_file(fw_cfg, name, bytes, sizeof(bytes), err);
}

static uint8_t *put_range(uint8_t *at, uint64_t start, uint64_t end, uint32_t type)
{
    store_le64(at, start);
    store_le64(at + 8, end - start);
    store_le32(at + 16, type);
    return at + E820_BYTES;
}

static int add_memory_map(struct fw_cfg *fw_cfg, const struct memory *memory, struct error *err)
{
    const struct guest_mem *guest = &memory->guest;
    uint64_t low_end = guest->regions[0].size, acpi = firmware_acpi_gpa(memory);
    uint8_t map[3 * E820_BYTES], *at = map;
    at = put_range(at, 0, acpi, E820_RAM);
    at = put_range(at, acpi, low_end, E820_RESERVED);
    if (guest->region_count > 1 && !guest->regions[1].is_pluggable)
        at = put_range(at, guest->regions[1].gpa, guest->regions[1].gpa + guest->regions[1].size,
                       E820_RAM);
    return fw_cfg_add_file(fw_cfg, "etc/e820", map, (size_t)(at - map), err);
}

/* The pointer to the tables goes where guests look for it; the tables are in place. */
static int add_acpi(struct fw_cfg *fw_cfg, const uint8_t *rsdp, struct error *err)
{
    uint8_t command[LOADER_BYTES] = {LOADER_ALLOCATE};
    memcpy(command + 4, rsdp_name, sizeof(rsdp_name));
    store_le32(command + 4 + FW_CFG_FILE_NAME_SIZE, 16); /* alignment */
    command[4 + FW_CFG_FILE_NAME_SIZE + 4] = LOADER_FSEG;
    int result = fw_cfg_add_file(fw_cfg, rsdp_name, rsdp, ACPI_RSDP_BYTES, err);
    return result ? result
                  : fw_cfg_add_file(fw_cfg, "etc/table-loader", command, sizeof(command), err);
}

static int add_cpus(struct fw_cfg *fw_cfg, const struct firmware_facts *facts, struct error *err)
{
    uint8_t count[2], most[2], size[8];
    store_le16(count, (uint16_t)facts->config->cpus);
    store_le16(most, (uint16_t)vm_config_max_cpus(facts->config));
    store_le64(size, facts->memory->size);
    int result = fw_cfg_add(fw_cfg, FW_CFG_CPUS, count, sizeof(count), err);
    if (!result)
        result = fw_cfg_add(fw_cfg, FW_CFG_MAX_CPUS, most, sizeof(most), err);
    return result ? result : fw_cfg_add(fw_cfg, FW_CFG_RAM_BYTES, size, sizeof(size), err);
}

/* Open Firmware paths, a line each; the terminating zero belongs to the file. */
int firmware_set_boot_order(struct fw_cfg *fw_cfg, const unsigned slots[], unsigned count,
                            bool is_strict, struct error *err)
{
    char text[CONFIG_BOOT_MAX * BOOT_PATH_BYTES + sizeof(HALT_LINE)] = "";
    size_t length = 0;
    for (unsigned i = 0; i < count && i < CONFIG_BOOT_MAX; i++)
        length += (size_t)snprintf(text + length, BOOT_PATH_BYTES, "/pci@i0cf8/scsi@%x/disk@0,0\n",
                                   slots[i]);
    if (is_strict)
        memcpy(text + length, HALT_LINE, sizeof(HALT_LINE));
    return fw_cfg_set_file(fw_cfg, "bootorder", text, strlen(text) + 1, err);
}

static int add_boot_menu(struct fw_cfg *fw_cfg, const struct config_boot *boot, struct error *err)
{
    uint8_t shows[2] = {boot->has_menu, 0};
    int result = fw_cfg_add(fw_cfg, FW_CFG_BOOT_MENU, shows, sizeof(shows), err);
    if (!result && boot->has_menu && boot->splash_ms >= 0)
        result = add_number(fw_cfg, "etc/boot-menu-wait", (uint64_t)boot->splash_ms, err);
    if (!result && boot->reboot_ms != CONFIG_BOOT_REBOOT_DEFAULT)
        result = add_number(fw_cfg, "etc/boot-fail-wait", (uint32_t)boot->reboot_ms, err);
    return result;
}

int firmware_describe(struct fw_cfg *fw_cfg, const struct firmware_facts *facts, struct error *err)
{
    int result = add_memory_map(fw_cfg, facts->memory, err);
    if (!result)
        result = add_acpi(fw_cfg, facts->rsdp, err);
    if (!result)
        result = add_cpus(fw_cfg, facts, err);
    if (!result)
        result = add_boot_menu(fw_cfg, &facts->config->boot, err);
    /* There is no screen: what would be on it goes to the serial port, and keys come from there. */
    if (!result && facts->config->serial_chardev >= 0)
        result = add_number(fw_cfg, "etc/sercon-port", COM1_PORT, err);
    return result;
}
