/* SPDX-License-Identifier: MIT */
/* footprint: drops clean pages of code and constants, and the heap's free ones. */
#include "base/footprint.h"

#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"

#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_OF_FILE (UINT64_C(1) << 61)

/* Whether all of it is as in its file: a debugger's or a tracer's breakpoints must not get lost. */
static bool is_pristine(int pagemap, uintptr_t start, uintptr_t end, uintptr_t page)
{
    uint64_t entries[64];
    for (uintptr_t at = start; at < end; at += ARRAY_SIZE(entries) * page) {
        size_t count = MIN(ARRAY_SIZE(entries), (end - at + page - 1) / page);
        ssize_t bytes = (ssize_t)(count * sizeof(entries[0]));
        if (pread(pagemap, entries, (size_t)bytes, (off_t)(at / page * sizeof(entries[0]))) !=
            bytes)
            return false;
        for (size_t i = 0; i < count; i++)
            if ((entries[i] & (PAGEMAP_PRESENT | PAGEMAP_OF_FILE)) == PAGEMAP_PRESENT)
                return false;
    }
    return true;
}

/* What is never written is a mere window on its file. (Relocated constants lie in writable ones.)
 */
static int drop_constant_segments(struct dl_phdr_info *object, size_t size, void *opaque)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const int *pagemap = opaque;
    (void)size;
    for (unsigned i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || segment->p_flags & PF_W)
            continue;
        uintptr_t start = (object->dlpi_addr + segment->p_vaddr) & ~(page - 1);
        uintptr_t end = object->dlpi_addr + segment->p_vaddr + segment->p_filesz;
        if (is_pristine(*pagemap, start, end, page))
            madvise((void *)start, end - start, MADV_DONTNEED);
    }
    return 0;
}

void footprint_trim(void)
{
    malloc_trim(0);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return;
    dl_iterate_phdr(drop_constant_segments, &pagemap);
    close(pagemap);
}
