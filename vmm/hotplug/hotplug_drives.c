/* SPDX-License-Identifier: MIT */
/*
 * hotplug_drives: the machine's table of disks, whose entries come and go: drives of the command
 * line and drive_add, nodes of blockdev-add, and the disks that jobs make.
 *
 * The table never moves. A drive goes with its device; a node stays until blockdev-del.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "disk/disk.h"
#include "vmm/drive_format.h"
#include "vmm/hotplug/hotplug_private.h"
#include "vmm/machine_block.h"
#include "vmm/machine_private.h"
#include "vmm/machine_throttle.h"
#include "vmm/options/file_nodes.h"
#include "vmm/options/options_private.h"

int machine_drive_index(const struct machine *machine, const char *name)
{
    for (unsigned i = 0; i < machine->config->disk_count; i++)
        if (machine->disks[i] && strcmp(machine->config->disks[i].id, name) == 0)
            return (int)i;
    return -1;
}

struct disk *machine_find_disk(const struct machine *machine, const char *name)
{
    int index = machine_drive_index(machine, name);
    return index < 0 ? NULL : machine->disks[index];
}

static int take_entry(struct machine *machine, unsigned *index, struct error *err)
{
    struct vm_config *config = machine->config;
    unsigned i = 0;
    while (i < config->disk_count && (machine->disks[i] || config->disks[i].id))
        i++;
    if (i == DRIVE_MAX)
        return error_set(err, ENOSPC, "the machine has %d disks already: remove one first",
                         DRIVE_MAX);
    config->disk_count = MAX(config->disk_count, i + 1);
    *index = i;
    return 0;
}

static void free_entry(struct machine *machine, unsigned index)
{
    machine->disks[index] = NULL;
    machine->disk_policies[index] = (struct disk_policy){0};
    options_disk_fini(&machine->config->disks[index]);
    memset(&machine->config->disks[index], 0, sizeof(machine->config->disks[index]));
}

void machine_forget_disk(struct machine *machine, struct disk *disk)
{
    for (unsigned i = 0; i < machine->config->disk_count; i++) {
        if (machine->disks[i] != disk)
            continue;
        CHECK(!machine->config->disks[i].is_attached);
        free_entry(machine, i);
        return;
    }
}

struct image_closing {
    struct machine *machine;
    machine_done_fn *on_done;
    void *opaque;
};

static void on_disk_closed(void *opaque, int result)
{
    struct image_closing *closing = opaque;
    struct machine *machine = closing->machine;
    struct error err = {0};
    if (result)
        error_set_errno(&err, -result, "closing the image failed");
    closing->on_done(closing->opaque, result, &err);
    free(closing);
    hotplug_close_ends(machine);
}

static void close_entry(struct machine *machine, unsigned index, machine_done_fn *on_done,
                        void *opaque)
{
    struct image_closing *closing = calloc(1, sizeof(*closing));
    CHECK(closing);
    *closing = (struct image_closing){machine, on_done, opaque};
    struct disk *disk = machine->disks[index];
    free_entry(machine, index);
    hotplug_close_begins(machine);
    disk_close(disk, on_disk_closed, closing);
}

struct disk *hotplug_take_image(struct machine *machine, unsigned index)
{
    struct error ignored = {0};
    struct disk *disk = machine->disks[index];
    /* A guest may let go of a disk that a job works on: it stays, until drive_del. */
    if (machine->config->disks[index].is_node ||
        machine_block_check_unused(machine, disk, &ignored))
        return NULL;
    free_entry(machine, index);
    return disk;
}

void hotplug_drive_removed(struct machine *machine, unsigned index)
{
    struct config_disk *config = &machine->config->disks[index];
    machine->disk_policies[index] = (struct disk_policy){0};
    free(config->qdev_id);
    config->qdev_id = NULL;
    config->is_attached = false;
    config->boot_rank = 0;
    config->io_thread = 0;
}

static void on_refused_closed(void *opaque, int result)
{
    (void)result; /* nothing was written */
    hotplug_close_ends(opaque);
}

/* `config` is taken over where it succeeds. */
static int open_entry(struct machine *machine, struct config_disk *config, unsigned *index,
                      struct error *err)
{
    struct disk *disk;
    int result = take_entry(machine, index, err);
    if (!result && !config->options.format)
        result = drive_format_tell(config->options.path, &config->options.format, err);
    if (!result)
        result = disk_open(machine->loop, &config->options, &disk, err);
    if (result)
        return result;
    disk_set_node_name(disk, config->id);
    result = machine_limit_disk(machine, config, disk, err);
    if (result) {
        disk_close(disk, on_refused_closed, machine);
        hotplug_close_begins(machine);
        return result;
    }
    machine->config->disks[*index] = *config;
    machine->disks[*index] = disk;
    return 0;
}

static int add_node(struct machine *machine, struct keyval *list, struct error *err)
{
    struct config_disk config;
    bool is_file;
    unsigned index;
    int result = options_blockdev_read(machine->config, list, &config, &is_file, err);
    if (result || is_file)
        return result;
    result = open_entry(machine, &config, &index, err);
    if (result)
        options_disk_fini(&config);
    return result;
}

int machine_blockdev_add(struct machine *machine, struct keyval *list, machine_done_fn *on_done,
                         void *opaque, struct error *err)
{
    struct disk_options image;
    int result = options_blockdev_check(machine->config, list, err);
    if (!result && machine_block_has_node(machine, keyval_get(list, "node-name")))
        result = error_set(err, EEXIST, "Duplicate nodes with node-name='%s'",
                           keyval_get(list, "node-name"));
    if (result)
        return result;
    options_blockdev_peek(machine->config, list, &image);
    return hotplug_open_first(machine, &image, list, add_node, on_done, opaque, err);
}

int hotplug_open_file(struct machine *machine, const char *name, struct error *err)
{
    struct config_disk config;
    unsigned index = 0;
    int result = options_blockdev_from_file(machine->config, name, &config, err);
    if (result)
        return result;
    result = open_entry(machine, &config, &index, err);
    if (result)
        options_disk_fini(&config);
    return result ? result : (int)index;
}

static int check_unused(struct machine *machine, unsigned index, struct error *err)
{
    const struct config_disk *config = &machine->config->disks[index];
    if (config->is_attached)
        return error_set(err, EBUSY, "Node %s is in use", config->id);
    return machine_block_check_unused(machine, machine->disks[index], err);
}

int machine_blockdev_del(struct machine *machine, const char *name, machine_done_fn *on_done,
                         void *opaque, struct error *err)
{
    int index = machine_drive_index(machine, name);
    if (index < 0 && file_nodes_has(machine->config, name)) {
        int result = file_nodes_del(machine->config, name, err);
        if (!result)
            on_done(opaque, 0, NULL);
        return result;
    }
    if (index < 0 && machine_block_has_node(machine, name))
        return error_set(err, EBUSY, "Node %s is in use", name);
    if (index < 0)
        return error_set(err, ENOENT, "Failed to find node with node-name='%s'", name);
    if (!machine->config->disks[index].is_node)
        return error_set(err, EPERM, "Node %s is not owned by the monitor", name);
    int result = check_unused(machine, (unsigned)index, err);
    if (!result)
        close_entry(machine, (unsigned)index, on_done, opaque);
    return result;
}

static int add_drive(struct machine *machine, struct keyval *list, struct error *err)
{
    const char *name = keyval_get(list, "id");
    struct config_disk config = {0};
    char own[32];
    unsigned index;
    for (unsigned i = 0; !name; i++) {
        snprintf(own, sizeof(own), "none%u", i);
        name = machine_find_disk(machine, own) ? NULL : own;
    }
    if (machine_find_disk(machine, name))
        return error_set(err, EEXIST, "Duplicate ID '%s' for drive", name);
    int result = options_drive_read(&config, list, err);
    if (!result)
        config.id = text_copy(name);
    if (!result)
        result = open_entry(machine, &config, &index, err);
    if (result)
        options_disk_fini(&config);
    return result;
}

int machine_drive_add(struct machine *machine, struct keyval *list, machine_done_fn *on_done,
                      void *opaque, struct error *err)
{
    const char *interface = keyval_get(list, "if");
    struct config_disk config = {0};
    if (!interface || strcmp(interface, "none") != 0)
        return error_set(err, ENOTSUP, "Can't hot-add drive to type %s: use if=none and device_add",
                         interface ? interface : "virtio");
    int result = options_drive_read(&config, list, err);
    if (!result)
        result =
            hotplug_open_first(machine, &config.options, list, add_drive, on_done, opaque, err);
    options_disk_fini(&config);
    return result;
}

int machine_drive_del(struct machine *machine, const char *id, machine_done_fn *on_done,
                      void *opaque, struct error *err)
{
    int index = machine_drive_index(machine, id);
    if (index < 0)
        return error_set(err, ENODEV, "Device '%s' not found", id);
    if (machine->config->disks[index].is_attached)
        return error_set(err, EBUSY, "Device '%s' is in use: use device_del first", id);
    int result = check_unused(machine, (unsigned)index, err);
    if (!result)
        close_entry(machine, (unsigned)index, on_done, opaque);
    return result;
}
