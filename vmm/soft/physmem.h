/* SPDX-License-Identifier: MIT */
/*
 * physmem: guest-physical memory: slots of RAM, and which vCPUs hold decoded code of each page.
 *
 * The table of slots is replaced as a whole, so vCPUs read it without locks. A slot may be removed
 * only while no vCPU runs; adding is always possible.
 */
#ifndef VMM_SOFT_PHYSMEM_H
#define VMM_SOFT_PHYSMEM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"

_Static_assert(VCPU_MAX <= 64, "code owners are bits of one word");

struct physmem_slot {
    uint64_t gpa, size;
    uint8_t *host;
    bool read_only;
    unsigned number;
    _Atomic uint64_t *code_owners; /* per page: bit per vCPU that has decoded code of it */
};

struct physmem_table {
    unsigned count;
    struct physmem_table *retired; /* the tables before this one, freed at the end */
    struct physmem_slot slots[MEMSLOT_MAX];
};

struct physmem {
    struct physmem_table *_Atomic table;
    pthread_mutex_t mutex; /* writers */
};

int physmem_init(struct physmem *mem);
void physmem_fini(struct physmem *mem);

/* As accel_ops.set_memslot. */
int physmem_set_slot(struct physmem *mem, unsigned number, uint64_t gpa, uint64_t size, void *host,
                     bool read_only);

static inline const struct physmem_slot *physmem_find(const struct physmem *mem, uint64_t gpa)
{
    const struct physmem_table *table = atomic_load_explicit(&mem->table, memory_order_acquire);

    for (unsigned i = 0; i < table->count; i++)
        if (gpa - table->slots[i].gpa < table->slots[i].size)
            return &table->slots[i];
    return NULL;
}

static inline uint8_t *physmem_host(const struct physmem_slot *slot, uint64_t gpa)
{
    return slot->host + (gpa - slot->gpa);
}

static inline _Atomic uint64_t *physmem_owners(const struct physmem_slot *slot, uint64_t gpa)
{
    return &slot->code_owners[(gpa - slot->gpa) >> 12];
}

#endif
