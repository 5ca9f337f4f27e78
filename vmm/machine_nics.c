/* SPDX-License-Identifier: MIT */
/* machine_nics: a machine's NICs by their places in the config, and what they tell. */
#include "devices/virtio_net.h"
#include "vmm/machine_private.h"
#include "vmm/options/nic_words.h"

static bool is_nic(const struct hotplug_slot *slot)
{
    return slot->device && slot->on_removed == hotplug_nic_removed;
}

struct device *machine_nic_device(const struct machine *machine, unsigned index)
{
    for (unsigned i = 0; i < PCI_SLOT_MAX; i++)
        if (is_nic(&machine->hotplug.slots[i]) && machine->hotplug.slots[i].index == index)
            return machine->hotplug.slots[i].device;
    return NULL;
}

void machine_nic_tell_addresses(struct nic_addresses *addresses)
{
    struct machine *machine = addresses->opaque;
    const struct machine_listener *listener = &machine->lifecycle.listener;
    if (listener->on_nic_addresses)
        listener->on_nic_addresses(listener->opaque,
                                   (unsigned)(addresses - machine->nic_addresses));
}

const struct net_filter *machine_read_filter(const struct machine *machine, unsigned index)
{
    struct device *device = machine_nic_device(machine, index);
    return device ? virtio_net_read_filter(device) : NULL;
}

void machine_nic_filter_changed(void *opaque, struct device *device)
{
    const struct machine *machine = opaque;
    unsigned slot = ((const struct pci_device *)device)->slot;
    unsigned index = machine->hotplug.slots[slot].index;
    char path[NIC_PATH_BYTES], backend[NIC_PATH_BYTES + 16];
    nic_words_path(machine->config, index, path);
    snprintf(backend, sizeof(backend), "%s/virtio-backend", path);
    machine_emit_event(
        machine, "NIC_RX_FILTER_CHANGED",
        json_pack("{s:s*,s:s}", "name", machine->config->nics[index].qdev_id, "path", backend));
}
