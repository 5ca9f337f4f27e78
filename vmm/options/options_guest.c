/* SPDX-License-Identifier: MIT */
/*
 * options_guest: -device virtio-balloon-pci, virtio-serial-pci with its ports, virtio-mem-pci; and
 * -add-fd.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fdset.h"
#include "devices/virtio_console.h"
#include "devices/virtio_mem.h"
#include "vmm/options/options_groups.h"
#include "vmm/options/options_private.h"

int options_balloon_load(struct config_guest *guest, const struct keyval *device, struct error *err)
{
    struct config_balloon *balloon = &guest->balloon;
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

int options_attach_balloon(struct options *options, struct keyval *device, struct error *err)
{
    return options_balloon_load(&options->config->guest, device, err);
}

int options_serial_bus_load(struct config_guest *guest, const struct keyval *device,
                            unsigned *index, struct error *err)
{
    uint64_t ports = VIRTIO_CONSOLE_PORTS_MAX;
    unsigned slot = 0, i = 0;
    while (i < guest->serial_bus_count && guest->serial_buses[i].is_present)
        i++;
    if (i == CONFIG_SERIAL_BUS_MAX)
        return error_set(err, E2BIG, "%s: more than %d of them", device->option,
                         CONFIG_SERIAL_BUS_MAX);
    int result = keyval_uint(device, "max_ports", 1, VIRTIO_CONSOLE_PORTS_MAX, &ports, err);
    if (!result)
        result = options_read_slot(device, &slot, err);
    if (result)
        return result;
    struct config_serial_bus *bus = &guest->serial_buses[i];
    *bus = (struct config_serial_bus){
        .is_present = true, .port_count = (unsigned)ports, .pci_slot = slot};
    keyval_string(device, "id", &bus->qdev_id);
    guest->serial_bus_count = MAX(guest->serial_bus_count, i + 1);
    *index = i;
    return 0;
}

int options_attach_serial_bus(struct options *options, struct keyval *device, struct error *err)
{
    unsigned index;
    return options_serial_bus_load(&options->config->guest, device, &index, err);
}

static bool is_taken(const struct config_guest *guest, unsigned bus, unsigned number)
{
    for (unsigned i = 0; i < guest->serial_port_count; i++)
        if (guest->serial_ports[i].is_present && guest->serial_ports[i].bus == bus &&
            guest->serial_ports[i].number == number)
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
        if (!guest->serial_buses[*bus].is_present)
            continue;
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

int options_serial_port_load(struct config_guest *guest, const struct keyval *device,
                             unsigned *index, struct error *err)
{
    struct config_serial_port port = {.is_present = true, .chardev = -1};
    const char *name = keyval_get(device, "name");
    unsigned i = 0;
    port.is_console = strcmp(keyval_get(device, "driver"), "virtconsole") == 0;
    while (i < guest->serial_port_count && guest->serial_ports[i].is_present)
        i++;
    if (i == CONFIG_SERIAL_PORT_MAX)
        return error_set(err, E2BIG, "%s: more than %d ports", device->option,
                         CONFIG_SERIAL_PORT_MAX);
    if (name && strlen(name) > VIRTIO_CONSOLE_NAME_MAX)
        return error_set(err, EINVAL, "%s: the name of a port has at most %d bytes", device->option,
                         VIRTIO_CONSOLE_NAME_MAX);
    if (!keyval_get(device, "chardev"))
        return error_set(err, EINVAL, "%s: say which chardev it is joined to: chardev=ID",
                         device->option);
    int result = find_bus(guest, device, port.is_console, &port.bus, err);
    if (!result)
        result = choose_number(guest, device, &port, err);
    if (result)
        return result;
    keyval_string(device, "id", &port.qdev_id);
    keyval_string(device, "name", &port.name);
    guest->serial_ports[i] = port;
    guest->serial_port_count = MAX(guest->serial_port_count, i + 1);
    *index = i;
    return 0;
}

int options_attach_serial_port(struct options *options, struct keyval *device, struct error *err)
{
    unsigned index;
    int result = options_serial_port_load(&options->config->guest, device, &index, err);
    if (!result)
        result = options_add_port_user(options, device->option, keyval_get(device, "chardev"),
                                       index, err);
    return result;
}

static int check_sizes(const struct config_mem *mem, const struct keyval *device, struct error *err)
{
    const char *option = device->option;
    if (mem->block_bytes < VIRTIO_MEM_BLOCK_MIN || mem->block_bytes > GIB ||
        !is_power_of_2(mem->block_bytes))
        return error_set(err, EINVAL,
                         "%s: 'block-size' property has to be a power of two of at "
                         "least 0x%llx and at most 1G",
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

bool options_memory_backend_is_used(const struct config_guest *guest, const char *id)
{
    for (unsigned i = 0; i < guest->mem_count; i++)
        if (strcmp(guest->mems[i].memdev, id) == 0)
            return true;
    return guest->ram_backend && strcmp(guest->ram_backend, id) == 0;
}

static int read_mem(struct config_mem *mem, const struct keyval *device, struct error *err)
{
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

int options_mem_load(struct config_guest *guest, const struct keyval *device, unsigned *index,
                     struct error *err)
{
    const char *memdev = keyval_get(device, "memdev");
    if (!memdev)
        return error_set(err, EINVAL,
                         "%s: 'memdev' property is not set; add -object "
                         "memory-backend-ram,id=ID,size=SIZE and memdev=ID",
                         device->option);
    int backend = options_find_memory_backend(guest, memdev);
    if (backend < 0)
        return error_set(err, ENOENT, "%s: there is no -object memory-backend-ram with id=%s",
                         device->option, memdev);
    if (options_memory_backend_is_used(guest, memdev))
        return error_set(err, EBUSY, "%s: can't use already busy memdev: %s", device->option,
                         memdev);
    if (guest->memory_backends[backend].prealloc)
        return error_set(err, ENOTSUP,
                         "%s: the memory of memdev=%s is taken from the host when the guest takes "
                         "it; leave its prealloc=on out",
                         device->option, memdev);
    CHECK(guest->mem_count < CONFIG_MEM_MAX); /* as many as backends at most */
    struct config_mem mem = {.size_bytes = guest->memory_backends[backend].size_bytes};
    int result = read_mem(&mem, device, err);
    if (result) {
        options_mem_fini(&mem);
        return result;
    }
    guest->mems[ *index = guest->mem_count++] = mem;
    return 0;
}

int options_attach_mem(struct options *options, struct keyval *device, struct error *err)
{
    unsigned index;
    return options_mem_load(&options->config->guest, device, &index, err);
}

int options_finish_ram(struct vm_config *config, struct error *err)
{
    const char *id = config->guest.ram_backend;
    int index = id ? options_find_memory_backend(&config->guest, id) : -1;
    if (!id && !config->ram_bytes)
        config->ram_bytes = 128 * MIB;
    if (!id)
        return 0;
    if (index < 0)
        return error_set(err, ENOENT,
                         "-machine memory-backend=%s: there is no such memory backend; add -object "
                         "memory-backend-ram,id=%s,size=SIZE",
                         id, id);
    struct config_memory_backend *backend = &config->guest.memory_backends[index];
    if (config->mem_path)
        return error_set(err, EINVAL,
                         "-mem-path %s: the memory is that of -machine memory-backend=%s; leave "
                         "-mem-path out",
                         config->mem_path, id);
    if (config->ram_bytes && config->ram_bytes != backend->size_bytes)
        return error_set(
            err, EINVAL,
            "-m: -machine memory-backend=%s has %llu bytes, not %llu; leave -m out, or "
            "say the same",
            id, (unsigned long long)backend->size_bytes, (unsigned long long)config->ram_bytes);
    if (backend->size_bytes < RAM_MIN_MIB * MIB || backend->size_bytes > RAM_MAX_GIB * GIB ||
        backend->size_bytes % MIB)
        return error_set(err, EINVAL,
                         "-machine memory-backend=%s: memory must be from %dM to %dG, in whole MiB",
                         id, RAM_MIN_MIB, RAM_MAX_GIB);
    config->ram_bytes = backend->size_bytes;
    config->mem_path = text_copy(backend->path);
    backend->prealloc |= config->mem_prealloc;
    config->mem_prealloc = backend->prealloc;
    return 0;
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

void options_balloon_fini(struct config_balloon *balloon)
{
    free(balloon->qdev_id);
    *balloon = (struct config_balloon){0};
}

void options_serial_bus_fini(struct config_serial_bus *bus)
{
    free(bus->qdev_id);
    *bus = (struct config_serial_bus){0};
}

void options_serial_port_fini(struct config_serial_port *port)
{
    free(port->qdev_id);
    free(port->name);
    *port = (struct config_serial_port){.chardev = -1};
}

void options_mem_fini(struct config_mem *mem)
{
    free(mem->qdev_id);
    free(mem->memdev);
    *mem = (struct config_mem){0};
}

void options_guest_fini(struct config_guest *guest)
{
    options_balloon_fini(&guest->balloon);
    for (unsigned i = 0; i < guest->serial_bus_count; i++)
        options_serial_bus_fini(&guest->serial_buses[i]);
    for (unsigned i = 0; i < guest->serial_port_count; i++)
        options_serial_port_fini(&guest->serial_ports[i]);
    for (unsigned i = 0; i < guest->mem_count; i++)
        options_mem_fini(&guest->mems[i]);
    for (unsigned i = 0; i < CONFIG_MEM_MAX; i++) {
        free(guest->memory_backends[i].id);
        free(guest->memory_backends[i].path);
    }
    for (unsigned i = 0; i < CONFIG_RNG_OBJECT_MAX; i++)
        free(guest->rng_objects[i]);
    for (unsigned i = 0; i < CONFIG_IO_THREAD_MAX; i++)
        free(guest->io_threads[i]);
    free(guest->ram_backend);
    for (unsigned i = 0; i < CONFIG_THROTTLE_MAX; i++)
        options_throttle_group_fini(&guest->throttle_groups[i]);
}

const struct keyval_known options_add_fd_known[] = {
    {"fd", NULL, NULL}, {"set", NULL, NULL}, {"opaque", NULL, NULL}, {0}};

int option_add_fd(struct options *options, const struct option_entry *entry, const char *argument,
                  struct error *err)
{
    (void)options, (void)entry;
    struct keyval list;
    uint64_t fd = UINT64_MAX, set = UINT64_MAX;
    int copy = -1, result = keyval_parse(&list, "-add-fd", argument, NULL, err);
    if (result)
        return result;
    result = keyval_check(&list, options_add_fd_known, err);
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
