/* SPDX-License-Identifier: MIT */
/*
 * hotplug: devices that come and go.
 *
 * Theory of operation. A new device sits in its PCI slot at once, and a bit with a GPE tells the
 * guest. To take one away the guest is asked in the same way, and answers when it likes by ejecting
 * the slot (or does so unasked). Then the device leaves the bus at once and closes, which waits for
 * its requests; then its backend may close; then DEVICE_DELETED is told. Where there is no guest to
 * ask, because the machine has not run or is being reset, the device goes without being asked.
 * Everything that closes is counted, so that a reset and the end of the machine wait for it.
 */
#include "vmm/hotplug/hotplug.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "disk/disk.h"
#include "vmm/hotplug/hotplug_private.h"
#include "vmm/machine_private.h"
#include "vmm/options/options_private.h"

/* A device that has left its slot and closes. */
struct removal {
    struct list node;
    struct machine *machine;
    char id[64];
    bool is_virtio;
    void (*on_removed)(struct machine *machine, unsigned index);
    unsigned index;
};

bool hotplug_has_guest(const struct machine *machine)
{
    return machine->lifecycle.state != MACHINE_PRELAUNCH;
}

void hotplug_close_begins(struct machine *machine)
{
    machine->hotplug.closing++;
}

void hotplug_close_ends(struct machine *machine)
{
    struct hotplug *hotplug = &machine->hotplug;
    void (*on_settled)(struct machine *) = hotplug->on_settled;
    CHECK(hotplug->closing);
    if (--hotplug->closing || !on_settled)
        return;
    hotplug->on_settled = NULL;
    on_settled(machine);
}

void hotplug_when_settled(struct machine *machine, void (*on_settled)(struct machine *machine))
{
    if (machine->hotplug.closing)
        machine->hotplug.on_settled = on_settled;
    else
        on_settled(machine);
}

/* As QEMU: first the part behind the transport, then the device. */
void hotplug_tell_deleted(const struct machine *machine, const char *id, bool is_virtio)
{
    char path[160];
    if (!*id)
        return;
    snprintf(path, sizeof(path), "/machine/peripheral/%s/virtio-backend", id);
    if (is_virtio)
        machine_emit_event(machine, "DEVICE_DELETED", json_pack("{s:s}", "path", path));
    snprintf(path, sizeof(path), "/machine/peripheral/%s", id);
    machine_emit_event(machine, "DEVICE_DELETED",
                       json_pack("{s:s,s:s}", "device", id, "path", path));
}

static void finish_removal(struct removal *removal)
{
    struct machine *machine = removal->machine;
    list_remove(&removal->node);
    hotplug_tell_deleted(machine, removal->id, removal->is_virtio);
    free(removal);
    hotplug_close_ends(machine);
}

static void on_image_closed(void *opaque, int result)
{
    struct removal *removal = opaque;
    if (result)
        log_error("closing the disk of device '%s' failed: %s", removal->id, strerror(-result));
    finish_removal(removal);
}

static void on_device_closed(void *opaque)
{
    struct removal *removal = opaque;
    struct disk *disk = NULL;
    if (removal->on_removed == hotplug_drive_removed)
        disk = hotplug_take_image(removal->machine, removal->index);
    if (removal->on_removed)
        removal->on_removed(removal->machine, removal->index);
    if (disk)
        disk_close(disk, on_image_closed, removal);
    else
        finish_removal(removal);
}

static void remove_device(struct machine *machine, unsigned number)
{
    struct hotplug_slot *slot = &machine->hotplug.slots[number];
    struct device *device = slot->device;
    struct removal *removal = calloc(1, sizeof(*removal));
    CHECK(removal);
    *removal = (struct removal){.machine = machine,
                                .is_virtio = machine_is_virtio(device),
                                .on_removed = slot->on_removed,
                                .index = slot->index};
    snprintf(removal->id, sizeof(removal->id), "%s", device->id);
    list_push_back(&machine->hotplug.removals, &removal->node);
    list_remove(&device->node);
    if (slot->on_removed == hotplug_nic_removed)
        hotplug_nic_leaves(device);
    *slot = (struct hotplug_slot){0};
    acpi_hotplug_slot_forget(machine->hotplug.acpi, number);
    hotplug_close_begins(machine);
    device->ops->close(device, on_device_closed, removal);
}

static void on_slot_ejected(void *opaque, unsigned number)
{
    struct machine *machine = opaque;
    machine_take_io_threads(machine);
    if (machine->hotplug.slots[number].device)
        remove_device(machine, number);
}

static const struct acpi_hotplug_ops acpi_ops = {on_slot_ejected, hotplug_cpu_ejected,
                                                 hotplug_cpu_ost};

int hotplug_make(struct machine *machine, struct error *err)
{
    struct hotplug *hotplug = &machine->hotplug;
    int result = acpi_hotplug_create(&machine->bus, machine->acpi_pm, &acpi_ops, machine,
                                     &hotplug->acpi, err);
    if (result)
        return result;
    machine_add_device(machine, &hotplug->acpi->device);
    for (unsigned i = 0; i < machine->config->cpus; i++)
        acpi_hotplug_cpu_added(hotplug->acpi, i, false);
    return 0;
}

void hotplug_reset(struct machine *machine)
{
    for (unsigned i = 0; i < PCI_SLOT_MAX; i++)
        if (machine->hotplug.slots[i].is_asked)
            remove_device(machine, i);
    hotplug_cpus_reset(machine);
}

void hotplug_fini(struct machine *machine)
{
    CHECK(!machine->hotplug.closing);
}

bool hotplug_has_device(const struct machine *machine, const char *id)
{
    list_for_each(node, &machine->devices)
    {
        if (strcmp(list_entry(node, struct device, node)->id, id) == 0)
            return true;
    }
    list_for_each(node, &machine->hotplug.removals)
    {
        if (strcmp(list_entry(node, struct removal, node)->id, id) == 0)
            return true;
    }
    return hotplug_find_cpu(machine, id) >= 0 || hotplug_find_port(machine, id) >= 0;
}

static int check_id(const struct machine *machine, const char *id, struct error *err)
{
    if (!id)
        return 0;
    if (!keyval_is_id(id) || strlen(id) > 63)
        return error_set(err, EINVAL, "Parameter 'id' expects an identifier");
    if (hotplug_has_device(machine, id))
        return error_set(err, EEXIST, "Duplicate device ID '%s'", id);
    return 0;
}

static int check_keys(struct keyval *list, const struct hotplug_kind *kind, const char *driver,
                      struct error *err)
{
    const char *real = driver, *bus = keyval_get(list, "bus");
    const struct keyval_known *known =
        kind->known ? kind->known : options_device_known(driver, &real);
    CHECK(known);
    if (kind->is_pci && bus && strcmp(bus, "pcie.0") != 0 && strcmp(bus, "pci.0") != 0)
        return error_set(err, EINVAL, "Bus '%s' not found", bus);
    for (unsigned i = 0; i < list->count; i++) {
        const struct keyval_known *entry = known;
        while (entry->key && strcmp(entry->key, list->pairs[i].key) != 0)
            entry++;
        if (!entry->key)
            return error_set(err, EINVAL, "Property '%.*s.%s' not found", (int)strcspn(real, "|"),
                             real, list->pairs[i].key);
    }
    return keyval_check(list, known, err);
}

/* Who has the slot, for people. */
static int check_slot(const struct machine *machine, unsigned number, const char *driver,
                      struct error *err)
{
    const struct pci_device *other = machine->pci_bus.devices[number];
    bool is_full = true;
    for (unsigned i = 0; i < PCI_SLOT_MAX; i++)
        is_full &= machine->pci_bus.devices[i] != NULL;
    if (!number && is_full)
        return error_set(err, ENOSPC,
                         "PCI: no slot/function available for %s, all in use or "
                         "reserved",
                         driver);
    if (!number || !other)
        return 0;
    return error_set(err, EBUSY, "PCI: slot %u function 0 not available for %s, in use by %s,id=%s",
                     number, driver, pci_kind(other), other->device.id);
}

int machine_device_add(struct machine *machine, struct keyval *list, struct error *err)
{
    const char *driver = keyval_get(list, "driver"), *id = keyval_get(list, "id");
    unsigned slot = 0;
    if (!driver)
        return error_set(err, EINVAL, "Parameter 'driver' is missing");
    const struct hotplug_kind *kind = hotplug_find_kind(driver);
    if (!kind)
        return error_set(err, EINVAL, "'%s' is not a valid device model name", driver);
    int result = check_id(machine, id, err);
    if (!result)
        result = check_keys(list, kind, driver, err);
    if (!result && kind->is_pci)
        result = options_read_slot(list, &slot, err);
    if (!result && kind->is_pci)
        result = check_slot(machine, slot, driver, err);
    if (result)
        return result;
    const struct virtio_pci_place place = machine_place(machine, id, slot);
    return kind->plug(machine, list, &place, err);
}

static int ask(struct machine *machine, unsigned number, struct error *err)
{
    struct hotplug_slot *slot = &machine->hotplug.slots[number];
    if (!hotplug_has_guest(machine)) {
        remove_device(machine, number);
        return 0;
    }
    /* One that was starting up when it was asked has missed it. */
    if (slot->is_asked && loop_now_ns() - slot->asked_ns < HOTPLUG_ASK_NS)
        return error_set(err, EBUSY, "Device %s is already in the process of unplug",
                         slot->device->id);
    slot->is_asked = true;
    slot->asked_ns = loop_now_ns();
    acpi_hotplug_slot_unplug(machine->hotplug.acpi, number);
    return 0;
}

int machine_device_del(struct machine *machine, const char *id, struct error *err)
{
    static const char prefix[] = "/machine/peripheral/";
    const char *name = strncmp(id, prefix, strlen(prefix)) == 0 ? id + strlen(prefix) : id;
    for (unsigned i = 0; i < PCI_SLOT_MAX && *name; i++) {
        const struct device *device = machine->hotplug.slots[i].device;
        if (device && strcmp(device->id, name) == 0)
            return ask(machine, i, err);
    }
    int cpu = hotplug_find_cpu(machine, name);
    if (cpu >= 0)
        return hotplug_unplug_cpu(machine, (unsigned)cpu, err);
    int port = hotplug_find_port(machine, name);
    if (port >= 0) {
        machine_unplug_port(machine, (unsigned)port);
        return 0;
    }
    if (hotplug_is_mem(machine, name))
        return error_set(err, ENOTSUP,
                         "virtio based memory devices cannot be unplugged: set the requested-size "
                         "of '%s' to 0 and the guest gives its memory back",
                         name);
    if (*name && hotplug_has_device(machine, name))
        return error_set(err, EBUSY, "Device %s is already in the process of unplug", name);
    return error_set(err, ENODEV, "Device '%s' not found", id);
}
