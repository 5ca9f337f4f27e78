/* SPDX-License-Identifier: MIT */
/*
 * mmu: walks the guest's page tables and fills the TLB.
 *
 * A TLB entry allows only what needs no further look: writing only when the dirty bit is set, the
 * page holds no decoded code and its slot is not read-only. So whatever has to be noticed comes by
 * here or by mem.c. Entries are 4 KiB whatever the page size; two small filters remember where
 * large pages were met, for INVLPG.
 */
#include "vmm/soft/mmu.h"

#include "vmm/soft/block.h"
#include "vmm/soft/vm.h"

#define PTE_P   UINT64_C(0x001)
#define PTE_W   UINT64_C(0x002)
#define PTE_U   UINT64_C(0x004)
#define PTE_A   UINT64_C(0x020)
#define PTE_D   UINT64_C(0x040)
#define PTE_PS  UINT64_C(0x080)
#define PTE_G   UINT64_C(0x100)
#define PTE_NX  (UINT64_C(1) << 63)
#define PTE_GPA UINT64_C(0x000ffffffffff000)
#define PF_P    1u
#define PF_W    2u
#define PF_U    4u
#define PF_RSVD 8u
#define PF_I    16u

/* The leaf of a walk, and the rights that all levels together give. */
struct walk {
    uint64_t gpa;
    bool is_writable, is_user, is_executable, is_global, is_dirty;
    unsigned large_shift; /* 12, 21, 22 or 30 */
};

enum step_result { STEP_OK, STEP_AGAIN, STEP_FAULT };

static bool is_pae(const struct soft_cpu *cpu)
{
    return cpu->cr4 & CR4_PAE;
}

static unsigned entry_size(const struct soft_cpu *cpu)
{
    return is_pae(cpu) ? 8 : 4;
}

/* NULL: the table is not in RAM. */
static void *entry_host(struct soft_cpu *cpu, uint64_t gpa)
{
    const struct physmem_slot *slot = physmem_find(&cpu->vm->mem, gpa);

    return slot ? physmem_host(slot, gpa) : NULL;
}

static uint64_t read_entry(const struct soft_cpu *cpu, const void *host)
{
    if (entry_size(cpu) == 8)
        return __atomic_load_n((const uint64_t *)host, __ATOMIC_RELAXED);
    return __atomic_load_n((const uint32_t *)host, __ATOMIC_RELAXED);
}

/* False: somebody changed the entry meanwhile, walk again. */
static bool set_entry_bits(const struct soft_cpu *cpu, void *host, uint64_t entry, uint64_t bits)
{
    if ((entry & bits) == bits)
        return true;
    if (entry_size(cpu) == 8)
        return __atomic_compare_exchange_n((uint64_t *)host, &entry, entry | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    uint32_t narrow = (uint32_t)entry;

    return __atomic_compare_exchange_n((uint32_t *)host, &narrow, narrow | (uint32_t)bits, false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static uint64_t reserved_bits(const struct soft_cpu *cpu, unsigned level, bool is_leaf)
{
    uint64_t reserved = 0;

    if (!is_pae(cpu))
        return 0;
    reserved = PTE_GPA & ~((UINT64_C(1) << cpu->physical_bits) - 1);
    if (!soft_is_long_mode(cpu))
        reserved |= UINT64_C(0x7ff0000000000000);
    if (!(cpu->efer & EFER_NX))
        reserved |= PTE_NX;
    if (level == 4)
        reserved |= PTE_PS;
    if (is_leaf && level == 2)
        reserved |= UINT64_C(0x1fe000);
    if (is_leaf && level == 3)
        reserved |= UINT64_C(0x3fffe000);
    return reserved;
}

static bool is_large(const struct soft_cpu *cpu, unsigned level, uint64_t entry)
{
    if (level == 1 || !(entry & PTE_PS))
        return level == 1;
    if (level == 2)
        return is_pae(cpu) || cpu->cr4 & CR4_PSE;
    return level == 3 && soft_is_long_mode(cpu) && cpu->has_1g_pages;
}

static unsigned level_shift(const struct soft_cpu *cpu, unsigned level)
{
    return is_pae(cpu) ? 3 + 9 * level : 2 + 10 * level;
}

static uint64_t leaf_gpa(const struct soft_cpu *cpu, uint64_t entry, unsigned shift,
                         uint64_t address)
{
    uint64_t offset_mask = (UINT64_C(1) << shift) - 1;
    uint64_t frame = entry & PTE_GPA & ~offset_mask;

    if (!is_pae(cpu)) {
        frame &= UINT32_MAX;
        if (shift == 22) /* PSE-36: bits 20 to 13 are the address's 39 to 32 */
            frame |= (entry & UINT64_C(0x1fe000)) << 19;
    }
    return frame | (address & offset_mask);
}

static uint32_t fault_code(const struct soft_cpu *cpu, unsigned access, bool as_user)
{
    bool names_fetch = cpu->efer & EFER_NX && is_pae(cpu);

    return (access & SOFT_WRITE ? PF_W : 0) | (as_user ? PF_U : 0) |
           (access & SOFT_EXEC && names_fetch ? PF_I : 0);
}

static bool is_allowed(const struct soft_cpu *cpu, const struct walk *walk, unsigned access,
                       bool as_user)
{
    if (as_user && !walk->is_user)
        return false;
    if (access & SOFT_EXEC && !walk->is_executable)
        return false;
    return !(access & SOFT_WRITE) || walk->is_writable || (!as_user && !(cpu->cr0 & CR0_WP));
}

/* Where the walk begins: the first table and its level. False: not present (PAE's PDPTE). */
static bool walk_root(const struct soft_cpu *cpu, uint64_t address, uint64_t *table,
                      unsigned *level)
{
    if (soft_is_long_mode(cpu)) {
        *table = cpu->cr3 & PTE_GPA;
        *level = 4;
        return true;
    }
    *level = 2;
    if (!is_pae(cpu)) {
        *table = cpu->cr3 & UINT32_C(0xfffff000);
        return true;
    }
    uint64_t pdpte = cpu->pdpte[address >> 30 & 3];

    *table = pdpte & PTE_GPA;
    return pdpte & PTE_P;
}

/* The entry for `address` in that table, and where it lies; 0 where there is no memory. */
static uint64_t find_entry(struct soft_cpu *cpu, uint64_t table, unsigned shift, uint64_t address,
                           void **host)
{
    uint64_t index = address >> shift & (is_pae(cpu) ? 511 : 1023);

    *host = entry_host(cpu, table + index * entry_size(cpu));
    return *host ? read_entry(cpu, *host) : 0;
}

static enum step_result finish_leaf(struct soft_cpu *cpu, void *host, uint64_t entry,
                                    unsigned access, bool as_user, struct walk *walk,
                                    uint32_t *code)
{
    bool sets_dirty = access & SOFT_WRITE;

    if (!is_allowed(cpu, walk, access, as_user)) {
        *code |= PF_P;
        return STEP_FAULT;
    }
    if (!set_entry_bits(cpu, host, entry, PTE_A | (sets_dirty ? PTE_D : 0)))
        return STEP_AGAIN;
    walk->is_dirty = sets_dirty || entry & PTE_D;
    walk->is_global = entry & PTE_G && cpu->cr4 & CR4_PGE;
    return STEP_OK;
}

static enum step_result walk_tables(struct soft_cpu *cpu, uint64_t address, unsigned access,
                                    bool as_user, struct walk *walk, uint32_t *code)
{
    uint64_t table;
    unsigned level;

    *walk = (struct walk){.is_writable = true, .is_user = true, .is_executable = true};
    *code = fault_code(cpu, access, as_user);
    if (!walk_root(cpu, address, &table, &level))
        return STEP_FAULT;
    for (;; level--) {
        unsigned shift = level_shift(cpu, level);
        void *host;
        uint64_t entry = find_entry(cpu, table, shift, address, &host);

        if (!(entry & PTE_P))
            return STEP_FAULT;
        bool is_leaf = is_large(cpu, level, entry);

        if (entry & reserved_bits(cpu, level, is_leaf) ||
            (level == 3 && soft_is_long_mode(cpu) && entry & PTE_PS && !is_leaf)) {
            *code |= PF_P | PF_RSVD;
            return STEP_FAULT;
        }
        walk->is_writable &= !!(entry & PTE_W);
        walk->is_user &= !!(entry & PTE_U);
        walk->is_executable &= !(entry & PTE_NX && is_pae(cpu));
        if (is_leaf) {
            walk->large_shift = shift;
            walk->gpa = leaf_gpa(cpu, entry, shift, address);
            return finish_leaf(cpu, host, entry, access, as_user, walk, code);
        }
        if (!set_entry_bits(cpu, host, entry, PTE_A))
            return STEP_AGAIN;
        table = entry & (is_pae(cpu) ? PTE_GPA : UINT32_C(0xfffff000));
    }
}

/* --- TLB --- */

static unsigned large_bit(uint64_t address, unsigned shift)
{
    uint64_t region = address >> shift;

    return (unsigned)(region ^ region >> 8 ^ region >> 16) & 255;
}

static void note_large(struct soft_cpu *cpu, uint64_t address, unsigned shift)
{
    unsigned bit = large_bit(address, shift == 30 ? 30 : 21);

    if (shift == 22)
        cpu->large_4m = true;
    else if (shift != 12)
        cpu->large_seen[shift == 30][bit / 64] |= UINT64_C(1) << (bit & 63);
}

static void fill_tlb(struct soft_cpu *cpu, unsigned set, uint64_t address, const struct walk *walk,
                     const struct mmu_page *page)
{
    uint64_t tag = address & ~UINT64_C(0xfff);
    unsigned slot = (unsigned)(address >> 12) & (SOFT_TLB_SIZE - 1);
    struct soft_tlb_entry *entry = &cpu->tlbs[set][slot];
    uint8_t *host = physmem_host(page->slot, page->gpa & ~UINT64_C(0xfff));
    uint64_t addend = (uint64_t)(uintptr_t)host - tag;
    bool as_user = set == SOFT_TLB_USER;

    *entry =
        (struct soft_tlb_entry){.read = tag, .write = SOFT_TLB_NONE, .addend = addend, .exec = 0};
    if (is_allowed(cpu, walk, SOFT_EXEC, as_user))
        entry->exec = tag | SOFT_TLB_VALID | (walk->is_global ? SOFT_TLB_GLOBAL : 0);
    if (walk->is_dirty && is_allowed(cpu, walk, SOFT_WRITE, as_user) && !page->slot->read_only &&
        !atomic_load(physmem_owners(page->slot, page->gpa)))
        entry->write = tag;
    note_large(cpu, address, walk->large_shift);
    if (walk->is_global)
        return;
    if (cpu->tlb_dirty_count < ARRAY_SIZE(cpu->tlb_dirty))
        cpu->tlb_dirty[cpu->tlb_dirty_count] = (uint16_t)(set * SOFT_TLB_SIZE + slot);
    cpu->tlb_dirty_count++;
}

bool mmu_check_canonical(struct soft_cpu *cpu, uint64_t address)
{
    if (!soft_is_long_mode(cpu) || soft_is_canonical(address))
        return true;
    soft_raise(cpu, SOFT_GP, 0);
    cpu->non_canonical = address;
    return false;
}

bool mmu_translate(struct soft_cpu *cpu, uint64_t address, unsigned access, struct mmu_page *page)
{
    bool as_user = cpu->cpl == 3 && !(access & SOFT_SYSTEM);
    unsigned set = as_user ? SOFT_TLB_USER : SOFT_TLB_KERNEL;
    struct walk walk = {.is_writable = true,
                        .is_user = true,
                        .is_executable = true,
                        .is_dirty = true,
                        .large_shift = 12,
                        .gpa = address};
    enum step_result result = STEP_OK;
    uint32_t code = 0;

    if (!mmu_check_canonical(cpu, address))
        return false;
    if (!soft_is_long_mode(cpu))
        walk.gpa = address &= UINT32_MAX;
    if (cpu->cr0 & CR0_PG) {
        do {
            result = walk_tables(cpu, address, access, as_user, &walk, &code);
        } while (result == STEP_AGAIN);
    }
    if (result == STEP_FAULT)
        return soft_raise_page_fault(cpu, address, code);
    page->gpa = walk.gpa;
    page->slot = physmem_find(&cpu->vm->mem, page->gpa);
    page->is_global = walk.is_global;
    if (page->slot)
        fill_tlb(cpu, set, address, &walk, page);
    return true;
}

bool mmu_peek(struct soft_cpu *cpu, uint64_t address, uint64_t *gpa)
{
    uint64_t table;
    unsigned level;

    if (!(cpu->cr0 & CR0_PG)) {
        *gpa = address;
        return true;
    }
    if (!walk_root(cpu, address, &table, &level))
        return false;
    for (;; level--) {
        unsigned shift = level_shift(cpu, level);
        void *host;
        uint64_t entry = find_entry(cpu, table, shift, address, &host);

        if (!(entry & PTE_P))
            return false;
        if (is_large(cpu, level, entry)) {
            *gpa = leaf_gpa(cpu, entry, shift, address);
            return true;
        }
        table = entry & (is_pae(cpu) ? PTE_GPA : UINT32_C(0xfffff000));
    }
}

static void drop(struct soft_tlb_entry *entry)
{
    entry->read = entry->write = SOFT_TLB_NONE;
    entry->exec = 0;
}

void mmu_flush_all(struct soft_cpu *cpu)
{
    for (unsigned set = 0; set < SOFT_TLB_SETS; set++)
        for (unsigned i = 0; i < SOFT_TLB_SIZE; i++)
            drop(&cpu->tlbs[set][i]);
    cpu->tlb_dirty_count = 0;
    memset(cpu->large_seen, 0, sizeof(cpu->large_seen));
    cpu->large_4m = false;
    block_flush_jumps(cpu);
}

void mmu_flush_non_global(struct soft_cpu *cpu)
{
    if (cpu->tlb_dirty_count > ARRAY_SIZE(cpu->tlb_dirty)) {
        mmu_flush_all(cpu);
        return;
    }
    for (unsigned i = 0; i < cpu->tlb_dirty_count; i++)
        drop(&cpu->tlbs[0][0] + cpu->tlb_dirty[i]);
    cpu->tlb_dirty_count = 0;
    block_flush_non_global_jumps(cpu);
}

/* Everything in the naturally aligned region of 1 << shift bytes. */
static void flush_region(struct soft_cpu *cpu, uint64_t address, unsigned shift)
{
    for (unsigned set = 0; set < SOFT_TLB_SLOW; set++) {
        for (unsigned i = 0; i < SOFT_TLB_SIZE; i++) {
            struct soft_tlb_entry *entry = &cpu->tlbs[set][i];

            if (entry->read >> shift == address >> shift)
                drop(entry);
        }
    }
    block_flush_jumps(cpu);
}

static bool was_large(const struct soft_cpu *cpu, uint64_t address, unsigned shift)
{
    unsigned bit = large_bit(address, shift);

    return cpu->large_seen[shift == 30][bit / 64] >> (bit & 63) & 1;
}

void mmu_flush_page(struct soft_cpu *cpu, uint64_t address)
{
    if (cpu->large_4m)
        flush_region(cpu, address, 22);
    else if (was_large(cpu, address, 30))
        flush_region(cpu, address, 30);
    else if (was_large(cpu, address, 21))
        flush_region(cpu, address, 21);
    for (unsigned set = 0; set < SOFT_TLB_SLOW; set++) {
        struct soft_tlb_entry *entry = &cpu->tlbs[set][(address >> 12) & (SOFT_TLB_SIZE - 1)];

        if (entry->read == (address & ~UINT64_C(0xfff)))
            drop(entry);
    }
    block_flush_page_jumps(cpu, address);
}

bool mmu_forget_writes(struct soft_cpu *cpu, const uint8_t *host_page)
{
    bool found = false;

    for (unsigned set = 0; set < SOFT_TLB_SLOW; set++) {
        for (unsigned i = 0; i < SOFT_TLB_SIZE; i++) {
            struct soft_tlb_entry *entry = &cpu->tlbs[set][i];

            if (entry->write == SOFT_TLB_NONE ||
                entry->write + entry->addend != (uint64_t)(uintptr_t)host_page)
                continue;
            entry->write = SOFT_TLB_NONE;
            found = true;
        }
    }
    return found;
}

bool mmu_load_pdptes(struct soft_cpu *cpu, uint64_t cr3)
{
    uint64_t entries[4];

    for (unsigned i = 0; i < 4; i++) {
        const void *host = entry_host(cpu, (cr3 & UINT32_C(0xffffffe0)) + i * 8);

        entries[i] = host ? __atomic_load_n((const uint64_t *)host, __ATOMIC_RELAXED) : 0;
        uint64_t reserved = UINT64_C(0x1e6) | (~PTE_GPA & ~UINT64_C(0xfff)) |
                            (PTE_GPA & ~((UINT64_C(1) << cpu->physical_bits) - 1));

        if (entries[i] & PTE_P && entries[i] & reserved)
            return soft_raise(cpu, SOFT_GP, 0);
    }
    memcpy(cpu->pdpte, entries, sizeof(entries));
    return true;
}
