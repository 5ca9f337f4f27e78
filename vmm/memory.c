/* SPDX-License-Identifier: MIT */
/* memory: maps the guest's RAM on the host and lays it out around the hole below 4 GiB. */
#include "vmm/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/limits.h"

#define MEMORY_EARLY_BYTES (2 * MIB)

static void lay_out(struct memory *memory)
{
    struct guest_mem *guest = &memory->guest;
    uint64_t low = MIN(memory->size, MEMORY_LOW_MAX);
    guest->regions[0] = (struct guest_mem_region){
        .size = low, .host = memory->host, .is_shared = memory->backing.fd >= 0};
    guest->region_count = 1;
    if (memory->size > low) {
        guest->regions[1] = (struct guest_mem_region){.gpa = MEMORY_HIGH_BASE,
                                                      .size = memory->size - low,
                                                      .host = (char *)memory->host + low,
                                                      .is_shared = memory->backing.fd >= 0};
        guest->region_count = 2;
    }
    const struct guest_mem_region *last = &guest->regions[guest->region_count - 1];
    memory->device_end = align_up(MAX(last->gpa + last->size, MEMORY_HIGH_BASE), GIB);
}

/* Takes every page now. MAP_POPULATE would not do: it comes before the advice on huge pages. */
static int populate(struct memory *memory, struct error *err)
{
    const unsigned long long mib = memory->size / MIB;
    if (madvise(memory->host, memory->size, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno == EFAULT) /* where a touch would have been SIGBUS */
        return error_set(err, ENOSPC,
                         "the file system of the guest's memory has no %llu MiB for -mem-prealloc "
                         "(prealloc=on): make it larger, or use a smaller -m",
                         mib);
    if (errno != EINVAL) /* as before Linux 5.14 */
        return error_set(err, ENOMEM,
                         "the host has no %llu MiB for -mem-prealloc (prealloc=on): %s; use a "
                         "smaller -m, or leave it out",
                         mib, strerror(errno));
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (uint64_t at = 0; at < memory->size; at += page)
        *((volatile char *)memory->host + at) = 0;
    return 0;
}

/* A guest begins with a few pages here and there, for which it would wait until a huge one is
 * cleared. */
static void advise_early(struct memory *memory, int advice)
{
    madvise(memory->host, MIN(memory->size, MEMORY_EARLY_BYTES), advice);
}

int memory_init(struct memory *memory, uint64_t size, const char *path, bool prealloc,
                struct error *err)
{
    *memory = (struct memory){.size = size};
    int result =
        memory_backing_init(&memory->backing, size, path, path != NULL, "the guest's memory", err);
    if (result)
        return result;
    memory->host = memory->backing.host;
    memory->is_early = !path && !prealloc;
    if (memory->is_early)
        advise_early(memory, MADV_NOHUGEPAGE);
    result = prealloc ? populate(memory, err) : 0;
    if (result) {
        memory_fini(memory);
        return result;
    }
    lay_out(memory);
    return 0;
}

void memory_settle(struct memory *memory)
{
    if (memory->is_early)
        advise_early(memory, MADV_HUGEPAGE);
    memory->is_early = false;
}

void memory_fini(struct memory *memory)
{
    memory_backing_fini(&memory->backing);
}

int memory_map(struct memory *memory, struct accel_vm *vm, struct error *err)
{
    for (unsigned i = 0; i < memory->guest.region_count; i++) {
        const struct guest_mem_region *region = &memory->guest.regions[i];
        int result = vm->ops->set_memslot(vm, i, region->gpa, region->size, region->host, false);
        if (result)
            return error_set_errno(err, -result, "cannot give %llu MiB of memory to %s",
                                   (unsigned long long)(region->size / MIB), vm->ops->name);
    }
    return 0;
}

uint64_t memory_pci64_base(const struct memory *memory)
{
    return memory->device_end;
}
