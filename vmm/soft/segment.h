/* SPDX-License-Identifier: MIT */
/* segment: descriptors, the segment registers, and limit checks. */
#ifndef VMM_SOFT_SEGMENT_H
#define VMM_SOFT_SEGMENT_H

#include "vmm/soft/cpu.h"
#include "vmm/soft/op.h"

#define DESCRIPTOR_DPL(d)  ((unsigned)((d) >> 45) & 3)
#define DESCRIPTOR_TYPE(d) ((unsigned)((d) >> 40) & 15)
#define DESCRIPTOR_S       (UINT64_C(1) << 44)
#define DESCRIPTOR_P       (UINT64_C(1) << 47)
#define DESCRIPTOR_L       (UINT64_C(1) << 53)
#define DESCRIPTOR_D       (UINT64_C(1) << 54)
#define DESCRIPTOR_CODE    (UINT64_C(1) << 43)
#define DESCRIPTOR_EXPAND  (UINT64_C(1) << 42) /* conforming for code */
#define DESCRIPTOR_WRITE   (UINT64_C(1) << 41) /* readable for code */

#define SELECTOR_ERROR(s) ((uint32_t)(s)&0xfffc)

void segment_set(struct soft_segment *segment, uint16_t selector, uint64_t descriptor);

/* Puts it into the register, FS and GS bases included. */
void segment_install(struct soft_cpu *cpu, unsigned index, uint16_t selector, uint64_t descriptor);
void segment_install_null(struct soft_cpu *cpu, unsigned index, uint16_t selector);
/* As real and virtual-8086 mode load a register. */
void segment_install_real(struct soft_cpu *cpu, unsigned index, uint16_t selector);

static inline uint64_t segment_base(const struct soft_cpu *cpu, unsigned index)
{
    if (index >= SOFT_FS)
        return cpu->r[SOFT_REG_FSBASE + index - SOFT_FS];
    return cpu->seg[index].base;
}

/* From the GDT or LDT. Outside its limit: `vector` with the selector as error code. */
bool segment_read(struct soft_cpu *cpu, uint16_t selector, enum soft_vector vector,
                  uint64_t *descriptor);
/* Sets the accessed bit in memory and in *descriptor. */
bool segment_set_accessed(struct soft_cpu *cpu, uint16_t selector, uint64_t *descriptor);

/* Checks a stack segment for the current privilege and puts it into SS; unfit: `vector`. */
bool segment_install_stack(struct soft_cpu *cpu, uint16_t selector, uint64_t descriptor,
                           enum soft_vector vector);
/* The stack segment that a TSS names for privilege `cpl`, checked; nothing is installed. */
bool segment_read_inner_stack(struct soft_cpu *cpu, uint16_t selector, unsigned cpl,
                              struct soft_segment *stack);
/* MOV from a segment register, SLDT, STR: op->aux is 0 for memory, else the register's size. */
bool segment_store_selector(struct soft_cpu *cpu, const struct soft_op *op, uint16_t selector);

/* MOV, POP and LDS and the like into ES, SS, DS, FS, GS, with all checks. */
bool segment_load(struct soft_cpu *cpu, unsigned index, uint16_t selector);

/* Checks [offset, offset + size) and gives its linear address; not for 64-bit mode. */
bool segment_check(struct soft_cpu *cpu, unsigned index, uint32_t offset, unsigned size,
                   bool is_write, uint64_t *linear);

#define SEGMENT_FLAT_END UINT64_C(0xfffff000) /* no operand that begins below it can be too long */

/* Data that may be read and written at every offset; its base need not be 0. */
static inline bool segment_is_flat(const struct soft_segment *segment)
{
    unsigned looked_at = SEG_P | SEG_S | SEG_CODE | SEG_EXPAND | SEG_WRITABLE;

    return segment->limit == UINT32_MAX &&
           (segment->attributes & looked_at) == (SEG_P | SEG_S | SEG_WRITABLE);
}

/* SOP_address_segment: the operand's linear address into SOFT_REG_TEMP. */
bool segment_address(struct soft_cpu *cpu, const struct soft_op *op);

static inline bool soft_is_real(const struct soft_cpu *cpu)
{
    return cpu->mode & SOFT_MODE_REAL;
}

/* Masks ESP and the like by the stack segment's size. */
static inline uint64_t segment_stack_mask(const struct soft_cpu *cpu)
{
    if (soft_is_64bit(cpu))
        return UINT64_MAX;
    return cpu->seg[SOFT_SS].attributes & SEG_D ? UINT32_MAX : UINT16_MAX;
}

#endif
