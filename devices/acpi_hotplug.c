/* SPDX-License-Identifier: MIT */
/* acpi_hotplug: bits for what came and what shall go, and the general purpose events about them. */
#include "devices/acpi_hotplug.h"

#include <errno.h>
#include <stdlib.h>

#include "base/limits.h"

static uint64_t bit(unsigned index)
{
    return UINT64_C(1) << index;
}

static uint32_t half_of(uint64_t value, unsigned offset)
{
    return (uint32_t)(value >> (offset & 4 ? 32 : 0));
}

static uint32_t take_half(uint64_t *value, unsigned offset)
{
    uint32_t half = half_of(*value, offset);
    *value &= ~((uint64_t)half << (offset & 4 ? 32 : 0));
    return half;
}

static uint64_t hotplug_read(void *device, uint64_t offset, unsigned size)
{
    struct acpi_hotplug *hotplug = device;
    uint64_t slots = hotplug->slots_up;
    if (size != 4)
        return bus_all_ones(size);
    switch (offset) {
    case ACPI_HOTPLUG_SLOTS_UP:
        hotplug->slots_up = 0;
        return slots;
    case ACPI_HOTPLUG_SLOTS_DOWN:
        return hotplug->slots_down;
    case ACPI_HOTPLUG_CPUS_PRESENT:
    case ACPI_HOTPLUG_CPUS_PRESENT + 4:
        return half_of(hotplug->cpus_present, (unsigned)offset);
    case ACPI_HOTPLUG_CPUS_UP:
    case ACPI_HOTPLUG_CPUS_UP + 4:
        return take_half(&hotplug->cpus_up, (unsigned)offset);
    case ACPI_HOTPLUG_CPUS_DOWN:
    case ACPI_HOTPLUG_CPUS_DOWN + 4:
        return half_of(hotplug->cpus_down, (unsigned)offset);
    default:
        return 0;
    }
}

static void eject_slots(struct acpi_hotplug *hotplug, uint32_t slots)
{
    for (unsigned slot = 0; slot < 32; slot++)
        if (slots & bit(slot))
            hotplug->ops->on_slot_ejected(hotplug->opaque, slot);
}

static void eject_cpus(struct acpi_hotplug *hotplug, uint64_t cpus)
{
    for (unsigned cpu = 0; cpu < VCPU_MAX; cpu++)
        if (cpus & hotplug->cpus_present & bit(cpu))
            hotplug->ops->on_cpu_ejected(hotplug->opaque, cpu);
}

static void hotplug_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_hotplug *hotplug = device;
    if (size != 4)
        return;
    switch (offset) {
    case ACPI_HOTPLUG_SLOTS_EJECT:
        eject_slots(hotplug, (uint32_t)value);
        break;
    case ACPI_HOTPLUG_CPUS_EJECT:
        eject_cpus(hotplug, value);
        break;
    case ACPI_HOTPLUG_CPUS_EJECT + 4:
        eject_cpus(hotplug, value << 32);
        break;
    case ACPI_HOTPLUG_OST_CPU:
        hotplug->ost_cpu = (uint32_t)value;
        break;
    case ACPI_HOTPLUG_OST_EVENT:
        hotplug->ost_event = (uint32_t)value;
        break;
    case ACPI_HOTPLUG_OST_STATUS:
        if (hotplug->ost_cpu < VCPU_MAX && (hotplug->cpus_present & bit(hotplug->ost_cpu)))
            hotplug->ops->on_cpu_ost(hotplug->opaque, hotplug->ost_cpu, hotplug->ost_event,
                                     (uint32_t)value);
        break;
    default:
        break;
    }
}

void acpi_hotplug_slot_added(struct acpi_hotplug *hotplug, unsigned slot)
{
    CHECK(slot < 32);
    hotplug->slots_up |= (uint32_t)bit(slot);
    acpi_pm_raise_gpe(hotplug->acpi_pm, ACPI_HOTPLUG_PCI_GPE);
}

void acpi_hotplug_slot_unplug(struct acpi_hotplug *hotplug, unsigned slot)
{
    CHECK(slot < 32);
    hotplug->slots_down |= (uint32_t)bit(slot);
    acpi_pm_raise_gpe(hotplug->acpi_pm, ACPI_HOTPLUG_PCI_GPE);
}

void acpi_hotplug_slot_forget(struct acpi_hotplug *hotplug, unsigned slot)
{
    CHECK(slot < 32);
    hotplug->slots_up &= (uint32_t)~bit(slot);
    hotplug->slots_down &= (uint32_t)~bit(slot);
}

void acpi_hotplug_cpu_added(struct acpi_hotplug *hotplug, unsigned cpu, bool tells)
{
    CHECK(cpu < VCPU_MAX);
    hotplug->cpus_present |= bit(cpu);
    if (!tells)
        return;
    hotplug->cpus_up |= bit(cpu);
    acpi_pm_raise_gpe(hotplug->acpi_pm, ACPI_HOTPLUG_CPU_GPE);
}

void acpi_hotplug_cpu_unplug(struct acpi_hotplug *hotplug, unsigned cpu)
{
    CHECK(cpu < VCPU_MAX && (hotplug->cpus_present & bit(cpu)));
    hotplug->cpus_down |= bit(cpu);
    acpi_pm_raise_gpe(hotplug->acpi_pm, ACPI_HOTPLUG_CPU_GPE);
}

void acpi_hotplug_cpu_keeps(struct acpi_hotplug *hotplug, unsigned cpu)
{
    CHECK(cpu < VCPU_MAX);
    hotplug->cpus_down &= ~bit(cpu);
}

void acpi_hotplug_cpu_removed(struct acpi_hotplug *hotplug, unsigned cpu)
{
    CHECK(cpu < VCPU_MAX);
    hotplug->cpus_present &= ~bit(cpu);
    hotplug->cpus_up &= ~bit(cpu);
    hotplug->cpus_down &= ~bit(cpu);
}

/* What is there a guest that starts finds by itself; what shall go has gone by now. */
static void hotplug_reset(struct device *device)
{
    struct acpi_hotplug *hotplug = (struct acpi_hotplug *)device;
    hotplug->slots_up = 0;
    hotplug->slots_down = 0;
    hotplug->cpus_up = 0;
    hotplug->cpus_down = 0;
    hotplug->ost_cpu = 0;
    hotplug->ost_event = 0;
}

static void hotplug_close(struct device *device, void (*on_closed)(void *opaque), void *opaque)
{
    struct acpi_hotplug *hotplug = (struct acpi_hotplug *)device;
    bus_unmap(hotplug->bus, &hotplug->region);
    device_close_later(hotplug->bus->loop, device, on_closed, opaque);
}

static const struct state_field fields[] = {
    STATE_FIELD(struct acpi_hotplug, slots_up), STATE_FIELD(struct acpi_hotplug, slots_down),
    STATE_FIELD(struct acpi_hotplug, cpus_up),  STATE_FIELD(struct acpi_hotplug, cpus_down),
    STATE_FIELD(struct acpi_hotplug, ost_cpu),  STATE_FIELD(struct acpi_hotplug, ost_event),
};

static const struct state_table state = {"acpi-hotplug", 1, fields, ARRAY_SIZE(fields)};

static const struct device_ops device_ops = {
    .kind = "acpi-hotplug",
    .reset = hotplug_reset,
    .state = &state,
    .close = hotplug_close,
};

static const struct bus_region_ops region_ops = {hotplug_read, hotplug_write};

int acpi_hotplug_create(struct bus *bus, struct acpi_pm *acpi_pm,
                        const struct acpi_hotplug_ops *ops, void *opaque, struct acpi_hotplug **out,
                        struct error *err)
{
    struct acpi_hotplug *hotplug = calloc(1, sizeof(*hotplug));
    CHECK(hotplug);
    hotplug->device.ops = &device_ops;
    hotplug->bus = bus;
    hotplug->acpi_pm = acpi_pm;
    hotplug->ops = ops;
    hotplug->opaque = opaque;
    hotplug->region = (struct bus_region){
        .name = "acpi-hotplug", .ops = &region_ops, .device = hotplug, .size = ACPI_HOTPLUG_SIZE};
    int result = bus_map(bus, BUS_PIO, ACPI_HOTPLUG_BASE, &hotplug->region);
    if (result) {
        free(hotplug);
        return error_set(err, -result, "hot-plug finds its ports taken");
    }
    *out = hotplug;
    return 0;
}
