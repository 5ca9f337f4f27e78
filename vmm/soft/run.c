/* SPDX-License-Identifier: MIT */
/*
 * run: what happens around the interpreter: requests from other threads, interrupts, exceptions,
 * HLT and waiting for SIPI, single steps, exits.
 *
 * One turn: the poll word is cleared first and everything that could have set it is looked at
 * afterwards, so nothing is missed. Code that others have changed comes before interrupts, because
 * an interrupt may be the news that the code is ready.
 */
#include "vmm/soft/run.h"

#include <time.h>

#include "vmm/soft/block.h"
#include "vmm/soft/clock.h"
#include "vmm/soft/exception.h"
#include "vmm/soft/exec.h"
#include "vmm/soft/fpu.h"
#include "vmm/soft/mmio.h"
#include "vmm/soft/mmu.h"
#include "vmm/soft/segment.h"
#include "vmm/soft/system.h"

#define DR6_BS UINT64_C(0x4000)

enum turn { TURN_GO_ON, TURN_EXIT };

void soft_post(struct soft_cpu *cpu, uint32_t requests)
{
    atomic_fetch_or(&cpu->requests, requests);
    atomic_store(&cpu->poll, 1);
    if (!atomic_load(&cpu->is_idle))
        return;
    pthread_mutex_lock(&cpu->mutex);
    pthread_cond_signal(&cpu->wake);
    pthread_mutex_unlock(&cpu->mutex);
}

void soft_lapic_written(struct soft_cpu *cpu)
{
    int vector = lapic_take_eoi(&cpu->lapic);

    if (vector >= 0)
        cpu->eoi_vector = vector;
    /* Another vector may pass now. */
    atomic_store_explicit(&cpu->poll, 1, memory_order_relaxed);
}

/* --- INIT and SIPI --- */

static void reset_segments(struct soft_cpu *cpu)
{
    for (unsigned i = 0; i < SOFT_SEG_COUNT; i++) {
        cpu->seg[i] = (struct soft_segment){.limit = 0xffff, .attributes = 0x93};
        if (i >= SOFT_FS)
            cpu->r[SOFT_REG_FSBASE + i - SOFT_FS] = 0;
    }
    cpu->seg[SOFT_CS].selector = 0xf000;
    cpu->seg[SOFT_CS].base = 0xffff0000;
    cpu->seg[SOFT_CS].attributes = 0x9b;
    cpu->ldt = (struct soft_segment){.limit = 0xffff, .attributes = 0x82};
    cpu->tr = (struct soft_segment){.limit = 0xffff, .attributes = 0x8b};
    cpu->gdt_base = cpu->idt_base = 0;
    cpu->gdt_limit = cpu->idt_limit = 0xffff;
}

void run_reset_registers(struct soft_cpu *cpu)
{
    memset(cpu->r, 0, sizeof(cpu->r));
    cpu->r[SOFT_RDX] = 0x600;
    cpu->rip = 0xfff0;
    cpu->flags = 0x200;
    cpu->rflags = 0;
    cpu->cpl = 0;
    cpu->cr0 = CR0_ET | CR0_NW | CR0_CD;
    cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->efer = 0;
    memset(cpu->dr, 0, sizeof(cpu->dr));
    cpu->dr[6] = UINT64_C(0xffff0ff0);
    cpu->dr[7] = 0x400;
    reset_segments(cpu);
    cpu->pending = SOFT_PENDING_NONE;
    cpu->is_halted = cpu->inhibit = cpu->nmi_blocked = cpu->db_pending = false;
    cpu->holds_traps = false;
    cpu->extint_vector = cpu->eoi_vector = -1;
    mmio_forget(cpu);
    mmu_flush_all(cpu);
    soft_update_mode(cpu);
}

static void take_init(struct soft_cpu *cpu)
{
    run_reset_registers(cpu);
    lapic_reset(&cpu->lapic);
    cpu->wait_for_sipi = cpu->index != 0;
}

static void take_sipi(struct soft_cpu *cpu)
{
    unsigned vector = lapic_sipi_vector(&cpu->lapic);

    if (!cpu->wait_for_sipi)
        return;
    cpu->wait_for_sipi = false;
    cpu->seg[SOFT_CS].selector = (uint16_t)(vector << 8);
    cpu->seg[SOFT_CS].base = vector << 12;
    cpu->rip = 0;
    soft_update_mode(cpu);
}

static void take_events(struct soft_cpu *cpu)
{
    unsigned events =
        lapic_take_events(&cpu->lapic, LAPIC_EVENT_INIT | LAPIC_EVENT_SIPI | LAPIC_EVENT_SMI);

    if (events & LAPIC_EVENT_INIT)
        take_init(cpu);
    if (events & LAPIC_EVENT_SIPI)
        take_sipi(cpu);
}

/* --- Interrupts --- */

static bool nmi_is_ready(const struct soft_cpu *cpu)
{
    return !cpu->nmi_blocked && lapic_has_events(&cpu->lapic, LAPIC_EVENT_NMI);
}

static bool extint_is_ready(const struct soft_cpu *cpu)
{
    return cpu->index == 0 && atomic_load(&cpu->vm->extint) && lapic_accepts_extint(&cpu->lapic);
}

static bool deliver_interrupt(struct soft_cpu *cpu, uint8_t vector)
{
    struct exception exception = {.vector = vector, .source = EXCEPTION_INTERRUPT, .rip = cpu->rip};

    cpu->is_halted = false;
    return exception_deliver(cpu, exception);
}

/* Notes why the interpreter stops; for vcpu_run's caller. */
static enum turn leave(struct accel_exit *exit, enum accel_exit_reason reason)
{
    *exit = (struct accel_exit){.reason = reason};
    return TURN_EXIT;
}

static enum turn take_interrupts(struct soft_cpu *cpu, struct accel_exit *exit)
{
    bool may_interrupt = cpu->rflags & RFLAGS_IF && !cpu->inhibit;
    int vector = lapic_pending(&cpu->lapic);
    bool delivered = true;

    cpu->irq_waiting = false;
    if (nmi_is_ready(cpu) && !cpu->inhibit) {
        lapic_take_events(&cpu->lapic, LAPIC_EVENT_NMI);
        delivered = deliver_interrupt(cpu, SOFT_NMI);
        cpu->nmi_blocked = true;
    } else if (cpu->extint_vector >= 0 && may_interrupt) {
        delivered = deliver_interrupt(cpu, (uint8_t)cpu->extint_vector);
        cpu->extint_vector = -1;
    } else if (may_interrupt && extint_is_ready(cpu) && cpu->extint_vector < 0) {
        return leave(exit, ACCEL_EXIT_EXTINT);
    } else if (may_interrupt && vector >= 0) {
        vector = lapic_acknowledge(&cpu->lapic);
        if (vector >= 0)
            delivered = deliver_interrupt(cpu, (uint8_t)vector);
    } else {
        cpu->irq_waiting = vector >= 0 || extint_is_ready(cpu) || cpu->extint_vector >= 0;
        return TURN_GO_ON;
    }
    /* There may be more of them. */
    atomic_store_explicit(&cpu->poll, 1, memory_order_relaxed);
    return delivered ? TURN_GO_ON : leave(exit, ACCEL_EXIT_SHUTDOWN);
}

/* --- Sleeping --- */

static bool is_woken(const struct soft_cpu *cpu)
{
    if (cpu->wait_for_sipi)
        return false;
    if (nmi_is_ready(cpu))
        return true;
    return cpu->rflags & RFLAGS_IF &&
           (lapic_pending(&cpu->lapic) >= 0 || cpu->extint_vector >= 0 || extint_is_ready(cpu));
}

static void sleep_until(struct soft_cpu *cpu, uint64_t deadline_ns)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000),
                             .tv_nsec = (long)(deadline_ns % 1000000000)};

    pthread_mutex_lock(&cpu->mutex);
    atomic_store(&cpu->is_idle, true);
    if (!atomic_load(&cpu->poll)) {
        if (deadline_ns == LAPIC_NO_DEADLINE)
            pthread_cond_wait(&cpu->wake, &cpu->mutex);
        else
            pthread_cond_timedwait(&cpu->wake, &cpu->mutex, &until);
    }
    atomic_store(&cpu->is_idle, false);
    pthread_mutex_unlock(&cpu->mutex);
    if (atomic_exchange(&cpu->missed_code, false))
        mmu_flush_all(cpu);
}

/* --- Running --- */

static enum turn take_pending(struct soft_cpu *cpu, struct accel_exit *exit)
{
    enum soft_pending pending = cpu->pending;

    cpu->pending = SOFT_PENDING_NONE;
    switch (pending) {
    case SOFT_PENDING_EXCEPTION:
        mmio_forget(cpu);
        if (!exception_deliver_pending(cpu))
            return leave(exit, ACCEL_EXIT_SHUTDOWN);
        return TURN_GO_ON;
    case SOFT_PENDING_EXIT:
        *exit = cpu->exit;
        return TURN_EXIT;
    default:
        return TURN_GO_ON;
    }
}

static enum turn leave_to_debugger(struct soft_cpu *cpu, struct accel_exit *exit, uint64_t dr6)
{
    leave(exit, ACCEL_EXIT_DEBUG);
    exit->debug.rip = cpu->rip + cpu->cs_base;
    exit->debug.dr6 = dr6;
    exit->debug.exception = SOFT_DB;
    return TURN_EXIT;
}

static enum turn deliver_debug(struct soft_cpu *cpu, struct accel_exit *exit, uint64_t dr6,
                               enum exception_source source)
{
    struct exception exception = {.vector = SOFT_DB, .source = source, .rip = cpu->rip};

    cpu->dr[6] = (cpu->dr[6] & ~UINT64_C(15)) | dr6;
    return exception_deliver(cpu, exception) ? TURN_GO_ON : leave(exit, ACCEL_EXIT_SHUTDOWN);
}

/* What stands at the end of a completed single step. */
static enum turn after_step(struct soft_cpu *cpu, struct accel_exit *exit, bool trap_flag)
{
    bool for_debugger = cpu->debug.control & KVM_GUESTDBG_ENABLE;
    uint64_t dr6 = (cpu->db_pending ? cpu->db_bits : 0) | (trap_flag ? DR6_BS : 0);
    bool debugger_steps = for_debugger && cpu->debug.control & KVM_GUESTDBG_SINGLESTEP;
    bool debugger_hit =
        for_debugger && cpu->debug.control & KVM_GUESTDBG_USE_HW_BP && cpu->db_pending;

    cpu->rflags &= ~RFLAGS_RF;
    /* Data breakpoints wait with the stack pointer; the step's own trap is lost. */
    if (cpu->holds_traps && !debugger_steps && !debugger_hit)
        return TURN_GO_ON;
    cpu->db_pending = false;
    cpu->db_bits = 0;
    if (debugger_steps || debugger_hit)
        return leave_to_debugger(cpu, exit, dr6 | (debugger_steps ? DR6_BS : 0));
    if (dr6)
        return deliver_debug(cpu, exit, dr6, EXCEPTION_TRAP);
    return TURN_GO_ON;
}

static enum turn step(struct soft_cpu *cpu, struct accel_exit *exit)
{
    bool trap_flag = cpu->rflags & RFLAGS_TF;
    uint64_t hits = cpu->is_stepping ? debug_instruction_hits(cpu) : 0;
    bool is_replay = cpu->replay_count;

    if (hits && !is_replay && !(cpu->rflags & RFLAGS_RF)) {
        if (cpu->debug.control & KVM_GUESTDBG_USE_HW_BP)
            return leave_to_debugger(cpu, exit, hits);
        return deliver_debug(cpu, exit, hits, EXCEPTION_FAULT);
    }
    if (!cpu->holds_traps) { /* what an instruction that faulted had met is forgotten */
        cpu->db_pending = false;
        cpu->db_bits = 0;
    }
    cpu->inhibit = cpu->holds_traps = cpu->no_trap = false;
    soft_step(cpu);
    if (cpu->pending != SOFT_PENDING_NONE)
        return take_pending(cpu, exit);
    mmio_forget(cpu);
    return after_step(cpu, exit, trap_flag && !cpu->no_trap);
}

static enum turn run(struct soft_cpu *cpu, struct accel_exit *exit)
{
    if (cpu->is_stepping || cpu->inhibit)
        return step(cpu, exit);
    soft_run(cpu);
    return take_pending(cpu, exit);
}

static void serve_requests(struct soft_cpu *cpu, uint32_t requests)
{
    if (requests & SOFT_REQUEST_FLUSH) {
        mmu_flush_all(cpu);
        block_flush_all(cpu);
    }
    if (requests & SOFT_REQUEST_CODE)
        block_serve_requests(cpu);
}

static void run_timer(struct soft_cpu *cpu)
{
    uint64_t deadline_ns = lapic_deadline_ns(&cpu->lapic);

    if (deadline_ns != LAPIC_NO_DEADLINE && deadline_ns <= clock_now_ns())
        lapic_run_timer(&cpu->lapic);
}

static enum turn turn(struct soft_cpu *cpu, struct accel_exit *exit)
{
    atomic_store(&cpu->poll, 0);
    uint32_t requests = atomic_exchange(&cpu->requests, 0);

    serve_requests(cpu, requests);
    if (cpu->eoi_vector >= 0) {
        leave(exit, ACCEL_EXIT_IOAPIC_EOI);
        exit->vector = (uint8_t)cpu->eoi_vector;
        cpu->eoi_vector = -1;
        soft_post(cpu, requests & SOFT_REQUEST_KICK);
        return TURN_EXIT;
    }
    if (requests & SOFT_REQUEST_KICK)
        return leave(exit, ACCEL_EXIT_INTR);
    take_events(cpu);
    run_timer(cpu);
    if (cpu->wait_for_sipi || (cpu->is_halted && !is_woken(cpu))) {
        sleep_until(cpu, lapic_deadline_ns(&cpu->lapic));
        return TURN_GO_ON;
    }
    cpu->is_halted = false;
    if (take_interrupts(cpu, exit) == TURN_EXIT)
        return TURN_EXIT;
    clock_arm(cpu->vm->clock, cpu->index, lapic_deadline_ns(&cpu->lapic));
    return run(cpu, exit);
}

void run_vcpu(struct soft_cpu *cpu, struct accel_exit *exit)
{
    enum turn result = TURN_GO_ON;

    fpu_enter(cpu);
    if (cpu->replay_open) {
        mmio_answered(cpu);
        result = step(cpu, exit);
    }
    while (result == TURN_GO_ON)
        result = turn(cpu, exit);
    fpu_leave(cpu);
}
