/* SPDX-License-Identifier: MIT */
/* block_snapshot: snapshots of disks in use, in new images above or inside the image. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/block_private.h"

static int check_disk(struct block_action *action, struct error *err)
{
    if (action->chain_node != graph_top(action->disk))
        return error_set(err, EINVAL, "Need a root block node");
    if (block_action_has_twin(action))
        return error_set(err, EINVAL, "Node '%s' is snapshotted twice in one transaction",
                         disk_node_name(action->disk));
    return block_check_free(action->disk, err);
}

/* The file names what it stands on as it was opened, made absolute where the two lie apart. */
static char *backing_name(const char *path, const char *below)
{
    const char *slash = strrchr(path, '/'), *below_slash = strrchr(below, '/');
    size_t folder = slash ? (size_t)(slash - path) : 0;
    if (slash && below_slash && (size_t)(below_slash - below) == folder &&
        !memcmp(path, below, folder))
        return strdup(below_slash + 1);
    if (*below == '/' || (!slash && !below_slash))
        return strdup(below);
    return realpath(below, NULL);
}

static int describe_sync(struct block_action *action, struct block_image *image, struct error *err)
{
    const json_t *data = action->data;
    struct disk *disk = action->disk;
    unsigned mode;
    int result = check_disk(action, err);
    if (!result)
        result = block_choice(data, "mode", "absolute-paths|existing", 0, &mode, err);
    if (result)
        return result;
    const char *format = block_text(data, "format"), *path = block_text(data, "snapshot-file");
    const char *name = block_text(data, "snapshot-node-name");
    struct node *other;
    struct error ignored = {0};
    if (!path)
        return error_set(err, EINVAL, "Parameter 'snapshot-file' is missing");
    if (name && block_find(action->block, name, &other, &ignored))
        return error_set(err, EEXIST, "New overlay node-name already in use");
    if (graph_find(disk, path, true))
        return error_set(err, EINVAL,
                         "Error: Trying to create an image with the same filename as the backing "
                         "file");
    free(action->backing_name);
    action->backing_name = backing_name(path, disk_path(disk));
    *image = (struct block_image){
        .path = path,
        .format = format ? format : "qcow2",
        .node_name = name,
        .backing_path = action->backing_name,
        .backing_format = disk_format(disk),
        .is_existing = mode == 1,
        .size_bytes = disk_size_bytes(disk),
        .no_backing = true,
    };
    return action->backing_name
               ? 0
               : error_set_errno(err, errno, "Could not find '%s'", disk_path(disk));
}

static int prepare_sync(struct block_action *action, struct error *err)
{
    struct block_image image;
    int result = describe_sync(action, &image, err);
    if (result)
        return result;
    return block_image_open(action->making, action->disk, &image, &action->overlay, err);
}

static int prepare_overlay(struct block_action *action, struct error *err)
{
    const char *name = block_text(action->data, "overlay");
    int result = check_disk(action, err);
    if (result)
        return result;
    struct disk *overlay = block_find_root(action->block, name, err);
    if (!overlay)
        return -ENODEV;
    if (overlay == action->disk)
        return error_set(err, EINVAL, "Node '%s' cannot be its own overlay", name);
    if (disk_backing(overlay))
        return error_set(err, EINVAL, "The overlay already has a backing image");
    if (disk_is_read_only(overlay) || !graph_top(overlay)->ops->set_backing)
        return error_set(err, EINVAL, "The overlay does not support backing images");
    if (disk_size_bytes(overlay) != disk_size_bytes(action->disk))
        return error_set(err, EINVAL, "The overlay has another size than '%s'",
                         disk_path(action->disk));
    result = block_release_disk(action->block, overlay, err);
    if (!result)
        action->overlay = overlay;
    return result;
}

static void on_frozen(void *opaque, int result)
{
    struct block_action *action = opaque;
    action->is_frozen = !result && !action->was_read_only;
    block_action_done(action, result, NULL);
}

static void freeze(struct block_action *action)
{
    action->was_read_only = disk_is_read_only(action->disk);
    graph_freeze_top(action->disk, on_frozen, action);
}

static int push_made(struct block_action *action, struct error *err)
{
    int result = graph_push(action->disk, action->overlay, err);
    if (!result) {
        action->overlay = NULL;
        action->is_frozen = false;
    }
    return result;
}

static int push_named(struct block_action *action, struct error *err)
{
    action->block->host.forget(action->block->host.opaque, action->overlay);
    return push_made(action, err);
}

/* The image is written to again, by whom it was before. */
static void thaw(struct block_action *action)
{
    struct error err = {0};
    struct node *node;
    if (action->is_frozen)
        unused_result(graph_reopen(action->disk, graph_top(action->disk), false, &node, &err));
}

static void abort_made(struct block_action *action)
{
    thaw(action);
    if (action->overlay)
        block_close_disk(action->block, action->overlay);
}

/* --- inside the image --- */

static int prepare_internal(struct block_action *action, struct error *err)
{
    const char *name = block_text(action->data, "name"),
               *id = block_id_of(action->block, action->disk);
    struct disk_snapshot_info info;
    int result = check_disk(action, err);
    if (result)
        return result;
    if (!name || !*name)
        return error_set(err, EINVAL, "Name is empty");
    if (disk_is_read_only(action->disk))
        return error_set(err, EROFS, "Device '%s' is read only", id);
    if (!graph_top(action->disk)->ops->snapshot)
        return error_set(
            err, ENOTSUP,
            "Block format '%s' used by device '%s' does not support internal snapshots",
            disk_format(action->disk), id);
    for (size_t i = 0; i < disk_snapshot_count(action->disk); i++) {
        disk_snapshot_get(action->disk, i, &info);
        if (!strcmp(info.name, name))
            return error_set(err, EEXIST, "Snapshot with name '%s' already exists on device '%s'",
                             name, id);
    }
    action->snapshot = (struct disk_snapshot_request){.action = DISK_SNAPSHOT_CREATE, .name = name};
    return 0;
}

static void on_internal_done(void *opaque, int result, const struct error *err)
{
    struct block_action *action = opaque;
    action->is_frozen = !result; /* there is something to take back */
    block_action_done(action, result, err);
}

static void run_internal(struct block_action *action)
{
    struct node *top = graph_top(action->disk);
    top->ops->snapshot(top, &action->snapshot, on_internal_done, action);
}

struct removal {
    struct disk_snapshot_request request;
    struct block_call *call; /* NULL: an undone action */
    char *name;
    json_t *answer;
};

static void on_removed(struct disk_snapshot_request *request, int result, const struct error *err)
{
    struct removal *removal = container_of(request, struct removal, request);
    if (removal->call && !result)
        block_return(removal->call, json_incref(removal->answer));
    else if (removal->call)
        block_finish(removal->call, result, err);
    json_decref(removal->answer);
    free(removal->name);
    free(removal);
}

static void remove_snapshot(struct disk *disk, const char *name, struct block_call *call,
                            json_t *answer)
{
    struct removal *removal = calloc(1, sizeof(*removal));
    CHECK(removal);
    removal->name = strdup(name);
    CHECK(removal->name);
    removal->call = call;
    removal->answer = answer;
    removal->request = (struct disk_snapshot_request){
        .action = DISK_SNAPSHOT_DELETE, .name = removal->name, .on_done = on_removed};
    disk_snapshot(disk, &removal->request);
}

static void abort_internal(struct block_action *action)
{
    if (action->is_frozen)
        remove_snapshot(action->disk, action->snapshot.name, NULL, NULL);
}

static bool is_wanted(const struct disk_snapshot_info *info, const char *id, const char *name)
{
    return (!id || !strcmp(info->id, id)) && (!name || !strcmp(info->name, name));
}

void block_snapshot_delete(struct block_call *call)
{
    struct error err = {0};
    const char *device = block_text(call->args, "device"), *name = block_text(call->args, "name");
    const char *id = block_text(call->args, "id");
    struct disk_snapshot_info info;
    struct disk *disk = block_find_root(call->block, device, &err);
    if (!disk || block_check_free(disk, &err)) {
        block_finish(call, -EINVAL, &err);
        return;
    }
    if (!name && !id) {
        block_fail(call, BLOCK_GENERIC, "Name or id must be provided");
        return;
    }
    for (size_t i = 0; i < disk_snapshot_count(disk); i++) {
        disk_snapshot_get(disk, i, &info);
        if (!is_wanted(&info, id, name))
            continue;
        remove_snapshot(disk, info.id, call,
                        json_pack("{s:I,s:s,s:I,s:I,s:I,s:s,s:I}", "vm-clock-nsec",
                                  (json_int_t)(info.vm_clock_ns % 1000000000), "name", info.name,
                                  "date-sec", (json_int_t)info.date_sec, "date-nsec",
                                  (json_int_t)info.date_nsec, "vm-clock-sec",
                                  (json_int_t)(info.vm_clock_ns / 1000000000), "id", info.id,
                                  "vm-state-size", (json_int_t)info.vmstate_bytes));
        return;
    }
    block_fail(call, BLOCK_GENERIC,
               "Snapshot with id '%s' and name '%s' does not exist on device '%s'",
               id ? id : "null", name ? name : "null", device);
}

const struct block_action_type block_snapshot_actions[] = {
    {"blockdev-snapshot-sync", true, "device", describe_sync, prepare_sync, freeze, push_made,
     abort_made, NULL},
    {"blockdev-snapshot", true, "node", NULL, prepare_overlay, freeze, push_named, thaw, NULL},
    {"blockdev-snapshot-internal-sync", true, "device", NULL, prepare_internal, run_internal, NULL,
     abort_internal, NULL},
    {NULL, false, NULL, NULL, NULL, NULL, NULL, NULL, NULL},
};
