/* SPDX-License-Identifier: MIT */
/*
 * lifecycle: running, pausing, resetting and ending a machine.
 *
 * Theory of operation. Every wish (a person's, a client's, the guest's) becomes an operation in one
 * queue and is worked off in order, by lifecycle_step, which runs once a loop turn while there is
 * something to do. An operation first parks the vCPUs and returns; each parked vCPU and, for a
 * reset, the timer that looks whether I/O is still in flight, queue the step again; when all is
 * quiet the operation acts, emits its events, then answers. So an event always precedes the reply
 * of the command that caused it. The first one has a kernel loaded, for which all wait but one: a
 * machine that goes on is told to run at once, and its vCPUs follow, as if they did the unpacking.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/pci_host.h"
#include "devices/virtio_pci.h"
#include "netbackends/net.h"
#include "vmm/machine_block.h"
#include "vmm/machine_inspect.h"
#include "vmm/machine_private.h"

#define IDLE_POLL_NS 1000000u /* how often a reset looks whether its devices' I/O has ended */

static void emit(struct machine *machine, enum machine_event event,
                 enum machine_shutdown_cause cause)
{
    const struct machine_listener *listener = &machine->lifecycle.listener;
    if (listener->on_event)
        listener->on_event(listener->opaque, event, cause);
}

static void tell_debugger(struct machine *machine, const struct lifecycle_op *op)
{
    const struct machine_debugger *debugger = &machine->lifecycle.debugger;
    if (!debugger->on_stopped)
        return;
    if (op && op->kind == LIFECYCLE_DEBUG)
        debugger->on_stopped(debugger->opaque, op->debug_cpu, &op->debug_exit);
    else
        debugger->on_stopped(debugger->opaque, 0, NULL);
}

static struct lifecycle_op *enqueue(struct machine *machine, enum lifecycle_kind kind,
                                    enum machine_shutdown_cause cause, machine_done_fn *on_done,
                                    void *opaque)
{
    struct lifecycle_op *op = calloc(1, sizeof(*op));
    CHECK(op);
    loop_check_thread(machine->loop);
    machine_take_io_threads(machine);
    *op = (struct lifecycle_op){.kind = kind, .cause = cause, .on_done = on_done, .opaque = opaque};
    list_push_back(&machine->lifecycle.ops, &op->node);
    loop_task_queue(&machine->lifecycle.step);
    return op;
}

static void hold_networks(struct machine *machine, bool is_held)
{
    for (unsigned i = 0; i < machine->config->nic_count; i++)
        if (machine->backends[i])
            net_hold(machine->backends[i], is_held);
}

static bool park_cpus(struct machine *machine)
{
    for (unsigned i = 0; i < machine->cpu_count; i++)
        vcpu_park(&machine->cpus[i].vcpu);
    return machine->cpus_parked == machine->cpu_count;
}

static bool park_all(struct machine *machine)
{
    if (!park_cpus(machine))
        return false;
    guest_clock_stop(&machine->clock);
    hold_networks(machine, true);
    return true;
}

static void resume_cpus(struct machine *machine)
{
    machine->lifecycle.is_still = false;
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        if (!machine->cpus[i].is_present)
            continue;
        machine->cpus_parked--;
        vcpu_resume(&machine->cpus[i].vcpu);
    }
}

static void resume_all(struct machine *machine)
{
    guest_clock_start(&machine->clock);
    hold_networks(machine, false);
    resume_cpus(machine);
}

static bool devices_are_idle(struct machine *machine)
{
    list_for_each(node, &machine->devices)
    {
        struct device *device = list_entry(node, struct device, node);
        if (machine_is_virtio(device) && !virtio_pci_is_idle(device))
            return false;
    }
    return true;
}

static void reset_devices(struct machine *machine)
{
    list_for_each(node, &machine->devices)
    {
        struct device *device = list_entry(node, struct device, node);
        device->ops->reset(device);
    }
    for (unsigned i = 0; i < machine->config->nic_count; i++)
        if (machine->backends[i]) {
            net_guest_reset(machine->backends[i]);
            nic_addresses_clear(&machine->nic_addresses[i]);
        }
}

/* The steps below return true when the operation is done; *result is then its answer. */

/* Also the end of a breakpoint. What another CPU hit meanwhile it hits again when it goes on. */
static bool step_stop(struct machine *machine, const struct lifecycle_op *op)
{
    if (machine->lifecycle.state != MACHINE_RUNNING)
        return true;
    if (!park_all(machine))
        return false;
    machine->lifecycle.state = op->kind == LIFECYCLE_IO_ERROR ? MACHINE_IO_ERROR : MACHINE_PAUSED;
    emit(machine, MACHINE_EVENT_STOP, 0);
    tell_debugger(machine, op);
    return true;
}

static bool step_cont(struct machine *machine, int *result, struct error *err)
{
    switch (machine->lifecycle.state) {
    case MACHINE_RUNNING:
        return true;
    case MACHINE_PRELAUNCH:
    case MACHINE_PAUSED:
    case MACHINE_IO_ERROR:
        break;
    case MACHINE_SHUTDOWN:
    case MACHINE_INTERNAL_ERROR:
    case MACHINE_GUEST_PANICKED:
        *result = error_set(err, EINVAL, "Resetting the Virtual Machine is required");
        return true;
    }
    if (!park_all(machine))
        return false;
    machine->lifecycle.state = MACHINE_RUNNING;
    emit(machine, MACHINE_EVENT_RESUME, 0);
    disk_policy_retry(machine);
    machine_when_loaded(machine, resume_all);
    return true;
}

/* Reads in flight still land in guest memory: they end before it becomes another machine's. */
static bool step_reset(struct machine *machine, struct lifecycle_op *op, int *result,
                       struct error *err)
{
    if (!park_all(machine))
        return false;
    if (!op->has_reset_devices) {
        hotplug_reset(machine);
        reset_devices(machine);
        disk_policy_forget(machine);
    }
    op->has_reset_devices = true;
    machine_release_delayed(machine);
    if (!devices_are_idle(machine) || machine->hotplug.closing) {
        loop_timer_arm(&machine->lifecycle.poll, loop_now_ns() + IDLE_POLL_NS);
        return false;
    }
    if (!op->is_set_up)
        *result = machine_set_up_boot(machine, err);
    op->is_set_up = true;
    if (!machine_is_loaded(machine))
        return false;
    emit(machine, MACHINE_EVENT_RESET, op->cause);
    if (machine->lifecycle.state == MACHINE_RUNNING)
        resume_all(machine);
    else if (machine->lifecycle.state != MACHINE_PRELAUNCH)
        machine->lifecycle.state = MACHINE_PAUSED;
    return true;
}

static void leave(struct machine *machine, int status)
{
    struct lifecycle *lifecycle = &machine->lifecycle;
    if (lifecycle->is_exiting)
        return;
    lifecycle->is_exiting = true;
    if (lifecycle->on_exit)
        lifecycle->on_exit(lifecycle->on_exit_opaque, status);
}

static bool step_shutdown(struct machine *machine, enum machine_shutdown_cause cause)
{
    struct lifecycle *lifecycle = &machine->lifecycle;
    if (!park_all(machine))
        return false;
    emit(machine, MACHINE_EVENT_SHUTDOWN, cause);
    bool stays = machine->config->no_shutdown && machine_shutdown_cause_is_guest(cause);
    if (lifecycle->state == MACHINE_RUNNING && stays)
        emit(machine, MACHINE_EVENT_STOP, 0);
    if (lifecycle->state != MACHINE_GUEST_PANICKED)
        lifecycle->state = MACHINE_SHUTDOWN;
    if (stays)
        tell_debugger(machine, NULL);
    else
        leave(machine, 0);
    return true;
}

static bool step_error(struct machine *machine)
{
    if (!park_all(machine))
        return false;
    machine->lifecycle.state = MACHINE_INTERNAL_ERROR;
    emit(machine, MACHINE_EVENT_STOP, 0);
    tell_debugger(machine, NULL);
    return true;
}

/*
 * Only the vCPUs stand still, and they go on when nothing else is to be done: one of them may have
 * parked for a reason of its own, whose operation comes after this one.
 */
static bool step_inspect(struct machine *machine)
{
    if (!park_cpus(machine))
        return false;
    machine->lifecycle.is_still = machine->lifecycle.state == MACHINE_RUNNING;
    return true;
}

static bool step(struct machine *machine, struct lifecycle_op *op, int *result, struct error *err)
{
    switch (op->kind) {
    case LIFECYCLE_IO_ERROR:
        machine->lifecycle.is_io_error_queued = false;
        return step_stop(machine, op);
    case LIFECYCLE_STOP:
    case LIFECYCLE_DEBUG:
        return step_stop(machine, op);
    case LIFECYCLE_CONT:
        return step_cont(machine, result, err);
    case LIFECYCLE_RESET:
        return step_reset(machine, op, result, err);
    case LIFECYCLE_SHUTDOWN:
        return step_shutdown(machine, op->cause);
    case LIFECYCLE_ERROR:
        return step_error(machine);
    case LIFECYCLE_INSPECT:
        return step_inspect(machine);
    }
    UNREACHABLE("lifecycle_kind");
}

static void on_step(struct loop_task *task)
{
    struct machine *machine = container_of(task, struct machine, lifecycle.step);
    struct list *ops = &machine->lifecycle.ops;
    machine_take_io_threads(machine);
    while (!list_is_empty(ops)) {
        struct lifecycle_op *op = list_entry(ops->next, struct lifecycle_op, node);
        if (op->kind != LIFECYCLE_CONT && !machine_is_loaded(machine))
            return;
        struct error err = {0};
        int result = 0;
        if (!step(machine, op, &result, &err))
            return;
        list_remove(&op->node);
        if (op->on_done)
            op->on_done(op->opaque, result, &err);
        free(op);
    }
    if (machine->lifecycle.is_still && machine->lifecycle.state == MACHINE_RUNNING)
        resume_cpus(machine);
}

static void on_poll(struct loop_timer *timer)
{
    struct machine *machine = container_of(timer, struct machine, lifecycle.poll);
    loop_task_queue(&machine->lifecycle.step);
}

/* The answer to a read goes into the low bytes at `data`. */
static void do_access(struct machine *machine, enum bus_space space, uint64_t address,
                      unsigned size, bool is_write, void *data)
{
    uint64_t value = 0;
    if (is_write) {
        memcpy(&value, data, size);
        bus_write(&machine->bus, space, address, size, value);
    } else {
        bus_read(&machine->bus, space, address, size, &value);
        memcpy(data, &value, size);
    }
}

/* May reach a device that lives on an I/O thread, through its registers or its configuration. */
static bool may_be_pci(const struct accel_exit *exit)
{
    if (exit->reason == ACCEL_EXIT_MMIO)
        return true;
    return exit->reason == ACCEL_EXIT_PIO && exit->pio.port >= PCI_HOST_ADDRESS_PORT &&
           exit->pio.port < PCI_HOST_ADDRESS_PORT + PCI_HOST_PORTS;
}

static void answer_exit(void *opaque, struct vcpu *vcpu, const struct accel_exit *exit)
{
    struct machine *machine = opaque;
    (void)vcpu;
    if (may_be_pci(exit))
        machine_take_io_threads(machine);
    switch (exit->reason) {
    case ACCEL_EXIT_PIO:
        for (uint32_t i = 0; i < exit->pio.count; i++)
            do_access(machine, BUS_PIO, exit->pio.port, exit->pio.size, exit->pio.is_write,
                      (char *)exit->pio.data + (size_t)i * exit->pio.size);
        break;
    case ACCEL_EXIT_MMIO:
        do_access(machine, BUS_MMIO, exit->mmio.gpa, exit->mmio.size, exit->mmio.is_write,
                  exit->mmio.data);
        break;
    case ACCEL_EXIT_IOAPIC_EOI:
        ioapic_eoi(machine->ioapic, exit->vector);
        break;
    default:
        UNREACHABLE("an exit that vcpu.c does not hand on");
    }
}

static uint8_t on_extint(void *opaque, struct vcpu *vcpu)
{
    struct machine *machine = opaque;
    (void)vcpu;
    return pic_acknowledge(machine->pic);
}

static void on_parked(void *opaque, struct vcpu *vcpu, const struct accel_exit *exit)
{
    struct machine *machine = opaque;
    machine->cpus_parked++;
    hotplug_cpu_parked(machine, vcpu->index);
    if (exit->reason == ACCEL_EXIT_SHUTDOWN) {
        log_info("CPU %u took a triple fault", vcpu->index);
        if (machine->config->no_reboot)
            enqueue(machine, LIFECYCLE_SHUTDOWN, SHUTDOWN_GUEST_TRIPLE_FAULT, NULL, NULL);
        else
            enqueue(machine, LIFECYCLE_RESET, SHUTDOWN_GUEST_TRIPLE_FAULT, NULL, NULL);
    } else if (exit->reason == ACCEL_EXIT_ERROR) {
        lifecycle_fail(machine, exit->text);
    } else if (exit->reason == ACCEL_EXIT_DEBUG) {
        struct lifecycle_op *op = enqueue(machine, LIFECYCLE_DEBUG, 0, NULL, NULL);
        op->debug_cpu = vcpu->index;
        op->debug_exit = *exit;
    }
    loop_task_queue(&machine->lifecycle.step);
}

const struct vcpu_handler lifecycle_vcpu_handler = {
    .on_exit = answer_exit,
    .on_extint = on_extint,
    .on_parked = on_parked,
};

int lifecycle_init(struct machine *machine, struct error *err)
{
    struct lifecycle *lifecycle = &machine->lifecycle;
    lifecycle->state = MACHINE_PRELAUNCH;
    list_init(&lifecycle->ops);
    /* After the devices' own draining, before replies are written. */
    loop_task_init(machine->loop, &lifecycle->step, LOOP_STAGE_COMPLETE, on_step);
    int result = loop_timer_init(machine->loop, &lifecycle->poll, on_poll);
    return result ? error_set_errno(err, -result, "cannot make a timer") : 0;
}

void lifecycle_close(struct machine *machine, void (*on_closed)(struct loop_timer *poll))
{
    struct lifecycle *lifecycle = &machine->lifecycle;
    for (struct list *node; (node = list_pop_front(&lifecycle->ops));)
        free(list_entry(node, struct lifecycle_op, node));
    loop_task_cancel(&lifecycle->step);
    loop_timer_close(&lifecycle->poll, on_closed);
}

void lifecycle_guest_reset(struct machine *machine)
{
    enqueue(machine, machine->config->no_reboot ? LIFECYCLE_SHUTDOWN : LIFECYCLE_RESET,
            SHUTDOWN_GUEST_RESET, NULL, NULL);
}

void lifecycle_guest_power_off(struct machine *machine)
{
    enqueue(machine, LIFECYCLE_SHUTDOWN, SHUTDOWN_GUEST_SHUTDOWN, NULL, NULL);
}

void lifecycle_guest_panic(struct machine *machine)
{
    emit(machine, MACHINE_EVENT_GUEST_PANICKED, SHUTDOWN_GUEST_PANIC);
    machine->lifecycle.state = MACHINE_GUEST_PANICKED;
    enqueue(machine, LIFECYCLE_SHUTDOWN, SHUTDOWN_GUEST_PANIC, NULL, NULL);
}

void lifecycle_fail(struct machine *machine, const char *why)
{
    log_error("%s", why);
    enqueue(machine, LIFECYCLE_ERROR, SHUTDOWN_HOST_ERROR, NULL, NULL);
}

void lifecycle_io_error(struct machine *machine)
{
    if (machine->lifecycle.is_io_error_queued)
        return;
    machine->lifecycle.is_io_error_queued = true;
    enqueue(machine, LIFECYCLE_IO_ERROR, 0, NULL, NULL);
}

void machine_set_listener(struct machine *machine, const struct machine_listener *listener)
{
    machine->lifecycle.listener = *listener;
}

void machine_set_debugger(struct machine *machine, const struct machine_debugger *debugger)
{
    machine->lifecycle.debugger = *debugger;
}

void machine_stop(struct machine *machine, machine_done_fn *on_done, void *opaque)
{
    enqueue(machine, LIFECYCLE_STOP, 0, on_done, opaque);
}

void machine_cont(struct machine *machine, machine_done_fn *on_done, void *opaque)
{
    enqueue(machine, LIFECYCLE_CONT, 0, on_done, opaque);
}

void machine_reset(struct machine *machine, enum machine_shutdown_cause cause,
                   machine_done_fn *on_done, void *opaque)
{
    enqueue(machine, LIFECYCLE_RESET, cause, on_done, opaque);
}

void machine_set_actions(struct machine *machine, bool no_reboot, bool no_shutdown)
{
    machine->config->no_reboot = no_reboot;
    machine->config->no_shutdown = no_shutdown;
}

void machine_inspect(struct machine *machine, machine_done_fn *on_done, void *opaque)
{
    enqueue(machine, LIFECYCLE_INSPECT, 0, on_done, opaque);
}

void machine_powerdown(struct machine *machine)
{
    acpi_pm_power_button(machine->acpi_pm);
    emit(machine, MACHINE_EVENT_POWERDOWN, 0);
}

void machine_quit(struct machine *machine, enum machine_shutdown_cause cause)
{
    enqueue(machine, LIFECYCLE_SHUTDOWN, cause, NULL, NULL);
}

void machine_on_exit(struct machine *machine, void (*on_exit_wanted)(void *opaque, int status),
                     void *opaque)
{
    machine->lifecycle.on_exit = on_exit_wanted;
    machine->lifecycle.on_exit_opaque = opaque;
}

enum machine_state machine_get_state(const struct machine *machine)
{
    return machine->lifecycle.state;
}
