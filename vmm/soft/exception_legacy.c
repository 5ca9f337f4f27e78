/* SPDX-License-Identifier: MIT */
/*
 * exception_legacy: delivery in real, virtual-8086 and protected mode.
 */
#include "vmm/soft/exception.h"

#include "vmm/soft/mem.h"
#include "vmm/soft/segment.h"
#include "vmm/soft/task.h"

#define GATE_IS_32      0x8u
#define GATE_KIND(type) ((type)&7u) /* 6 interrupt, 7 trap */
#define FRAME_WORDS_MAX 10

static bool push_words(struct soft_cpu *cpu, const struct soft_segment *stack, uint32_t *esp,
                       const uint32_t *words, unsigned count, unsigned word_bytes)
{
    uint32_t mask = stack->attributes & SEG_D ? UINT32_MAX : UINT16_MAX;
    uint32_t at = *esp;

    for (unsigned i = 0; i < count; i++) {
        at = (at - word_bytes) & mask;
        if (at > stack->limit && !(stack->attributes & SEG_EXPAND))
            return soft_raise(cpu, SOFT_SS_FAULT, 0);
        if (!soft_store_system(cpu, (uint32_t)(stack->base + at), &words[i], word_bytes))
            return false;
    }
    *esp = (*esp & ~mask) | at;
    return true;
}

bool exception_enter_real(struct soft_cpu *cpu, const struct exception *exception)
{
    uint32_t words[3] = {(uint32_t)soft_get_rflags(cpu), cpu->seg[SOFT_CS].selector,
                         (uint32_t)exception->rip};
    uint32_t esp = (uint32_t)cpu->r[SOFT_RSP];
    uint16_t entry[2];

    if (exception->vector * 4u + 3 > cpu->idt_limit)
        return soft_raise(cpu, SOFT_GP, 0);
    if (!soft_load_system(cpu, cpu->idt_base + exception->vector * 4u, entry, 4) ||
        !push_words(cpu, &cpu->seg[SOFT_SS], &esp, words, 3, 2))
        return false;
    cpu->r[SOFT_RSP] = esp;
    cpu->rflags &= ~(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF);
    segment_install_real(cpu, SOFT_CS, entry[1]);
    cpu->rip = entry[0];
    soft_update_mode(cpu);
    return true;
}

static bool read_gate(struct soft_cpu *cpu, const struct exception *exception, uint64_t *gate)
{
    uint32_t error = exception_gate_error(exception);

    if (exception->vector * 8u + 7 > cpu->idt_limit)
        return soft_raise(cpu, SOFT_GP, error);
    if (!soft_load_system(cpu, cpu->idt_base + exception->vector * 8u, gate, 8))
        return false;
    unsigned kind = GATE_KIND(DESCRIPTOR_TYPE(*gate));

    if (*gate & DESCRIPTOR_S || (kind != 6 && kind != 7 && !task_is_gate(*gate)))
        return soft_raise(cpu, SOFT_GP, error);
    if (exception->source == EXCEPTION_SOFTWARE && DESCRIPTOR_DPL(*gate) < cpu->cpl)
        return soft_raise(cpu, SOFT_GP, error);
    if (!(*gate & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_NP, error);
    return true;
}

/* SS:ESP for a more privileged handler, from the 32-bit or 16-bit TSS. */
static bool read_inner_stack(struct soft_cpu *cpu, unsigned cpl, struct soft_segment *stack,
                             uint32_t *esp)
{
    bool is_32 = cpu->tr.attributes & 8;
    unsigned offset = is_32 ? 4 + cpl * 8 : 2 + cpl * 4;
    unsigned bytes = is_32 ? 8 : 4;
    uint8_t words[8];
    uint16_t selector;

    if (offset + bytes - 1 > cpu->tr.limit)
        return soft_raise(cpu, SOFT_TS, SELECTOR_ERROR(cpu->tr.selector));
    if (!soft_load_system(cpu, cpu->tr.base + offset, words, bytes))
        return false;
    *esp = 0;
    memcpy(esp, words, bytes / 2 == 4 ? 4 : 2);
    memcpy(&selector, words + (is_32 ? 4 : 2), 2);
    return segment_read_inner_stack(cpu, selector, cpl, stack);
}

static unsigned build_frame(const struct soft_cpu *cpu, const struct exception *exception,
                            bool is_inner, uint32_t words[FRAME_WORDS_MAX])
{
    unsigned count = 0;

    if (cpu->rflags & RFLAGS_VM) {
        words[count++] = cpu->seg[SOFT_GS].selector;
        words[count++] = cpu->seg[SOFT_FS].selector;
        words[count++] = cpu->seg[SOFT_DS].selector;
        words[count++] = cpu->seg[SOFT_ES].selector;
    }
    if (is_inner) {
        words[count++] = cpu->seg[SOFT_SS].selector;
        words[count++] = (uint32_t)cpu->r[SOFT_RSP];
    }
    words[count++] = (uint32_t)exception_rflags(cpu, exception);
    words[count++] = cpu->seg[SOFT_CS].selector;
    words[count++] = (uint32_t)exception->rip;
    if (exception->has_error_code)
        words[count++] = exception->error_code;
    return count;
}

static void leave_virtual_8086(struct soft_cpu *cpu)
{
    static const uint8_t cleared[] = {SOFT_GS, SOFT_FS, SOFT_DS, SOFT_ES};

    if (!(cpu->rflags & RFLAGS_VM))
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(cleared); i++)
        segment_install_null(cpu, cleared[i], 0);
}

bool exception_enter_protected(struct soft_cpu *cpu, const struct exception *exception)
{
    uint32_t words[FRAME_WORDS_MAX], esp = (uint32_t)cpu->r[SOFT_RSP];
    struct soft_segment stack = cpu->seg[SOFT_SS];
    uint64_t gate, descriptor;

    if (!read_gate(cpu, exception, &gate))
        return false;
    uint16_t selector = (uint16_t)(gate >> 16);

    if (task_is_gate(gate))
        return task_deliver(cpu, exception, selector);
    if (!exception_read_code(cpu, exception, selector, &descriptor))
        return false;
    bool is_conforming = descriptor & DESCRIPTOR_EXPAND;
    unsigned cpl = is_conforming ? cpu->cpl : DESCRIPTOR_DPL(descriptor);
    bool is_inner = cpl < cpu->cpl;

    if (cpu->rflags & RFLAGS_VM && cpl != 0)
        return soft_raise(cpu, SOFT_GP, exception_selector_error(exception, selector));
    if (is_inner && !read_inner_stack(cpu, cpl, &stack, &esp))
        return false;
    unsigned type = DESCRIPTOR_TYPE(gate);
    unsigned count = build_frame(cpu, exception, is_inner, words);

    if (!push_words(cpu, &stack, &esp, words, count, type & GATE_IS_32 ? 4 : 2))
        return false;
    leave_virtual_8086(cpu);
    cpu->seg[SOFT_SS] = stack;
    cpu->r[SOFT_RSP] = esp;
    segment_install(cpu, SOFT_CS, (uint16_t)((selector & 0xfffc) | cpl), descriptor);
    cpu->cpl = (uint8_t)cpl;
    cpu->rip = (gate & 0xffff) | (type & GATE_IS_32 ? gate >> 32 & 0xffff0000 : 0);
    cpu->rflags &= ~(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM);
    if (GATE_KIND(type) == 6)
        cpu->rflags &= ~RFLAGS_IF;
    soft_update_mode(cpu);
    return true;
}
