/* SPDX-License-Identifier: MIT */
/* machine_query: what can be asked of a machine: names, parts, counters; and what it tells. */
#include <stdio.h>
#include <string.h>

#include "devices/virtio_pci.h"
#include "vmm/machine_private.h"

const char *machine_state_name(enum machine_state state)
{
    static const char *const names[] = {
        [MACHINE_PRELAUNCH] = "prelaunch",
        [MACHINE_RUNNING] = "running",
        [MACHINE_PAUSED] = "paused",
        [MACHINE_SHUTDOWN] = "shutdown",
        [MACHINE_IO_ERROR] = "io-error",
        [MACHINE_INTERNAL_ERROR] = "internal-error",
        [MACHINE_GUEST_PANICKED] = "guest-panicked",
    };
    return names[state];
}

const char *machine_shutdown_cause_name(enum machine_shutdown_cause cause)
{
    static const char *const names[] = {
        [SHUTDOWN_HOST_QMP_QUIT] = "host-qmp-quit",
        [SHUTDOWN_HOST_QMP_SYSTEM_RESET] = "host-qmp-system-reset",
        [SHUTDOWN_HOST_SIGNAL] = "host-signal",
        [SHUTDOWN_HOST_UI] = "host-ui",
        [SHUTDOWN_HOST_ERROR] = "host-error",
        [SHUTDOWN_GUEST_SHUTDOWN] = "guest-shutdown",
        [SHUTDOWN_GUEST_RESET] = "guest-reset",
        [SHUTDOWN_GUEST_PANIC] = "guest-panic",
        [SHUTDOWN_GUEST_TRIPLE_FAULT] = "guest-reset",
    };
    return names[cause];
}

const char *machine_shutdown_cause_detail(enum machine_shutdown_cause cause)
{
    return cause == SHUTDOWN_GUEST_TRIPLE_FAULT ? "triple-fault" : NULL;
}

bool machine_shutdown_cause_is_guest(enum machine_shutdown_cause cause)
{
    return cause >= SHUTDOWN_GUEST_SHUTDOWN;
}

const struct vm_config *machine_config(const struct machine *machine)
{
    return machine->config;
}

const char *machine_accel_name(const struct machine *machine)
{
    return machine->accel_ops->name;
}

int machine_offered_cpuid(const struct machine *machine, struct accel_cpuid *out)
{
    return machine->accel_ops->supported_cpuid(machine->vm, out);
}

struct accel_vcpu *machine_accel_vcpu(const struct machine *machine, unsigned index)
{
    return machine->cpus[index].vcpu.accel;
}

const struct guest_mem *machine_guest_mem(const struct machine *machine)
{
    return &machine->memory.guest;
}

const char *machine_accel_why(const struct machine *machine)
{
    return machine->accel_why;
}

struct disk *machine_disk(const struct machine *machine, unsigned index)
{
    CHECK(index < machine->config->disk_count);
    return machine->disks[index];
}

int machine_disk_error(const struct machine *machine, unsigned index)
{
    CHECK(index < machine->config->disk_count);
    return machine->disk_policies[index].held_error;
}

struct net_backend *machine_net_backend(const struct machine *machine, unsigned index)
{
    CHECK(index < machine->config->nic_count);
    return machine->backends[index];
}

const struct address_snoop *machine_nic_addresses(const struct machine *machine, unsigned index)
{
    CHECK(index < machine->config->nic_count);
    return &machine->nic_addresses[index].snoop;
}

struct chardev *machine_chardev(const struct machine *machine, unsigned index)
{
    CHECK(index < machine->config->chardev_count);
    return machine->chardevs[index];
}

bool machine_has_cpu(const struct machine *machine, int64_t index)
{
    return index >= 0 && index < machine->cpu_count && machine->cpus[index].is_present;
}

void machine_get_cpu(const struct machine *machine, unsigned index, struct machine_cpu_info *out)
{
    const struct vm_config *config = machine->config;
    CHECK(index < machine->cpu_count);
    *out = (struct machine_cpu_info){
        .index = index,
        .socket = index / (config->cores * config->threads),
        .core = index / config->threads % config->cores,
        .thread = index % config->threads,
        .thread_id = atomic_load(&machine->cpus[index].vcpu.thread_id),
        .is_present = machine->cpus[index].is_present,
        .id = machine->cpus[index].id,
    };
}

void machine_emit_event(const struct machine *machine, const char *name, json_t *data)
{
    const struct machine_listener *listener = &machine->lifecycle.listener;
    if (listener->on_named_event)
        listener->on_named_event(listener->opaque, name, data);
    json_decref(data);
}

typedef void emit_fn(void *opaque, const char *group, const char *name, uint64_t value);

static void emit_exits(const struct machine *machine, emit_fn *emit, void *opaque)
{
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        const struct vcpu *vcpu = &machine->cpus[i].vcpu;
        if (!machine->cpus[i].is_present)
            continue;
        char group[32], name[48];
        snprintf(group, sizeof(group), "vcpu%u", i);
        for (int reason = 0; reason < ACCEL_EXIT_REASON_COUNT; reason++) {
            const char *what = vcpu_exit_name((enum accel_exit_reason)reason);
            snprintf(name, sizeof(name), "%s-exits", what);
            emit(opaque, group, name, vcpu->stats[reason].count);
            snprintf(name, sizeof(name), "%s-ns", what);
            emit(opaque, group, name, vcpu->stats[reason].total_ns);
        }
    }
}

struct bus_walk {
    emit_fn *emit;
    void *opaque;
};

static void emit_count(void *opaque, const char *name, uint64_t count)
{
    const struct bus_walk *walk = opaque;
    walk->emit(walk->opaque, "bus", name, count);
}

static void emit_queue(const struct device *device, unsigned index, emit_fn *emit, void *opaque)
{
    const struct virtqueue_stats *stats = virtio_pci_queue_stats(device, index);
    const struct pci_device *pci = (const struct pci_device *)device;
    char group[128];
    if (*device->id)
        snprintf(group, sizeof(group), "%s.queue%u", device->id, index);
    else
        snprintf(group, sizeof(group), "%s.%u.queue%u", device->ops->kind, pci->slot, index);
    emit(opaque, group, "kicks", stats->kicks);
    emit(opaque, group, "chains", stats->chains);
    emit(opaque, group, "interrupts", stats->interrupts);
    emit(opaque, group, "suppressed", stats->suppressed);
}

void machine_for_each_stat(const struct machine *machine, emit_fn *emit, void *opaque)
{
    emit(opaque, "loop", "turns", machine->loop->turns);
    emit_exits(machine, emit, opaque);
    bus_for_each_count(&machine->bus, emit_count, &(struct bus_walk){emit, opaque});
    list_for_each(node, &machine->devices)
    {
        const struct device *device = list_entry(node, struct device, node);
        if (!machine_is_virtio(device))
            continue;
        for (unsigned i = 0; i < virtio_pci_queue_count(device); i++)
            emit_queue(device, i, emit, opaque);
    }
}
