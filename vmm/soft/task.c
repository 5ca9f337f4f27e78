/* SPDX-License-Identifier: MIT */
/*
 * task: saves a task into its TSS and loads another.
 *
 * Everything that can fail in the old task is done first: the new TSS is read, the old one written,
 * busy bits and link set. From there on the registers are the new task's, and what fails is its
 * exception: it is noted in cpu->pending, the poll word is set so that no instruction runs, and the
 * switch itself counts as done.
 */
#include "vmm/soft/task.h"

#include "base/bytes.h"
#include "vmm/soft/mem.h"
#include "vmm/soft/segment.h"
#include "vmm/soft/stack.h"
#include "vmm/soft/system.h"

#define TYPE_LDT       2
#define TYPE_TASK_GATE 5
#define TYPE_BUSY      2u /* in the type of a TSS descriptor */
#define TYPE_IS_32     8u
#define TYPE_KINDS     0xdu /* what is left of a TSS's type: 1 or 9 */

#define TSS_LIMIT_16 0x2bu
#define TSS_LIMIT_32 0x67u
#define DR6_BT       UINT64_C(0x8000)
#define DR7_LOCAL    UINT64_C(0x155)

/* The part of a TSS that a switch reads and, but for the first and last members, writes. */
struct task_state {
    uint32_t cr3, rip, rflags;
    uint32_t registers[8];
    uint16_t selectors[SOFT_SEG_COUNT];
    uint16_t ldt;
    bool traps;
};

enum cause { CAUSE_JUMP, CAUSE_CALL, CAUSE_RETURN };

struct switch_plan {
    enum cause cause;
    uint16_t selector;
    uint64_t descriptor;
    uint64_t rip; /* saved in the old TSS */
    uint64_t rflags;
};

bool task_is_gate(uint64_t descriptor)
{
    return !(descriptor & DESCRIPTOR_S) && DESCRIPTOR_TYPE(descriptor) == TYPE_TASK_GATE;
}

bool task_is_tss(uint64_t descriptor)
{
    return !(descriptor & DESCRIPTOR_S) &&
           (DESCRIPTOR_TYPE(descriptor) & TYPE_KINDS & ~TYPE_IS_32) == 1;
}

static bool is_32(const struct soft_segment *tss)
{
    return tss->attributes & TYPE_IS_32;
}

/* --- TSS images --- */

static bool load_state(struct soft_cpu *cpu, const struct soft_segment *tss,
                       struct task_state *state)
{
    uint8_t image[TSS_LIMIT_32 + 1];
    bool wide = is_32(tss);
    unsigned step = wide ? 4 : 2, at = wide ? 0x28 : 0x12;

    *state = (struct task_state){0};
    if (!soft_load_system(cpu, tss->base, image, (wide ? TSS_LIMIT_32 : TSS_LIMIT_16) + 1))
        return false;
    for (unsigned i = 0; i < 8; i++, at += step)
        state->registers[i] = wide ? load_le32(image + at) : load_le16(image + at);
    for (unsigned i = 0; i < (wide ? 6u : 4u); i++, at += step)
        state->selectors[i] = load_le16(image + at);
    state->ldt = load_le16(image + at);
    state->cr3 = wide ? load_le32(image + 0x1c) : 0;
    state->rip = wide ? load_le32(image + 0x20) : load_le16(image + 0x0e);
    state->rflags = wide ? load_le32(image + 0x24) : load_le16(image + 0x10);
    state->traps = wide && image[0x64] & 1;
    return true;
}

/* From the instruction pointer to the last selector, as a switch leaves it behind. */
static bool save_state(struct soft_cpu *cpu, const struct soft_segment *tss, uint64_t rip,
                       uint64_t rflags)
{
    uint32_t words[2 + 8 + SOFT_SEG_COUNT];
    uint8_t image[sizeof(words)] = {0};
    bool wide = is_32(tss);
    unsigned count = wide ? ARRAY_SIZE(words) : ARRAY_SIZE(words) - 2, step = wide ? 4 : 2;

    words[0] = (uint32_t)rip;
    words[1] = (uint32_t)rflags;
    for (unsigned i = 0; i < 8; i++)
        words[2 + i] = (uint32_t)cpu->r[i];
    for (unsigned i = 0; i < SOFT_SEG_COUNT; i++)
        words[10 + i] = cpu->seg[i].selector;
    for (unsigned i = 0; i < count; i++)
        memcpy(image + i * step, &words[i], step);
    return soft_store_system(cpu, tss->base + (wide ? 0x20 : 0x0e), image, count * step);
}

/* Changes the busy bit of a TSS's descriptor in the GDT. */
static bool set_busy(struct soft_cpu *cpu, uint16_t selector, bool is_busy)
{
    uint64_t address = cpu->gdt_base + (selector & 0xfff8u) + 5;
    uint8_t type;

    if (!soft_load_system(cpu, address, &type, 1))
        return false;
    type = (uint8_t)(is_busy ? type | TYPE_BUSY : type & ~TYPE_BUSY);
    return soft_store_system(cpu, address, &type, 1);
}

/* --- The new task's segments; all faults are its own --- */

static bool is_loadable_ldt(uint64_t descriptor)
{
    return !(descriptor & DESCRIPTOR_S) && DESCRIPTOR_TYPE(descriptor) == TYPE_LDT &&
           descriptor & DESCRIPTOR_P;
}

static bool load_ldt(struct soft_cpu *cpu, uint16_t selector)
{
    uint64_t descriptor;

    cpu->ldt = (struct soft_segment){.selector = selector};
    if (!(selector & 0xfffc))
        return true;
    if (selector & 4)
        return soft_raise(cpu, SOFT_TS, SELECTOR_ERROR(selector));
    if (!segment_read(cpu, selector, SOFT_TS, &descriptor))
        return false;
    if (!is_loadable_ldt(descriptor))
        return soft_raise(cpu, SOFT_TS, SELECTOR_ERROR(selector));
    segment_set(&cpu->ldt, selector, descriptor);
    return true;
}

static bool load_code(struct soft_cpu *cpu, uint16_t selector)
{
    uint64_t descriptor;

    if (!(selector & 0xfffc))
        return soft_raise(cpu, SOFT_TS, 0);
    if (!segment_read(cpu, selector, SOFT_TS, &descriptor))
        return false;
    unsigned dpl = DESCRIPTOR_DPL(descriptor), rpl = selector & 3;
    bool is_code = descriptor & DESCRIPTOR_S && descriptor & DESCRIPTOR_CODE;

    if (!is_code || (descriptor & DESCRIPTOR_EXPAND ? dpl > rpl : dpl != rpl))
        return soft_raise(cpu, SOFT_TS, SELECTOR_ERROR(selector));
    if (!(descriptor & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_NP, SELECTOR_ERROR(selector));
    if (!segment_set_accessed(cpu, selector, &descriptor))
        return false;
    segment_install(cpu, SOFT_CS, selector, descriptor);
    return true;
}

static bool load_stack(struct soft_cpu *cpu, uint16_t selector)
{
    uint64_t descriptor;

    if (!(selector & 0xfffc))
        return soft_raise(cpu, SOFT_TS, 0);
    if (!segment_read(cpu, selector, SOFT_TS, &descriptor))
        return false;
    return segment_install_stack(cpu, selector, descriptor, SOFT_TS);
}

/* As MOV does, but a bad selector is #TS. */
static bool load_data(struct soft_cpu *cpu, unsigned index, uint16_t selector)
{
    if (segment_load(cpu, index, selector))
        return true;
    if (cpu->pending == SOFT_PENDING_EXCEPTION && cpu->exception == SOFT_GP)
        soft_raise(cpu, SOFT_TS, SELECTOR_ERROR(selector));
    return false;
}

static bool load_segments(struct soft_cpu *cpu, const struct task_state *state)
{
    static const uint8_t data[] = {SOFT_ES, SOFT_DS, SOFT_FS, SOFT_GS};

    if (!load_ldt(cpu, state->ldt))
        return false;
    if (cpu->rflags & RFLAGS_VM) {
        for (unsigned i = 0; i < SOFT_SEG_COUNT; i++)
            segment_install_real(cpu, i, state->selectors[i]);
        return true;
    }
    if (!load_code(cpu, state->selectors[SOFT_CS]) || !load_stack(cpu, state->selectors[SOFT_SS]))
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
        if (!load_data(cpu, data[i], state->selectors[data[i]]))
            return false;
    return true;
}

/* --- The switch --- */

static void load_registers(struct soft_cpu *cpu, const struct task_state *state)
{
    for (unsigned i = 0; i < 8; i++)
        cpu->r[i] = state->registers[i];
    cpu->rip = state->rip;
    soft_set_rflags(cpu, state->rflags);
    cpu->cpl = cpu->rflags & RFLAGS_VM ? 3 : state->selectors[SOFT_CS] & 3;
    for (unsigned i = 0; i < SOFT_SEG_COUNT; i++)
        segment_install_null(cpu, i, state->selectors[i]);
    cpu->cr0 |= CR0_TS;
    cpu->dr[7] &= ~DR7_LOCAL;
}

static bool start_task(struct soft_cpu *cpu, const struct task_state *state, bool has_cr3)
{
    load_registers(cpu, state);
    if (has_cr3 && cpu->cr0 & CR0_PG && !control_write(cpu, 3, state->cr3))
        return false;
    if (!load_segments(cpu, state))
        return false;
    soft_update_mode(cpu);
    if (cpu->rip > cpu->seg[SOFT_CS].limit)
        return soft_raise(cpu, SOFT_GP, 0);
    if (!state->traps)
        return true;
    cpu->dr[6] |= DR6_BT;
    return soft_raise(cpu, SOFT_DB, 0);
}

static bool check_new_tss(struct soft_cpu *cpu, const struct switch_plan *plan)
{
    uint32_t error = SELECTOR_ERROR(plan->selector);
    bool is_return = plan->cause == CAUSE_RETURN;
    bool is_busy = DESCRIPTOR_TYPE(plan->descriptor) & TYPE_BUSY;
    struct soft_segment tss;

    if (!task_is_tss(plan->descriptor) || is_busy != is_return)
        return soft_raise(cpu, is_return ? SOFT_TS : SOFT_GP, error);
    if (!(plan->descriptor & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_NP, error);
    segment_set(&tss, plan->selector, plan->descriptor);
    if (tss.limit < (is_32(&tss) ? TSS_LIMIT_32 : TSS_LIMIT_16))
        return soft_raise(cpu, SOFT_TS, error);
    return true;
}

/* What the old task's memory is to hold. Every step can be done again from the start. */
static bool leave_old_task(struct soft_cpu *cpu, const struct switch_plan *plan,
                           const struct soft_segment *tss)
{
    if (cpu->tr.limit < (is_32(&cpu->tr) ? TSS_LIMIT_32 : TSS_LIMIT_16))
        return soft_raise(cpu, SOFT_TS, SELECTOR_ERROR(cpu->tr.selector));
    if (!save_state(cpu, &cpu->tr, plan->rip, plan->rflags))
        return false;
    if (plan->cause == CAUSE_CALL && !soft_store_system(cpu, tss->base, &cpu->tr.selector, 2))
        return false;
    if (plan->cause != CAUSE_CALL && !set_busy(cpu, cpu->tr.selector, false))
        return false;
    return plan->cause == CAUSE_RETURN || set_busy(cpu, plan->selector, true);
}

static bool switch_task(struct soft_cpu *cpu, const struct switch_plan *plan)
{
    struct soft_segment tss;
    struct task_state state;

    if (!check_new_tss(cpu, plan))
        return false;
    segment_set(&tss, plan->selector, plan->descriptor | (uint64_t)TYPE_BUSY << 40);
    if (!load_state(cpu, &tss, &state) || !leave_old_task(cpu, plan, &tss))
        return false;
    if (plan->cause == CAUSE_CALL)
        state.rflags |= RFLAGS_NT;
    cpu->tr = tss;
    if (!start_task(cpu, &state, is_32(&tss))) {
        soft_update_mode(cpu);
        atomic_store_explicit(&cpu->poll, 1, memory_order_relaxed);
    }
    return true;
}

/* The TSS descriptor that a gate or a link names: in the GDT, or `vector`. */
static bool read_tss(struct soft_cpu *cpu, struct switch_plan *plan, enum soft_vector vector)
{
    if (plan->selector & 4 || !(plan->selector & 0xfffc))
        return soft_raise(cpu, vector, SELECTOR_ERROR(plan->selector));
    return segment_read(cpu, plan->selector, vector, &plan->descriptor);
}

bool task_branch(struct soft_cpu *cpu, uint16_t selector, uint64_t descriptor, bool is_call)
{
    unsigned dpl = DESCRIPTOR_DPL(descriptor);
    struct switch_plan plan = {.cause = is_call ? CAUSE_CALL : CAUSE_JUMP,
                               .selector = selector,
                               .descriptor = descriptor,
                               .rip = cpu->rip,
                               .rflags = soft_get_rflags(cpu)};

    if (dpl < cpu->cpl || dpl < (selector & 3u))
        return soft_raise(cpu, SOFT_GP, SELECTOR_ERROR(selector));
    if (task_is_gate(descriptor)) {
        if (!(descriptor & DESCRIPTOR_P))
            return soft_raise(cpu, SOFT_NP, SELECTOR_ERROR(selector));
        plan.selector = (uint16_t)(descriptor >> 16);
        if (!read_tss(cpu, &plan, SOFT_GP))
            return false;
    } else if (selector & 4) {
        return soft_raise(cpu, SOFT_GP, SELECTOR_ERROR(selector));
    }
    return switch_task(cpu, &plan);
}

bool task_return(struct soft_cpu *cpu)
{
    struct switch_plan plan = {
        .cause = CAUSE_RETURN, .rip = cpu->rip, .rflags = soft_get_rflags(cpu) & ~RFLAGS_NT};

    if (!soft_load_system(cpu, cpu->tr.base, &plan.selector, 2) || !read_tss(cpu, &plan, SOFT_TS) ||
        !switch_task(cpu, &plan))
        return false;
    cpu->nmi_blocked = false;
    return true;
}

/* The error code goes onto the new task's stack, in words of its TSS's size. */
static void push_error_code(struct soft_cpu *cpu, uint32_t error_code)
{
    uint64_t rsp = cpu->r[SOFT_RSP];

    if (stack_push(cpu, &rsp, error_code, is_32(&cpu->tr) ? 4 : 2))
        cpu->r[SOFT_RSP] = rsp;
    else
        atomic_store_explicit(&cpu->poll, 1, memory_order_relaxed);
}

bool task_deliver(struct soft_cpu *cpu, const struct exception *exception, uint16_t selector)
{
    struct switch_plan plan = {.cause = CAUSE_CALL,
                               .selector = selector,
                               .rip = exception->rip,
                               .rflags = exception_rflags(cpu, exception)};
    uint32_t external = exception->source != EXCEPTION_SOFTWARE;

    if (!read_tss(cpu, &plan, SOFT_GP) || !switch_task(cpu, &plan)) {
        if (cpu->exception != SOFT_PF)
            cpu->error_code |= external;
        return false;
    }
    if (exception->has_error_code && cpu->pending == SOFT_PENDING_NONE)
        push_error_code(cpu, exception->error_code);
    return true;
}
