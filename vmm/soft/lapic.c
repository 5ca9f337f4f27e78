/* SPDX-License-Identifier: MIT */
/*
 * lapic: the local interrupt controller of each software vCPU.
 *
 * Theory of operation. The registers sit in one array in the layout of kvm_lapic_state. A sender
 * (another vCPU, a device's thread) only reads what it needs to match a destination, sets TMR and
 * then IRR bits or an event bit with atomics, and calls on_attention. All that depends on order
 * (ISR, EOI, the timer) belongs to the vCPU's own thread, which looks at IRR when its attention
 * was called for. The processor priority is computed when asked for and never stored.
 */
#include "vmm/soft/lapic_bus.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"

#define VERSION_VALUE      0x00050014u /* six LVT entries, integrated */
#define SVR_WRITABLE       0x3ffu
#define LVT_TIMER_WRITABLE 0x700ffu
#define LVT_LINT_WRITABLE  0x1a7ffu
#define LVT_OTHER_WRITABLE 0x107ffu
#define LVT_ERROR_WRITABLE 0x100ffu
#define ICR_WRITABLE       0xccfffu
#define BASE_ADDRESS_MASK  UINT64_C(0x000ffffffffff000)

enum timer_mode { TIMER_ONE_SHOT = 0, TIMER_PERIODIC = 1, TIMER_TSC_DEADLINE = 2 };

/* The highest vector set in IRR or ISR, or -1. */
static int highest_vector(const struct lapic *lapic, unsigned offset)
{
    for (int word = 7; word >= 0; word--) {
        uint32_t bits = atomic_load(&lapic->registers[(offset >> 4) + (unsigned)word]);

        if (bits)
            return word * 32 + 31 - __builtin_clz(bits);
    }
    return -1;
}

uint32_t lapic_priority(const struct lapic *lapic)
{
    uint32_t tpr = lapic_get(lapic, REG_TPR) & 0xff;
    int in_service = highest_vector(lapic, REG_ISR);
    uint32_t class = in_service < 0 ? 0 : (uint32_t)in_service & 0xf0;

    return (tpr & 0xf0) >= class ? tpr : class;
}

/* --- Timer: its bus runs at 1 GHz, a tick is a nanosecond --- */

static enum timer_mode timer_mode(const struct lapic *lapic)
{
    return (enum timer_mode)(lapic_get(lapic, REG_LVT_TIMER) >> 17 & 3);
}

static unsigned divide_shift(const struct lapic *lapic)
{
    uint32_t divide = lapic_get(lapic, REG_DIVIDE);

    return ((divide & 3) + (divide >> 1 & 4) + 1) & 7;
}

/* Starts over with `count` ticks to go. */
static void start_countdown(struct lapic *lapic, uint32_t count)
{
    uint64_t initial = lapic_get(lapic, REG_INITIAL_COUNT);

    lapic->deadline_ns = LAPIC_NO_DEADLINE;
    lapic->period_ns = initial << divide_shift(lapic);
    if (count && timer_mode(lapic) != TIMER_TSC_DEADLINE)
        lapic->deadline_ns = lapic->ops->now_ns(lapic) + ((uint64_t)count << divide_shift(lapic));
}

static uint32_t current_count(struct lapic *lapic)
{
    if (lapic->deadline_ns == LAPIC_NO_DEADLINE || timer_mode(lapic) == TIMER_TSC_DEADLINE)
        return 0;
    lapic_run_timer(lapic);
    if (lapic->deadline_ns == LAPIC_NO_DEADLINE)
        return 0;
    uint64_t now_ns = lapic->ops->now_ns(lapic);

    if (lapic->deadline_ns <= now_ns)
        return 0;
    return (uint32_t)((lapic->deadline_ns - now_ns) >> divide_shift(lapic));
}

static void arm_tsc_deadline(struct lapic *lapic)
{
    lapic->deadline_ns =
        lapic->tsc_deadline ? lapic->ops->tsc_to_ns(lapic, lapic->tsc_deadline) : LAPIC_NO_DEADLINE;
}

void lapic_tsc_changed(struct lapic *lapic)
{
    if (timer_mode(lapic) == TIMER_TSC_DEADLINE)
        arm_tsc_deadline(lapic);
}

static void set_timer_lvt(struct lapic *lapic, uint32_t value)
{
    enum timer_mode before = timer_mode(lapic);

    lapic_set(lapic, REG_LVT_TIMER, value);
    if ((before == TIMER_TSC_DEADLINE) != (timer_mode(lapic) == TIMER_TSC_DEADLINE)) {
        lapic->deadline_ns = LAPIC_NO_DEADLINE;
        lapic->tsc_deadline = 0;
        lapic_set(lapic, REG_INITIAL_COUNT, 0);
    }
}

static void set_divide(struct lapic *lapic, uint32_t value)
{
    uint32_t left = current_count(lapic);

    lapic_set(lapic, REG_DIVIDE, value & 0xb);
    start_countdown(lapic, left);
}

void lapic_run_timer(struct lapic *lapic)
{
    uint32_t lvt = lapic_get(lapic, REG_LVT_TIMER);
    uint64_t now_ns;

    if (lapic->deadline_ns == LAPIC_NO_DEADLINE)
        return;
    now_ns = lapic->ops->now_ns(lapic);
    if (now_ns < lapic->deadline_ns)
        return;
    if (timer_mode(lapic) == TIMER_PERIODIC && lapic->period_ns)
        /* Periods that were slept through give one interrupt. */
        lapic->deadline_ns +=
            ((now_ns - lapic->deadline_ns) / lapic->period_ns + 1) * lapic->period_ns;
    else
        lapic->deadline_ns = LAPIC_NO_DEADLINE;
    if (timer_mode(lapic) == TIMER_TSC_DEADLINE)
        lapic->tsc_deadline = 0;
    if (!(lvt & LVT_MASKED) && lapic_is_software_enabled(lapic)) {
        if ((lvt & 0xff) >= VECTOR_LOWEST)
            lapic_bus_accept(lapic, (uint8_t)lvt, false);
        else
            lapic_bus_error(lapic, ERROR_RECV_VECTOR);
    }
}

/* --- Priorities and acknowledging --- */

int lapic_pending(const struct lapic *lapic)
{
    int vector;

    if (!lapic_is_software_enabled(lapic))
        return -1;
    vector = highest_vector(lapic, REG_IRR);
    if (vector < 0 || ((uint32_t)vector & 0xf0) <= (lapic_priority(lapic) & 0xf0))
        return -1;
    return vector;
}

int lapic_acknowledge(struct lapic *lapic)
{
    int vector = lapic_pending(lapic);

    if (vector < 0)
        return -1;
    atomic_fetch_and(lapic_vector_word(lapic, REG_IRR, (unsigned)vector),
                     ~lapic_vector_bit((unsigned)vector));
    atomic_fetch_or(lapic_vector_word(lapic, REG_ISR, (unsigned)vector),
                    lapic_vector_bit((unsigned)vector));
    return vector;
}

static void end_of_interrupt(struct lapic *lapic)
{
    int vector = highest_vector(lapic, REG_ISR);

    if (vector < 0)
        return;
    atomic_fetch_and(lapic_vector_word(lapic, REG_ISR, (unsigned)vector),
                     ~lapic_vector_bit((unsigned)vector));
    if (atomic_load(lapic_vector_word(lapic, REG_TMR, (unsigned)vector)) &
        lapic_vector_bit((unsigned)vector))
        lapic->eoi_vector = vector;
    if (lapic_pending(lapic) >= 0)
        lapic->ops->on_attention(lapic);
}

int lapic_take_eoi(struct lapic *lapic)
{
    int vector = lapic->eoi_vector;

    lapic->eoi_vector = -1;
    return vector;
}

bool lapic_accepts_extint(const struct lapic *lapic)
{
    uint32_t lint0 = lapic_get(lapic, REG_LVT_LINT0);

    return !lapic_is_on(lapic) || (!(lint0 & LVT_MASKED) && (lint0 >> 8 & 7) == DELIVERY_EXTINT);
}

unsigned lapic_get_cr8(const struct lapic *lapic)
{
    return lapic_get(lapic, REG_TPR) >> 4 & 0xf;
}

static void set_tpr(struct lapic *lapic, uint32_t value)
{
    lapic_set(lapic, REG_TPR, value & 0xff);
    if (lapic_pending(lapic) >= 0)
        lapic->ops->on_attention(lapic);
}

void lapic_set_cr8(struct lapic *lapic, unsigned value)
{
    set_tpr(lapic, (value & 0xf) << 4);
}

unsigned lapic_take_events(struct lapic *lapic, unsigned wanted)
{
    return atomic_fetch_and(&lapic->events, ~wanted) & wanted;
}

bool lapic_has_events(const struct lapic *lapic, unsigned wanted)
{
    return atomic_load(&lapic->events) & wanted;
}

unsigned lapic_sipi_vector(const struct lapic *lapic)
{
    return atomic_load(&lapic->sipi_vector);
}

/* --- Registers --- */

static const struct {
    uint16_t offset;
    uint32_t writable;
} lvt_registers[] = {
    {REG_LVT_TIMER, LVT_TIMER_WRITABLE}, {REG_LVT_THERMAL, LVT_OTHER_WRITABLE},
    {REG_LVT_PERF, LVT_OTHER_WRITABLE},  {REG_LVT_LINT0, LVT_LINT_WRITABLE},
    {REG_LVT_LINT1, LVT_LINT_WRITABLE},  {REG_LVT_ERROR, LVT_ERROR_WRITABLE},
};

static void set_svr(struct lapic *lapic, uint32_t value)
{
    lapic_set(lapic, REG_SVR, value & SVR_WRITABLE);
    if (!(value & SVR_ENABLE))
        for (unsigned i = 0; i < ARRAY_SIZE(lvt_registers); i++)
            lapic_set(lapic, lvt_registers[i].offset,
                      lapic_get(lapic, lvt_registers[i].offset) | LVT_MASKED);
    lapic->ops->on_attention(lapic);
}

/* True if `offset` is an LVT entry, and then it is written. */
static bool write_lvt(struct lapic *lapic, uint32_t offset, uint32_t value)
{
    for (unsigned i = 0; i < ARRAY_SIZE(lvt_registers); i++) {
        if (lvt_registers[i].offset != offset)
            continue;
        value &= lvt_registers[i].writable;
        if (!(lapic_get(lapic, REG_SVR) & SVR_ENABLE))
            value |= LVT_MASKED;
        if (offset == REG_LVT_TIMER)
            set_timer_lvt(lapic, value);
        else
            lapic_set(lapic, offset, value);
        if (offset == REG_LVT_LINT0)
            lapic->ops->on_attention(lapic);
        return true;
    }
    return false;
}

static void set_initial_count(struct lapic *lapic, uint32_t value)
{
    if (timer_mode(lapic) == TIMER_TSC_DEADLINE)
        return;
    lapic_set(lapic, REG_INITIAL_COUNT, value);
    start_countdown(lapic, value);
}

/* What both modes know. False: no such register, or not writable. */
static bool write_common(struct lapic *lapic, uint32_t offset, uint32_t value)
{
    if (write_lvt(lapic, offset, value))
        return true;
    switch (offset) {
    case REG_TPR:
        set_tpr(lapic, value);
        return true;
    case REG_EOI:
        end_of_interrupt(lapic);
        return true;
    case REG_SVR:
        set_svr(lapic, value);
        return true;
    case REG_ESR:
        lapic_set(lapic, REG_ESR, atomic_exchange(&lapic->errors, 0));
        return true;
    case REG_INITIAL_COUNT:
        set_initial_count(lapic, value);
        return true;
    case REG_DIVIDE:
        set_divide(lapic, value);
        return true;
    default:
        return false;
    }
}

static bool is_readable(uint32_t offset)
{
    switch (offset) {
    case REG_ID:
    case REG_VERSION:
    case REG_TPR:
    case REG_PPR:
    case REG_LDR:
    case REG_SVR:
    case REG_ISR ... REG_ESR:
    case REG_ICR ... REG_CURRENT_COUNT:
    case REG_DIVIDE:
        return true;
    default:
        return false;
    }
}

static uint32_t read_register(struct lapic *lapic, uint32_t offset)
{
    switch (offset) {
    case REG_ID:
        return lapic_is_x2apic(lapic) ? lapic->id : lapic->id << 24;
    case REG_LDR:
        return lapic_is_x2apic(lapic) ? lapic_bus_logical_id(lapic) : lapic_get(lapic, REG_LDR);
    case REG_PPR:
        return lapic_priority(lapic);
    case REG_CURRENT_COUNT:
        return current_count(lapic);
    default:
        return lapic_get(lapic, offset);
    }
}

/* --- xAPIC --- */

bool lapic_covers(const struct lapic *lapic, uint64_t gpa)
{
    uint64_t base = atomic_load_explicit(&lapic->base, memory_order_relaxed);

    return (base & (LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC)) == LAPIC_BASE_ENABLE &&
           (gpa & ~(LAPIC_MMIO_SIZE - 1)) == (base & BASE_ADDRESS_MASK);
}

uint32_t lapic_mmio_read(struct lapic *lapic, uint32_t offset)
{
    offset &= 0xfff;
    if (offset & 0xf)
        return 0;
    if (is_readable(offset) || offset == REG_DFR)
        return read_register(lapic, offset);
    if (offset != REG_APR && offset != REG_RRD && offset != REG_EOI)
        lapic_bus_error(lapic, ERROR_REGISTER);
    return 0;
}

void lapic_mmio_write(struct lapic *lapic, uint32_t offset, uint32_t value)
{
    offset &= 0xfff;
    if (offset & 0xf || write_common(lapic, offset, value))
        return;
    switch (offset) {
    case REG_LDR:
        lapic_set(lapic, REG_LDR, value & 0xff000000);
        break;
    case REG_DFR:
        lapic_set(lapic, REG_DFR, value | 0x0fffffff);
        break;
    case REG_ICR2:
        lapic_set(lapic, REG_ICR2, value & 0xff000000);
        break;
    case REG_ICR:
        lapic_set(lapic, REG_ICR, value & ICR_WRITABLE);
        lapic_bus_send(lapic, value, lapic_get(lapic, REG_ICR2));
        break;
    case REG_ID: /* fixed, as on current CPUs */
        break;
    default:
        lapic_bus_error(lapic, ERROR_REGISTER);
        break;
    }
}

/* --- x2APIC and the other MSRs --- */

static bool x2apic_read(struct lapic *lapic, uint32_t offset, uint64_t *value)
{
    if (!is_readable(offset) || offset == REG_ICR2)
        return false;
    *value = read_register(lapic, offset);
    if (offset == REG_ICR)
        *value |= (uint64_t)lapic_get(lapic, REG_ICR2) << 32;
    return true;
}

/* The bits that a WRMSR may set; the others are reserved. */
static uint64_t x2apic_writable(uint32_t offset)
{
    /* KVM lets any bits of an LVT pass and keeps those that exist; guests have come to rely on it.
     */
    for (unsigned i = 0; i < ARRAY_SIZE(lvt_registers); i++)
        if (lvt_registers[i].offset == offset)
            return UINT32_MAX;
    switch (offset) {
    case REG_TPR:
    case REG_SELF_IPI:
        return 0xff;
    case REG_SVR:
        return SVR_WRITABLE;
    case REG_ICR:
        return UINT64_C(0xffffffff00000000) | ICR_WRITABLE;
    case REG_INITIAL_COUNT:
        return UINT32_MAX;
    case REG_DIVIDE:
        return 0xb;
    default: /* EOI and ESR take zero only */
        return 0;
    }
}

static bool x2apic_write(struct lapic *lapic, uint32_t offset, uint64_t value)
{
    if (value & ~x2apic_writable(offset))
        return false;
    if (offset == REG_ICR) {
        lapic_set(lapic, REG_ICR, (uint32_t)value);
        lapic_set(lapic, REG_ICR2, (uint32_t)(value >> 32));
        lapic_bus_send(lapic, (uint32_t)value, (uint32_t)(value >> 32));
        return true;
    }
    if (offset == REG_SELF_IPI) {
        lapic_bus_send(lapic, 1u << 18 | (uint32_t)value, 0);
        return true;
    }
    return write_common(lapic, offset, (uint32_t)value);
}

static bool write_base(struct lapic *lapic, uint64_t value)
{
    uint64_t before = atomic_load(&lapic->base);
    uint64_t modes = LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC;

    if (value & ~(BASE_ADDRESS_MASK | modes | LAPIC_BASE_BSP))
        return false;
    if ((value & modes) == LAPIC_BASE_X2APIC)
        return false;
    /* x2APIC is entered from xAPIC only, and left to "off" only. */
    if ((before & modes) == modes && (value & modes) == LAPIC_BASE_ENABLE)
        return false;
    if (!(before & modes) && (value & modes) == modes)
        return false;
    if (before & LAPIC_BASE_ENABLE && !(value & LAPIC_BASE_ENABLE))
        lapic_reset(lapic);
    lapic_set_base(lapic, value);
    return true;
}

uint64_t lapic_get_base(const struct lapic *lapic)
{
    return atomic_load(&lapic->base);
}

void lapic_set_base(struct lapic *lapic, uint64_t value)
{
    atomic_store(&lapic->base, value);
    lapic->ops->on_attention(lapic);
}

bool lapic_msr_read(struct lapic *lapic, uint32_t index, uint64_t *value)
{
    if (index == LAPIC_MSR_BASE) {
        *value = lapic_get_base(lapic);
        return true;
    }
    if (index == LAPIC_MSR_TSC_DEADLINE) {
        *value = timer_mode(lapic) == TIMER_TSC_DEADLINE ? lapic->tsc_deadline : 0;
        return true;
    }
    if (index < LAPIC_MSR_X2APIC_FIRST || index > LAPIC_MSR_X2APIC_LAST || !lapic_is_x2apic(lapic))
        return false;
    return x2apic_read(lapic, (index - LAPIC_MSR_X2APIC_FIRST) << 4, value);
}

bool lapic_msr_write(struct lapic *lapic, uint32_t index, uint64_t value)
{
    if (index == LAPIC_MSR_BASE)
        return write_base(lapic, value);
    if (index == LAPIC_MSR_TSC_DEADLINE) {
        if (timer_mode(lapic) == TIMER_TSC_DEADLINE) {
            lapic->tsc_deadline = value;
            arm_tsc_deadline(lapic);
        }
        return true;
    }
    if (index < LAPIC_MSR_X2APIC_FIRST || index > LAPIC_MSR_X2APIC_LAST || !lapic_is_x2apic(lapic))
        return false;
    return x2apic_write(lapic, (index - LAPIC_MSR_X2APIC_FIRST) << 4, value);
}

/* --- Life --- */

void lapic_reset(struct lapic *lapic)
{
    for (unsigned i = 0; i < LAPIC_REGISTER_COUNT; i++)
        lapic_set(lapic, i << 4, 0);
    lapic_set(lapic, REG_ID, lapic->id << 24);
    lapic_set(lapic, REG_VERSION, VERSION_VALUE);
    lapic_set(lapic, REG_DFR, UINT32_MAX);
    lapic_set(lapic, REG_SVR, 0xff);
    for (unsigned i = 0; i < ARRAY_SIZE(lvt_registers); i++)
        lapic_set(lapic, lvt_registers[i].offset, LVT_MASKED);
    /* No firmware sets up the virtual wire of the PIC; KVM's LAPIC begins with it too. */
    if (lapic->id == 0)
        lapic_set(lapic, REG_LVT_LINT0, DELIVERY_EXTINT << 8);
    atomic_store(&lapic->errors, 0);
    lapic->eoi_vector = -1;
    lapic->deadline_ns = LAPIC_NO_DEADLINE;
    lapic->period_ns = 0;
    lapic->tsc_deadline = 0;
}

void lapic_init(struct lapic *lapic, struct lapic_hub *hub, const struct lapic_ops *ops)
{
    CHECK(hub->count < VCPU_MAX);
    memset(lapic, 0, sizeof(*lapic));
    lapic->hub = hub;
    lapic->ops = ops;
    lapic->id = hub->count;
    atomic_store(&lapic->base,
                 LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE | (lapic->id == 0 ? LAPIC_BASE_BSP : 0));
    lapic_reset(lapic);
    hub->lapics[hub->count++] = lapic;
}

void lapic_get_state(struct lapic *lapic, struct kvm_lapic_state *out)
{
    memset(out, 0, sizeof(*out));
    for (uint32_t offset = 0; offset < sizeof(out->regs); offset += 16)
        store_le32(out->regs + offset, read_register(lapic, offset));
    store_le32(out->regs + REG_ID, lapic->id << 24);
}

void lapic_set_state(struct lapic *lapic, const struct kvm_lapic_state *state)
{
    for (uint32_t offset = 0; offset < sizeof(state->regs); offset += 16)
        lapic_set(lapic, offset, load_le32(state->regs + offset));
    lapic_set(lapic, REG_ID, lapic->id << 24);
    lapic_set(lapic, REG_VERSION, VERSION_VALUE);
    start_countdown(lapic, lapic_get(lapic, REG_CURRENT_COUNT));
    lapic->ops->on_attention(lapic);
}
