/* SPDX-License-Identifier: MIT */
/* machine_devices: the machine's PCI devices over their backends, at the start and by hot-plug. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio_blk.h"
#include "devices/virtio_net.h"
#include "devices/virtio_rng.h"
#include "vmm/machine_io_threads.h"
#include "vmm/machine_private.h"
#include "vmm/options/nic_words.h"

struct virtio_pci_place machine_place(struct machine *machine, const char *id, unsigned pci_slot)
{
    return (struct virtio_pci_place){
        .loop = machine->loop,
        .mem = &machine->memory.guest,
        .pci_bus = &machine->pci_bus,
        .slot = pci_slot ? (int)pci_slot : -1,
        .id = id ? id : "",
    };
}

void machine_add_device(struct machine *machine, struct device *device)
{
    list_push_back(&machine->devices, &device->node);
}

unsigned machine_add_pci_device(struct machine *machine, struct device *device,
                                void (*on_removed)(struct machine *machine, unsigned index),
                                unsigned index)
{
    unsigned slot = ((const struct pci_device *)device)->slot;
    machine_add_device(machine, device);
    machine->hotplug.slots[slot] =
        (struct hotplug_slot){.device = device, .on_removed = on_removed, .index = index};
    if (hotplug_has_guest(machine))
        acpi_hotplug_slot_added(machine->hotplug.acpi, slot);
    return slot;
}

int machine_plug_disk(struct machine *machine, unsigned index, struct error *err)
{
    const struct config_disk *config = &machine->config->disks[index];
    struct virtio_pci_place place = machine_place(machine, config->qdev_id, config->pci_slot);
    struct disk_policy *policy = &machine->disk_policies[index];
    *policy = (struct disk_policy){.machine = machine, .drive = index};
    const struct virtio_blk_options options = {.serial = config->serial,
                                               .queue_count = config->queue_count,
                                               .on_error = disk_policy_on_error,
                                               .on_error_opaque = policy};
    int result = machine_place_disk(machine, index, err);
    if (result)
        return result;
    place.loop = machine_drive_loop(machine, index);
    result = virtio_blk_create(&place, machine->disks[index], &options, &policy->device, err);
    if (result)
        return result;
    machine->disk_slots[index] =
        machine_add_pci_device(machine, policy->device, hotplug_drive_removed, index);
    return 0;
}

void machine_guard_nic(struct machine *machine, unsigned index)
{
    const struct config_nic *config = &machine->config->nics[index];
    if (config->antispoof && machine->backends[index])
        nic_addresses_guard(&machine->nic_addresses[index], config->mac);
}

int machine_plug_nic(struct machine *machine, unsigned index, struct error *err)
{
    struct config_nic *config = &machine->config->nics[index];
    const struct virtio_pci_place place = machine_place(machine, config->qdev_id, config->pci_slot);
    struct virtio_net_options options = {.mtu = config->mtu,
                                         .features_off = config->features_off,
                                         .on_filter_changed = machine_nic_filter_changed,
                                         .opaque = machine};
    struct device *device;
    nic_words_mac(machine->config, index, options.mac);
    memcpy(config->mac, options.mac, sizeof(config->mac));
    config->has_mac = true; /* it keeps it where it moves to another network */
    machine_guard_nic(machine, index);
    int result = virtio_net_create(&place, machine->backends[index], &options, &device, err);
    if (!result)
        machine_add_pci_device(machine, device, hotplug_nic_removed, index);
    return result;
}

int machine_plug_rng(struct machine *machine, const struct virtio_pci_place *place, int object,
                     struct error *err)
{
    struct device *device;
    int result = virtio_rng_create(place, &device, err);
    if (!result)
        machine_add_pci_device(machine, device, hotplug_rng_removed, (unsigned)object);
    return result;
}

int machine_make_disks(struct machine *machine, struct error *err)
{
    int result = 0;
    for (unsigned i = 0; i < machine->config->disk_count && !result; i++)
        if (machine->config->disks[i].is_attached)
            result = machine_plug_disk(machine, i, err);
    return result;
}

int machine_make_nics(struct machine *machine, struct error *err)
{
    int result = 0;
    for (unsigned i = 0; i < machine->config->nic_count && !result; i++)
        if (machine->config->nics[i].has_device)
            result = machine_plug_nic(machine, i, err);
    return result;
}

int machine_make_rngs(struct machine *machine, struct error *err)
{
    int result = 0;
    for (unsigned i = 0; i < machine->config->rng_count && !result; i++) {
        const struct config_rng *config = &machine->config->rngs[i];
        const struct virtio_pci_place place =
            machine_place(machine, config->qdev_id, config->pci_slot);
        result = machine_plug_rng(machine, &place, config->object, err);
    }
    return result;
}
