/* SPDX-License-Identifier: MIT */
/*
 * machine: builds the machine from its config, part by part, and takes it apart backwards.
 *
 * `parts` is the machine, in boot order; the PCI functions at its end take slots in the same order.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "devices/pci_host.h"
#include "devices/pit.h"
#include "devices/pvpanic.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "vmm/accel_select.h"
#include "vmm/cpu_model.h"
#include "vmm/drive_format.h"
#include "vmm/machine_block.h"
#include "vmm/machine_private.h"
#include "vmm/machine_throttle.h"
#include "vmm/netdev.h"
#include "vmm/options/file_nodes.h"
#include "vmm/topology.h"

#define COM1_PORT 0x3f8
#define COM1_GSI  4

static void on_device_reset(void *opaque)
{
    lifecycle_guest_reset(opaque);
}

static void on_power_off(void *opaque)
{
    lifecycle_guest_power_off(opaque);
}

static void on_panic(void *opaque, unsigned events)
{
    if (events & PVPANIC_PANICKED)
        lifecycle_guest_panic(opaque);
}

static void on_pic_intr(void *opaque, bool level)
{
    struct machine *machine = opaque;
    machine->accel_ops->set_extint(machine->vm, level);
}

static void on_ioapic_routes_changed(void *opaque)
{
    struct machine *machine = opaque;
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++) {
        uint64_t address = 0;
        uint32_t data = 0;
        if (!ioapic_get_route(machine->ioapic, pin, &address, &data))
            address = 0;
        irq_set_ioapic_route(&machine->irq, pin, address, data);
    }
}

static void set_pic_input(void *opaque, unsigned input, bool level)
{
    pic_set_input(((struct machine *)opaque)->pic, input, level);
}

static void set_ioapic_pin(void *opaque, unsigned pin, bool level)
{
    ioapic_set_pin(((struct machine *)opaque)->ioapic, pin, level);
}

static int make_interrupt_chips(struct machine *machine, struct error *err)
{
    const struct irq_pins pins = {set_pic_input, set_ioapic_pin, machine};
    int result = ioapic_create(&machine->bus, &machine->irq.hub, on_ioapic_routes_changed, machine,
                               &machine->ioapic, err);
    if (result)
        return result;
    machine_add_device(machine, &machine->ioapic->device);
    result = pic_create(&machine->bus, on_pic_intr, machine, &machine->pic, err);
    if (result)
        return result;
    machine_add_device(machine, &machine->pic->device);
    irq_set_pins(&machine->irq, &pins);
    return 0;
}

static int make_clocks(struct machine *machine, struct error *err)
{
    const struct guest_mem *mem = &machine->memory.guest;
    struct irq_hub *hub = &machine->irq.hub;
    struct pit *pit;
    int result = pit_create(&machine->bus, &machine->clock, hub, &pit, err);
    if (result)
        return result;
    machine_add_device(machine, &pit->device);
    uint64_t low = mem->regions[0].size;
    result = rtc_create(&machine->bus, &machine->clock, hub, low, machine->memory.size - low,
                        machine->config->cpus, &machine->rtc, err);
    if (result)
        return result;
    machine_add_device(machine, &machine->rtc->device);
    return 0;
}

static int make_power_management(struct machine *machine, struct error *err)
{
    struct i8042 *i8042;
    struct pvpanic *pvpanic;
    int result = acpi_pm_create(&machine->bus, &machine->clock, &machine->irq.hub, on_power_off,
                                machine, &machine->acpi_pm, err);
    if (result)
        return result;
    machine_add_device(machine, &machine->acpi_pm->device);
    result = i8042_create(&machine->bus, &machine->irq.hub, on_device_reset, machine, &i8042, err);
    if (result)
        return result;
    machine_add_device(machine, &i8042->device);
    result = pvpanic_create(&machine->bus, on_panic, machine, &pvpanic, err);
    if (result)
        return result;
    machine_add_device(machine, &pvpanic->device);
    return 0;
}

static int make_serial(struct machine *machine, struct error *err)
{
    int index = machine->config->serial_chardev;
    struct char_backend *backend = NULL;
    struct serial *serial;
    if (index >= 0) {
        int result = chardev_attach(machine->chardevs[index], &backend, err);
        if (result)
            return result;
    }
    const struct serial_config config = {
        .bus = &machine->bus,
        .clock = &machine->clock,
        .hub = &machine->irq.hub,
        .backend = backend,
        .port = COM1_PORT,
        .gsi = COM1_GSI,
    };
    int result = serial_create(&config, &serial, err);
    if (!result)
        machine_add_device(machine, &serial->device);
    return result;
}

static int make_pci_host(struct machine *machine, struct error *err)
{
    struct pci_host *host;
    int result = pci_host_create(&machine->pci_bus, on_device_reset, machine, &host, err);
    if (!result)
        machine_add_device(machine, &host->device);
    return result;
}

/* The tables of what may be plugged in never move: others keep pointers into them. */
static void *reserve(void *table, unsigned count, unsigned capacity, size_t element_size)
{
    char *reserved = reallocarray(table, capacity, element_size);
    CHECK(reserved && count <= capacity);
    memset(reserved + count * element_size, 0, (capacity - count) * element_size);
    return reserved;
}

static int open_disks(struct machine *machine, struct error *err)
{
    struct vm_config *config = machine->config;
    config->disks = reserve(config->disks, config->disk_count, DRIVE_MAX, sizeof(*config->disks));
    machine->disks = calloc(DRIVE_MAX, sizeof(*machine->disks));
    machine->disk_policies = calloc(DRIVE_MAX, sizeof(*machine->disk_policies));
    CHECK(machine->disks && machine->disk_policies);
    for (unsigned i = 0; i < config->disk_count; i++) {
        struct disk_options options = config->disks[i].options;
        int result = options.format ? 0 : drive_format_tell(options.path, &options.format, err);
        if (!result)
            result = disk_open(machine_drive_loop(machine, i), &options, &machine->disks[i], err);
        if (result)
            return result;
        const struct config_disk *disk = &config->disks[i];
        disk_set_node_name(machine->disks[i], disk->node_name ? disk->node_name : disk->id);
        result = machine_limit_disk(machine, disk, machine->disks[i], err);
        if (result)
            return result;
    }
    return file_nodes_check(config, err);
}

int machine_open_backend(struct machine *machine, unsigned index, struct error *err)
{
    const struct vm_config *config = machine->config;
    int result = netdev_create(machine->loop, &config->nics[index], config->name,
                               &machine->backends[index], err);
    if (result)
        return result;
    result = nic_addresses_init(&machine->nic_addresses[index], machine->loop,
                                machine->backends[index], machine_nic_tell_addresses);
    if (result)
        return error_set_errno(err, -result, "cannot watch a NIC's addresses");
    machine->nic_addresses[index].opaque = machine;
    return 0;
}

static int open_backends(struct machine *machine, struct error *err)
{
    struct vm_config *config = machine->config;
    unsigned count = config->nic_count;
    int result = 0;
    config->nics = reserve(config->nics, count, NIC_MAX, sizeof(*config->nics));
    machine->backends = calloc(NIC_MAX, sizeof(*machine->backends));
    machine->nic_addresses = calloc(NIC_MAX, sizeof(*machine->nic_addresses));
    CHECK(machine->backends && machine->nic_addresses);
    for (unsigned i = 0; i < count && !result; i++)
        result = machine_open_backend(machine, i, err);
    return result;
}

static void on_console_quit(void *opaque)
{
    machine_quit(opaque, SHUTDOWN_HOST_UI);
}

static int open_chardevs(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->config->chardev_count; i++) {
        /* A monitor's socket takes several clients: the control room listens there itself. */
        if (vm_config_chardev_is_control(machine->config, i))
            continue;
        int result = chardev_create(machine->loop, &machine->config->chardevs[i],
                                    &machine->chardevs[i], err);
        if (result)
            return result;
        chardev_on_quit(machine->chardevs[i], on_console_quit, machine);
    }
    return 0;
}

static void on_ram_written(void *opaque, uint64_t gpa, uint64_t length)
{
    struct machine *machine = opaque;
    machine->accel_ops->ram_written(machine->vm, gpa, length);
}

static int doorbell_add(void *opaque, enum bus_space space, uint64_t address,
                        const struct bus_doorbell *bell)
{
    struct machine *machine = opaque;
    return machine->accel_ops->ioeventfd_add(machine->vm, bell->event->fd, space == BUS_PIO,
                                             address, bell->size, bell->any, bell->value);
}

static void doorbell_del(void *opaque, enum bus_space space, uint64_t address,
                         const struct bus_doorbell *bell)
{
    struct machine *machine = opaque;
    machine->accel_ops->ioeventfd_del(machine->vm, bell->event->fd, space == BUS_PIO, address,
                                      bell->size, bell->any, bell->value);
}

static const struct bus_listener bus_listener = {
    .doorbell_add = doorbell_add,
    .doorbell_del = doorbell_del,
};

static int make_accelerator(struct machine *machine, struct error *err)
{
    int result = accel_select(machine->config->accel, &machine->accel_ops, machine->accel_why,
                              sizeof(machine->accel_why), err);
    if (result)
        return result;
    result = machine->accel_ops->vm_create(vm_config_max_cpus(machine->config), &machine->vm, err);
    if (result)
        return result;
    irq_init(&machine->irq, machine->loop, machine->vm);
    bus_set_listener(&machine->bus, &bus_listener, machine);
    return 0;
}

static void register_memory(struct machine *machine)
{
    for (unsigned i = 0; i < machine->config->disk_count; i++)
        machine->has_pinned_memory |= disk_register_memory(
            machine_drive_loop(machine, i), machine->memory.host, machine->memory.size);
}

static int make_memory(struct machine *machine, struct error *err)
{
    const struct vm_config *config = machine->config;
    int result = memory_init(&machine->memory, config->ram_bytes, config->mem_path,
                             config->mem_prealloc, err);
    if (result)
        return result;
    machine->memory.guest.on_written = on_ram_written;
    machine->memory.guest.opaque = machine;
    /* Registered pages are pinned: only where they are there anyway, and nobody takes any away. */
    if (config->mem_prealloc && !config->guest.balloon.is_present)
        register_memory(machine);
    return memory_map(&machine->memory, machine->vm, err);
}

void machine_settle(struct machine *machine)
{
    memory_settle(&machine->memory);
}

static int open_boot(struct machine *machine, struct error *err)
{
    const struct vm_config *config = machine->config;
    if (!config->kernel)
        return machine_open_firmware(machine, err);
    int result = boot_open(&machine->boot, &machine->memory, config->kernel, config->initrd,
                           config->append, err);
    machine->boot.guest_unpacks = config->guest_unpacks;
    return result;
}

/* What a vCPU keeps outside accel_vcpu_state and must lose at a reset. */
static const uint32_t reset_msrs[] = {
    0x174,      0x175,      0x176,                              /* SYSENTER CS, ESP, EIP */
    0x1a0,      0x277,      0x2ff,                              /* MISC_ENABLE, PAT, MTRRdefType */
    0x6e0,                                                      /* TSC_DEADLINE */
    0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,             /* STAR, LSTAR, CSTAR, SFMASK */
    0xc0000102, 0xc0000103,                                     /* KERNEL_GS_BASE, TSC_AUX */
    0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04, /* KVM's paravirtual clocks */
};

static int remember_power_on(struct machine_cpu *cpu)
{
    const struct accel_ops *ops = cpu->vcpu.accel->vm->ops;
    struct accel_msrs *msrs = &cpu->power_on_msrs;
    for (size_t i = 0; i < ARRAY_SIZE(reset_msrs); i++) {
        struct accel_msrs one = {.header.nmsrs = 1, .entries[0].index = reset_msrs[i]};
        if (ops->vcpu_get_msrs(cpu->vcpu.accel, &one) == 1)
            msrs->entries[msrs->header.nmsrs++] = one.entries[0];
    }
    return ops->vcpu_get_state(cpu->vcpu.accel, ACCEL_STATE_ALL, &cpu->power_on);
}

static int make_cpu(struct machine *machine, unsigned index, const struct accel_cpuid *supported,
                    struct error *err)
{
    const struct topology topology = {machine->config->sockets, machine->config->cores,
                                      machine->config->threads};
    struct machine_cpu *cpu = &machine->cpus[index];
    struct accel_cpuid cpuid = *supported;
    int result = vcpu_init(&cpu->vcpu, &machine->vcpu_group, machine->vm, index,
                           &lifecycle_vcpu_handler, machine, err);
    if (result)
        return result;
    machine->cpu_count++;
    cpu->is_present = index < machine->config->cpus;
    topology_apply(&topology, index, &cpuid);
    result = machine->accel_ops->vcpu_set_cpuid(cpu->vcpu.accel, &cpuid);
    if (!result)
        result = remember_power_on(cpu);
    return result ? error_set_errno(err, -result, "cannot set up CPU %u", index) : 0;
}

static int make_cpus(struct machine *machine, struct error *err)
{
    struct accel_cpuid supported;
    unsigned count = vm_config_max_cpus(machine->config);
    machine->cpus = calloc(count, sizeof(*machine->cpus));
    CHECK(machine->cpus);
    int result = machine->accel_ops->supported_cpuid(machine->vm, &supported);
    if (result)
        return error_set_errno(err, -result, "cannot ask %s for its CPU model",
                               machine->accel_ops->name);
    result = cpu_model_apply(&machine->config->cpu_features, machine->accel_ops->name, &supported,
                             err);
    machine->boot.has_la57 = !result && cpu_model_has(&supported, "la57");
    for (unsigned i = 0; !result && i < count; i++)
        result = make_cpu(machine, i, &supported, err);
    return result;
}

static int start_threads(struct machine *machine, struct error *err)
{
    int result = 0;
    for (unsigned i = 0; !result && i < machine->cpu_count; i++)
        result = vcpu_start(&machine->cpus[i].vcpu, err);
    return result;
}

/* The machine, in boot order. What opens files comes before what starts threads. */
static const struct {
    const char *name;
    int (*make)(struct machine *machine, struct error *err);
} parts[] = {
    {"chardevs", open_chardevs},     {"throttle groups", machine_make_throttle_groups},
    {"I/O loops", machine_make_io_loops},
    {"disks", open_disks},           {"disk jobs", machine_make_block},
    {"network", open_backends},      {"accelerator", make_accelerator},
    {"memory", make_memory},         {"kernel or firmware", open_boot},
    {"processors", make_cpus},       {"IOAPIC and PIC", make_interrupt_chips},
    {"PIT and RTC", make_clocks},    {"ACPI, i8042 and pvpanic", make_power_management},
    {"serial port", make_serial},    {"PCI host", make_pci_host},
    {"hot-plug", hotplug_make},      {"virtio-blk", machine_make_disks},
    {"virtio-net", machine_make_nics}, {"virtio-rng", machine_make_rngs},
    {"balloon, ports and memory devices", machine_make_guest},
    {"fw_cfg", machine_make_fw_cfg},
    {"boot state", machine_set_up_boot},
    {"I/O threads", machine_start_io_threads},
    {"vCPU threads", start_threads},
};

int machine_create(struct loop *loop, struct vm_config *config, struct machine **out,
                   struct error *err)
{
    struct machine *machine = calloc(1, sizeof(*machine));
    CHECK(machine);
    machine->loop = loop;
    machine->config = config;
    list_init(&machine->devices);
    list_init(&machine->hotplug.removals);
    list_init(&machine->hotplug.openings);
    vcpu_group_init(&machine->vcpu_group, loop);
    bus_init(&machine->bus, loop);
    pci_bus_init(&machine->pci_bus, &machine->bus, &machine->irq.hub);
    int result = lifecycle_init(machine, err);
    if (!result)
        result = machine_init_guest(machine, err);
    if (!result)
        result = guest_clock_init(&machine->clock, loop);
    for (size_t i = 0; !result && i < ARRAY_SIZE(parts); i++) {
        log_trace("machine", "making %s", parts[i].name);
        result = parts[i].make(machine, err);
    }
    if (result)
        return result;
    *out = machine;
    return 0;
}
