/* SPDX-License-Identifier: MIT */
/* unpack: decompresses a kernel into guest RAM in such a way that little is to be moved. */
#include "vmm/boot/unpack.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "vmm/boot/vmlinux.h"

/* Linux's linker script puts the first segment at this offset of the file (max-page-size). */
#define FIRST_SEGMENT_OFFSET (2 * MIB)
#define VIRTUAL_END          GIB /* KERNEL_IMAGE_SIZE of a kernel that has relocations */

bool unpack_has_word(const char *cmdline, const char *word)
{
    size_t length = strlen(word);
    bool is_prefix = word[length - 1] == '=';
    for (const char *at = cmdline; (at = strstr(at, word)); at += length)
        if ((at == cmdline || strchr(" \t\n\"", at[-1])) &&
            (is_prefix || strchr(" \t\n\"", at[length])))
            return true;
    return false;
}

static uint64_t unpacked_size(const struct unpack_source *source)
{
    return load_le32(source->payload + source->payload_size - sizeof(uint32_t));
}

bool unpack_is_possible(const struct unpack_source *source)
{
    /* They tell the guest's own code where the kernel must not lie. */
    static const char *const words[] = {
        "mem=", "memmap=", "hugepagesz=", "hugepages=", "efi_fake_mem="};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (unpack_has_word(source->cmdline, words[i]))
            return false;
    return source->payload_size > sizeof(uint32_t) && unpacked_size(source) <= source->size &&
           is_power_of_2(source->alignment) && is_aligned(source->link_gpa, source->alignment) &&
           source->link_gpa >= FIRST_SEGMENT_OFFSET && source->link_gpa < source->limit_gpa &&
           source->size <= source->limit_gpa - source->link_gpa;
}

/* A multiple of `alignment` up to `max`; 0 if there is no randomness to be had. */
static uint64_t random_distance(uint64_t max, uint64_t alignment)
{
    uint64_t value;
    ssize_t length;
    do
        length = getrandom(&value, sizeof(value), 0);
    while (length < 0 && errno == EINTR);
    return length == sizeof(value) ? value % (max / alignment + 1) * alignment : 0;
}

static bool move_to_virtual(const struct unpack_source *source, const struct vmlinux *vmlinux)
{
    uint64_t room = VIRTUAL_END - source->link_gpa;
    if (source->link_gpa >= VIRTUAL_END || source->size > room)
        return false;
    return vmlinux_relocate(vmlinux, random_distance(room - source->size, source->alignment));
}

static bool unpack_into(const struct unpack_source *source, struct vmlinux *vmlinux, bool has_kaslr,
                        struct unpacked *out)
{
    if (!decompress(source->decompressor, source->payload, source->payload_size, vmlinux->file,
                    vmlinux->file_size) ||
        !vmlinux_parse(vmlinux))
        return false;
    vmlinux_place(vmlinux);
    out->is_randomized = has_kaslr && vmlinux_is_relocatable(vmlinux);
    if (out->is_randomized && !move_to_virtual(source, vmlinux))
        return false;
    vmlinux_clear(vmlinux);
    return true;
}

bool unpack(const struct unpack_source *source, const struct guest_mem *mem, struct unpacked *out)
{
    bool has_kaslr = !unpack_has_word(source->cmdline, "nokaslr");
    uint64_t spare = source->limit_gpa - source->link_gpa - source->size, at = source->link_gpa;
    if (has_kaslr && source->is_movable)
        at += random_distance(spare, source->alignment);
    uint64_t begin = at - FIRST_SEGMENT_OFFSET, length = FIRST_SEGMENT_OFFSET + source->size;
    uint8_t *file = guest_mem_span(mem, begin, length);
    if (!file)
        return false;
    struct vmlinux vmlinux = {
        .file = file,
        .file_size = unpacked_size(source),
        .to = file + FIRST_SEGMENT_OFFSET,
        .to_size = source->size,
        .link_gpa = source->link_gpa,
    };
    bool is_done = unpack_into(source, &vmlinux, has_kaslr, out);
    guest_mem_written(mem, begin, length);
    out->entry_gpa = at + vmlinux.entry;
    return is_done;
}
