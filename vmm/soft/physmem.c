/* SPDX-License-Identifier: MIT */
/* physmem: the table of memory slots. */
#include "vmm/soft/physmem.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/check.h"

static size_t owners_bytes(uint64_t size)
{
    return (size_t)(size >> 12) * sizeof(_Atomic uint64_t);
}

int physmem_init(struct physmem *mem)
{
    struct physmem_table *table = calloc(1, sizeof(*table));

    if (!table)
        return -ENOMEM;
    atomic_init(&mem->table, table);
    pthread_mutex_init(&mem->mutex, NULL);
    return 0;
}

void physmem_fini(struct physmem *mem)
{
    struct physmem_table *table = atomic_load(&mem->table);

    for (unsigned i = 0; i < table->count; i++)
        munmap((void *)table->slots[i].code_owners, owners_bytes(table->slots[i].size));
    while (table) {
        struct physmem_table *next = table->retired;

        free(table);
        table = next;
    }
    pthread_mutex_destroy(&mem->mutex);
}

static void remove_slot(struct physmem_table *table, unsigned number)
{
    for (unsigned i = 0; i < table->count; i++) {
        if (table->slots[i].number != number)
            continue;
        munmap((void *)table->slots[i].code_owners, owners_bytes(table->slots[i].size));
        table->slots[i] = table->slots[--table->count];
        return;
    }
}

static int add_slot(struct physmem_table *table, const struct physmem_slot *slot)
{
    for (unsigned i = 0; i < table->count; i++)
        if (ranges_overlap(table->slots[i].gpa, table->slots[i].size, slot->gpa, slot->size))
            return -EEXIST;
    if (table->count == MEMSLOT_MAX)
        return -ENOSPC;
    /* Touched only where there is code: address space, not memory. */
    void *owners = mmap(NULL, owners_bytes(slot->size), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (owners == MAP_FAILED)
        return -ENOMEM;
    table->slots[table->count] = *slot;
    table->slots[table->count++].code_owners = owners;
    return 0;
}

int physmem_set_slot(struct physmem *mem, unsigned number, uint64_t gpa, uint64_t size, void *host,
                     bool read_only)
{
    struct physmem_slot slot = {
        .gpa = gpa, .size = size, .host = host, .read_only = read_only, .number = number};
    int result = 0;

    if ((gpa | size) & 0xfff || (size && gpa > UINT64_MAX - size))
        return -EINVAL;
    struct physmem_table *table = malloc(sizeof(*table));

    if (!table)
        return -ENOMEM;
    pthread_mutex_lock(&mem->mutex);
    struct physmem_table *old = atomic_load(&mem->table);

    *table = *old;
    table->retired = old;
    remove_slot(table, number);
    if (size)
        result = add_slot(table, &slot);
    atomic_store_explicit(&mem->table, table, memory_order_release);
    pthread_mutex_unlock(&mem->mutex);
    return result;
}
