/* SPDX-License-Identifier: MIT */
/* qom: which objects there are, and where. */
#include "vmm/control/qom.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "devices/pci.h"
#include "vmm/machine_guest.h"
#include "vmm/machine_pci.h"
#include "vmm/options/nic_words.h"

struct walk {
    struct machine *machine;
    bool (*visit)(void *opaque, const struct qom_object *object);
    void *opaque;
    bool is_over;
};

static void show(struct walk *walk, const char *type, unsigned index, const char *format, ...)
    printf_like(4, 5);

static void show(struct walk *walk, const char *type, unsigned index, const char *format, ...)
{
    struct qom_object object = {.type = qom_find_type(type), .index = index};
    va_list args;
    CHECK(object.type);
    if (walk->is_over)
        return;
    va_start(args, format);
    vsnprintf(object.path, sizeof(object.path), format, args);
    va_end(args);
    walk->is_over = !walk->visit(walk->opaque, &object);
}

/* Where QEMU puts a device: by its id, or by the order of those without one. */
static void show_device(struct walk *walk, const char *type, unsigned index, const char *id,
                        unsigned anonymous)
{
    if (id && *id)
        show(walk, type, index, "/machine/peripheral/%s", id);
    else
        show(walk, type, index, "/machine/peripheral-anon/device[%u]", anonymous);
}

/* Numbers of devices without an id: drives have theirs, as query-block tells; others come after. */
static void show_devices(struct walk *walk)
{
    const struct vm_config *config = machine_config(walk->machine);
    const struct config_guest *guest = &config->guest;
    unsigned anonymous = config->disk_count;
    struct machine_balloon balloon;
    struct machine_pci pci;
    for (unsigned i = 0; i < config->disk_count; i++)
        if (machine_disk(walk->machine, i) && config->disks[i].is_attached)
            show_device(walk, "virtio-blk-pci", i, config->disks[i].qdev_id, i);
    for (unsigned i = 0; i < config->nic_count; i++)
        if (config->nics[i].has_device) {
            char path[NIC_PATH_BYTES];
            nic_words_path(config, i, path);
            show(walk, "virtio-net-pci", i, "%s", path);
            anonymous++;
        }
    for (unsigned slot = 0; slot < PCI_SLOT_MAX; slot++)
        if (machine_get_pci(walk->machine, slot, &pci) && !strcmp(pci.kind, "virtio-rng-pci"))
            show_device(walk, "virtio-rng-pci", slot, pci.id, anonymous++);
    if (machine_get_balloon(walk->machine, &balloon))
        show_device(walk, "virtio-balloon-pci", 0, guest->balloon.qdev_id, anonymous++);
    for (unsigned i = 0; i < guest->serial_bus_count; i++)
        if (guest->serial_buses[i].is_present)
            show_device(walk, "virtio-serial-pci", i, guest->serial_buses[i].qdev_id, anonymous++);
    for (unsigned i = 0; i < guest->serial_port_count; i++)
        if (guest->serial_ports[i].is_present)
            show_device(walk, guest->serial_ports[i].is_console ? "virtconsole" : "virtserialport",
                        i, guest->serial_ports[i].qdev_id, anonymous++);
    for (unsigned i = 0; i < guest->mem_count; i++)
        show_device(walk, "virtio-mem-pci", i, guest->mems[i].qdev_id, anonymous++);
}

static void show_cpus(struct walk *walk)
{
    const struct vm_config *config = machine_config(walk->machine);
    for (unsigned i = 0; i < vm_config_max_cpus(config); i++) {
        struct machine_cpu_info cpu;
        machine_get_cpu(walk->machine, i, &cpu);
        if (cpu.is_present && cpu.id && *cpu.id)
            show(walk, "max-x86_64-cpu", i, "/machine/peripheral/%s", cpu.id);
        else if (cpu.is_present)
            show(walk, "max-x86_64-cpu", i, "/machine/unattached/device[%u]", i);
    }
}

static const char *backend_type(const struct config_memory_backend *backend)
{
    return backend->path       ? "memory-backend-file"
           : backend->is_memfd ? "memory-backend-memfd"
                               : "memory-backend-ram";
}

void qom_walk(struct machine *machine, bool (*visit)(void *opaque, const struct qom_object *object),
              void *opaque)
{
    struct walk walk = {.machine = machine, .visit = visit, .opaque = opaque};
    const struct vm_config *config = machine_config(machine);
    show(&walk, "root", 0, "/");
    show(&walk, "container", 0, "/objects");
    for (unsigned i = 0; i < CONFIG_MEM_MAX; i++) {
        const struct config_memory_backend *backend = &config->guest.memory_backends[i];
        if (backend->id)
            show(&walk, backend_type(backend), i, "/objects/%s", backend->id);
    }
    for (unsigned i = 0; i < CONFIG_IO_THREAD_MAX; i++)
        if (config->guest.io_threads[i])
            show(&walk, "iothread", i, "/objects/%s", config->guest.io_threads[i]);
    for (unsigned i = 0; i < CONFIG_THROTTLE_MAX; i++)
        if (config->guest.throttle_groups[i].id)
            show(&walk, "throttle-group", i, "/objects/%s", config->guest.throttle_groups[i].id);
    show(&walk, "pc-q35-7.2-machine", 0, "/machine");
    show(&walk, "container", 0, "/machine/peripheral");
    show(&walk, "container", 0, "/machine/peripheral-anon");
    show(&walk, "container", 0, "/machine/unattached");
    show_devices(&walk);
    show_cpus(&walk);
    show(&walk, "container", 0, "/chardevs");
    for (unsigned i = 0; i < config->chardev_count; i++)
        if (config->chardevs[i].id)
            show(&walk, "chardev", i, "/chardevs/%s", config->chardevs[i].id);
}

struct search {
    const char *path;
    struct qom_object *out;
    unsigned found;
};

static bool compare(void *opaque, const struct qom_object *object)
{
    struct search *search = opaque;
    size_t length = strlen(search->path), whole = strlen(object->path);
    bool fits = *search->path == '/' ? strcmp(search->path, object->path) == 0
                                     : whole > length && object->path[whole - length - 1] == '/' &&
                                           strcmp(object->path + whole - length, search->path) == 0;
    if (!fits)
        return true;
    *search->out = *object;
    search->found++;
    return *search->path != '/';
}

bool qom_find(struct machine *machine, const char *path, struct qom_object *out, bool *is_ambiguous)
{
    struct search search = {.path = path, .out = out};
    if (*path)
        qom_walk(machine, compare, &search);
    *is_ambiguous = search.found > 1;
    return search.found == 1;
}
