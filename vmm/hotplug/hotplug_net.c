/* SPDX-License-Identifier: MIT */
/* hotplug_net: networks that come and go, and NICs that move from one to another. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio_net.h"
#include "netbackends/net.h"
#include "vmm/hotplug/hotplug_private.h"
#include "vmm/machine_chardev.h"
#include "vmm/machine_private.h"
#include "vmm/netdev.h"
#include "vmm/options/options_private.h"

static bool is_named(const char *name, const char *wanted)
{
    return name && strcmp(name, wanted) == 0;
}

int machine_netdev_index(const struct machine *machine, const char *id)
{
    for (unsigned i = 0; i < machine->config->nic_count; i++)
        if (machine->backends[i] && is_named(machine->config->nics[i].netdev_id, id))
            return (int)i;
    return -1;
}

/* The entry of the NIC of that name, or -1. */
static int find_nic(const struct machine *machine, const char *id)
{
    for (unsigned i = 0; i < machine->config->nic_count; i++)
        if (machine->config->nics[i].has_device && is_named(machine->config->nics[i].qdev_id, id))
            return (int)i;
    return -1;
}

static struct hotplug_slot *slot_of(struct machine *machine, const struct device *device)
{
    return &machine->hotplug.slots[((const struct pci_device *)device)->slot];
}

/* Nothing of the entry is left: its place may be used again. */
static void free_entry(struct machine *machine, unsigned index)
{
    options_netdev_fini(&machine->config->nics[index]);
    memset(&machine->config->nics[index], 0, sizeof(machine->config->nics[index]));
}

/* The NIC has left its network, which goes on without it. */
static void forget_addresses(struct machine *machine, unsigned index)
{
    if (machine->backends[index])
        nic_addresses_clear(&machine->nic_addresses[index]);
}

void hotplug_nic_leaves(struct device *device)
{
    CHECK(virtio_net_swap_backend(device, NULL, NULL) == 0);
}

void hotplug_nic_removed(struct machine *machine, unsigned index)
{
    struct config_nic *config = &machine->config->nics[index];
    free(config->qdev_id);
    config->qdev_id = NULL;
    config->has_device = false;
    config->has_mac = false;
    forget_addresses(machine, index);
    if (!config->netdev_id)
        free_entry(machine, index);
}

static int take_entry(struct machine *machine, unsigned *index, struct error *err)
{
    struct vm_config *config = machine->config;
    unsigned i = 0;
    while (i < config->nic_count && (machine->backends[i] || machine->hotplug.netdevs_closing[i].is_closing ||
                                     config->nics[i].netdev_id || config->nics[i].has_device))
        i++;
    if (i == NIC_MAX)
        return error_set(err, ENOSPC, "the machine has %d networks already: remove one first",
                         NIC_MAX);
    config->nic_count = MAX(config->nic_count, i + 1);
    *index = i;
    return 0;
}

int machine_netdev_add(struct machine *machine, struct keyval *list, struct error *err)
{
    const char *id = keyval_get(list, "id"), *type = keyval_get(list, "type");
    struct config_nic config = {0};
    unsigned index = 0;
    if (!type || !id)
        return error_set(err, EINVAL, "Parameter '%s' is missing", type ? "id" : "type");
    if (!keyval_is_id(id) || strlen(id) > 63)
        return error_set(err, EINVAL, "Parameter 'id' expects an identifier");
    if (machine_netdev_index(machine, id) >= 0)
        return error_set(err, EEXIST, "Duplicate ID '%s' for netdev", id);
    int result = options_netdev_load(&config, list, err);
    for (unsigned i = 0; !result && i < config.user.guest_forward_count; i++)
        result = machine_guest_forward_target(machine, &config.user.guest_forwards[i], err);
    if (!result)
        result = take_entry(machine, &index, err);
    if (result) {
        options_netdev_fini(&config);
        return result;
    }
    machine->config->nics[index] = config;
    result = machine_open_backend(machine, index, err);
    if (result)
        free_entry(machine, index);
    else if (machine->lifecycle.state != MACHINE_RUNNING)
        net_hold(machine->backends[index], true);
    return result;
}

static void on_addresses_closed(struct nic_addresses *addresses)
{
    struct machine *machine = addresses->opaque;
    struct hotplug_closing *closing =
        &machine->hotplug.netdevs_closing[addresses - machine->nic_addresses];
    closing->is_closing = false;
    closing->on_done(closing->opaque, 0, NULL);
    hotplug_close_ends(machine);
}

static void on_backend_closed(void *opaque)
{
    nic_addresses_close(opaque, on_addresses_closed);
}

int machine_netdev_del(struct machine *machine, const char *id, machine_done_fn *on_done,
                       void *opaque, struct error *err)
{
    int index = machine_netdev_index(machine, id);
    if (index < 0)
        return error_set(err, ENODEV, "Device '%s' not found", id);
    struct config_nic *config = &machine->config->nics[index];
    struct net_backend *backend = machine->backends[index];
    struct device *nic = config->has_device ? machine_nic_device(machine, (unsigned)index) : NULL;
    if (nic) {
        int result = virtio_net_swap_backend(nic, NULL, err);
        if (result)
            return result;
    }
    struct nic_addresses *addresses = &machine->nic_addresses[index];
    bool is_news = address_snoop_clear(&addresses->snoop);
    machine->backends[index] = NULL;
    free(config->netdev_id);
    config->netdev_id = NULL;
    if (!config->has_device)
        free_entry(machine, (unsigned)index);
    else if (is_news)
        machine_nic_tell_addresses(addresses);
    machine->hotplug.netdevs_closing[index] = (struct hotplug_closing){true, on_done, opaque};
    hotplug_close_begins(machine);
    backend->ops->close(backend, on_backend_closed, addresses);
    return 0;
}

/* The part of an entry that belongs to the NIC and not to its network. */
static void move_nic(struct config_nic *from, struct config_nic *to)
{
    to->qdev_id = from->qdev_id;
    to->has_device = true;
    to->has_mac = from->has_mac;
    to->mtu = from->mtu;
    to->features_off = from->features_off;
    to->pci_slot = from->pci_slot;
    memcpy(to->mac, from->mac, sizeof(to->mac));
    from->qdev_id = NULL;
    from->has_device = false;
    from->has_mac = false;
    from->mtu = 0;
    from->features_off = 0;
}

int machine_nic_set_netdev(struct machine *machine, const char *nic, const char *netdev,
                           struct error *err)
{
    int from = find_nic(machine, nic), to = machine_netdev_index(machine, netdev);
    struct device *device = from < 0 ? NULL : machine_nic_device(machine, (unsigned)from);
    if (!device)
        return error_set(err, ENODEV, "Device '%s' not found", nic);
    if (to < 0)
        return error_set(err, ENODEV, "Device '%s' not found", netdev);
    struct config_nic *nics = machine->config->nics;
    if (from == to)
        return 0;
    if (nics[to].has_device)
        return error_set(err, EBUSY,
                         "Property 'virtio-net-pci.netdev' can't take value '%s', it's in use",
                         netdev);
    int result = virtio_net_swap_backend(device, machine->backends[to], err);
    if (result)
        return result;
    move_nic(&nics[from], &nics[to]);
    forget_addresses(machine, (unsigned)from);
    slot_of(machine, device)->index = (unsigned)to;
    machine_guard_nic(machine, (unsigned)to);
    if (!nics[from].netdev_id)
        free_entry(machine, (unsigned)from);
    virtio_net_announce(device);
    return 0;
}
