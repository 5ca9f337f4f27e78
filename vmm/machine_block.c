/* SPDX-License-Identifier: MIT */
/* machine_block: lends the machine's disks to vmm/block. */
#include "vmm/machine_block.h"

#include "disk/disk.h"
#include "vmm/block/block.h"
#include "vmm/hotplug/hotplug.h"
#include "vmm/machine_private.h"
#include "vmm/options/disk_path.h"
#include "vmm/options/file_nodes.h"

static bool disk_at(void *opaque, unsigned index, struct disk **disk, const char **id)
{
    const struct machine *machine = opaque;
    if (index >= machine->config->disk_count)
        return false;
    *disk = machine->disks[index];
    *id = machine->config->disks[index].id;
    return true;
}

static struct disk *of_device(void *opaque, const char *name)
{
    const struct machine *machine = opaque;
    for (unsigned i = 0; i < machine->config->disk_count; i++)
        if (machine->disks[i] && disk_path_is(&machine->config->disks[i], i, name))
            return machine->disks[i];
    return NULL;
}

static void forget(void *opaque, struct disk *disk)
{
    machine_forget_disk(opaque, disk);
}

static int hold_file(void *opaque, const char *node, const char **path, struct error *err)
{
    const struct machine *machine = opaque;
    return file_nodes_hold(machine->config, node, path, err);
}

static void release_file(void *opaque, const char *node)
{
    const struct machine *machine = opaque;
    file_nodes_release(machine->config, node);
}

static void emit(void *opaque, const char *event, json_t *data)
{
    machine_emit_event(opaque, event, data);
}

int machine_make_block(struct machine *machine, struct error *err)
{
    const struct block_host host = {.disk_at = disk_at,
                                    .of_device = of_device,
                                    .forget = forget,
                                    .hold_file = hold_file,
                                    .release_file = release_file,
                                    .throttle_groups = &machine->throttle_groups,
                                    .emit = emit,
                                    .opaque = machine};
    return block_create(machine->loop, &host, &machine->block, err);
}

void machine_block_command(struct machine *machine, const char *name, const json_t *arguments,
                           machine_block_fn *done, void *opaque)
{
    block_run(machine->block, name, arguments, done, opaque);
}

int machine_block_check_unused(struct machine *machine, struct disk *disk, struct error *err)
{
    return block_release_disk(machine->block, disk, err);
}

bool machine_block_is_busy(const struct machine *machine)
{
    return machine->block && block_is_busy(machine->block);
}

bool machine_block_exports(const struct machine *machine, const struct disk *disk)
{
    return block_exports_disk(machine->block, disk);
}

bool machine_block_has_node(struct machine *machine, const char *name)
{
    return block_has_node(machine->block, name);
}

const char *machine_job_status(unsigned index)
{
    return block_job_status(index);
}

const char *machine_job_type(unsigned index)
{
    return block_job_type(index);
}

static void on_block_closed(void *opaque)
{
    struct machine *machine = opaque;
    machine->block = NULL;
    machine->on_block_closed(machine);
}

void machine_close_block(struct machine *machine, void (*on_closed)(struct machine *machine))
{
    machine->on_block_closed = on_closed;
    if (machine->block)
        block_close(machine->block, on_block_closed, machine);
    else
        on_closed(machine);
}

void machine_release_delayed(struct machine *machine)
{
    for (unsigned i = 0; i < machine->config->disk_count; i++)
        if (machine->disks[i])
            disk_release_delayed(machine->disks[i]);
}
