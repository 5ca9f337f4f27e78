/* SPDX-License-Identifier: MIT */
/*
 * hotplug_cpus: CPUs that come and go.
 *
 * All that may ever come are made with the machine, so that no thread and no descriptor has to be
 * made later; one that is not there waits parked. Plugging resets it, lets it wait for its start-up
 * IPI, and tells the guest. One that the guest ejects, perhaps by itself, is parked for good first.
 */
#include <errno.h>
#include <string.h>

#include "vmm/hotplug/hotplug_private.h"
#include "vmm/machine_private.h"

enum { /* ACPI 6.3, section 6.3.5: _OST */
       OST_EVENT_EJECT_REQUEST = 3,
       OST_EVENT_EJECTION = 0x103,
       OST_SUCCESS = 0,
       OST_EJECT_IN_PROGRESS = 0x84,
};

/* The CPU with the id, among those that there are. */
int hotplug_find_cpu(const struct machine *machine, const char *id)
{
    for (unsigned i = 0; i < machine->cpu_count && *id; i++)
        if (machine->cpus[i].is_present && strcmp(machine->cpus[i].id, id) == 0)
            return (int)i;
    return -1;
}

static void count_cpus(struct machine *machine)
{
    unsigned present = 0;
    for (unsigned i = 0; i < machine->cpu_count; i++)
        present += machine->cpus[i].is_present;
    rtc_set_cpus(machine->rtc, present);
}

static int take_number(const struct keyval *list, const char *key, unsigned count, uint64_t *number,
                       struct error *err)
{
    const char *value = keyval_get(list, key);
    if (!value)
        return error_set(err, EINVAL, "CPU %s is not set", key);
    if (!keyval_text_to_uint(value, number) || *number >= count)
        return error_set(err, EINVAL, "Invalid CPU %s: %s must be in range 0:%u", key, value,
                         count - 1);
    return 0;
}

static int find_place(const struct machine *machine, const struct keyval *list, unsigned *index,
                      struct error *err)
{
    const struct vm_config *config = machine->config;
    uint64_t socket = 0, core = 0, thread = 0;
    int result = take_number(list, "socket-id", config->sockets, &socket, err);
    if (!result)
        result = take_number(list, "core-id", config->cores, &core, err);
    if (!result)
        result = take_number(list, "thread-id", config->threads, &thread, err);
    *index = (unsigned)((socket * config->cores + core) * config->threads + thread);
    return result;
}

void machine_cpu_type(const struct machine *machine, char *text, size_t size)
{
    const char *model = machine->config->cpu_model;
    snprintf(text, size, "%.*s-x86_64-cpu", (int)strcspn(model, ","), model);
}

int hotplug_plug_cpu(struct machine *machine, const struct keyval *list,
                     const struct virtio_pci_place *place, struct error *err)
{
    char type[64];
    unsigned index;
    machine_cpu_type(machine, type, sizeof(type));
    if (strcmp(type, keyval_get(list, "driver")) != 0)
        return error_set(err, EINVAL, "Invalid CPU type, expected cpu type: '%s'", type);
    int result = find_place(machine, list, &index, err);
    if (result)
        return result;
    CHECK(index < machine->cpu_count);
    struct machine_cpu *cpu = &machine->cpus[index];
    if (cpu->is_present)
        return error_set(err, EEXIST, "CPU[%u] with APIC ID %u exists", index, index);
    result = machine_reset_cpu(machine, cpu);
    if (result)
        return error_set_errno(err, -result, "cannot put CPU %u at the start", index);
    snprintf(cpu->id, sizeof(cpu->id), "%s", place->id);
    cpu->is_present = true;
    count_cpus(machine);
    if (machine->lifecycle.state == MACHINE_RUNNING && machine_is_loaded(machine)) {
        machine->cpus_parked--;
        vcpu_resume(&cpu->vcpu);
    }
    acpi_hotplug_cpu_added(machine->hotplug.acpi, index, hotplug_has_guest(machine));
    return 0;
}

/* The CPU is parked. */
static void finish_removal(struct machine *machine, unsigned index)
{
    struct machine_cpu *cpu = &machine->cpus[index];
    cpu->is_present = cpu->is_asked = cpu->is_leaving = false;
    acpi_hotplug_cpu_removed(machine->hotplug.acpi, index);
    count_cpus(machine);
    unused_result(machine_reset_cpu(machine, cpu)); /* its timers end */
    hotplug_tell_deleted(machine, cpu->id, false);
    *cpu->id = 0;
}

void hotplug_cpu_parked(struct machine *machine, unsigned index)
{
    if (machine->cpus[index].is_leaving)
        finish_removal(machine, index);
}

void hotplug_cpu_ejected(void *opaque, unsigned index)
{
    struct machine *machine = opaque;
    struct machine_cpu *cpu = &machine->cpus[index];
    /* The DSDT has no such method for those that were there from the start. */
    if (index < machine->config->cpus || cpu->is_leaving)
        return;
    cpu->is_leaving = true;
    if (vcpu_is_parked(&cpu->vcpu))
        finish_removal(machine, index);
    else
        vcpu_park(&cpu->vcpu);
}

int hotplug_unplug_cpu(struct machine *machine, unsigned index, struct error *err)
{
    struct machine_cpu *cpu = &machine->cpus[index];
    if (!hotplug_has_guest(machine)) {
        finish_removal(machine, index);
        return 0;
    }
    if (cpu->is_leaving || (cpu->is_asked && loop_now_ns() - cpu->asked_ns < HOTPLUG_ASK_NS))
        return error_set(err, EBUSY, "Device %s is already in the process of unplug", cpu->id);
    cpu->is_asked = true;
    cpu->asked_ns = loop_now_ns();
    acpi_hotplug_cpu_unplug(machine->hotplug.acpi, index);
    return 0;
}

void hotplug_cpus_reset(struct machine *machine)
{
    for (unsigned i = 0; i < machine->cpu_count; i++)
        if (machine->cpus[i].is_asked)
            finish_removal(machine, i);
}

static void tell_refusal(struct machine *machine, unsigned index)
{
    struct machine_cpu *cpu = &machine->cpus[index];
    char path[160];
    snprintf(path, sizeof(path), "/machine/peripheral/%s", cpu->id);
    cpu->is_asked = false;
    acpi_hotplug_cpu_keeps(machine->hotplug.acpi, index);
    machine_emit_event(machine, "DEVICE_UNPLUG_GUEST_ERROR",
                       json_pack("{s:s,s:s}", "device", cpu->id, "path", path));
}

void hotplug_cpu_ost(void *opaque, unsigned index, uint32_t event, uint32_t status)
{
    struct machine *machine = opaque;
    struct machine_cpu *cpu = &machine->cpus[index];
    char slot[16];
    if (!*cpu->id)
        return;
    snprintf(slot, sizeof(slot), "%u", index);
    machine_emit_event(machine, "ACPI_DEVICE_OST",
                       json_pack("{s:{s:s,s:s,s:s,s:I,s:I}}", "info", "device", cpu->id, "slot",
                                 slot, "slot-type", "CPU", "source", (json_int_t)event, "status",
                                 (json_int_t)status));
    bool is_about_ejection = event == OST_EVENT_EJECT_REQUEST || event == OST_EVENT_EJECTION;
    if (cpu->is_asked && is_about_ejection && status != OST_SUCCESS &&
        status != OST_EJECT_IN_PROGRESS)
        tell_refusal(machine, index);
}
