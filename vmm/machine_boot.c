/* SPDX-License-Identifier: MIT */
/*
 * machine_boot: what a machine finds in its memory and its CPUs when it starts, at power-on and at
 * each reset: the tables of ACPI, and a kernel or firmware.
 */
#include "base/bytes.h"
#include "vmm/boot/acpi.h"
#include "vmm/machine_private.h"

int machine_reset_cpu(struct machine *machine, struct machine_cpu *cpu)
{
    const struct accel_ops *ops = machine->accel_ops;
    struct accel_vcpu_state state = cpu->power_on;
    if (cpu->vcpu.index == 0 && machine->config->kernel)
        boot_set_cpu(&machine->boot, &state);
    int done = ops->vcpu_set_msrs(cpu->vcpu.accel, &cpu->power_on_msrs);
    if (done < 0)
        return done;
    return ops->vcpu_set_state(cpu->vcpu.accel, ACCEL_STATE_ALL, &state);
}

int machine_write_tables(struct machine *machine, struct error *err)
{
    uint64_t high = memory_pci64_base(&machine->memory), present = 0;
    for (unsigned i = 0; i < machine->cpu_count; i++)
        present |= (uint64_t)machine->cpus[i].is_present << i;
    const struct acpi_config config = {
        .area_gpa = machine->config->kernel ? ACPI_AREA_GPA : firmware_acpi_gpa(&machine->memory),
        .cpus = machine->config->cpus,
        .max_cpus = machine->cpu_count,
        .cpus_present = present,
        .pci_hole_gpa = MEMORY_PCI32_BASE,
        .pci_hole_size = MEMORY_PCI32_END - MEMORY_PCI32_BASE,
        .pci_hole64_gpa = high,
        .pci_hole64_size = 512 * GIB,
        .ecam_gpa = MEMORY_ECAM_BASE,
        .has_serial = {true, false},
        .has_pvpanic = true,
    };
    return acpi_build(&config, &machine->memory.guest, &machine->rsdp_gpa, err);
}

static int place_cpus(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        int result = machine_reset_cpu(machine, &machine->cpus[i]);
        if (result)
            return error_set_errno(err, -result, "cannot put CPU %u at the start", i);
    }
    return 0;
}

static void load_kernel(struct loop_job *job)
{
    struct machine *machine = container_of(job, struct machine, loading.job);
    boot_load(&machine->boot, &machine->loading.memory, machine->rsdp_gpa);
}

static void on_kernel_loaded(struct loop_job *job)
{
    struct machine *machine = container_of(job, struct machine, loading.job);
    struct machine_loading *loading = &machine->loading;
    struct error err = {0};
    loading->is_running = false;
    if (loading->on_stopped) {
        loading->on_stopped(machine);
        return;
    }
    if (place_cpus(machine, &err))
        lifecycle_fail(machine, err.text);
    if (loading->on_loaded)
        loading->on_loaded(machine);
    loading->on_loaded = NULL;
    loop_task_queue(&machine->lifecycle.step);
}

/* On the pool: unpacking takes up to a second, in which the loop serves others. */
static void start_loading(struct machine *machine)
{
    struct machine_loading *loading = &machine->loading;
    loading->is_wanted = false;
    loading->is_running = true;
    loading->memory = machine->memory;
    loading->job = (struct loop_job){.work = load_kernel, .on_done = on_kernel_loaded};
    loop_job_submit(machine->loop, &loading->job);
}

int machine_set_up_boot(struct machine *machine, struct error *err)
{
    int result = machine_write_tables(machine, err);
    if (!result && !machine->config->kernel)
        result = machine_load_firmware(machine, err);
    if (result)
        return result;
    machine->loading.is_wanted = machine->config->kernel && boot_is_long(&machine->boot);
    if (machine->loading.is_wanted)
        return 0;
    if (machine->config->kernel)
        boot_load(&machine->boot, &machine->memory, machine->rsdp_gpa);
    return place_cpus(machine, err);
}

bool machine_is_loaded(struct machine *machine)
{
    if (machine->loading.is_wanted)
        start_loading(machine);
    return !machine->loading.is_running;
}

void machine_when_loaded(struct machine *machine, void (*on_loaded)(struct machine *machine))
{
    if (machine_is_loaded(machine))
        on_loaded(machine);
    else
        machine->loading.on_loaded = on_loaded;
}

void machine_stop_loading(struct machine *machine, void (*on_stopped)(struct machine *machine))
{
    machine->loading.on_stopped = on_stopped;
    if (!machine->loading.is_running)
        on_stopped(machine);
}
