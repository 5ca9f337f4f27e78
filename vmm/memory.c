/* SPDX-License-Identifier: MIT */
/* memory: maps the guest's RAM on the host and lays it out around the hole below 4 GiB. */
#include "vmm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/limits.h"

int memory_open_backing(const char *path, struct error *err)
{
    struct stat info;
    if (!path) {
        int fd = memfd_create("evisor-ram", MFD_CLOEXEC);
        return fd >= 0 ? fd : error_set_errno(err, errno, "cannot create the guest's memory");
    }
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        char *name = NULL;
        CHECK(asprintf(&name, "%s/evisor-ram-XXXXXX", path) > 0);
        int fd = mkostemp(name, O_CLOEXEC);
        int code = errno;
        if (fd >= 0)
            unlink(name);
        free(name);
        return fd >= 0
                   ? fd
                   : error_set_errno(err, code, "cannot create the guest's memory in '%s'", path);
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return fd >= 0 ? fd
                   : error_set_errno(err, errno, "cannot open '%s' for the guest's memory", path);
}

static void lay_out(struct memory *memory)
{
    struct guest_mem *guest = &memory->guest;
    uint64_t low = MIN(memory->size, MEMORY_LOW_MAX);
    guest->regions[0] = (struct guest_mem_region){.size = low, .host = memory->host};
    guest->region_count = 1;
    if (memory->size > low) {
        guest->regions[1] = (struct guest_mem_region){.gpa = MEMORY_HIGH_BASE,
                                                      .size = memory->size - low,
                                                      .host = (char *)memory->host + low};
        guest->region_count = 2;
    }
    const struct guest_mem_region *last = &guest->regions[guest->region_count - 1];
    memory->device_end = align_up(MAX(last->gpa + last->size, MEMORY_HIGH_BASE), GIB);
}

/* Takes every page now. MAP_POPULATE would not do: it comes before the advice on huge pages. */
static int populate(struct memory *memory, struct error *err)
{
    if (madvise(memory->host, memory->size, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL) /* as before Linux 5.14 */
        return error_set(err, ENOMEM,
                         "the host has no %llu MiB for -mem-prealloc: %s; use a smaller -m, or "
                         "leave -mem-prealloc out",
                         (unsigned long long)(memory->size / MIB), strerror(errno));
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (uint64_t at = 0; at < memory->size; at += page)
        *((volatile char *)memory->host + at) = 0;
    return 0;
}

/* `is_reserved`: the host says now, not by a signal later, that its huge pages do not suffice. */
static int map_backing(struct memory *memory, bool is_reserved, struct error *err)
{
    const unsigned long long mib = memory->size / MIB;
    if (ftruncate(memory->fd, (off_t)memory->size) < 0)
        return error_set_errno(err, errno, "cannot size the guest's memory to %llu MiB", mib);
    int flags = MAP_SHARED | (is_reserved ? 0 : MAP_NORESERVE);
    memory->host = mmap(NULL, memory->size, PROT_READ | PROT_WRITE, flags, memory->fd, 0);
    if (memory->host == MAP_FAILED)
        return error_set_errno(err, errno, "cannot map %llu MiB of guest memory; use a smaller -m%s",
                               mib, is_reserved ? ", or give -mem-path more pages" : "");
    madvise(memory->host, memory->size, MADV_HUGEPAGE);
    madvise(memory->host, memory->size, MADV_DONTDUMP);
    return 0;
}

int memory_init(struct memory *memory, uint64_t size, const char *path, bool prealloc,
                struct error *err)
{
    *memory = (struct memory){.size = size, .fd = -1};
    memory->fd = memory_open_backing(path, err);
    if (memory->fd < 0)
        return memory->fd;
    int result = map_backing(memory, path != NULL, err);
    if (result) {
        close(memory->fd);
        return result;
    }
    result = prealloc ? populate(memory, err) : 0;
    if (result) {
        memory_fini(memory);
        return result;
    }
    lay_out(memory);
    return 0;
}

void memory_fini(struct memory *memory)
{
    munmap(memory->host, memory->size);
    close(memory->fd);
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
