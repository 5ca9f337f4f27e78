/* SPDX-License-Identifier: MIT */
/* boot_bzimage: reads a bzImage's setup header and hands it the zero page it wants. */
#include <asm/bootparam.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "vmm/boot/boot.h"
#include "vmm/boot/unpack.h"

#define SETUP_HEADER_OFFSET 0x1f1
#define HEADER_MAGIC        0x53726448 /* "HdrS" */
#define PROTOCOL_MIN        0x020a     /* the first that says how much memory it unpacks in */
#define PROTOCOL_64         0x020c     /* the first with a 64-bit entry */
#define ENTRY_64_OFFSET     0x200

/* The file's header as far as it is there; the rest reads as zero. */
static bool read_header(const struct boot *boot, struct setup_header *header)
{
    memset(header, 0, sizeof(*header));
    if (boot->kernel.size < SETUP_HEADER_OFFSET + sizeof(*header))
        return false;
    memcpy(header, boot->kernel.bytes + SETUP_HEADER_OFFSET, sizeof(*header));
    return header->boot_flag == 0xaa55 && header->header == HEADER_MAGIC;
}

static size_t setup_size(const struct setup_header *header)
{
    /* A count of 0 means 4, for very old loaders. */
    return ((size_t)(header->setup_sects ? header->setup_sects : 4) + 1) * 512;
}

static bool has_64bit_entry(const struct setup_header *header)
{
    return header->version >= PROTOCOL_64 && header->xloadflags & XLF_KERNEL_64;
}

static int check_protocol(const struct setup_header *header, const char *path, struct error *err)
{
    if (header->version < PROTOCOL_MIN)
        return error_set(
            err, ENOTSUP,
            "kernel '%s' is too old (boot protocol %u.%02u): use Linux 2.6.31 or later", path,
            header->version >> 8, header->version & 0xff);
    if (!(header->loadflags & LOADED_HIGH))
        return error_set(err, ENOTSUP, "kernel '%s' is a zImage: use a bzImage", path);
    return 0;
}

static int check_size(const struct boot *boot, const struct setup_header *header, const char *path,
                      struct error *err)
{
    uint64_t wanted = setup_size(header) + (uint64_t)header->syssize * 16;
    /* syssize is rounded up to 16 bytes, and signed kernels carry more after it. */
    if (boot->kernel.size + 15 < wanted || boot->kernel.size <= setup_size(header))
        return error_set(err, EINVAL, "kernel '%s' is cut short: it has %zu bytes and names %llu",
                         path, boot->kernel.size, (unsigned long long)wanted);
    return 0;
}

/* It counts from the end of the setup code. */
static bool find_payload(const struct boot *boot, const struct setup_header *header,
                         const uint8_t **payload, size_t *size)
{
    uint64_t at = setup_size(header) + (uint64_t)header->payload_offset;
    if (!range_fits(at, header->payload_length, boot->kernel.size))
        return false;
    *payload = boot->kernel.bytes + at;
    *size = header->payload_length;
    return true;
}

static void find_decompressor(struct boot *boot, const struct setup_header *header)
{
    const uint8_t *payload;
    size_t size;
    if (boot->kind == BOOT_BZIMAGE && find_payload(boot, header, &payload, &size))
        boot->decompressor = decompress_find(payload, size);
}

int boot_bzimage_parse(struct boot *boot, const char *path, struct error *err)
{
    struct setup_header header;
    if (!read_header(boot, &header))
        return error_set(err, EINVAL,
                         "'%s' is not a Linux kernel for x86-64 (neither a bzImage nor an ELF "
                         "vmlinux)",
                         path);
    int result = check_protocol(&header, path, err);
    if (!result)
        result = check_size(boot, &header, path, err);
    if (result)
        return result;
    boot->kind = has_64bit_entry(&header) ? BOOT_BZIMAGE : BOOT_BZIMAGE_32;
    boot->load_gpa = BOOT_HIGH_RAM;
    /* It unpacks at its preferred address and needs init_size bytes from there on. */
    uint64_t unpack_at = MAX(header.pref_address, boot->load_gpa);
    if (__builtin_add_overflow(unpack_at, (uint64_t)header.init_size, &boot->kernel_end))
        boot->kernel_end = UINT64_MAX;
    boot->initrd_limit = (uint64_t)header.initrd_addr_max + 1;
    if (boot->kind == BOOT_BZIMAGE && header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G)
        boot->initrd_limit = MEMORY_LOW_MAX;
    find_decompressor(boot, &header);
    return 0;
}

static void add_e820(struct boot_params *params, uint64_t start, uint64_t end, uint32_t type)
{
    if (start < end)
        params->e820_table[params->e820_entries++] =
            (struct boot_e820_entry){start, end - start, type};
}

static void fill_e820(struct boot_params *params, const struct memory *memory)
{
    enum { RAM = 1, RESERVED = 2 };
    const struct guest_mem *mem = &memory->guest;
    add_e820(params, 0, BOOT_LOW_RAM_END, RAM);
    add_e820(params, BOOT_LOW_RAM_END, BOOT_HIGH_RAM, RESERVED);
    add_e820(params, BOOT_HIGH_RAM, mem->regions[0].size, RAM);
    add_e820(params, MEMORY_ECAM_BASE, MEMORY_ECAM_BASE + MEMORY_ECAM_SIZE, RESERVED);
    for (unsigned i = 1; i < mem->region_count; i++)
        if (!mem->regions[i].is_pluggable)
            add_e820(params, mem->regions[i].gpa, mem->regions[i].gpa + mem->regions[i].size, RAM);
}

bool boot_is_long(const struct boot *boot)
{
    return boot->decompressor && !boot->guest_unpacks;
}

/* Tries to spare the guest the unpacking. */
static bool unpack_kernel(const struct boot *boot, const struct memory *memory,
                          const struct setup_header *header, struct unpacked *out)
{
    struct unpack_source source = {
        .decompressor = boot->decompressor,
        .link_gpa = header->pref_address,
        .alignment = header->kernel_alignment,
        .size = header->init_size,
        .is_movable = header->relocatable_kernel,
        .cmdline = boot->cmdline,
        .limit_gpa = boot->initrd.size ? boot->initrd_gpa : memory->guest.regions[0].size,
    };
    return boot_is_long(boot) &&
           find_payload(boot, header, &source.payload, &source.payload_size) &&
           unpack_is_possible(&source) && unpack(&source, &memory->guest, out);
}

static void load_kernel(struct boot *boot, const struct memory *memory, struct setup_header *header)
{
    struct unpacked unpacked;
    size_t skip = setup_size(header);
    if (unpack_kernel(boot, memory, header, &unpacked)) {
        boot->entry = unpacked.entry_gpa;
        boot->uses_la57 = boot->has_la57 && header->xloadflags & XLF_5LEVEL_ENABLED &&
                          !unpack_has_word(boot->cmdline, "no5lvl");
        if (unpacked.is_randomized)
            header->loadflags |= KASLR_FLAG;
        return;
    }
    boot->uses_la57 = false;
    boot->entry = boot->load_gpa + (boot->kind == BOOT_BZIMAGE ? ENTRY_64_OFFSET : 0);
    CHECK(guest_mem_write(&memory->guest, boot->load_gpa, boot->kernel.bytes + skip,
                          boot->kernel.size - skip));
}

void boot_bzimage_load(struct boot *boot, const struct memory *memory, uint64_t rsdp_gpa)
{
    struct boot_params params = {0};
    struct setup_header *header = &params.hdr;
    bool ok = read_header(boot, header);
    CHECK(ok);
    load_kernel(boot, memory, header);
    header->type_of_loader = 0xff;
    header->cmd_line_ptr = BOOT_CMDLINE_GPA;
    header->ramdisk_image = (uint32_t)boot->initrd_gpa;
    header->ramdisk_size = (uint32_t)boot->initrd.size;
    header->code32_start = (uint32_t)boot->load_gpa;
    params.acpi_rsdp_addr = rsdp_gpa;
    fill_e820(&params, memory);
    CHECK(guest_mem_write(&memory->guest, BOOT_ZERO_PAGE_GPA, &params, sizeof(params)));
}
