/* SPDX-License-Identifier: MIT */
/*
 * vex_mask: the instructions that touch only those elements of memory that a mask chooses:
 * VMASKMOV, VPMASKMOV and the gathers.
 *
 * A gather that faults has loaded the elements before, and its mask, of which each element is all
 * ones or zeros by then, says so: run again it goes on with the rest. One that leaves for an answer
 * (mmio.c) has done nothing, for the answers come in the order of the first run.
 */
#include "vmm/soft/segment.h"
#include "vmm/soft/vex.h"

/* --- VMASKMOV --- */

static bool is_chosen(const uint8_t *mask, unsigned i, unsigned size)
{
    return mask[size * i + size - 1] & 0x80;
}

static unsigned element_count(const struct soft_op *op, unsigned size)
{
    return (vex_is_256(op) ? 32 : 16) / size;
}

/* Where element `i` is; false if its segment ends before. */
static bool masked_address(struct soft_cpu *cpu, const struct soft_op *op, unsigned i,
                           unsigned size, bool is_write, uint64_t *linear)
{
    uint64_t address = soft_ea(cpu, op) + size * i;

    *linear = address;
    if (!(op->aux & VEX_AUX_SEGMENTED))
        return true;
    return segment_check(cpu, VEX_AUX_SEGMENT(op->aux), (uint32_t)address, size, is_write, linear);
}

static bool masked_load(struct soft_cpu *cpu, const struct soft_op *op, unsigned size)
{
    const uint8_t *mask = cpu->ymm[VEX_AUX_VVVV(op->aux)];
    uint8_t value[32] = {0};
    uint64_t address;

    for (unsigned i = 0; i < element_count(op, size); i++)
        if (is_chosen(mask, i, size) && (!masked_address(cpu, op, i, size, false, &address) ||
                                         !soft_load(cpu, address, value + size * i, size)))
            return false;
    memcpy(cpu->ymm[op->a], value, 32);
    return true;
}

/* All that will be stored must be storable before anything is. */
static bool masked_store(struct soft_cpu *cpu, const struct soft_op *op, unsigned size)
{
    const uint8_t *mask = cpu->ymm[VEX_AUX_VVVV(op->aux)];
    uint64_t addresses[8];

    for (unsigned i = 0; i < element_count(op, size); i++)
        if (is_chosen(mask, i, size) && (!masked_address(cpu, op, i, size, true, &addresses[i]) ||
                                         !soft_probe_write(cpu, addresses[i], size)))
            return false;
    for (unsigned i = 0; i < element_count(op, size); i++)
        if (is_chosen(mask, i, size) &&
            !soft_store(cpu, addresses[i], cpu->ymm[op->a] + size * i, size))
            return false;
    return true;
}

bool vex_run_masked_load_4(struct soft_cpu *cpu, const struct soft_op *op)
{
    return masked_load(cpu, op, 4);
}

bool vex_run_masked_load_8(struct soft_cpu *cpu, const struct soft_op *op)
{
    return masked_load(cpu, op, 8);
}

bool vex_run_masked_store_4(struct soft_cpu *cpu, const struct soft_op *op)
{
    return masked_store(cpu, op, 4);
}

bool vex_run_masked_store_8(struct soft_cpu *cpu, const struct soft_op *op)
{
    return masked_store(cpu, op, 8);
}

/* --- Gathers --- */

/* In op->aux, beside vvvv, VEX_AUX_L and VEX_AUX_W (elements of eight bytes). */
#define GATHER_INDEX(aux)   ((aux)&15u)
#define GATHER_SCALE(aux)   ((aux) >> 4 & 3u)
#define GATHER_SEGMENT(aux) ((aux) >> 8 & 7u)
#define GATHER_LONG_INDEX   (1u << 11) /* of eight bytes */
#define GATHER_BASELESS     (1u << 12) /* 64-bit mode: the segment has no base */
#define GATHER_ADDRESS_32   (1u << 13)

struct gather {
    uint8_t value[32], mask[32];
    unsigned size, count;
    bool has_loaded;
};

bool vex_is_based_gather(const struct soft_op *op)
{
    return op->helper == vex_run_gather && !(op->aux & GATHER_BASELESS);
}

static bool element_address(struct soft_cpu *cpu, const struct soft_op *op, unsigned i,
                            unsigned size, uint64_t *linear)
{
    const uint8_t *indexes = cpu->ymm[GATHER_INDEX(op->aux)];
    int64_t index = op->aux & GATHER_LONG_INDEX ? (int64_t)load_le64(indexes + 8 * i)
                                                : (int32_t)load_le32(indexes + 4 * i);
    uint64_t address = soft_ea(cpu, op) + ((uint64_t)index << GATHER_SCALE(op->aux));
    unsigned segment = GATHER_SEGMENT(op->aux);

    if (op->aux & GATHER_ADDRESS_32)
        address = (uint32_t)address;
    if (!soft_is_64bit(cpu))
        return segment_check(cpu, segment, (uint32_t)address, size, false, linear);
    *linear = address + (op->aux & GATHER_BASELESS ? 0 : segment_base(cpu, segment));
    return true;
}

static bool gather_elements(struct soft_cpu *cpu, const struct soft_op *op, struct gather *gather)
{
    unsigned size = gather->size;

    for (unsigned i = 0; i < gather->count; i++) {
        uint64_t linear;

        if (!is_chosen(gather->mask, i, size))
            continue;
        if (!element_address(cpu, op, i, size, &linear) ||
            !soft_load(cpu, linear, gather->value + size * i, size))
            return false;
        gather->has_loaded = true;
        memset(gather->mask + size * i, 0, size);
    }
    return true;
}

bool vex_run_gather(struct soft_cpu *cpu, const struct soft_op *op)
{
    struct gather gather = {.size = op->aux & VEX_AUX_W ? 8 : 4};
    unsigned index_size = op->aux & GATHER_LONG_INDEX ? 8 : 4;
    unsigned mask = VEX_AUX_VVVV(op->aux);
    bool done;

    gather.count = element_count(op, gather.size > index_size ? gather.size : index_size);
    for (unsigned i = 0; i < element_count(op, gather.size); i++)
        memset(gather.mask + gather.size * i, is_chosen(cpu->ymm[mask], i, gather.size) ? 0xff : 0,
               gather.size);
    memcpy(gather.value, cpu->ymm[op->a], vex_is_256(op) ? 32 : 16);
    done = gather_elements(cpu, op, &gather);
    if (!done && cpu->pending == SOFT_PENDING_EXIT)
        return false;
    if (done) { /* what lies behind the last element goes as well */
        memset(gather.value + gather.size * gather.count, 0, 32 - gather.size * gather.count);
        memset(gather.mask, 0, 32);
    }
    if (done || gather.has_loaded) /* else the upper half is not touched either */
        memcpy(cpu->ymm[op->a], gather.value, 32);
    memcpy(cpu->ymm[mask], gather.mask, 32);
    return done;
}

enum soft_decoded vex_decode_gather(struct soft_decoder *d, const struct vex_prefix *prefix,
                                    uint8_t opcode, uint8_t sib)
{
    unsigned index = (sib >> 3 & 7u) | (d->rex & 2u) << 2, reg = d->reg;
    unsigned segment = d->segment >= 0 ? (unsigned)d->segment : d->default_segment;
    uint32_t aux = index | (uint32_t)(sib >> 6) << 4 | segment << 8 | (uint32_t)prefix->vvvv << 16 |
                   (opcode & 1 ? GATHER_LONG_INDEX : 0) |
                   (segment < SOFT_FS ? GATHER_BASELESS : 0) |
                   (d->address_size == 4 ? GATHER_ADDRESS_32 : 0) | (prefix->l ? VEX_AUX_L : 0) |
                   (prefix->w ? VEX_AUX_W : 0);

    /* The three registers must be three, and the address must have a SIB byte. */
    if (d->rm != 4 || d->address_size == 2 || index == reg || index == prefix->vvvv ||
        reg == prefix->vvvv)
        return SOFT_UNDEFINED;
    if (d->mode & SOFT_MODE_TS)
        return decode_emit_raise(d, SOFT_NM, 0);
    d->index = SOFT_REG_ZERO * 8;
    d->scale = 0;
    struct soft_op *op = decode_emit_lea(d, SOP_call_c);

    op->helper = vex_run_gather;
    op->a = (uint8_t)reg;
    op->aux = aux;
    return SOFT_DECODED;
}
