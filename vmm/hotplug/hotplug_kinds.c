/* SPDX-License-Identifier: MIT */
/* hotplug_kinds: the drivers of device_add, what each needs beside itself, and its objects. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/hotplug/hotplug_private.h"
#include "vmm/machine_io_threads.h"
#include "vmm/machine_private.h"
#include "vmm/machine_throttle.h"
#include "vmm/options/file_nodes.h"
#include "vmm/options/options_private.h"

/* iothread=, of the device; 1 + its place, or 0 without one. */
static int find_io_thread(const struct machine *machine, const struct keyval *list,
                          unsigned *number, struct error *err)
{
    const char *id = keyval_get(list, "iothread");
    const struct config_guest *guest = &machine->config->guest;
    if (options_read_io_thread(guest, list, number))
        return 0;
    if (options_find_rng_object(guest, id) >= 0 || options_find_memory_backend(guest, id) >= 0)
        return error_set(err, EINVAL, "Invalid parameter type for 'iothread', expected: iothread");
    return error_set(err, ENODEV, "Device '%s' not found", id);
}

static int plug_disk(struct machine *machine, const struct keyval *list,
                     const struct virtio_pci_place *place, struct error *err)
{
    const char *name = keyval_get(list, "drive");
    if (!name)
        return error_set(err, EINVAL, "drive property not set");
    int index = machine_drive_index(machine, name);
    if (index < 0 && file_nodes_has(machine->config, name) &&
        (index = hotplug_open_file(machine, name, err)) < 0)
        return index;
    if (index < 0)
        return error_set(err, ENOENT, "Property 'virtio-blk-pci.drive' can't find value '%s'",
                         name);
    struct config_disk *config = &machine->config->disks[index];
    if (config->is_attached)
        return error_set(err, EBUSY, "Drive '%s' is already in use by another device", name);
    struct config_disk before = *config;
    config->serial = text_copy(before.serial);
    config->qdev_id = NULL;
    int result = find_io_thread(machine, list, &config->io_thread, err);
    if (!result)
        result = options_drive_device(config, list, err);
    config->pci_slot = place->slot > 0 ? (unsigned)place->slot : 0;
    if (!result)
        result = machine_plug_disk(machine, (unsigned)index, err);
    if (result) {
        free(config->serial);
        free(config->qdev_id);
        *config = before;
        return result;
    }
    free(before.serial);
    free(before.qdev_id);
    config->is_attached = true;
    return 0;
}

static int plug_nic(struct machine *machine, const struct keyval *list,
                    const struct virtio_pci_place *place, struct error *err)
{
    const char *name = keyval_get(list, "netdev");
    if (!name)
        return error_set(err, EINVAL,
                         "Property 'virtio-net-pci.netdev' is missing: add a netdev first");
    int index = machine_netdev_index(machine, name);
    if (index < 0)
        return error_set(err, ENOENT, "Property 'virtio-net-pci.netdev' can't find value '%s'",
                         name);
    struct config_nic *config = &machine->config->nics[index];
    if (config->has_device)
        return error_set(err, EBUSY,
                         "Property 'virtio-net-pci.netdev' can't take value '%s', it's in use",
                         name);
    config->has_mac = false;
    int result = options_net_device(config, list, err);
    config->pci_slot = place->slot > 0 ? (unsigned)place->slot : 0;
    if (!result)
        result = machine_plug_nic(machine, (unsigned)index, err);
    config->has_device = !result;
    if (result) {
        free(config->qdev_id);
        config->qdev_id = NULL;
    }
    return result;
}

void hotplug_rng_removed(struct machine *machine, unsigned object)
{
    (void)machine, (void)object;
}

static int plug_rng(struct machine *machine, const struct keyval *list,
                    const struct virtio_pci_place *place, struct error *err)
{
    const char *source = keyval_get(list, "rng");
    int object = source ? options_find_rng_object(&machine->config->guest, source) : -1;
    if (source && object < 0)
        return error_set(err, ENOENT, "Property 'virtio-rng-pci.rng' can't find value '%s'",
                         source);
    return machine_plug_rng(machine, place, object, err);
}

static const struct hotplug_kind kinds[] = {
    {"virtio-blk-pci|virtio-blk|virtio-blk-pci-non-transitional", NULL, plug_disk, true},
    {"virtio-net-pci|virtio-net|virtio-net-pci-non-transitional", NULL, plug_nic, true},
    {"virtio-rng-pci|virtio-rng|virtio-rng-pci-non-transitional", NULL, plug_rng, true},
    {"virtio-balloon-pci|virtio-balloon|virtio-balloon-pci-non-transitional", NULL,
     hotplug_plug_balloon, true},
    {"virtio-serial-pci|virtio-serial|virtio-serial-pci-non-transitional", NULL,
     hotplug_plug_serial_bus, true},
    {"virtio-mem-pci|virtio-mem", NULL, hotplug_plug_mem, true},
    {"virtserialport|virtconsole", NULL, hotplug_plug_port, false},
};

static const char one_level[] = "a CPU's place is a socket, a core and a thread; leave it out";

static const struct keyval_known cpu_known[] = {
    {"driver", NULL, NULL},      {"id", NULL, NULL},
    {"socket-id", NULL, NULL},   {"core-id", NULL, NULL},
    {"thread-id", NULL, NULL},   {"die-id", "0", one_level},
    {"node-id", "0", one_level}, {0}};

static const struct hotplug_kind cpu_kind = {"cpu", cpu_known, hotplug_plug_cpu, false};

const struct hotplug_kind *hotplug_find_kind(const char *driver)
{
    static const char cpu_suffix[] = "-x86_64-cpu";
    size_t length = strlen(driver), suffix = strlen(cpu_suffix);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (keyval_name_index(kinds[i].names, driver) >= 0)
            return &kinds[i];
    bool is_cpu = length > suffix && strcmp(driver + length - suffix, cpu_suffix) == 0;
    return is_cpu ? &cpu_kind : NULL;
}

static void forget(char **id)
{
    free(*id);
    *id = NULL;
}

int machine_object_add(struct machine *machine, struct keyval *list, struct error *err)
{
    struct config_guest *guest = &machine->config->guest;
    int result = options_object_load(guest, list, err);
    int thread = result ? -1 : options_find_io_thread(guest, keyval_get(list, "id"));
    int group = result ? -1 : options_find_throttle_group(guest, keyval_get(list, "id"));
    if (thread >= 0) {
        result = machine_add_io_thread(machine, (unsigned)thread, err);
        if (result)
            forget(&guest->io_threads[thread]);
    } else if (group >= 0) {
        result = machine_start_throttle_group(machine, (unsigned)group, err);
        if (result)
            options_throttle_group_fini(&guest->throttle_groups[group]);
    }
    return result;
}

static bool rng_is_used(const struct machine *machine, int object)
{
    for (unsigned i = 0; i < PCI_SLOT_MAX; i++) {
        const struct hotplug_slot *slot = &machine->hotplug.slots[i];
        if (slot->device && slot->on_removed == hotplug_rng_removed &&
            slot->index == (unsigned)object)
            return true;
    }
    return false;
}

int machine_object_del(struct machine *machine, const char *id, struct error *err)
{
    struct config_guest *guest = &machine->config->guest;
    int rng = options_find_rng_object(guest, id), backend = options_find_memory_backend(guest, id);
    int thread = options_find_io_thread(guest, id);
    int group = options_find_throttle_group(guest, id);
    if (rng < 0 && backend < 0 && thread < 0 && group < 0)
        return error_set(err, ENOENT, "object '%s' not found", id);
    if ((rng >= 0 && rng_is_used(machine, rng)) ||
        (backend >= 0 && options_memory_backend_is_used(guest, id)) ||
        (thread >= 0 && machine_free_io_thread(machine, (unsigned)thread)) ||
        (group >= 0 && machine_throttle_group_is_used(machine, (unsigned)group)))
        return error_set(err, EBUSY, "object '%s' is in use, can not be deleted", id);
    if (rng >= 0) {
        forget(&guest->rng_objects[rng]);
    } else if (thread >= 0) {
        machine_end_io_thread(machine, (unsigned)thread);
        forget(&guest->io_threads[thread]);
    } else if (group >= 0) {
        machine_end_throttle_group(machine, (unsigned)group);
        options_throttle_group_fini(&guest->throttle_groups[group]);
    } else {
        free(guest->memory_backends[backend].id);
        free(guest->memory_backends[backend].path);
        guest->memory_backends[backend] = (struct config_memory_backend){0};
    }
    return 0;
}
