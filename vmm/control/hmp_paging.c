/* SPDX-License-Identifier: MIT */
/*
 * hmp_paging: the human monitor about the current CPU's page tables (Intel SDM volume 3, 4.2 to
 * 4.5), as QEMU prints them. The guest made them and may have them lead to themselves: after
 * TABLES_MAX of them or LINES_MAX lines the walk ends, and says so.
 */
#include <string.h>

#include "base/bytes.h"
#include "devices/guest_mem.h"
#include "vmm/accel.h"
#include "vmm/control/hmp_private.h"

#define TABLES_MAX 16384u
#define LINES_MAX  16384u

#define CR0_PG   UINT64_C(0x80000000)
#define CR4_PSE  UINT64_C(0x10)
#define CR4_PAE  UINT64_C(0x20)
#define CR4_LA57 UINT64_C(0x1000)
#define EFER_LMA UINT64_C(0x400)

#define PTE_PRESENT  UINT64_C(1)
#define PTE_WRITE    UINT64_C(2)
#define PTE_USER     UINT64_C(4)
#define PTE_LARGE    UINT64_C(0x80)
#define PTE_RIGHTS   (PTE_PRESENT | PTE_WRITE | PTE_USER)
#define ADDRESS_BITS UINT64_C(0x000ffffffffff000)

struct paging {
    FILE *out;
    const struct guest_mem *mem;
    unsigned levels, entry_bytes;
    bool has_large; /* in the lowest table of tables */
    uint64_t root;
    unsigned tables, lines; /* so far */
    void (*on_page)(struct paging *paging, uint64_t address, uint64_t entry, unsigned level,
                    uint64_t rights);
    /* info mem: a range of the same rights. */
    uint64_t start, rights;
};

static bool is_over(const struct paging *paging)
{
    return paging->tables >= TABLES_MAX || paging->lines >= LINES_MAX;
}

/* How many bits of an address a table of this level (0: of pages) and those below it tell apart. */
static unsigned shift_of(const struct paging *paging, unsigned level)
{
    return 12 + level * (paging->entry_bytes == 8 ? 9 : 10);
}

static uint64_t canonical(const struct paging *paging, uint64_t address)
{
    const unsigned bits = shift_of(paging, paging->levels);
    bool is_high = paging->levels > 3 && address >> (bits - 1) & 1;
    return is_high ? address | UINT64_MAX << bits : address;
}

static bool is_page(const struct paging *paging, uint64_t entry, unsigned level)
{
    if (level == 0)
        return true;
    return entry & PTE_LARGE && (level == 1 ? paging->has_large : level == 2 && paging->levels > 3);
}

/* The three levels of PAE have four entries at the top, which know no rights. */
static unsigned entry_count(const struct paging *paging, unsigned level)
{
    if (paging->entry_bytes == 4)
        return 1024;
    return paging->levels == 3 && level == 2 ? 4 : 512;
}

static void walk(struct paging *paging, uint64_t table, unsigned level, uint64_t address,
                 uint64_t rights)
{
    uint8_t bytes[4096];
    const unsigned count = entry_count(paging, level), size = paging->entry_bytes;
    paging->tables++;
    if (!guest_mem_read(paging->mem, table, bytes, (size_t)count * size))
        memset(bytes, 0, sizeof(bytes));
    for (unsigned i = 0; i < count && !is_over(paging); i++) {
        const uint64_t entry = size == 8 ? load_le64(bytes + 8 * i) : load_le32(bytes + 4 * i);
        const uint64_t at = address + ((uint64_t)i << shift_of(paging, level));
        const uint64_t given = count == 4 ? PTE_RIGHTS : entry;
        const uint64_t left = entry & PTE_PRESENT ? rights & given & PTE_RIGHTS : 0;
        if (!left || is_page(paging, entry, level))
            paging->on_page(paging, at, entry, level, left);
        else
            walk(paging, entry & ADDRESS_BITS, level - 1, at, left);
    }
}

/* False: said that there is no paging. */
static bool start(struct paging *paging, struct hmp_call *call)
{
    struct accel_vcpu *cpu = hmp_current_cpu(call);
    struct accel_vcpu_state state;
    *paging = (struct paging){.out = call->out, .mem = machine_guest_mem(call->control->machine)};
    if (cpu->vm->ops->vcpu_get_state(cpu, ACCEL_STATE_SREGS, &state) ||
        !(state.sregs.cr0 & CR0_PG)) {
        fprintf(call->out, "PG disabled\r\n");
        return false;
    }
    const uint64_t cr4 = state.sregs.cr4;
    const bool is_long = state.sregs.efer & EFER_LMA, has_pae = cr4 & CR4_PAE;
    paging->levels = is_long ? (cr4 & CR4_LA57 ? 5 : 4) : has_pae ? 3 : 2;
    paging->entry_bytes = has_pae ? 8 : 4;
    paging->has_large = has_pae || cr4 & CR4_PSE;
    const uint64_t low = paging->levels == 3 ? UINT64_C(0xffffffe0) : UINT64_C(0xfffff000);
    paging->root = state.sregs.cr3 & (is_long ? ADDRESS_BITS : low);
    return true;
}

static void run(struct paging *paging)
{
    walk(paging, paging->root, paging->levels - 1, 0, PTE_RIGHTS);
}

static void say_if_over(const struct paging *paging)
{
    if (is_over(paging))
        fprintf(paging->out, "... and more: after %u tables and %u lines this ends\r\n",
                paging->tables, paging->lines);
}

/* --- info tlb --- */

static void print_page(struct paging *paging, uint64_t address, uint64_t entry, unsigned level,
                       uint64_t rights)
{
    static const char letters[] = "XGPDACTUW";
    static const uint8_t bits[] = {63, 8, 7, 6, 5, 4, 3, 2, 1};
    const uint64_t mask = ADDRESS_BITS & ~((UINT64_C(1) << shift_of(paging, level)) - 1);
    char shown[sizeof(letters)] = "";
    if (!rights)
        return;
    if (level == 0)
        entry &= ~PTE_LARGE; /* there it is the PAT's */
    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
        shown[i] = entry >> bits[i] & 1 ? letters[i] : '-';
    fprintf(paging->out, "%016llx: %016llx %s\r\n", (unsigned long long)canonical(paging, address),
            (unsigned long long)(entry & mask), shown);
    paging->lines++;
}

static void print_pages(struct hmp_call *call)
{
    struct paging paging;
    if (!start(&paging, call))
        return;
    paging.on_page = print_page;
    run(&paging);
    say_if_over(&paging);
}

void hmp_info_tlb(struct hmp_call *call)
{
    hmp_inspect(call, print_pages);
}

/* --- info mem --- */

static void end_range(struct paging *paging, uint64_t end, uint64_t rights)
{
    if (rights == paging->rights)
        return;
    if (paging->rights) {
        fprintf(paging->out, "%016llx-%016llx %016llx %cr%c\r\n",
                (unsigned long long)canonical(paging, paging->start),
                (unsigned long long)canonical(paging, end),
                (unsigned long long)canonical(paging, end - paging->start),
                paging->rights & PTE_USER ? 'u' : '-', paging->rights & PTE_WRITE ? 'w' : '-');
        paging->lines++;
    }
    paging->start = end;
    paging->rights = rights;
}

static void join_page(struct paging *paging, uint64_t address, uint64_t entry, unsigned level,
                      uint64_t rights)
{
    (void)entry, (void)level;
    end_range(paging, address, rights);
}

static void print_ranges(struct hmp_call *call)
{
    struct paging paging;
    if (!start(&paging, call))
        return;
    paging.on_page = join_page;
    run(&paging);
    if (!is_over(&paging))
        end_range(&paging, UINT64_C(1) << MIN(shift_of(&paging, paging.levels), 63u), 0);
    say_if_over(&paging);
}

void hmp_info_mem(struct hmp_call *call)
{
    hmp_inspect(call, print_ranges);
}
