/* SPDX-License-Identifier: MIT */
/*
 * mem: linear memory accesses that miss the TLB: page walks, page crossings, writes to pages with
 * decoded code, memory that is not RAM, alignment checks and data breakpoints.
 */
#include "vmm/soft/mem.h"

#include "vmm/soft/block.h"
#include "vmm/soft/mmio.h"
#include "vmm/soft/mmu.h"
#include "vmm/soft/system.h"

#define CACHE_LINE 64

/* One page's part of an access. */
struct piece {
    struct mmu_page page;
    unsigned length;
};

static bool is_aligned_access(uint64_t address, unsigned length)
{
    return length > 16 || !(address & (length - 1)) || length & (length - 1);
}

/* Linear addresses of operands have 32 bits outside 64-bit mode; those of tables may have more. */
static uint64_t second_page(const struct soft_cpu *cpu, uint64_t address, unsigned access)
{
    return access & SOFT_SYSTEM || soft_is_64bit(cpu) ? address : (uint32_t)address;
}

/* What the set that is never filled stands for. */
static bool check_slow_set(struct soft_cpu *cpu, uint64_t address, unsigned length, unsigned access)
{
    if (access & SOFT_SYSTEM || cpu->tlb != cpu->tlbs[SOFT_TLB_SLOW])
        return true;
    if (cpu->cpl == 3 && cpu->cr0 & CR0_AM && cpu->rflags & RFLAGS_AC &&
        !is_aligned_access(address, length))
        return soft_raise(cpu, SOFT_AC, 0);
    system_check_data_breakpoints(cpu, address, length, access & SOFT_WRITE);
    return true;
}

static bool translate_pieces(struct soft_cpu *cpu, uint64_t address, unsigned length,
                             unsigned access, struct piece pieces[2])
{
    unsigned in_page = 0x1000 - (unsigned)(address & 0xfff);
    uint64_t second = second_page(cpu, address + in_page, access);

    if (!check_slow_set(cpu, address, length, access))
        return false;
    pieces[0].length = MIN(length, in_page);
    pieces[1].length = length - pieces[0].length;
    /* The whole operand must be canonical before any of it may be missing. */
    if (pieces[1].length && !mmu_check_canonical(cpu, second))
        return false;
    if (!mmu_translate(cpu, address, access, &pieces[0].page))
        return false;
    return !pieces[1].length || mmu_translate(cpu, second, access, &pieces[1].page);
}

/* An operand's size in one access, so that vCPUs see each other's stores whole. */
static void copy_whole(uint8_t *to, const uint8_t *from, unsigned length)
{
    switch (length) {
    case 2:
        memcpy(to, from, 2);
        break;
    case 4:
        memcpy(to, from, 4);
        break;
    case 8:
        memcpy(to, from, 8);
        break;
    default:
        memcpy(to, from, length);
    }
}

static bool read_piece(struct soft_cpu *cpu, const struct piece *piece, uint8_t *to)
{
    const struct mmu_page *page = &piece->page;

    if (!page->slot)
        return mmio_access(cpu, page->gpa, to, piece->length, false);
    const uint8_t *from = physmem_host(page->slot, page->gpa);
    copy_whole(to, from, piece->length);
    return true;
}

static bool write_piece(struct soft_cpu *cpu, const struct piece *piece, const uint8_t *from)
{
    const struct mmu_page *page = &piece->page;

    if (!page->slot || page->slot->read_only)
        return mmio_access(cpu, page->gpa, (void *)(uintptr_t)from, piece->length, true);
    uint8_t *to = physmem_host(page->slot, page->gpa);
    copy_whole(to, from, piece->length);
    block_code_written(cpu->vm, cpu, page->slot, page->gpa, piece->length);
    return true;
}

static bool load(struct soft_cpu *cpu, uint64_t address, void *to, unsigned length, unsigned access)
{
    struct piece pieces[2];

    return translate_pieces(cpu, address, length, access, pieces) &&
           read_piece(cpu, &pieces[0], to) &&
           (!pieces[1].length || read_piece(cpu, &pieces[1], (uint8_t *)to + pieces[0].length));
}

static bool store(struct soft_cpu *cpu, uint64_t address, const void *from, unsigned length,
                  unsigned access)
{
    struct piece pieces[2];

    return translate_pieces(cpu, address, length, access, pieces) &&
           write_piece(cpu, &pieces[0], from) &&
           (!pieces[1].length ||
            write_piece(cpu, &pieces[1], (const uint8_t *)from + pieces[0].length));
}

bool soft_load_slow(struct soft_cpu *cpu, uint64_t address, void *to, unsigned length)
{
    return load(cpu, address, to, length, SOFT_READ);
}

bool soft_store_slow(struct soft_cpu *cpu, uint64_t address, const void *from, unsigned length)
{
    return store(cpu, address, from, length, SOFT_WRITE);
}

bool soft_load_modify(struct soft_cpu *cpu, uint64_t address, void *to, unsigned length)
{
    return load(cpu, address, to, length, SOFT_WRITE);
}

bool soft_load_system(struct soft_cpu *cpu, uint64_t address, void *to, unsigned length)
{
    return load(cpu, address, to, length, SOFT_READ | SOFT_SYSTEM);
}

bool soft_store_system(struct soft_cpu *cpu, uint64_t address, const void *from, unsigned length)
{
    return store(cpu, address, from, length, SOFT_WRITE | SOFT_SYSTEM);
}

bool soft_probe_write(struct soft_cpu *cpu, uint64_t address, unsigned length)
{
    struct piece pieces[2];

    return translate_pieces(cpu, address, length, SOFT_WRITE, pieces);
}

/* --- Compare and exchange --- */

static bool exchange_on_host(void *host, void *expected, const void *desired, unsigned length)
{
    switch (length) {
    case 1:
        return __atomic_compare_exchange_n((uint8_t *)host, (uint8_t *)expected,
                                           *(const uint8_t *)desired, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST);
#define EXCHANGE(bytes, type, sfx)                                                                 \
    case bytes: {                                                                                  \
        type old, wanted;                                                                          \
        bool swapped;                                                                              \
        memcpy(&old, expected, bytes);                                                             \
        memcpy(&wanted, desired, bytes);                                                           \
        asm volatile("lock cmpxchg" sfx " %3, %1\n\tsete %2"                                       \
                     : "+a"(old), "+m"(*(uint8_t(*)[bytes])host), "=q"(swapped)                    \
                     : "r"(wanted)                                                                 \
                     : "cc", "memory");                                                            \
        memcpy(expected, &old, bytes);                                                             \
        return swapped;                                                                            \
    }
        EXCHANGE(2, uint16_t, "w")
        EXCHANGE(4, uint32_t, "l")
        EXCHANGE(8, uint64_t, "q")
#undef EXCHANGE
    default: {
        uint64_t old[2], wanted[2];
        bool swapped;

        memcpy(old, expected, 16);
        memcpy(wanted, desired, 16);
        asm volatile("lock cmpxchg16b (%5)\n\tsete %2"
                     : "+a"(old[0]), "+d"(old[1]), "=q"(swapped)
                     : "b"(wanted[0]), "c"(wanted[1]), "r"(host)
                     : "cc", "memory");
        memcpy(expected, old, 16);
        return swapped;
    }
    }
}

/* Across cache lines or pages, or not in RAM: one such access at a time, else not atomic. */
static bool exchange_in_parts(struct soft_cpu *cpu, const struct piece pieces[2], void *expected,
                              const void *desired, unsigned length, bool *swapped)
{
    uint8_t held[16], wanted[16];
    bool done;

    pthread_mutex_lock(&cpu->vm->split_lock);
    done = read_piece(cpu, &pieces[0], held) &&
           (!pieces[1].length || read_piece(cpu, &pieces[1], held + pieces[0].length));
    if (done) {
        *swapped = !memcmp(held, expected, length);
        memcpy(wanted, *swapped ? desired : held, length);
        done = write_piece(cpu, &pieces[0], wanted) &&
               (!pieces[1].length || write_piece(cpu, &pieces[1], wanted + pieces[0].length));
    }
    pthread_mutex_unlock(&cpu->vm->split_lock);
    if (done)
        memcpy(expected, held, length);
    return done;
}

bool soft_compare_exchange(struct soft_cpu *cpu, uint64_t address, void *expected,
                           const void *desired, unsigned length, bool *swapped)
{
    struct piece pieces[2];
    struct mmu_page *page = &pieces[0].page;

    if (!translate_pieces(cpu, address, length, SOFT_WRITE, pieces))
        return false;
    if ((address & (CACHE_LINE - 1)) + length > CACHE_LINE || !page->slot || page->slot->read_only)
        return exchange_in_parts(cpu, pieces, expected, desired, length, swapped);
    *swapped = exchange_on_host(physmem_host(page->slot, page->gpa), expected, desired, length);
    block_code_written(cpu->vm, cpu, page->slot, page->gpa, length);
    return true;
}
