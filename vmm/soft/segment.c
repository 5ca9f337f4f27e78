/* SPDX-License-Identifier: MIT */
/* segment: loads segment registers and checks accesses through them. */
#include "vmm/soft/segment.h"

#include "vmm/soft/mem.h"

void segment_set(struct soft_segment *segment, uint16_t selector, uint64_t descriptor)
{
    uint32_t limit = (uint32_t)(descriptor & 0xffff) | ((uint32_t)(descriptor >> 32) & 0xf0000);

    segment->selector = selector;
    segment->base = (descriptor >> 16 & 0xffffff) | (descriptor >> 32 & 0xff000000);
    segment->attributes = (uint16_t)(descriptor >> 40 & 0xf0ff);
    segment->limit = segment->attributes & SEG_G ? limit << 12 | 0xfff : limit;
}

static void publish_base(struct soft_cpu *cpu, unsigned index)
{
    if (index >= SOFT_FS)
        cpu->r[SOFT_REG_FSBASE + index - SOFT_FS] = cpu->seg[index].base;
}

void segment_install(struct soft_cpu *cpu, unsigned index, uint16_t selector, uint64_t descriptor)
{
    segment_set(&cpu->seg[index], selector, descriptor);
    publish_base(cpu, index);
}

void segment_install_null(struct soft_cpu *cpu, unsigned index, uint16_t selector)
{
    cpu->seg[index] = (struct soft_segment){.selector = selector};
    publish_base(cpu, index);
}

void segment_install_real(struct soft_cpu *cpu, unsigned index, uint16_t selector)
{
    struct soft_segment *segment = &cpu->seg[index];

    segment->selector = selector;
    segment->base = (uint32_t)selector << 4;
    if (cpu->rflags & RFLAGS_VM) {
        segment->limit = 0xffff;
        segment->attributes = 0xf3;
    }
    publish_base(cpu, index);
}

/* Where the descriptor is; false if the selector is outside its table. */
static bool locate(const struct soft_cpu *cpu, uint16_t selector, uint64_t *address)
{
    unsigned offset = selector & 0xfff8u;

    if (!(selector & 4)) {
        *address = cpu->gdt_base + offset;
        return offset + 7 <= cpu->gdt_limit;
    }
    *address = cpu->ldt.base + offset;
    return cpu->ldt.attributes & SEG_P && offset + 7 <= cpu->ldt.limit;
}

bool segment_read(struct soft_cpu *cpu, uint16_t selector, enum soft_vector vector,
                  uint64_t *descriptor)
{
    uint64_t address;

    if (!locate(cpu, selector, &address))
        return soft_raise(cpu, vector, SELECTOR_ERROR(selector));
    return soft_load_system(cpu, address, descriptor, 8);
}

bool segment_set_accessed(struct soft_cpu *cpu, uint16_t selector, uint64_t *descriptor)
{
    uint64_t address;

    if (*descriptor & UINT64_C(1) << 40 || !locate(cpu, selector, &address))
        return true;
    *descriptor |= UINT64_C(1) << 40;
    uint8_t type = (uint8_t)(*descriptor >> 40);

    return soft_store_system(cpu, address + 5, &type, 1);
}

static bool load_null(struct soft_cpu *cpu, unsigned index, uint16_t selector)
{
    if (index == SOFT_SS && (!soft_is_64bit(cpu) || cpu->cpl == 3 || (selector & 3) != cpu->cpl))
        return soft_raise(cpu, SOFT_GP, 0);
    segment_install_null(cpu, index, selector);
    if (index == SOFT_SS)
        cpu->seg[index].attributes = (uint16_t)(cpu->cpl << 5);
    return true;
}

/* Writable data of the privilege that its selector asks for. */
static bool check_stack(struct soft_cpu *cpu, uint16_t selector, uint64_t descriptor, unsigned cpl,
                        enum soft_vector vector)
{
    bool is_writable_data = descriptor & DESCRIPTOR_S && !(descriptor & DESCRIPTOR_CODE) &&
                            descriptor & DESCRIPTOR_WRITE;

    if (!is_writable_data || (selector & 3u) != cpl || DESCRIPTOR_DPL(descriptor) != cpl)
        return soft_raise(cpu, vector, SELECTOR_ERROR(selector));
    return descriptor & DESCRIPTOR_P || soft_raise(cpu, SOFT_SS_FAULT, SELECTOR_ERROR(selector));
}

bool segment_install_stack(struct soft_cpu *cpu, uint16_t selector, uint64_t descriptor,
                           enum soft_vector vector)
{
    if (!check_stack(cpu, selector, descriptor, cpu->cpl, vector) ||
        !segment_set_accessed(cpu, selector, &descriptor))
        return false;
    segment_install(cpu, SOFT_SS, selector, descriptor);
    return true;
}

bool segment_read_inner_stack(struct soft_cpu *cpu, uint16_t selector, unsigned cpl,
                              struct soft_segment *stack)
{
    uint64_t descriptor;

    if (!(selector & 0xfffc) || (selector & 3u) != cpl)
        return soft_raise(cpu, SOFT_TS, SELECTOR_ERROR(selector));
    if (!segment_read(cpu, selector, SOFT_TS, &descriptor) ||
        !check_stack(cpu, selector, descriptor, cpl, SOFT_TS))
        return false;
    segment_set(stack, selector, descriptor);
    return true;
}

bool segment_store_selector(struct soft_cpu *cpu, const struct soft_op *op, uint16_t selector)
{
    uint64_t *to = soft_reg64(cpu, op->a);

    if (!op->aux)
        return soft_store(cpu, soft_ea(cpu, op), &selector, 2);
    if (op->aux == 2)
        memcpy(to, &selector, 2);
    else
        *to = selector;
    return true;
}

static bool load_data(struct soft_cpu *cpu, unsigned index, uint16_t selector, uint64_t descriptor)
{
    bool is_code = descriptor & DESCRIPTOR_CODE;
    unsigned dpl = DESCRIPTOR_DPL(descriptor);
    bool is_conforming = is_code && descriptor & DESCRIPTOR_EXPAND;

    if (!(descriptor & DESCRIPTOR_S) || (is_code && !(descriptor & DESCRIPTOR_WRITE)) ||
        (!is_conforming && ((selector & 3u) > dpl || cpu->cpl > dpl)))
        return soft_raise(cpu, SOFT_GP, SELECTOR_ERROR(selector));
    if (!(descriptor & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_NP, SELECTOR_ERROR(selector));
    if (!segment_set_accessed(cpu, selector, &descriptor))
        return false;
    segment_install(cpu, index, selector, descriptor);
    return true;
}

bool segment_load(struct soft_cpu *cpu, unsigned index, uint16_t selector)
{
    uint64_t descriptor;

    if (soft_is_real(cpu)) {
        segment_install_real(cpu, index, selector);
        return true;
    }
    if (!(selector & 0xfffc))
        return load_null(cpu, index, selector);
    if (!segment_read(cpu, selector, SOFT_GP, &descriptor))
        return false;
    return index == SOFT_SS ? segment_install_stack(cpu, selector, descriptor, SOFT_GP)
                            : load_data(cpu, index, selector, descriptor);
}

static bool is_access_allowed(const struct soft_segment *segment, bool is_write)
{
    if (!(segment->attributes & SEG_P))
        return false;
    if (segment->attributes & SEG_CODE)
        return !is_write && segment->attributes & SEG_WRITABLE;
    return !is_write || segment->attributes & SEG_WRITABLE;
}

static bool is_in_limit(const struct soft_segment *segment, uint32_t offset, unsigned size)
{
    uint64_t last = (uint64_t)offset + size - 1;

    if ((segment->attributes & (SEG_CODE | SEG_EXPAND)) == SEG_EXPAND)
        return offset > segment->limit &&
               last <= (segment->attributes & SEG_D ? UINT32_MAX : UINT16_MAX);
    /* An operand may lie around the end of 4 GiB where the segment has no end before that. */
    return last <= segment->limit || segment->limit == UINT32_MAX;
}

bool segment_check(struct soft_cpu *cpu, unsigned index, uint32_t offset, unsigned size,
                   bool is_write, uint64_t *linear)
{
    const struct soft_segment *segment = &cpu->seg[index];
    /* Types are not looked at in real mode: code writes through CS there. */
    bool is_allowed = soft_is_real(cpu) || is_access_allowed(segment, is_write);

    if (size && (!is_allowed || !is_in_limit(segment, offset, size)))
        return soft_raise(cpu, index == SOFT_SS ? SOFT_SS_FAULT : SOFT_GP, 0);
    *linear = (uint32_t)(segment_base(cpu, index) + offset);
    return true;
}

bool segment_address(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint32_t offset = (uint32_t)soft_ea(cpu, op);

    if (op->a)
        offset &= 0xffff;
    return segment_check(cpu, op->c, offset, op->aux & 0xffff, op->aux & SOFT_ADDRESS_WRITE,
                         &cpu->r[SOFT_REG_TEMP]);
}
