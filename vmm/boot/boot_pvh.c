/* SPDX-License-Identifier: MIT */
/* boot_pvh: loads an ELF vmlinux's segments and hands it the PVH start info. */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "vmm/boot/boot.h"

#define NOTE_PHYS32_ENTRY 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
#define START_INFO_MAGIC  0x336ec578

/* Xen's public/arch-x86/hvm/start_info.h, version 1. */
struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules_gpa, cmdline_gpa, rsdp_gpa, memory_map_gpa;
    uint32_t memory_map_entries, reserved;
};

struct module_entry {
    uint64_t gpa, size, cmdline_gpa, reserved;
};

struct memory_map_entry {
    uint64_t gpa, size;
    uint32_t type, reserved;
};

/* All that lies at BOOT_PVH_INFO_GPA. */
struct pvh_block {
    struct start_info info;
    struct module_entry module;
    struct memory_map_entry map[2 + GUEST_MEM_REGION_MAX];
};

static bool read_at(const struct boot *boot, uint64_t offset, void *to, size_t length)
{
    if (!range_fits(offset, length, boot->kernel.size))
        return false;
    memcpy(to, boot->kernel.bytes + offset, length);
    return true;
}

static bool read_program_header(const struct boot *boot, const Elf64_Ehdr *elf, unsigned index,
                                Elf64_Phdr *out)
{
    uint64_t offset;
    return !__builtin_add_overflow(elf->e_phoff, (uint64_t)index * sizeof(*out), &offset) &&
           read_at(boot, offset, out, sizeof(*out));
}

/* Looks for the entry note in one PT_NOTE segment. */
static bool find_entry(const struct boot *boot, const Elf64_Phdr *segment, uint64_t *entry)
{
    uint64_t at = segment->p_offset, end;
    if (__builtin_add_overflow(at, segment->p_filesz, &end))
        return false;
    Elf64_Nhdr note;
    char name[4];
    while (at < end && read_at(boot, at, &note, sizeof(note))) {
        uint64_t descriptor = at + sizeof(note) + align_up(note.n_namesz, 4);
        uint32_t value;
        if (note.n_type == NOTE_PHYS32_ENTRY && note.n_namesz == 4 && note.n_descsz >= 4 &&
            read_at(boot, at + sizeof(note), name, 4) && !memcmp(name, "Xen", 4) &&
            read_at(boot, descriptor, &value, 4)) {
            *entry = value;
            return true;
        }
        at = descriptor + align_up(note.n_descsz, 4);
    }
    return false;
}

static int check_elf(const struct boot *boot, Elf64_Ehdr *elf, const char *path, struct error *err)
{
    if (!read_at(boot, 0, elf, sizeof(*elf)) || elf->e_ident[EI_CLASS] != ELFCLASS64 ||
        elf->e_machine != EM_X86_64 || elf->e_phentsize != sizeof(Elf64_Phdr))
        return error_set(err, ENOTSUP,
                         "'%s' is an ELF file for another machine: evisor runs x86-64", path);
    if (elf->e_type != ET_EXEC && elf->e_type != ET_DYN)
        return error_set(err, EINVAL, "'%s' is an ELF file but no kernel", path);
    return 0;
}

static int check_segment(struct boot *boot, const struct memory *memory, const Elf64_Phdr *segment,
                         const char *path, struct error *err)
{
    if (!range_fits(segment->p_offset, segment->p_filesz, boot->kernel.size))
        return error_set(err, EINVAL, "kernel '%s' is cut short", path);
    if (segment->p_memsz < segment->p_filesz || segment->p_paddr < BOOT_HIGH_RAM)
        return error_set(err, EINVAL, "kernel '%s' wants to be where evisor cannot put it", path);
    if (!guest_mem_span(&memory->guest, segment->p_paddr, MAX(segment->p_memsz, 1)))
        return error_set(err, ENOMEM,
                         "kernel '%s' does not fit into the machine's memory: give it more with -m",
                         path);
    boot->kernel_end = MAX(boot->kernel_end, segment->p_paddr + segment->p_memsz);
    return 0;
}

int boot_pvh_parse(struct boot *boot, const struct memory *memory, const char *path,
                   struct error *err)
{
    Elf64_Ehdr elf;
    int result = check_elf(boot, &elf, path, err);
    bool has_entry = false;
    for (unsigned i = 0; !result && i < elf.e_phnum; i++) {
        Elf64_Phdr segment;
        if (!read_program_header(boot, &elf, i, &segment))
            return error_set(err, EINVAL, "kernel '%s' is cut short", path);
        if (segment.p_type == PT_LOAD)
            result = check_segment(boot, memory, &segment, path, err);
        else if (segment.p_type == PT_NOTE && !has_entry)
            has_entry = find_entry(boot, &segment, &boot->entry);
    }
    if (!result && !has_entry)
        result = error_set(err, ENOTSUP,
                           "kernel '%s' has no PVH entry: build it with CONFIG_PVH=y or use the "
                           "bzImage",
                           path);
    boot->kind = BOOT_PVH;
    boot->initrd_limit = MEMORY_LOW_MAX;
    return result;
}

static void load_segments(const struct boot *boot, const struct guest_mem *mem)
{
    Elf64_Ehdr elf;
    CHECK(read_at(boot, 0, &elf, sizeof(elf)));
    for (unsigned i = 0; i < elf.e_phnum; i++) {
        Elf64_Phdr segment;
        CHECK(read_program_header(boot, &elf, i, &segment));
        if (segment.p_type != PT_LOAD || !segment.p_memsz)
            continue;
        char *to = guest_mem_span(mem, segment.p_paddr, segment.p_memsz);
        memcpy(to, boot->kernel.bytes + segment.p_offset, segment.p_filesz);
        memset(to + segment.p_filesz, 0, segment.p_memsz - segment.p_filesz);
        guest_mem_written(mem, segment.p_paddr, segment.p_memsz);
    }
}

static void add_map(struct pvh_block *block, uint64_t start, uint64_t end)
{
    if (start < end)
        block->map[block->info.memory_map_entries++] =
            (struct memory_map_entry){start, end - start, 1, 0};
}

void boot_pvh_load(const struct boot *boot, const struct memory *memory, uint64_t rsdp_gpa)
{
    const struct guest_mem *mem = &memory->guest;
    struct pvh_block block = {
        .info = {.magic = START_INFO_MAGIC,
                 .version = 1,
                 .cmdline_gpa = BOOT_CMDLINE_GPA,
                 .rsdp_gpa = rsdp_gpa},
        .module = {.gpa = boot->initrd_gpa, .size = boot->initrd.size},
    };
    block.info.memory_map_gpa = BOOT_PVH_INFO_GPA + offsetof(struct pvh_block, map);
    if (boot->initrd.size) {
        block.info.module_count = 1;
        block.info.modules_gpa = BOOT_PVH_INFO_GPA + offsetof(struct pvh_block, module);
    }
    add_map(&block, 0, BOOT_LOW_RAM_END);
    add_map(&block, BOOT_HIGH_RAM, mem->regions[0].size);
    for (unsigned i = 1; i < mem->region_count; i++)
        if (!mem->regions[i].is_pluggable)
            add_map(&block, mem->regions[i].gpa, mem->regions[i].gpa + mem->regions[i].size);
    CHECK(guest_mem_write(mem, BOOT_PVH_INFO_GPA, &block, sizeof(block)));
    load_segments(boot, mem);
}
