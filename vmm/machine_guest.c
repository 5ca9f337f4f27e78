/* SPDX-License-Identifier: MIT */
/*
 * machine_guest: makes balloon, memory devices and virtio ports, asks the balloon for statistics,
 * and tells clients what the guest does with them.
 */
#include "vmm/machine_guest.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "devices/virtio_balloon.h"
#include "devices/virtio_console.h"
#include "devices/virtio_mem.h"
#include "vmm/machine_private.h"
#include "vmm/options/options_private.h"

_Static_assert(MACHINE_BALLOON_STATS == VIRTIO_BALLOON_STATS, "one table of statistics");

static void tell(struct event_throttle *throttle, const char *name, json_t *data)
{
    machine_emit_event(container_of(throttle, struct machine, guest.throttle), name, data);
}

/* --- the balloon --- */

static void on_balloon_changed(void *opaque)
{
    struct machine *machine = opaque;
    const struct device *device = machine->guest.balloon;
    if (device)
        event_throttle_emit(
            &machine->guest.throttle, "BALLOON_CHANGE", "",
            json_pack("{s:I}", "actual", (json_int_t)virtio_balloon_actual(device)));
}

static void arm_poll(struct machine_guest *guest)
{
    if (guest->is_closing)
        return;
    if (guest->polling_s && guest->balloon)
        loop_timer_arm(&guest->poll, loop_now_ns() + guest->polling_s * UINT64_C(1000000000));
    else
        loop_timer_disarm(&guest->poll);
}

static void on_poll(struct loop_timer *timer)
{
    struct machine_guest *guest = container_of(timer, struct machine_guest, poll);
    if (guest->balloon)
        virtio_balloon_ask_stats(guest->balloon);
    arm_poll(guest);
}

static void on_balloon_stats(void *opaque)
{
    struct machine *machine = opaque;
    machine->guest.updated_s = time(NULL);
}

static void on_balloon_removed(struct machine *machine, unsigned index)
{
    (void)index;
    machine->guest.balloon = NULL;
    arm_poll(&machine->guest);
    options_balloon_fini(&machine->config->guest.balloon);
}

int machine_plug_balloon(struct machine *machine, struct error *err)
{
    const struct config_balloon *config = &machine->config->guest.balloon;
    const struct virtio_balloon_options options = {
        .ram_bytes = machine->memory.size,
        .deflate_on_oom = config->deflate_on_oom,
        .free_page_reporting = config->free_page_reporting,
        .on_changed = on_balloon_changed,
        .on_stats = on_balloon_stats,
        .opaque = machine,
    };
    const struct virtio_pci_place place = machine_place(machine, config->qdev_id, config->pci_slot);
    int result = virtio_balloon_create(&place, &options, &machine->guest.balloon, err);
    if (result)
        return result;
    machine_add_pci_device(machine, machine->guest.balloon, on_balloon_removed, 0);
    machine->guest.polling_s = config->polling_s;
    arm_poll(&machine->guest);
    return 0;
}

bool machine_get_balloon(const struct machine *machine, struct machine_balloon *out)
{
    const struct machine_guest *guest = &machine->guest;
    if (!guest->balloon)
        return false;
    *out = (struct machine_balloon){.actual_bytes = virtio_balloon_actual(guest->balloon),
                                    .updated_s = guest->updated_s,
                                    .polling_s = guest->polling_s};
    memcpy(out->stats, virtio_balloon_stats(guest->balloon), sizeof(out->stats));
    return true;
}

int machine_set_balloon(struct machine *machine, uint64_t bytes)
{
    if (!machine->guest.balloon)
        return -ENODEV;
    virtio_balloon_set_target(machine->guest.balloon, bytes);
    return 0;
}

int machine_set_balloon_polling(struct machine *machine, uint64_t period_s)
{
    if (!machine->guest.balloon)
        return -ENODEV;
    machine->guest.polling_s = period_s;
    arm_poll(&machine->guest);
    return 0;
}

/* --- ports --- */

/* The config's entry of a port, or -1. */
static int find_port(const struct machine *machine, unsigned bus, unsigned number)
{
    const struct config_guest *config = &machine->config->guest;
    for (unsigned i = 0; i < config->serial_port_count; i++)
        if (config->serial_ports[i].is_present && config->serial_ports[i].bus == bus &&
            config->serial_ports[i].number == number)
            return (int)i;
    return -1;
}

static void on_guest_open(void *opaque, unsigned number, bool is_open)
{
    struct machine_bus *bus = opaque;
    struct machine *machine = bus->machine;
    int index = find_port(machine, (unsigned)(bus - machine->guest.buses), number);
    const char *id = index < 0 ? NULL : machine->config->guest.serial_ports[index].qdev_id;
    if (id)
        event_throttle_emit(&machine->guest.throttle, "VSERPORT_CHANGE", id,
                            json_pack("{s:b,s:s}", "open", is_open, "id", id));
}

void machine_unplug_port(struct machine *machine, unsigned index)
{
    struct config_serial_port *config = &machine->config->guest.serial_ports[index];
    struct machine_port *port = &machine->guest.ports[index];
    struct device *bus = machine->guest.buses[config->bus].device;
    if (bus)
        virtio_console_remove_port(bus, config->number);
    if (port->backend)
        chardev_detach(port->backend);
    port->backend = NULL;
    hotplug_tell_deleted(machine, config->qdev_id ? config->qdev_id : "", false);
    options_serial_port_fini(config);
}

/* Its ports went with it. */
static void on_bus_removed(struct machine *machine, unsigned index)
{
    struct config_guest *config = &machine->config->guest;
    machine->guest.buses[index].device = NULL;
    for (unsigned i = 0; i < config->serial_port_count; i++)
        if (config->serial_ports[i].is_present && config->serial_ports[i].bus == index)
            machine_unplug_port(machine, i);
    options_serial_bus_fini(&config->serial_buses[index]);
}

int machine_plug_bus(struct machine *machine, unsigned index, struct error *err)
{
    const struct config_serial_bus *config = &machine->config->guest.serial_buses[index];
    struct machine_bus *bus = &machine->guest.buses[index];
    bus->machine = machine;
    const struct virtio_console_options options = {
        .port_count = config->port_count, .on_guest_open = on_guest_open, .opaque = bus};
    const struct virtio_pci_place place = machine_place(machine, config->qdev_id, config->pci_slot);
    int result = virtio_console_create(&place, &options, &bus->device, err);
    if (!result)
        machine_add_pci_device(machine, bus->device, on_bus_removed, index);
    return result;
}

int machine_plug_port(struct machine *machine, unsigned index, struct error *err)
{
    const struct config_serial_port *config = &machine->config->guest.serial_ports[index];
    struct virtio_console_port_options options = {.is_console = config->is_console,
                                                  .name = config->name};
    int result = 0;
    if (config->chardev >= 0)
        result = chardev_attach(machine->chardevs[config->chardev], &options.backend, err);
    if (result)
        return result;
    result = virtio_console_add_port(machine->guest.buses[config->bus].device, config->number,
                                     &options, err);
    if (result && options.backend)
        chardev_detach(options.backend);
    else
        machine->guest.ports[index].backend = options.backend;
    return result;
}

bool machine_port_is_open(const struct machine *machine, unsigned index)
{
    const struct config_serial_port *config = &machine->config->guest.serial_ports[index];
    const struct device *bus = machine->guest.buses[config->bus].device;
    return config->is_present && bus && virtio_console_is_open(bus, config->number);
}

bool machine_resize_console(struct machine *machine, const char *chardev, unsigned columns,
                            unsigned rows)
{
    const struct vm_config *config = machine->config;
    for (unsigned i = 0; i < config->guest.serial_port_count; i++) {
        const struct config_serial_port *port = &config->guest.serial_ports[i];
        struct device *bus = machine->guest.buses[port->bus].device;
        const char *id = port->chardev < 0 ? NULL : config->chardevs[port->chardev].id;
        if (!port->is_console || !bus || !id || strcmp(id, chardev) != 0)
            continue;
        virtio_console_resize(bus, port->number, columns, rows);
        return true;
    }
    return false;
}

/* --- memory devices --- */

static bool make_usable(void *opaque, uint64_t usable_bytes)
{
    struct machine_mem_device *mem = opaque;
    machine_take_io_threads(mem->machine); /* they look at the memory map */
    return mem_region_extend(&mem->region, usable_bytes) == 0;
}

static void on_mem_size_changed(void *opaque)
{
    const struct machine_mem_device *mem = opaque;
    struct machine *machine = mem->machine;
    unsigned index = (unsigned)(mem - machine->guest.mems);
    const char *id = machine->config->guest.mems[index].qdev_id;
    struct machine_mem info;
    char path[128];
    if (!machine_get_mem(machine, index, &info))
        return;
    snprintf(path, sizeof(path), id ? "/machine/peripheral/%s" : "/machine/peripheral-anon/mem%s",
             id ? id : "");
    event_throttle_emit(&machine->guest.throttle, "MEMORY_DEVICE_SIZE_CHANGE", path,
                        json_pack("{s:s*,s:I,s:s}", "id", id, "size",
                                  (json_int_t)info.plugged_bytes, "qom-path", path));
}

static const char *backing_path(const struct machine *machine, const char *memdev)
{
    const struct config_guest *config = &machine->config->guest;
    int backend = options_find_memory_backend(config, memdev);
    return backend < 0 ? NULL : config->memory_backends[backend].path;
}

static int make_mem_device(struct machine *machine, unsigned index, struct error *err)
{
    const struct config_mem *config = &machine->config->guest.mems[index];
    struct machine_mem_device *mem = &machine->guest.mems[index];
    const struct virtio_mem_options options = {
        .gpa = mem->region.gpa,
        .size_bytes = config->size_bytes,
        .block_bytes = config->block_bytes,
        .requested_bytes = config->requested_bytes,
        .make_usable = make_usable,
        .on_size_changed = on_mem_size_changed,
        .opaque = mem,
    };
    const struct virtio_pci_place place = machine_place(machine, config->qdev_id, config->pci_slot);
    int result = virtio_mem_create(&place, &options, &mem->device, err);
    if (result)
        return result;
    /* Not one of those that may be unplugged: the guest's memory would go with it. */
    machine_add_device(machine, mem->device);
    if (hotplug_has_guest(machine))
        acpi_hotplug_slot_added(machine->hotplug.acpi,
                                ((const struct pci_device *)mem->device)->slot);
    return 0;
}

static int make_mem(struct machine *machine, unsigned index, uint64_t gpa, struct error *err)
{
    const struct config_mem *config = &machine->config->guest.mems[index];
    struct machine_mem_device *mem = &machine->guest.mems[index];
    machine_take_io_threads(machine); /* they look at the memory map */
    int result = mem_region_init(&mem->region, machine->vm, &machine->memory.guest,
                                 MACHINE_MEM_SLOT + index * MEM_REGION_SLOTS, gpa,
                                 config->size_bytes, backing_path(machine, config->memdev), err);
    if (result)
        return result;
    mem->machine = machine;
    mem->is_mapped = true;
    return make_mem_device(machine, index, err);
}

static int make_first_mem(struct machine *machine, unsigned index, struct error *err)
{
    uint64_t gpa = machine->memory.device_end;
    machine->memory.device_end +=
        align_up(machine->config->guest.mems[index].size_bytes, MEM_REGION_ALIGN);
    return make_mem(machine, index, gpa, err);
}

/* The guest is told at the start where memory may come, since BARs lie behind it. */
static void reserve_mem(struct machine *machine)
{
    const struct config_guest *config = &machine->config->guest;
    uint64_t there = machine->memory.size;
    for (unsigned i = 0; i < config->mem_count; i++)
        there += config->mems[i].size_bytes;
    machine->guest.mem_base = machine->guest.mem_end = machine->memory.device_end;
    if (config->max_ram_bytes > there)
        machine->guest.mem_end += align_up(config->max_ram_bytes - there, MEM_REGION_ALIGN);
    machine->memory.device_end = machine->guest.mem_end;
}

int machine_plug_mem(struct machine *machine, unsigned index, struct error *err)
{
    struct machine_guest *guest = &machine->guest;
    uint64_t bytes = align_up(machine->config->guest.mems[index].size_bytes, MEM_REGION_ALIGN);
    if (guest->mems[index].is_mapped)
        return error_set(err, EBUSY, "the place of a memory device is not free again");
    if (bytes > guest->mem_end - guest->mem_base)
        return error_set(
            err, ENOSPC,
            "the configuration is not prepared for memory devices: of -m maxmem=, %llu "
            "MiB are left; start the machine with a larger one",
            (unsigned long long)((guest->mem_end - guest->mem_base) / MIB));
    int result = make_mem(machine, index, guest->mem_base, err);
    if (!result)
        guest->mem_base += bytes;
    else if (guest->mems[index].is_mapped)
        mem_region_fini(&guest->mems[index].region);
    if (result)
        guest->mems[index] = (struct machine_mem_device){0};
    return result;
}

bool machine_get_mem(const struct machine *machine, unsigned index, struct machine_mem *out)
{
    struct virtio_mem_info info;
    if (!machine->guest.mems[index].device)
        return false;
    virtio_mem_get_info(machine->guest.mems[index].device, &info);
    *out = (struct machine_mem){info.gpa, info.size_bytes, info.block_bytes, info.requested_bytes,
                                info.plugged_bytes};
    return true;
}

int machine_request_mem(struct machine *machine, unsigned index, uint64_t bytes, struct error *err)
{
    return virtio_mem_request(machine->guest.mems[index].device, bytes, err);
}

/* --- all of them --- */

int machine_init_guest(struct machine *machine, struct error *err)
{
    struct machine_guest *guest = &machine->guest;
    int result = event_throttle_init(&guest->throttle, machine->loop, tell);
    if (!result)
        result = loop_timer_init(machine->loop, &guest->poll, on_poll);
    return result ? error_set_errno(err, -result, "cannot make a timer") : 0;
}

int machine_make_guest(struct machine *machine, struct error *err)
{
    const struct config_guest *config = &machine->config->guest;
    int result = config->balloon.is_present ? machine_plug_balloon(machine, err) : 0;
    for (unsigned i = 0; i < config->serial_bus_count && !result; i++)
        result = machine_plug_bus(machine, i, err);
    for (unsigned i = 0; i < config->serial_port_count && !result; i++)
        result = machine_plug_port(machine, i, err);
    for (unsigned i = 0; i < config->mem_count && !result; i++)
        result = make_first_mem(machine, i, err);
    if (!result)
        reserve_mem(machine);
    return result;
}

static void on_throttle_closed(struct event_throttle *throttle)
{
    struct machine *machine = container_of(throttle, struct machine, guest.throttle);
    machine->guest.on_closed(machine);
}

static void on_poll_closed(struct loop_timer *timer)
{
    struct machine_guest *guest = container_of(timer, struct machine_guest, poll);
    event_throttle_close(&guest->throttle, on_throttle_closed);
}

void machine_close_guest(struct machine *machine, void (*on_closed)(void *opaque))
{
    machine->guest.is_closing = true;
    machine->guest.throttle.is_closing = true;
    machine->guest.on_closed = on_closed;
    loop_timer_close(&machine->guest.poll, on_poll_closed);
}

void machine_free_guest(struct machine *machine)
{
    for (unsigned i = 0; i < CONFIG_MEM_MAX; i++)
        if (machine->guest.mems[i].is_mapped)
            mem_region_fini(&machine->guest.mems[i].region);
}
