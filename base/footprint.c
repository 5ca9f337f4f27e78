/* SPDX-License-Identifier: MIT */
/* footprint: drops clean pages of code and constants, and the heap's free ones. */
#include "base/footprint.h"

#include <link.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* A debugger's breakpoints are written into the code's pages, and would go with them. */
static bool is_traced(void)
{
    char line[64];
    int tracer = 0;
    FILE *status = fopen("/proc/self/status", "re");
    if (!status)
        return true;
    while (fgets(line, sizeof(line), status) && sscanf(line, "TracerPid: %d", &tracer) != 1)
        ;
    fclose(status);
    return tracer != 0;
}

/* What is never written is a mere window on its file. (Relocated constants lie in writable ones.)
 */
static int drop_constant_segments(struct dl_phdr_info *object, size_t size, void *opaque)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)size;
    (void)opaque;
    for (unsigned i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || segment->p_flags & PF_W)
            continue;
        uintptr_t start = (object->dlpi_addr + segment->p_vaddr) & ~(page - 1);
        uintptr_t end = object->dlpi_addr + segment->p_vaddr + segment->p_filesz;
        madvise((void *)start, end - start, MADV_DONTNEED);
    }
    return 0;
}

void footprint_trim(void)
{
    malloc_trim(0);
    if (!is_traced())
        dl_iterate_phdr(drop_constant_segments, NULL);
}
