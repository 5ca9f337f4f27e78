/* SPDX-License-Identifier: MIT */
/*
 * hotplug_reopen: blockdev-reopen: what the entries mean for the machine's disks. What is to be
 * written to from now on is opened once by the opener's thread, before vmm/block does the rest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/block.h"
#include "vmm/hotplug/hotplug_private.h"
#include "vmm/machine_block.h"
#include "vmm/machine_private.h"
#include "vmm/options/file_nodes.h"
#include "vmm/options/options_private.h"

struct reopen {
    struct machine *machine;
    struct block_reopening *nodes;
    unsigned *indices;  /* of their disks */
    unsigned count, at; /* of those that are looked at */
    machine_done_fn *on_done;
    void *opaque;
};

/* --- what may be changed --- */

/* A device was told at its start whether it may write; so was an export. */
static int check_users(struct machine *machine, unsigned index, bool read_only, struct error *err)
{
    struct disk *disk = machine->disks[index];
    const char *name = disk_node_name(disk);
    bool is_used =
        machine->config->disks[index].is_attached || machine_block_exports(machine, disk);
    if (!is_used || read_only == disk_is_read_only(disk))
        return 0;
    if (read_only)
        return error_set(err, EPERM, "Read-only block node '%s' cannot support read-write users",
                         name);
    return error_set(err, EBUSY,
                     "Node '%s' is read-only for what uses it: device_del the device, or "
                     "block-export-del the export, and try again",
                     name);
}

/* It is below under this name, or was opened by it as a node that names the same file. */
static bool is_below(struct machine *machine, const struct disk *below, const char *name)
{
    int index = machine_drive_index(machine, name);
    const char *path =
        index < 0 ? file_nodes_path(machine->config, name) : disk_path(machine->disks[index]);
    return strcmp(disk_node_name(below), name) == 0 ||
           (path && strcmp(path, disk_path(below)) == 0);
}

/* What an image names by itself has no name of a person's, and need not be said again. */
static int check_backing(struct machine *machine, const struct disk *disk,
                         const struct keyval *list, struct error *err)
{
    const struct disk *below = disk_backing(disk);
    const char *name = keyval_get(list, "backing");
    for (unsigned i = 0; i < list->count; i++)
        if (strncmp(list->pairs[i].key, "backing.", 8) == 0)
            return error_set(err, EINVAL, "Cannot change the option '%s'", list->pairs[i].key);
    if (!name && below && *disk_node_name(below) != '#')
        return error_set(err, EINVAL, "backing is missing for '%s'", disk_node_name(disk));
    if (!name || (!*name && !below) || (below && is_below(machine, below, name)))
        return 0;
    if (*name && !machine_block_has_node(machine, name) && !file_nodes_has(machine->config, name))
        return error_set(err, ENOENT, "Cannot find device='' nor node-name='%s'", name);
    return error_set(err, ENOTSUP,
                     "Cannot change the option 'backing' of node '%s' while it is open: use "
                     "blockdev-snapshot, block-stream or block-commit",
                     disk_node_name(disk));
}

/* The disk whose top has that name. */
static int find(struct machine *machine, const char *name, unsigned *index, struct error *err)
{
    if (!name)
        return error_set(err, EINVAL, "node-name not specified");
    for (*index = 0; *index < machine->config->disk_count; ++*index)
        if (machine->disks[*index] && strcmp(disk_node_name(machine->disks[*index]), name) == 0)
            return 0;
    if (file_nodes_has(machine->config, name))
        return error_set(err, ENOTSUP,
                         "Node '%s' is a file, which is opened as the image in it is: reopen the "
                         "node of the image",
                         name);
    if (machine_block_has_node(machine, name) && machine_drive_index(machine, name) < 0)
        return error_set(err, ENOTSUP,
                         "Node '%s' is below another image, and only read: reopen the node on top",
                         name);
    return error_set(err, ENOENT, "Failed to find node with node-name='%s'", name);
}

/* Of two entries about one disk the last one counts. */
static struct block_reopening *find_entry(struct reopen *reopen, const struct disk *disk)
{
    for (unsigned i = 0; i < reopen->count; i++)
        if (reopen->nodes[i].disk == disk)
            return &reopen->nodes[i];
    return NULL;
}

static int add_node(struct reopen *reopen, struct keyval *list, struct error *err)
{
    struct machine *machine = reopen->machine;
    unsigned index = 0;
    int result = find(machine, keyval_get(list, "node-name"), &index, err);
    if (result)
        return result;
    struct disk *disk = machine->disks[index];
    struct disk_options now = machine->config->disks[index].options, wanted;
    if (strcmp(now.path, disk_path(disk)) != 0)
        now.data_file_path = NULL; /* of the image that was on top before */
    now.path = disk_path(disk);
    now.format = disk_format(disk);
    now.read_only = disk_is_read_only(disk);
    result = options_blockdev_reread(machine->config, list, &now, &wanted, err);
    if (!result)
        result = check_backing(machine, disk, list, err);
    if (!result)
        result = check_users(machine, index, wanted.read_only, err);
    struct block_reopening *node = find_entry(reopen, disk);
    if (!result && node)
        block_reopen_unclaim(disk);
    if (!result)
        result = block_reopen_claim(disk, wanted.read_only, err);
    if (result)
        return result;
    if (!node)
        node = &reopen->nodes[reopen->count++];
    reopen->indices[node - reopen->nodes] = index;
    *node = (struct block_reopening){.disk = disk, .now = now, .wanted = wanted};
    return 0;
}

/* --- the steps --- */

static void free_reopen(struct reopen *reopen)
{
    free(reopen->nodes);
    free(reopen->indices);
    free(reopen);
}

static int check_again(void *opaque, unsigned at, struct error *err)
{
    const struct reopen *reopen = opaque;
    return check_users(reopen->machine, reopen->indices[at], reopen->nodes[at].wanted.read_only,
                       err);
}

static void on_reopened(void *opaque, int result, const struct error *err)
{
    struct reopen *reopen = opaque;
    struct machine *machine = reopen->machine;
    for (unsigned i = 0; i < reopen->count; i++) {
        struct disk_options *options = &machine->config->disks[reopen->indices[i]].options;
        const struct block_reopening *node = &reopen->nodes[i];
        options->read_only = disk_is_read_only(node->disk);
        options->discard_unmap = result ? options->discard_unmap : node->wanted.discard_unmap;
        options->cache.direct = result ? options->cache.direct : node->wanted.cache.direct;
        options->cache.no_flush = result ? options->cache.no_flush : node->wanted.cache.no_flush;
    }
    reopen->on_done(reopen->opaque, result, err);
    free_reopen(reopen);
    hotplug_close_ends(machine);
}

static const struct block_reopen_host host = {check_again, on_reopened};

static void unclaim_all(const struct reopen *reopen)
{
    for (unsigned i = 0; i < reopen->count; i++)
        block_reopen_unclaim(reopen->nodes[i].disk);
}

static void fail(struct reopen *reopen, int result, const struct error *err)
{
    unclaim_all(reopen);
    reopen->on_done(reopen->opaque, result, err);
    free_reopen(reopen);
}

static void open_next(struct reopen *reopen);

static int add_nothing(struct machine *machine, struct keyval *list, struct error *err)
{
    (void)machine, (void)list, (void)err;
    return 0;
}

static void on_opened(void *opaque, int result, const struct error *err)
{
    struct reopen *reopen = opaque;
    reopen->at++;
    if (result)
        fail(reopen, result, err);
    else
        open_next(reopen);
}

static bool becomes_writable(const struct block_reopening *node)
{
    return !node->wanted.read_only && node->now.read_only;
}

/* From the first quiet disk on the machine waits for the end. */
static void open_next(struct reopen *reopen)
{
    while (reopen->at < reopen->count && !becomes_writable(&reopen->nodes[reopen->at]))
        reopen->at++;
    if (reopen->at == reopen->count) {
        hotplug_close_begins(reopen->machine);
        block_reopen(reopen->nodes, reopen->count, &host, reopen);
        return;
    }
    struct keyval none = {0};
    struct error err = {0};
    struct disk_options image = reopen->nodes[reopen->at].wanted;
    image.no_backing = true;
    image.backing_path = NULL;
    int result =
        hotplug_open_first(reopen->machine, &image, &none, add_nothing, on_opened, reopen, &err);
    if (result)
        fail(reopen, result, &err);
}

int machine_blockdev_reopen(struct machine *machine, struct keyval *lists, unsigned count,
                            machine_done_fn *on_done, void *opaque, struct error *err)
{
    struct reopen *reopen = calloc(1, sizeof(*reopen));
    CHECK(reopen);
    *reopen = (struct reopen){.machine = machine, .on_done = on_done, .opaque = opaque};
    reopen->nodes = calloc(count + 1, sizeof(*reopen->nodes));
    reopen->indices = calloc(count + 1, sizeof(*reopen->indices));
    CHECK(reopen->nodes && reopen->indices);
    int result = 0;
    for (unsigned i = 0; i < count && !result; i++)
        result = add_node(reopen, &lists[i], err);
    if (!result) {
        open_next(reopen);
        return 0;
    }
    unclaim_all(reopen);
    free_reopen(reopen);
    return result;
}
