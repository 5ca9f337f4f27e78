/* SPDX-License-Identifier: MIT */
/* block_bitmap: dirty bitmaps by command, and backups, as actions of transactions. */
#include <errno.h>
#include <string.h>

#include "vmm/block/block_private.h"

static struct dirty_bitmap *find_in(struct node *node, const char *name, struct error *err)
{
    if (name && *name) {
        list_for_each(entry, &node->bitmaps)
        {
            struct dirty_bitmap *bitmap = list_entry(entry, struct dirty_bitmap, node);
            if (!strcmp(bitmap->name, name))
                return bitmap;
        }
    }
    error_set(err, ENOENT, "Dirty bitmap '%s' not found", name ? name : "");
    return NULL;
}

static int find(struct block_action *action, const char *key, struct error *err)
{
    action->bitmap = find_in(action->chain_node, block_text(action->data, key), err);
    return action->bitmap ? 0 : -ENOENT;
}

/* What may be changed: not one that was lost, not one that a backup uses. */
static int check_usable(const struct block_action *action, struct error *err)
{
    const struct dirty_bitmap *bitmap = action->bitmap;
    if (bitmap->inconsistent)
        return error_set(err, EINVAL,
                         "Bitmap '%s' is inconsistent and cannot be used; try block-dirty-bitmap-"
                         "remove to delete this bitmap from disk",
                         bitmap->name);
    list_for_each(node, &action->block->jobs.list)
    {
        if (list_entry(node, struct job, node)->options.bitmap == bitmap)
            return error_set(err, EBUSY,
                             "Bitmap '%s' is currently in use by another operation and cannot be "
                             "used",
                             bitmap->name);
    }
    if (bitmap->persistent && action->chain_node->read_only)
        return error_set(err, EROFS, "Bitmap '%s' is readonly and cannot be modified",
                         bitmap->name);
    return 0;
}

static int prepare_add(struct block_action *action, struct error *err)
{
    const json_t *data = action->data, *granularity = json_object_get(data, "granularity");
    const char *name = block_text(data, "name");
    if (!name)
        return error_set(err, EINVAL, "Parameter 'name' is missing");
    if (action->chain_node != graph_top(action->disk))
        return error_set(err, ENOTSUP, "Node '%s' is not the top of its disk",
                         action->chain_node->name);
    if ((uint64_t)json_integer_value(granularity) > UINT32_MAX)
        return error_set(err, EINVAL, "Parameter 'granularity' expects uint32_t");
    if (granularity && json_integer_value(granularity) < 512)
        return error_set(err, EINVAL, "Granularity must be power of 2 and at least 512");
    int result = disk_add_bitmap(action->disk, name, block_uint(data, "granularity", 0),
                                 block_bool(data, "persistent", false), &action->bitmap, err);
    if (!result)
        action->bitmap->enabled = !block_bool(data, "disabled", false);
    return result;
}

static void undo_add(struct block_action *action)
{
    list_remove(&action->bitmap->node);
    dirty_bitmap_destroy(action->bitmap);
}

/* Out of the list now; gone, or back, at the end. */
static int prepare_remove(struct block_action *action, struct error *err)
{
    int result = find(action, "name", err);
    if (!result && !action->bitmap->inconsistent)
        result = check_usable(action, err);
    if (!result && block_exports_disk(action->block, action->disk))
        result = error_set(
            err, EBUSY, "Bitmap '%s' is currently in use by another operation and cannot be used",
            action->bitmap->name);
    if (result)
        return result;
    action->bitmaps = &action->chain_node->bitmaps;
    list_remove(&action->bitmap->node);
    return 0;
}

static void undo_remove(struct block_action *action)
{
    list_push_back(action->bitmaps, &action->bitmap->node);
}

static void clean_remove(struct block_action *action)
{
    dirty_bitmap_destroy(action->bitmap);
}

static int save(struct block_action *action, struct error *err)
{
    const struct dirty_bitmap *bitmap = action->bitmap;
    int result =
        dirty_bitmap_create("", bitmap->size_bytes, bitmap->granularity_bits, &action->saved);
    if (result)
        return error_set_errno(err, -result, "Cannot change bitmap '%s'", bitmap->name);
    dirty_bitmap_merge(action->saved, bitmap);
    return 0;
}

static void drop_saved(struct block_action *action)
{
    dirty_bitmap_destroy(action->saved);
}

/* What was written since stays marked: the guest may have gone on. */
static void undo_clear(struct block_action *action)
{
    dirty_bitmap_merge(action->bitmap, action->saved);
    drop_saved(action);
}

static int prepare_clear(struct block_action *action, struct error *err)
{
    int result = find(action, "name", err);
    if (!result)
        result = check_usable(action, err);
    if (!result)
        result = save(action, err);
    if (!result)
        dirty_bitmap_clear(action->bitmap);
    return result;
}

static int prepare_switch(struct block_action *action, struct error *err)
{
    int result = find(action, "name", err);
    if (!result)
        result = check_usable(action, err);
    if (result)
        return result;
    action->was_enabled = action->bitmap->enabled;
    action->bitmap->enabled = !strcmp(action->type->name, "block-dirty-bitmap-enable");
    action->bitmap->changed = true;
    return 0;
}

static void undo_switch(struct block_action *action)
{
    action->bitmap->enabled = action->was_enabled;
}

/* "NAME", or {"node", "name"}. */
static struct dirty_bitmap *find_source(struct block_action *action, const json_t *entry,
                                        struct error *err)
{
    struct node *node = action->chain_node;
    const char *name = json_string_value(entry);
    if (json_is_object(entry)) {
        name = block_text(entry, "name");
        struct error ignored = {0};
        if (!block_find(action->block, block_text(entry, "node"), &node, &ignored)) {
            error_set(err, ENODEV, "Node '%s' not found", block_text(entry, "node"));
            return NULL;
        }
    }
    struct dirty_bitmap *bitmap = find_in(node, name, err);
    if (bitmap && bitmap->size_bytes != action->bitmap->size_bytes) {
        error_set(err, EINVAL,
                  "Bitmaps are of different sizes (destination size is %llu, source "
                  "size is %llu) and can't be merged",
                  (unsigned long long)action->bitmap->size_bytes,
                  (unsigned long long)bitmap->size_bytes);
        return NULL;
    }
    return bitmap;
}

static int prepare_merge(struct block_action *action, struct error *err)
{
    const json_t *list = json_object_get(action->data, "bitmaps"), *entry;
    size_t index;
    int result = find(action, "target", err);
    if (!result)
        result = check_usable(action, err);
    if (!result)
        result = save(action, err);
    if (result)
        return result;
    json_array_foreach(list, index, entry)
    {
        const struct dirty_bitmap *from = find_source(action, entry, err);
        if (!from) {
            dirty_bitmap_clear(action->bitmap);
            undo_clear(action);
            return -ENOENT;
        }
        dirty_bitmap_merge(action->bitmap, from);
    }
    return 0;
}

static void undo_merge(struct block_action *action)
{
    dirty_bitmap_clear(action->bitmap);
    undo_clear(action);
}

const struct block_action_type block_bitmap_actions[] = {
    {"block-dirty-bitmap-add", false, "node", NULL, prepare_add, NULL, NULL, undo_add, NULL},
    {"block-dirty-bitmap-remove", false, "node", NULL, prepare_remove, NULL, NULL, undo_remove,
     clean_remove},
    {"block-dirty-bitmap-clear", false, "node", NULL, prepare_clear, NULL, NULL, undo_clear,
     drop_saved},
    {"block-dirty-bitmap-enable", false, "node", NULL, prepare_switch, NULL, NULL, undo_switch,
     NULL},
    {"block-dirty-bitmap-disable", false, "node", NULL, prepare_switch, NULL, NULL, undo_switch,
     NULL},
    {"block-dirty-bitmap-merge", false, "node", NULL, prepare_merge, NULL, NULL, undo_merge,
     drop_saved},
    {NULL, false, NULL, NULL, NULL, NULL, NULL, NULL, NULL},
};

/* --- backups --- */

/* With other modes than incremental and bitmap it only tells afterwards what is not copied. */
static int use_bitmap(struct block_action *action, unsigned sync, enum job_bitmap_mode mode,
                      struct error *err)
{
    int result = check_usable(action, err);
    if (result)
        return result;
    if (action->job.sync == JOB_SYNC_NONE)
        return error_set(err, EINVAL,
                         "sync mode 'none' does not produce meaningful bitmap outputs");
    if (mode == JOB_BITMAP_NEVER && sync < 3)
        return error_set(err, EINVAL,
                         "Bitmap sync mode 'never' has no meaningful effect when combined with "
                         "sync mode '%s'",
                         sync ? "top" : "full");
    action->job.bitmap_mode = mode;
    action->job.bitmap = action->bitmap;
    return 0;
}

static int set_bitmap(struct block_action *action, unsigned sync, struct error *err)
{
    unsigned mode;
    const char *name = block_text(action->data, "bitmap");
    if (sync >= 3 && !name)
        return error_set(err, EINVAL, "must provide a valid bitmap name for '%s' sync mode",
                         sync == 3 ? "incremental" : "bitmap");
    int result =
        block_choice(action->data, "bitmap-mode", "on-success|never|always", 3, &mode, err);
    if (result)
        return result;
    if (sync == 3 && mode != 3 && mode != JOB_BITMAP_ON_SUCCESS)
        return error_set(err, EINVAL,
                         "Bitmap sync mode must be 'on-success' when using sync mode "
                         "'incremental'");
    if (sync == 3)
        mode = JOB_BITMAP_ON_SUCCESS;
    if (!name)
        return mode == 3
                   ? 0
                   : error_set(err, EINVAL, "Cannot specify bitmap sync mode without a bitmap");
    if (find(action, "bitmap", err))
        return block_say_instead(err, ENOENT, "Bitmap '%s' could not be found", name);
    if (mode == 3)
        return error_set(err, EINVAL, "Bitmap sync mode must be given when providing a bitmap");
    return use_bitmap(action, sync, (enum job_bitmap_mode)mode, err);
}

static int describe_backup(struct block_action *action, struct block_image *image,
                           struct error *err)
{
    static const enum job_sync syncs[] = {JOB_SYNC_FULL, JOB_SYNC_TOP, JOB_SYNC_NONE,
                                          JOB_SYNC_BITMAP, JOB_SYNC_BITMAP};
    unsigned sync;
    const json_t *data = action->data;
    const struct disk *disk = action->disk, *below = disk_backing(disk);
    if (action->chain_node != graph_top(disk))
        return error_set(err, EINVAL, "Need a root block node");
    if (!block_text(data, "target") || !block_text(data, "sync"))
        return error_set(err, EINVAL, "Parameter '%s' is missing",
                         block_text(data, "target") ? "sync" : "target");
    int result = block_choice(data, "sync", "full|top|none|incremental|bitmap", 0, &sync, err);
    action->job = (struct job_options){.kind = JOB_BACKUP,
                                       .is_quiet = true,
                                       .sync = syncs[sync],
                                       .group = block_action_group(action)};
    if (!result && block_bool(data, "compress", false))
        result = error_set(err, ENOTSUP, "compress is not there; use evisor-img convert -c");
    if (!result)
        result = block_job_options(action->block, data, action->disk, &action->job, err);
    if (sync == 1 && !below)
        action->job.sync = JOB_SYNC_FULL;
    if (result || strcmp(action->type->name, "drive-backup") != 0)
        return result;
    return block_describe_target(data, disk, &action->job,
                                 sync == 1 && below ? disk_path(below) : NULL, image, err);
}

/* How the data says it: the bitmap may be one that this transaction makes. */
static int add_bitmap(struct block_action *action, struct error *err)
{
    unsigned sync;
    int result =
        block_choice(action->data, "sync", "full|top|none|incremental|bitmap", 0, &sync, err);
    return result ? result : set_bitmap(action, sync, err);
}

static int prepare_backup(struct block_action *action, struct error *err)
{
    struct block_image image = {0};
    const struct disk *disk = action->disk;
    int result = describe_backup(action, &image, err);
    if (!result)
        result = add_bitmap(action, err);
    if (!result)
        result = block_take_target(action->block, action->data, action->making, &image,
                                   &action->job, err);
    if (!result && disk_size_bytes(action->job.target) != disk_size_bytes(disk)) {
        result = error_set(err, EINVAL, "Source and target image have different sizes");
        if (image.path)
            block_close_disk(action->block, action->job.target);
    }
    return result;
}

static int start_backup(struct block_action *action, struct error *err)
{
    return job_start(&action->block->jobs, &action->job, &action->started, err);
}

static void undo_backup(struct block_action *action)
{
    struct error ignored = {0};
    if (action->started)
        unused_result(job_cancel(action->started, true, &ignored));
    else if (!strcmp(action->type->name, "drive-backup"))
        block_close_disk(action->block, action->job.target);
}

const struct block_action_type block_backup_actions[] = {
    {"drive-backup", true, "device", describe_backup, prepare_backup, NULL, start_backup,
     undo_backup, NULL},
    {"blockdev-backup", true, "device", NULL, prepare_backup, NULL, start_backup, undo_backup,
     NULL},
    {NULL, false, NULL, NULL, NULL, NULL, NULL, NULL, NULL},
};
