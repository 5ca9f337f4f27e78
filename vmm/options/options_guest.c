/* SPDX-License-Identifier: MIT */
/*
 * options_guest: -device virtio-balloon-pci, virtio-serial-pci with its ports, virtio-mem-pci; and
 * -object memory-backend-ram; and -add-fd.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fdset.h"
#include "devices/virtio_console.h"
#include "devices/virtio_mem.h"
#include "vmm/options/options_private.h"

int options_attach_balloon(struct options *options, struct keyval *device, struct error *err)
{
    struct config_balloon *balloon = &options->config->guest.balloon;
    if (balloon->is_present)
        return error_set(err, EEXIST, "%s: only one balloon device is supported", device->option);
    balloon->is_present = true;
    keyval_string(device, "id", &balloon->qdev_id);
    int result = options_read_slot(device, &balloon->pci_slot, err);
    if (!result)
        result = keyval_bool(device, "deflate-on-oom", &balloon->deflate_on_oom, err);
    if (!result)
        result = keyval_bool(device, "free-page-reporting", &balloon->free_page_reporting, err);
    if (!result)
        result = keyval_uint(device, "guest-stats-polling-interval", 0, UINT32_MAX,
                             &balloon->polling_s, err);
    return result;
}

int options_attach_serial_bus(struct options *options, struct keyval *device, struct error *err)
{
    struct config_guest *guest = &options->config->guest;
    uint64_t ports = VIRTIO_CONSOLE_PORTS_MAX;
    if (guest->serial_bus_count == CONFIG_SERIAL_BUS_MAX)
        return error_set(err, E2BIG, "%s: more than %d of them", device->option,
                         CONFIG_SERIAL_BUS_MAX);
    int result = keyval_uint(device, "max_ports", 1, VIRTIO_CONSOLE_PORTS_MAX, &ports, err);
    if (result)
        return result;
    struct config_serial_bus *bus = &guest->serial_buses[guest->serial_bus_count++];
    bus->port_count = (unsigned)ports;
    keyval_string(device, "id", &bus->qdev_id);
    return options_read_slot(device, &bus->pci_slot, err);
}

static bool is_taken(const struct config_guest *guest, unsigned bus, unsigned number)
{
    for (unsigned i = 0; i < guest->serial_port_count; i++)
        if (guest->serial_ports[i].bus == bus && guest->serial_ports[i].number == number)
            return true;
    return false;
}

/* The first free place; the first of all is kept for a console. port_count if there is none. */
static unsigned free_number(const struct config_guest *guest, unsigned bus, bool is_console)
{
    unsigned number = is_console ? 0 : 1;
    while (number < guest->serial_buses[bus].port_count && is_taken(guest, bus, number))
        number++;
    return number;
}

/* "ID.0" as QEMU names it, or "virtio-serial-bus.0" for the first; NULL: one with room. */
static int find_bus(const struct config_guest *guest, const struct keyval *device, bool is_console,
                    unsigned *bus, struct error *err)
{
    const char *name = keyval_get(device, "bus");
    char known[80];
    for (*bus = 0; *bus < guest->serial_bus_count; (*bus)++) {
        const char *id = guest->serial_buses[*bus].qdev_id;
        if (id)
            snprintf(known, sizeof(known), "%s.0", id);
        else
            snprintf(known, sizeof(known), "virtio-serial-bus.%u", *bus);
        if (name ? strcmp(name, known) == 0
                 : free_number(guest, *bus, is_console) < guest->serial_buses[*bus].port_count)
            return 0;
    }
    if (name)
        return error_set(err, ENOENT,
                         "%s: Bus '%s' not found; the bus of -device "
                         "virtio-serial-pci,id=ID is called ID.0",
                         device->option, name);
    return error_set(err, ENOENT,
                     "%s: No 'virtio-serial-bus' bus found for device '%s'; add "
                     "-device virtio-serial-pci",
                     device->option, keyval_get(device, "driver"));
}

static int choose_number(const struct config_guest *guest, const struct keyval *device,
                         struct config_serial_port *port, struct error *err)
{
    unsigned count = guest->serial_buses[port->bus].port_count;
    uint64_t number = free_number(guest, port->bus, port->is_console);
    int result = keyval_uint(device, "nr", 0, VIRTIO_CONSOLE_PORTS_MAX - 1, &number, err);
    if (result)
        return result;
    if (number == 0 && !port->is_console)
        return error_set(err, EINVAL,
                         "%s: Port number 0 on virtio-serial devices reserved for "
                         "virtconsole devices for backward compatibility.",
                         device->option);
    if (number >= count)
        return error_set(err, EINVAL,
                         "%s: the bus has ports 0 to %u; make max_ports= larger, or "
                         "add another virtio-serial-pci",
                         device->option, count - 1);
    if (is_taken(guest, port->bus, (unsigned)number))
        return error_set(err, EEXIST, "%s: virtio-serial-bus: A port already exists at id %u",
                         device->option, (unsigned)number);
    port->number = (unsigned)number;
    return 0;
}

int options_attach_serial_port(struct options *options, struct keyval *device, struct error *err)
{
    struct config_guest *guest = &options->config->guest;
    struct config_serial_port port = {.chardev = -1};
    const char *name = keyval_get(device, "name"), *chardev = keyval_get(device, "chardev");
    port.is_console = strcmp(keyval_get(device, "driver"), "virtconsole") == 0;
    if (guest->serial_port_count == CONFIG_SERIAL_PORT_MAX)
        return error_set(err, E2BIG, "%s: more than %d ports", device->option,
                         CONFIG_SERIAL_PORT_MAX);
    if (name && strlen(name) > VIRTIO_CONSOLE_NAME_MAX)
        return error_set(err, EINVAL, "%s: the name of a port has at most %d bytes", device->option,
                         VIRTIO_CONSOLE_NAME_MAX);
    if (!chardev)
        return error_set(err, EINVAL, "%s: say which chardev it is joined to: chardev=ID",
                         device->option);
    int result = find_bus(guest, device, port.is_console, &port.bus, err);
    if (!result)
        result = choose_number(guest, device, &port, err);
    if (!result)
        result =
            options_add_port_user(options, device->option, chardev, guest->serial_port_count, err);
    if (result)
        return result;
    keyval_string(device, "id", &port.qdev_id);
    keyval_string(device, "name", &port.name);
    guest->serial_ports[guest->serial_port_count++] = port;
    return 0;
}

int options_add_memory_backend(struct options *options, const struct keyval *list,
                               struct error *err)
{
    struct options_memory_backend *backend =
        &options->memory_backends[options->memory_backend_count];
    if (options->memory_backend_count == CONFIG_MEM_MAX)
        return error_set(err, E2BIG, "%s: more than %d memory backends", list->option,
                         CONFIG_MEM_MAX);
    int result = keyval_size(list, "size", 1, &backend->size_bytes, err);
    if (!result && !backend->size_bytes)
        result = error_set(err, EINVAL, "%s: can't create backend with size 0; add size=SIZE",
                           list->option);
    if (result)
        return result;
    keyval_string(list, "id", &backend->id);
    options->memory_backend_count++;
    return 0;
}

static struct options_memory_backend *find_backend(struct options *options, const char *id)
{
    for (unsigned i = 0; id && i < options->memory_backend_count; i++)
        if (strcmp(options->memory_backends[i].id, id) == 0)
            return &options->memory_backends[i];
    return NULL;
}

static int check_sizes(const struct config_mem *mem, const struct keyval *device, struct error *err)
{
    const char *option = device->option;
    if (mem->block_bytes < VIRTIO_MEM_BLOCK_MIN || !is_power_of_2(mem->block_bytes))
        return error_set(err, EINVAL,
                         "%s: 'block-size' property has to be a power of two of at "
                         "least 0x%llx",
                         option, (unsigned long long)VIRTIO_MEM_BLOCK_MIN);
    if (mem->size_bytes % mem->block_bytes || mem->size_bytes / GIB > RAM_MAX_GIB)
        return error_set(err, EINVAL,
                         "%s: the memory of its backend must be a multiple of "
                         "block-size (%llu bytes), and at most %d GiB",
                         option, (unsigned long long)mem->block_bytes, RAM_MAX_GIB);
    if (mem->requested_bytes % mem->block_bytes || mem->requested_bytes > mem->size_bytes)
        return error_set(err, EINVAL,
                         "%s: 'requested-size' has to be a multiple of block-size "
                         "and at most the size of the memory backend",
                         option);
    return 0;
}

int options_attach_mem(struct options *options, struct keyval *device, struct error *err)
{
    struct config_guest *guest = &options->config->guest;
    const char *memdev = keyval_get(device, "memdev");
    struct options_memory_backend *backend = find_backend(options, memdev);
    if (!memdev)
        return error_set(err, EINVAL,
                         "%s: 'memdev' property is not set; add -object "
                         "memory-backend-ram,id=ID,size=SIZE and memdev=ID",
                         device->option);
    if (!backend)
        return error_set(err, ENOENT, "%s: there is no -object memory-backend-ram with id=%s",
                         device->option, memdev);
    if (backend->is_used)
        return error_set(err, EBUSY, "%s: can't use already busy memdev: %s", device->option,
                         memdev);
    backend->is_used = true;
    struct config_mem *mem = &guest->mems[guest->mem_count++];
    mem->size_bytes = backend->size_bytes;
    mem->block_bytes = VIRTIO_MEM_BLOCK_DEFAULT;
    keyval_string(device, "id", &mem->qdev_id);
    keyval_string(device, "memdev", &mem->memdev);
    int result = options_read_slot(device, &mem->pci_slot, err);
    if (!result)
        result = keyval_size(device, "block-size", 1, &mem->block_bytes, err);
    if (!result)
        result = keyval_size(device, "requested-size", 1, &mem->requested_bytes, err);
    return result ? result : check_sizes(mem, device, err);
}

int options_finish_guest(struct options *options, struct error *err)
{
    const struct config_guest *guest = &options->config->guest;
    uint64_t total = options->config->ram_bytes;
    if (!guest->max_ram_bytes)
        return 0;
    for (unsigned i = 0; i < guest->mem_count; i++)
        total += guest->mems[i].size_bytes;
    if (total > guest->max_ram_bytes)
        return error_set(err, EINVAL,
                         "-m: memory and memory devices are %llu MiB together, more "
                         "than maxmem=; make it larger",
                         (unsigned long long)(total / MIB));
    return 0;
}

void options_guest_fini(struct config_guest *guest)
{
    free(guest->balloon.qdev_id);
    for (unsigned i = 0; i < guest->serial_bus_count; i++)
        free(guest->serial_buses[i].qdev_id);
    for (unsigned i = 0; i < guest->serial_port_count; i++) {
        free(guest->serial_ports[i].qdev_id);
        free(guest->serial_ports[i].name);
    }
    for (unsigned i = 0; i < guest->mem_count; i++) {
        free(guest->mems[i].qdev_id);
        free(guest->mems[i].memdev);
    }
}

int option_add_fd(struct options *options, const struct option_entry *entry, const char *argument,
                  struct error *err)
{
    (void)options, (void)entry;
    static const struct keyval_known known[] = {
        {"fd", NULL, NULL}, {"set", NULL, NULL}, {"opaque", NULL, NULL}, {0}};
    struct keyval list;
    uint64_t fd = UINT64_MAX, set = UINT64_MAX;
    int copy = -1, result = keyval_parse(&list, "-add-fd", argument, NULL, err);
    if (result)
        return result;
    result = keyval_check(&list, known, err);
    if (!result)
        result = keyval_uint(&list, "fd", 0, INT32_MAX, &fd, err);
    if (!result)
        result = keyval_uint(&list, "set", 0, INT64_MAX, &set, err);
    if (!result && (fd == UINT64_MAX || set == UINT64_MAX))
        result = error_set(err, EINVAL, "%s: say fd=NUMBER and set=NUMBER", list.option);
    if (!result && (copy = fcntl((int)fd, F_DUPFD_CLOEXEC, 3)) < 0)
        result = error_set_errno(err, errno, "%s: fd=%d", list.option, (int)fd);
    if (!result) {
        int64_t set_id = (int64_t)set;
        fdset_add(&set_id, copy, keyval_get(&list, "opaque"));
    }
    keyval_fini(&list);
    return result;
}
