/* SPDX-License-Identifier: MIT */
/*
 * machine_close: takes the machine apart, backwards, as a chain of asynchronous closes: devices,
 * disks, I/O threads, backends, chardevs, vCPUs, clock; each step starts the next from its
 * on_closed.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "disk/disk.h"
#include "netbackends/net.h"
#include "vmm/machine_block.h"
#include "vmm/machine_io_threads.h"
#include "vmm/machine_private.h"
#include "vmm/machine_throttle.h"

static void free_machine(void *opaque)
{
    struct machine *machine = opaque;
    struct closing closing = machine->closing;
    boot_close(&machine->boot);
    firmware_close(&machine->firmware);
    irq_fini(&machine->irq);
    bus_fini(&machine->bus);
    vcpu_group_fini(&machine->vcpu_group);
    for (unsigned i = 0; i < machine->cpu_count; i++)
        vcpu_fini(&machine->cpus[i].vcpu);
    machine->accel_ops->vm_destroy(machine->vm);
    machine_free_guest(machine);
    memory_fini(&machine->memory);
    hotplug_fini(machine);
    free(machine->cpus);
    free(machine->disks);
    free(machine->disk_policies);
    free(machine->backends);
    free(machine->nic_addresses);
    free(machine);
    closing_tell(closing);
}

static void on_lifecycle_closed(struct loop_timer *poll)
{
    struct machine *machine = container_of(poll, struct machine, lifecycle.poll);
    guest_clock_close(&machine->clock, free_machine, machine);
}

static void close_lifecycle(struct machine *machine)
{
    lifecycle_close(machine, on_lifecycle_closed);
}

static void close_clock(struct machine *machine)
{
    machine_stop_loading(machine, close_lifecycle);
}

static void on_cpu_closed(struct loop_event *event)
{
    struct machine_cpu *cpu = container_of(event, struct machine_cpu, vcpu.exit_event);
    struct machine *machine = cpu->vcpu.opaque;
    if (--machine->cpus_parked == 0)
        close_clock(machine);
}

static void close_cpus(struct machine *machine)
{
    for (unsigned i = 0; i < machine->cpu_count; i++)
        vcpu_close(&machine->cpus[i].vcpu, on_cpu_closed);
}

static void close_next_chardev(void *opaque)
{
    struct machine *machine = opaque;
    for (unsigned i = 0; i < CONFIG_CHARDEV_MAX; i++) {
        struct chardev *chardev = machine->chardevs[i];
        if (!chardev)
            continue;
        machine->chardevs[i] = NULL;
        chardev_close(chardev, close_next_chardev, machine);
        return;
    }
    close_cpus(machine);
}

static void close_next_backend(struct machine *machine);

static void on_addresses_closed(struct nic_addresses *addresses)
{
    close_next_backend(addresses->opaque);
}

static void on_backend_closed(void *opaque)
{
    nic_addresses_close(opaque, on_addresses_closed);
}

static void close_next_backend(struct machine *machine)
{
    for (unsigned i = 0; i < machine->config->nic_count; i++) {
        struct net_backend *backend = machine->backends[i];
        if (!backend)
            continue;
        machine->backends[i] = NULL;
        backend->ops->close(backend, on_backend_closed, &machine->nic_addresses[i]);
        return;
    }
    close_next_chardev(machine);
}

static void close_next_disk(struct machine *machine);

static void on_disk_closed(void *opaque, int result)
{
    if (result)
        log_error("closing a disk failed: %s", strerror(-result));
    close_next_disk(opaque);
}

static void close_next_disk(struct machine *machine)
{
    for (unsigned i = 0; i < machine->config->disk_count; i++) {
        struct disk *disk = machine->disks[i];
        if (!disk)
            continue;
        machine->disks[i] = NULL;
        disk_close(disk, on_disk_closed, machine);
        return;
    }
    machine_end_throttle_groups(machine);
    machine_close_io_threads(machine, close_next_backend);
}

/* Jobs may still copy what the devices left. */
static void close_block(struct machine *machine)
{
    machine_close_block(machine, close_next_disk);
}

static void close_next_device(void *opaque)
{
    struct machine *machine = opaque;
    if (list_is_empty(&machine->devices)) {
        hotplug_when_settled(machine, close_block);
        return;
    }
    struct device *device = list_entry(machine->devices.prev, struct device, node);
    list_remove(&device->node);
    device->ops->close(device, close_next_device, machine);
}

void machine_close(struct machine *machine, void (*on_closed)(void *opaque), void *opaque)
{
    CHECK(machine->cpus_parked == machine->cpu_count);
    machine_take_io_threads(machine);
    machine_release_delayed(machine);
    hotplug_end_openings(machine);
    machine->closing = (struct closing){on_closed, opaque};
    machine_close_guest(machine, close_next_device);
}
