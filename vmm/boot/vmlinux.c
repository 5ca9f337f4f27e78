/* SPDX-License-Identifier: MIT */
/* vmlinux: reads the ELF file's headers once and checks them; what follows relies on the copy. */
#include "vmm/boot/vmlinux.h"

#include <elf.h>
#include <string.h>

#include "base/bytes.h"

#define KERNEL_MAP UINT64_C(0xffffffff80000000) /* __START_KERNEL_map: physical address 0 */

static bool read_at(const struct vmlinux *vmlinux, uint64_t offset, void *to, size_t length)
{
    if (!range_fits(offset, length, vmlinux->file_size))
        return false;
    memcpy(to, vmlinux->file + offset, length);
    return true;
}

static bool read_entry(const struct vmlinux *vmlinux, uint64_t table, unsigned index, void *to,
                       size_t length)
{
    uint64_t offset;
    return !__builtin_add_overflow(table, (uint64_t)index * length, &offset) &&
           read_at(vmlinux, offset, to, length);
}

static bool read_header(const struct vmlinux *vmlinux, Elf64_Ehdr *elf)
{
    return read_at(vmlinux, 0, elf, sizeof(*elf)) && !memcmp(elf->e_ident, ELFMAG, SELFMAG) &&
           elf->e_ident[EI_CLASS] == ELFCLASS64 && elf->e_machine == EM_X86_64 &&
           elf->e_phentsize == sizeof(Elf64_Phdr) &&
           (!elf->e_shnum || elf->e_shentsize == sizeof(Elf64_Shdr));
}

/*
 * Segments are moved in their order, so each must go towards the file's start or stay, and begin
 * behind the one before it: nothing is overwritten that is still to be moved.
 */
static bool check_segment(const struct vmlinux *vmlinux, const struct vmlinux_segment *segment,
                          uint64_t end)
{
    uint64_t room = (uint64_t)(vmlinux->to - vmlinux->file);
    return range_fits(segment->offset, segment->file_bytes, vmlinux->file_size) &&
           range_fits(segment->at, segment->memory_bytes, vmlinux->to_size) &&
           segment->file_bytes <= segment->memory_bytes && segment->offset >= end &&
           room + segment->at <= segment->offset;
}

/* Where the ELF file ends: after its last segment, section and table. */
static bool find_end(const struct vmlinux *vmlinux, const Elf64_Ehdr *elf, uint64_t *end)
{
    uint64_t tables = (uint64_t)elf->e_shnum * sizeof(Elf64_Shdr);
    if (!range_fits(elf->e_shoff, tables, vmlinux->file_size))
        return false;
    *end = MAX(*end, elf->e_shoff + tables);
    for (unsigned i = 0; i < elf->e_shnum; i++) {
        Elf64_Shdr section;
        if (!read_entry(vmlinux, elf->e_shoff, i, &section, sizeof(section)))
            return false;
        if (section.sh_type == SHT_NOBITS || section.sh_type == SHT_NULL)
            continue;
        if (!range_fits(section.sh_offset, section.sh_size, vmlinux->file_size))
            return false;
        *end = MAX(*end, section.sh_offset + section.sh_size);
    }
    return true;
}

/* *end becomes the end of the last one's bytes. */
static bool read_segments(struct vmlinux *vmlinux, const Elf64_Ehdr *elf, uint64_t *end)
{
    for (unsigned i = 0; i < elf->e_phnum; i++) {
        Elf64_Phdr header;
        if (!read_entry(vmlinux, elf->e_phoff, i, &header, sizeof(header)))
            return false;
        if (header.p_type != PT_LOAD)
            continue;
        const struct vmlinux_segment segment = {header.p_offset, header.p_filesz,
                                                header.p_paddr - vmlinux->link_gpa, header.p_memsz};
        if (vmlinux->segment_count == VMLINUX_SEGMENT_MAX ||
            !check_segment(vmlinux, &segment, *end))
            return false;
        vmlinux->segments[vmlinux->segment_count++] = segment;
        *end = segment.offset + segment.file_bytes;
    }
    return true;
}

/* In the text, or as in Linux 7 among what is given back after the start. */
static bool find_entry(struct vmlinux *vmlinux, const Elf64_Ehdr *elf)
{
    vmlinux->entry = elf->e_entry - vmlinux->link_gpa;
    for (unsigned i = 0; i < vmlinux->segment_count; i++) {
        const struct vmlinux_segment *segment = &vmlinux->segments[i];
        if (vmlinux->entry - segment->at < segment->file_bytes)
            return true;
    }
    return false;
}

/* The table that begins after the zero at *at, up to the next zero or the end. */
static bool take_table(const struct vmlinux *vmlinux, uint64_t *at, struct vmlinux_table *out)
{
    uint32_t word;
    if (!read_at(vmlinux, *at, &word, sizeof(word)) || word)
        return false;
    *at += sizeof(word);
    out->words = vmlinux->file + *at;
    for (out->count = 0; read_at(vmlinux, *at, &word, sizeof(word)) && word; out->count++)
        *at += sizeof(word);
    return true;
}

static bool find_tables(struct vmlinux *vmlinux, uint64_t at)
{
    struct vmlinux_table tables[3];
    unsigned count = 0;
    while (at < vmlinux->file_size) {
        if (count == ARRAY_SIZE(tables) || !take_table(vmlinux, &at, &tables[count]))
            return false;
        count++;
    }
    if (count == 1)
        return false;
    vmlinux->add64 = count ? tables[0] : (struct vmlinux_table){0};
    vmlinux->subtract32 = count == 3 ? tables[1] : (struct vmlinux_table){0};
    vmlinux->add32 = count ? tables[count - 1] : (struct vmlinux_table){0};
    return true;
}

bool vmlinux_parse(struct vmlinux *vmlinux)
{
    Elf64_Ehdr elf;
    uint64_t end = 0;
    vmlinux->segment_count = 0;
    return read_header(vmlinux, &elf) && read_segments(vmlinux, &elf, &end) &&
           find_entry(vmlinux, &elf) && find_end(vmlinux, &elf, &end) && find_tables(vmlinux, end);
}

bool vmlinux_is_relocatable(const struct vmlinux *vmlinux)
{
    return vmlinux->add64.count + vmlinux->add32.count > 0;
}

void vmlinux_place(const struct vmlinux *vmlinux)
{
    for (unsigned i = 0; i < vmlinux->segment_count; i++) {
        const struct vmlinux_segment *segment = &vmlinux->segments[i];
        uint8_t *to = vmlinux->to + segment->at;
        if (to != vmlinux->file + segment->offset)
            memmove(to, vmlinux->file + segment->offset, segment->file_bytes);
    }
}

void vmlinux_clear(const struct vmlinux *vmlinux)
{
    for (unsigned i = 0; i < vmlinux->segment_count; i++) {
        const struct vmlinux_segment *segment = &vmlinux->segments[i];
        memset(vmlinux->to + segment->at + segment->file_bytes, 0,
               segment->memory_bytes - segment->file_bytes);
    }
}

/* NULL if the place is outside of the kernel. */
static uint8_t *find_place(const struct vmlinux *vmlinux, const struct vmlinux_table *table,
                           size_t index, size_t size)
{
    uint64_t address = UINT64_C(0xffffffff00000000) | load_le32(table->words + index * 4);
    uint64_t at = address - KERNEL_MAP - vmlinux->link_gpa;
    return range_fits(at, size, vmlinux->to_size) ? vmlinux->to + at : NULL;
}

static bool relocate64(const struct vmlinux *vmlinux, uint64_t distance)
{
    for (size_t i = 0; i < vmlinux->add64.count; i++) {
        uint8_t *place = find_place(vmlinux, &vmlinux->add64, i, sizeof(uint64_t));
        if (!place)
            return false;
        store_le64(place, load_le64(place) + distance);
    }
    return true;
}

static bool relocate32(const struct vmlinux *vmlinux, const struct vmlinux_table *table,
                       uint32_t distance)
{
    for (size_t i = 0; i < table->count; i++) {
        uint8_t *place = find_place(vmlinux, table, i, sizeof(uint32_t));
        if (!place)
            return false;
        store_le32(place, load_le32(place) + distance);
    }
    return true;
}

bool vmlinux_relocate(const struct vmlinux *vmlinux, uint64_t distance)
{
    uint32_t low = (uint32_t)distance;
    return relocate64(vmlinux, distance) && relocate32(vmlinux, &vmlinux->subtract32, 0 - low) &&
           relocate32(vmlinux, &vmlinux->add32, low);
}
