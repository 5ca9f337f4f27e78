/* SPDX-License-Identifier: MIT */
/*
 * exception: what raising means, delivery in long mode, and the rules for faults on the way.
 *
 * Everything that can fail is done before the first register changes, so a failed delivery leaves
 * the state in which the next exception is to be delivered.
 */
#include "vmm/soft/exception.h"

#include "vmm/soft/mem.h"
#include "vmm/soft/segment.h"

#define VECTOR_HAS_ERROR_CODE                                                                      \
    (1u << SOFT_DF | 1u << SOFT_TS | 1u << SOFT_NP | 1u << SOFT_SS_FAULT | 1u << SOFT_GP |         \
     1u << SOFT_PF | 1u << SOFT_AC)
#define VECTOR_CONTRIBUTORY                                                                        \
    (1u << SOFT_DE | 1u << SOFT_TS | 1u << SOFT_NP | 1u << SOFT_SS_FAULT | 1u << SOFT_GP)

#define GATE_INTERRUPT 0xeu
#define GATE_TRAP      0xfu

bool soft_raise(struct soft_cpu *cpu, enum soft_vector vector, uint32_t error_code)
{
    cpu->pending = SOFT_PENDING_EXCEPTION;
    cpu->exception = (uint8_t)vector;
    cpu->has_error_code = VECTOR_HAS_ERROR_CODE >> vector & 1;
    cpu->error_code = error_code;
    cpu->non_canonical = 0;
    return false;
}

bool soft_raise_page_fault(struct soft_cpu *cpu, uint64_t address, uint32_t error_code)
{
    cpu->cr2 = address;
    return soft_raise(cpu, SOFT_PF, error_code);
}

uint32_t exception_gate_error(const struct exception *exception)
{
    return exception->vector * 8u + 2 + (exception->source != EXCEPTION_SOFTWARE);
}

uint32_t exception_selector_error(const struct exception *exception, uint16_t selector)
{
    return SELECTOR_ERROR(selector) + (exception->source != EXCEPTION_SOFTWARE);
}

uint64_t exception_rflags(const struct soft_cpu *cpu, const struct exception *exception)
{
    uint64_t rflags = soft_get_rflags(cpu);

    return exception->source == EXCEPTION_FAULT ? rflags | RFLAGS_RF : rflags;
}

/* --- Long mode --- */

#define DELIVERIES_MAX 16

struct gate {
    uint64_t low, high;
};

static uint64_t gate_offset(const struct gate *gate)
{
    return (gate->low & 0xffff) | (gate->low >> 32 & 0xffff0000) | gate->high << 32;
}

static bool read_gate(struct soft_cpu *cpu, const struct exception *exception, struct gate *gate)
{
    uint32_t error = exception_gate_error(exception);

    if (exception->vector * 16u + 15 > cpu->idt_limit)
        return soft_raise(cpu, SOFT_GP, error);
    if (!soft_load_system(cpu, cpu->idt_base + exception->vector * 16u, gate, sizeof(*gate)))
        return false;
    unsigned type = DESCRIPTOR_TYPE(gate->low);

    if (gate->low & DESCRIPTOR_S || (type != GATE_INTERRUPT && type != GATE_TRAP))
        return soft_raise(cpu, SOFT_GP, error);
    if (exception->source == EXCEPTION_SOFTWARE && DESCRIPTOR_DPL(gate->low) < cpu->cpl)
        return soft_raise(cpu, SOFT_GP, error);
    if (!(gate->low & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_NP, error);
    return true;
}

bool exception_read_code(struct soft_cpu *cpu, const struct exception *exception, uint16_t selector,
                         uint64_t *descriptor)
{
    uint32_t error = exception_selector_error(exception, selector);

    if (!(selector & 0xfffc))
        return soft_raise(cpu, SOFT_GP, exception_selector_error(exception, 0));
    if (!segment_read(cpu, selector, SOFT_GP, descriptor)) {
        if (cpu->exception == SOFT_GP)
            cpu->error_code = error;
        return false;
    }
    bool is_code = *descriptor & DESCRIPTOR_S && *descriptor & DESCRIPTOR_CODE;
    bool is_64bit = *descriptor & DESCRIPTOR_L && !(*descriptor & DESCRIPTOR_D);

    if (!is_code || DESCRIPTOR_DPL(*descriptor) > cpu->cpl || (soft_is_long_mode(cpu) && !is_64bit))
        return soft_raise(cpu, SOFT_GP, error);
    if (!(*descriptor & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_NP, error);
    return segment_set_accessed(cpu, selector, descriptor);
}

/* RSP for the handler, from the TSS where privilege or the IST asks for it. */
static bool find_stack(struct soft_cpu *cpu, const struct exception *exception,
                       const struct gate *gate, unsigned cpl, uint64_t *rsp)
{
    unsigned ist = gate->low >> 32 & 7;
    unsigned offset;

    if (ist)
        offset = 28 + ist * 8;
    else if (cpl != cpu->cpl)
        offset = 4 + cpl * 8;
    else {
        *rsp = cpu->r[SOFT_RSP];
        return true;
    }
    if (offset + 7 > cpu->tr.limit)
        return soft_raise(cpu, SOFT_TS, exception_selector_error(exception, cpu->tr.selector));
    if (!soft_load_system(cpu, cpu->tr.base + offset, rsp, 8))
        return false;
    if (!soft_is_canonical(*rsp))
        return soft_raise(cpu, SOFT_SS_FAULT, exception_selector_error(exception, 0));
    return true;
}

static bool store_frame(struct soft_cpu *cpu, uint64_t at, const void *words, unsigned bytes,
                        unsigned cpl)
{
    if (cpl == 3)
        return soft_store(cpu, at, words, bytes);
    return soft_store_system(cpu, at, words, bytes);
}

/*
 * The frame is stored at once, but pushes go downwards: the fault is that of the highest word that
 * cannot be written, and the words above it are written.
 */
static bool fault_as_pushes(struct soft_cpu *cpu, uint64_t at, const uint64_t *words,
                            unsigned bytes, unsigned cpl)
{
    uint64_t top = at + bytes - 8, boundary = top & ~UINT64_C(0xfff);
    uint32_t error_code = cpu->error_code;

    if (at >= boundary)
        return soft_raise_page_fault(cpu, top, error_code);
    unsigned skipped = (unsigned)(boundary - at);

    if (!store_frame(cpu, boundary, words + skipped / 8, bytes - skipped, cpl))
        return soft_raise_page_fault(cpu, top, cpu->error_code);
    return soft_raise_page_fault(cpu, boundary - 8, error_code);
}

static bool push_frame(struct soft_cpu *cpu, const struct exception *exception, unsigned cpl,
                       uint64_t *rsp)
{
    uint64_t frame[6] = {exception->error_code,      exception->rip,
                         cpu->seg[SOFT_CS].selector, exception_rflags(cpu, exception),
                         cpu->r[SOFT_RSP],           cpu->seg[SOFT_SS].selector};
    unsigned first = exception->has_error_code ? 0 : 1;
    unsigned bytes = (6 - first) * 8;

    *rsp = (*rsp & ~UINT64_C(15)) - bytes;
    if (store_frame(cpu, *rsp, &frame[first], bytes, cpl))
        return true;
    return cpu->exception == SOFT_PF && fault_as_pushes(cpu, *rsp, &frame[first], bytes, cpl);
}

static bool enter_long(struct soft_cpu *cpu, const struct exception *exception)
{
    struct gate gate;
    uint64_t descriptor, rsp;

    if (!read_gate(cpu, exception, &gate))
        return false;
    uint16_t selector = (uint16_t)(gate.low >> 16);

    if (!exception_read_code(cpu, exception, selector, &descriptor))
        return false;
    unsigned cpl = descriptor & DESCRIPTOR_EXPAND ? cpu->cpl : DESCRIPTOR_DPL(descriptor);

    if (!find_stack(cpu, exception, &gate, cpl, &rsp) || !push_frame(cpu, exception, cpl, &rsp))
        return false;
    if (!soft_is_canonical(gate_offset(&gate)))
        return soft_raise(cpu, SOFT_GP, exception_selector_error(exception, 0));
    if (cpl != cpu->cpl) {
        segment_install_null(cpu, SOFT_SS, (uint16_t)cpl);
        cpu->seg[SOFT_SS].attributes = (uint16_t)(cpl << 5);
    }
    segment_install(cpu, SOFT_CS, (uint16_t)((selector & 0xfffc) | cpl), descriptor);
    cpu->cpl = (uint8_t)cpl;
    cpu->r[SOFT_RSP] = rsp;
    cpu->rip = gate_offset(&gate);
    cpu->rflags &= ~(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM);
    if (DESCRIPTOR_TYPE(gate.low) == GATE_INTERRUPT)
        cpu->rflags &= ~RFLAGS_IF;
    soft_update_mode(cpu);
    return true;
}

bool exception_enter(struct soft_cpu *cpu, const struct exception *exception)
{
    bool done;

    cpu->is_delivering = true;
    if (soft_is_long_mode(cpu))
        done = enter_long(cpu, exception);
    else if (cpu->cr0 & CR0_PE)
        done = exception_enter_protected(cpu, exception);
    else
        done = exception_enter_real(cpu, exception);
    cpu->is_delivering = false;
    return done;
}

/* --- Faults while delivering --- */

static bool is_contributory(const struct exception *exception)
{
    return exception->source == EXCEPTION_FAULT && exception->vector < 32 &&
           VECTOR_CONTRIBUTORY >> exception->vector & 1;
}

static bool is_page_fault(const struct exception *exception)
{
    return exception->source == EXCEPTION_FAULT && exception->vector == SOFT_PF;
}

static bool makes_double_fault(const struct exception *first, const struct exception *second)
{
    if (is_contributory(first))
        return is_contributory(second);
    return is_page_fault(first) && (is_contributory(second) || is_page_fault(second));
}

static struct exception take_pending(struct soft_cpu *cpu, uint64_t rip)
{
    cpu->pending = SOFT_PENDING_NONE;
    return (struct exception){.vector = cpu->exception,
                              .source = EXCEPTION_FAULT,
                              .has_error_code = cpu->has_error_code,
                              .error_code = cpu->error_code,
                              .rip = rip};
}

/* A switch of tasks may enter the handler's task and leave an exception of that task behind. */
static bool enter_cleanly(struct soft_cpu *cpu, const struct exception *exception)
{
    return exception_enter(cpu, exception) && cpu->pending != SOFT_PENDING_EXCEPTION;
}

/*
 * Benign exceptions never make a double fault, so with #AC or #DB a guest can build a ring of
 * exceptions whose handlers cannot be entered. CPUs go round in it for ever; here it is a shutdown.
 */
bool exception_deliver(struct soft_cpu *cpu, struct exception exception)
{
    unsigned tries = 0;

    while (!enter_cleanly(cpu, &exception)) {
        if (++tries == DELIVERIES_MAX) {
            cpu->pending = SOFT_PENDING_NONE;
            return false;
        }
        struct exception second = take_pending(cpu, cpu->rip);

        if (exception.vector == SOFT_DF && exception.source == EXCEPTION_FAULT)
            return false;
        if (makes_double_fault(&exception, &second))
            second = (struct exception){.vector = SOFT_DF,
                                        .source = EXCEPTION_FAULT,
                                        .has_error_code = true,
                                        .rip = cpu->rip};
        exception = second;
    }
    return true;
}

bool exception_deliver_pending(struct soft_cpu *cpu)
{
    return exception_deliver(cpu, take_pending(cpu, cpu->rip));
}
