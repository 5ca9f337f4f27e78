/* SPDX-License-Identifier: MIT */
/*
 * fuzz_soft_cpu: runs a case in the software CPU, in user mode: half of them stepped, half
 * as a block that runs into the HLT behind it.
 */
#include "tests/softfuzz/fuzz_soft_cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "vmm/soft/block.h"
#include "vmm/soft/decode.h"
#include "vmm/soft/exec.h"
#include "vmm/soft/fpu.h"
#include "vmm/soft/mmu.h"
#include "vmm/soft/vm.h"

#define RAM_BYTES         0x200000u
#define GPA_TABLES        0x1000u /* PML4, PDPT, PD, then two page tables */
#define GPA_CODE          0x10000u
#define GPA_DATA          0x20000u
#define TASK_STATE_OFFSET 0x800 /* behind the code */
#define STEPS_MAX         300   /* iterations of a repeated string instruction */

#define HLT 0xf4

#define PTE_PRESENT 1u
#define PTE_WRITE   2u
#define PTE_USER    4u
#define PTE_ALL     (PTE_PRESENT | PTE_WRITE | PTE_USER)

static uint8_t *ram;
static struct soft_cpu *cpu;

static void entry(unsigned table, unsigned index, uint64_t value)
{
    store_le64(ram + GPA_TABLES + 0x1000 * table + 8 * index, value);
}

static uint64_t table_at(unsigned table)
{
    return (GPA_TABLES + 0x1000u * table) | PTE_ALL;
}

/* Both regions lie below 1 GiB, each in its own 2 MiB. */
static void build_page_tables(void)
{
    entry(0, 0, table_at(1));
    entry(1, 0, table_at(2));
    entry(2, FUZZ_DATA_BASE >> 21, table_at(3));
    entry(2, FUZZ_CODE_BASE >> 21, table_at(4));
    entry(3, 1, GPA_DATA | PTE_ALL);
    entry(3, 2, (GPA_DATA + 0x1000) | PTE_ALL);
    entry(3, 3, (GPA_DATA + 0x2000) | PTE_PRESENT | PTE_USER);
    entry(4, 0, GPA_CODE | PTE_ALL);
    entry(4, 1, (GPA_CODE + 0x1000) | PTE_ALL);
}

/* Without an I/O permission map. */
static void build_task_state(void)
{
    store_le16(ram + GPA_CODE + 0x1000 + TASK_STATE_OFFSET + 0x66, 0xffff);
    cpu->tr = (struct soft_segment){.base = FUZZ_CODE_END + TASK_STATE_OFFSET,
                                    .limit = 0x67,
                                    .selector = 0x40,
                                    .attributes = 0x8b};
}

static void enter_user_mode(bool is_32)
{
    cpu->cr0 = CR0_PE | CR0_PG | CR0_MP | CR0_NE | CR0_ET | CR0_WP;
    cpu->cr3 = GPA_TABLES;
    cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    cpu->xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    cpu->efer = EFER_LME | EFER_LMA | EFER_NX | EFER_SCE;
    for (unsigned i = 0; i < SOFT_SEG_COUNT; i++)
        cpu->seg[i] =
            (struct soft_segment){.limit = UINT32_MAX, .selector = 0x2b, .attributes = 0xc0f3};
    cpu->seg[SOFT_CS].selector = is_32 ? 0x23 : 0x33;
    cpu->seg[SOFT_CS].attributes = is_32 ? 0xc0fb : 0xa0fb;
    cpu->cpl = 3;
    soft_update_mode(cpu);
    mmu_flush_all(cpu);
}

static void require(int failed, const struct error *err)
{
    if (!failed)
        return;
    fprintf(stderr, "cannot build the machine: %s\n", err->text);
    exit(1);
}

void fuzz_soft_cpu_init(bool is_32)
{
    const struct accel_ops *ops = &soft_accel_ops;
    struct error err = {0};
    struct accel_vm *vm;
    struct accel_vcpu *vcpu;

    require(ops->vm_create(1, &vm, &err), &err);
    ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(ops->set_memslot(vm, 0, 0, RAM_BYTES, ram, false), &err);
    require(ops->vcpu_create(vm, 0, &vcpu, &err), &err);
    cpu = ((struct soft_vm *)(void *)vm)->cpus[0];
    build_page_tables();
    build_task_state();
    ram[GPA_CODE + FUZZ_CODE_END - FUZZ_CODE_BASE] = HLT;
    ram[GPA_CODE + FUZZ_TAKEN - FUZZ_CODE_BASE] = HLT;
    enter_user_mode(is_32);
}

void fuzz_soft_cpu_decode(struct fuzz_case *c)
{
    struct soft_op ops[SOFT_INSTRUCTION_OPS_MAX];
    struct soft_decoder d = {
        .cpu = cpu,
        .mode = cpu->mode,
        .bytes = c->bytes,
        .available = SOFT_INSTRUCTION_MAX,
        .ops = ops,
    };

    c->undefined = soft_decode(&d) == SOFT_UNDEFINED || d.is_short;
    c->length = c->undefined ? FUZZ_INSTRUCTION_MAX : d.position;
    fuzz_case_append_branch(c);
}

static void load_state(const struct fuzz_state *in)
{
    memcpy(cpu->r, in->gpr, sizeof(in->gpr));
    memcpy(cpu->fx, in->fx, FX_XMM);
    fpu_set_xmm(cpu, in->fx + FX_XMM, 16);
    for (unsigned i = 0; i < 16; i++)
        memcpy(cpu->ymm[i] + 16, in->ymm_high[i], 16);
    cpu->mxcsr = load_le32(in->fx + FX_MXCSR);
    cpu->x87_live = false;
    cpu->pending = SOFT_PENDING_NONE;
    soft_set_rflags(cpu, in->rflags);
}

static void store_state(struct fuzz_state *out)
{
    memcpy(out->gpr, cpu->r, sizeof(out->gpr));
    memcpy(out->fx, cpu->fx, FX_XMM);
    fpu_get_xmm(cpu, out->fx + FX_XMM, 16);
    for (unsigned i = 0; i < 16; i++)
        memcpy(out->ymm_high[i], cpu->ymm[i] + 16, 16);
    store_le32(out->fx + FX_MXCSR, cpu->mxcsr);
    out->rflags = soft_get_rflags(cpu);
    out->rip = cpu->rip;
}

static void run_block(void)
{
    const struct physmem_slot *slot = physmem_find(&cpu->vm->mem, GPA_CODE);

    block_code_written(cpu->vm, cpu, slot, GPA_CODE, 0x1000);
    atomic_store(&cpu->poll, 0);
    soft_run(cpu);
    /* HLT is forbidden in user mode. */
    if (cpu->pending == SOFT_PENDING_EXCEPTION && cpu->exception == SOFT_GP &&
        (cpu->rip == FUZZ_CODE_END || cpu->rip == FUZZ_TAKEN))
        cpu->pending = SOFT_PENDING_NONE;
}

static bool is_inside(uint64_t start)
{
    return cpu->rip >= start && cpu->rip < FUZZ_CODE_END;
}

void fuzz_soft_cpu_run(const struct fuzz_case *c, struct fuzz_result *result)
{
    uint64_t start = FUZZ_CODE_END - c->length;

    memcpy(ram + GPA_CODE + 0x1000 - c->length, c->bytes, c->length);
    memcpy(ram + GPA_DATA, c->data, sizeof(c->data));
    load_state(&c->in);
    cpu->rip = start;
    fpu_enter(cpu);
    if (c->seed & 1)
        run_block();
    else
        for (unsigned i = 0; i < STEPS_MAX && is_inside(start) && !cpu->pending; i++)
            soft_step(cpu);
    fpu_leave(cpu);
    store_state(&result->out);
    result->vector = cpu->pending == SOFT_PENDING_EXCEPTION ? cpu->exception
                     : cpu->pending == SOFT_PENDING_EXIT    ? 255
                                                            : -1;
    result->error_code = cpu->has_error_code ? cpu->error_code : 0;
    result->cr2 = cpu->cr2;
    memcpy(result->data, ram + GPA_DATA, sizeof(result->data));
}
