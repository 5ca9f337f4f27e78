/* SPDX-License-Identifier: MIT */
/* machine_firmware: the machine's firmware, what it is told, and the order of its disks. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "vmm/machine_private.h"

#define RAM_MIN_BYTES (8 * MIB)

int machine_open_firmware(struct machine *machine, struct error *err)
{
    const struct memory *memory = &machine->memory;
    if (memory->size < RAM_MIN_BYTES)
        return error_set(err, EINVAL, "firmware needs at least %llu MiB of memory: use a larger -m",
                         (unsigned long long)(RAM_MIN_BYTES / MIB));
    int result = firmware_open(&machine->firmware, machine->config->bios, err);
    /* RAM has the first memory slots. */
    return result ? result
                  : firmware_map(&machine->firmware, machine->vm, memory->guest.region_count, err);
}

int machine_make_fw_cfg(struct machine *machine, struct error *err)
{
    uint8_t rsdp[ACPI_RSDP_BYTES];
    const struct firmware_facts facts = {&machine->memory, machine->config, rsdp};
    if (!machine->firmware.bytes)
        return 0;
    int result = fw_cfg_create(&machine->bus, &machine->memory.guest, &machine->fw_cfg, err);
    if (result)
        return result;
    list_push_back(&machine->devices, &machine->fw_cfg->device.node);
    result = machine_write_tables(machine, err);
    if (result)
        return result;
    CHECK(guest_mem_read(&machine->memory.guest, machine->rsdp_gpa, rsdp, sizeof(rsdp)));
    return firmware_describe(machine->fw_cfg, &facts, err);
}

struct boot_list {
    unsigned slots[CONFIG_BOOT_MAX];
    bool is_listed[DRIVE_MAX];
    unsigned count;
};

static void append(struct machine *machine, struct boot_list *list, unsigned disk)
{
    if (list->is_listed[disk] || list->count == CONFIG_BOOT_MAX)
        return;
    list->is_listed[disk] = true;
    list->slots[list->count++] = machine->disk_slots[disk];
}

/* The disks with bootindex=, lowest first. */
static void append_indexed(struct machine *machine, struct boot_list *list)
{
    const struct vm_config *config = machine->config;
    for (;;) {
        int best = -1;
        for (unsigned i = 0; i < config->disk_count; i++) {
            unsigned rank = config->disks[i].boot_rank;
            if (rank && !list->is_listed[i] && (best < 0 || rank < config->disks[best].boot_rank))
                best = (int)i;
        }
        if (best < 0)
            return;
        append(machine, list, (unsigned)best);
    }
}

static void append_kind(struct machine *machine, struct boot_list *list, bool is_cdrom)
{
    const struct vm_config *config = machine->config;
    for (unsigned i = 0; i < config->disk_count; i++)
        if (config->disks[i].is_attached && config->disks[i].is_cdrom == is_cdrom)
            append(machine, list, i);
}

static int set_boot_order(struct machine *machine, struct error *err)
{
    const struct config_boot *boot = &machine->config->boot;
    const char *letters = *boot->once && !machine->has_booted ? boot->once : boot->order;
    struct boot_list list = {0};
    append_indexed(machine, &list);
    for (const char *at = *letters ? letters : "cd"; *at; at++)
        append_kind(machine, &list, *at == 'd');
    machine->has_booted = true;
    return firmware_set_boot_order(machine->fw_cfg, list.slots, list.count, boot->is_strict, err);
}

int machine_load_firmware(struct machine *machine, struct error *err)
{
    firmware_load(&machine->firmware, &machine->memory);
    return set_boot_order(machine, err);
}
