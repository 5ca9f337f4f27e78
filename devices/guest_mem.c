/* SPDX-License-Identifier: MIT */
/* guest_mem: finds the RAM region of an address and copies in and out of it. */
#include "devices/guest_mem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"

/* The contiguous piece of RAM at gpa, at most *length bytes; shortens *length. NULL if no RAM. */
static void *piece_at(const struct guest_mem *mem, uint64_t gpa, uint64_t *length)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_mem_region *region = &mem->regions[i];
        if (gpa < region->gpa || gpa - region->gpa >= region->size)
            continue;
        uint64_t offset = gpa - region->gpa;
        *length = MIN(*length, region->size - offset);
        return (char *)region->host + offset;
    }
    return NULL;
}

void *guest_mem_span(const struct guest_mem *mem, uint64_t gpa, uint64_t length)
{
    uint64_t found = length;
    void *host = length ? piece_at(mem, gpa, &found) : NULL;
    return found == length ? host : NULL;
}

static bool is_ram(const struct guest_mem *mem, uint64_t gpa, uint64_t length)
{
    while (length) {
        uint64_t piece = length;
        if (!piece_at(mem, gpa, &piece))
            return false;
        gpa += piece;
        length -= piece;
    }
    return true;
}

bool guest_mem_read(const struct guest_mem *mem, uint64_t gpa, void *to, size_t length)
{
    if (!is_ram(mem, gpa, length))
        return false;
    for (size_t done = 0; done < length;) {
        uint64_t piece = length - done;
        memcpy((char *)to + done, piece_at(mem, gpa + done, &piece), piece);
        done += piece;
    }
    return true;
}

bool guest_mem_write(const struct guest_mem *mem, uint64_t gpa, const void *from, size_t length)
{
    if (!is_ram(mem, gpa, length))
        return false;
    for (size_t done = 0; done < length;) {
        uint64_t piece = length - done;
        memcpy(piece_at(mem, gpa + done, &piece), (const char *)from + done, piece);
        done += piece;
    }
    guest_mem_written(mem, gpa, length);
    return true;
}

void guest_mem_written(const struct guest_mem *mem, uint64_t gpa, uint64_t length)
{
    if (mem->on_written)
        mem->on_written(mem->opaque, gpa, length);
}

static const struct guest_mem_region *region_of(const struct guest_mem *mem, const void *host,
                                                uint64_t length)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_mem_region *region = &mem->regions[i];
        uint64_t offset = (uint64_t)((uintptr_t)host - (uintptr_t)region->host);
        if (range_fits(offset, length, region->size))
            return region;
    }
    UNREACHABLE("memory of a guest outside its RAM");
}

void guest_mem_written_host(const struct guest_mem *mem, const void *host, uint64_t length)
{
    if (!mem->on_written)
        return;
    const struct guest_mem_region *region = region_of(mem, host, length);
    uint64_t offset = (uint64_t)((uintptr_t)host - (uintptr_t)region->host);
    mem->on_written(mem->opaque, region->gpa + offset, length);
}

int guest_mem_discard_host(const struct guest_mem *mem, void *host, uint64_t length)
{
    /* What is shared stays in its file unless that gets a hole. */
    bool is_shared = region_of(mem, host, length)->is_shared;
    if (madvise(host, length, is_shared ? MADV_REMOVE : MADV_DONTNEED) < 0)
        return -errno;
    guest_mem_written_host(mem, host, length);
    return 0;
}
