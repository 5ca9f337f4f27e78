/* SPDX-License-Identifier: MIT */
/*
 * hotplug_guest: balloons, buses of serial ports with their ports, and memory devices by
 * device_add. A port is no PCI device: it comes and goes at once, and its bus tells the guest.
 */
#include <errno.h>
#include <string.h>

#include "vmm/hotplug/hotplug_private.h"
#include "vmm/machine_chardev.h"
#include "vmm/machine_private.h"
#include "vmm/options/options_private.h"

int hotplug_plug_balloon(struct machine *machine, const struct keyval *list,
                         const struct virtio_pci_place *place, struct error *err)
{
    struct config_guest *guest = &machine->config->guest;
    (void)place;
    if (guest->balloon.is_present)
        return error_set(err, EEXIST, "Only one balloon device is supported");
    if (machine->has_pinned_memory)
        return error_set(
            err, EBUSY,
            "the guest's memory is pinned for its disks because of -mem-prealloc: start "
            "the machine without it, or with its balloon");
    int result = options_balloon_load(guest, list, err);
    if (!result)
        result = machine_plug_balloon(machine, err);
    if (result)
        options_balloon_fini(&guest->balloon);
    return result;
}

int hotplug_plug_serial_bus(struct machine *machine, const struct keyval *list,
                            const struct virtio_pci_place *place, struct error *err)
{
    struct config_guest *guest = &machine->config->guest;
    unsigned index;
    (void)place;
    int result = options_serial_bus_load(guest, list, &index, err);
    if (result)
        return result;
    result = machine_plug_bus(machine, index, err);
    if (result)
        options_serial_bus_fini(&guest->serial_buses[index]);
    return result;
}

static int find_chardev(const struct machine *machine, const char *id, int *index,
                        struct error *err)
{
    const struct vm_config *config = machine->config;
    for (unsigned i = 0; i < config->chardev_count; i++) {
        const char *other = config->chardevs[i].id;
        *index = (int)i;
        if (other && strcmp(other, id) == 0 && machine->chardevs[i])
            return 0;
    }
    return error_set(err, ENOENT, "Property 'virtserialport.chardev' can't find value '%s'", id);
}

int hotplug_plug_port(struct machine *machine, const struct keyval *list,
                      const struct virtio_pci_place *place, struct error *err)
{
    struct config_guest *guest = &machine->config->guest;
    const char *chardev = keyval_get(list, "chardev");
    unsigned index;
    int chardev_index = -1;
    (void)place;
    int result = chardev ? find_chardev(machine, chardev, &chardev_index, err) : 0;
    if (!result)
        result = options_serial_port_load(guest, list, &index, err);
    if (result)
        return result;
    guest->serial_ports[index].chardev = chardev_index;
    result = machine_plug_port(machine, index, err);
    if (result)
        options_serial_port_fini(&guest->serial_ports[index]);
    return result;
}

int hotplug_find_port(const struct machine *machine, const char *id)
{
    const struct config_guest *guest = &machine->config->guest;
    for (unsigned i = 0; i < guest->serial_port_count; i++)
        if (guest->serial_ports[i].qdev_id && strcmp(guest->serial_ports[i].qdev_id, id) == 0)
            return (int)i;
    return -1;
}

bool hotplug_is_mem(const struct machine *machine, const char *id)
{
    const struct config_guest *guest = &machine->config->guest;
    for (unsigned i = 0; i < guest->mem_count; i++)
        if (guest->mems[i].qdev_id && strcmp(guest->mems[i].qdev_id, id) == 0)
            return true;
    return false;
}

int hotplug_plug_mem(struct machine *machine, const struct keyval *list,
                     const struct virtio_pci_place *place, struct error *err)
{
    struct config_guest *guest = &machine->config->guest;
    unsigned index;
    (void)place;
    int result = options_mem_load(guest, list, &index, err);
    if (result)
        return result;
    result = machine_plug_mem(machine, index, err);
    if (result)
        options_mem_fini(&guest->mems[--guest->mem_count]);
    return result;
}
