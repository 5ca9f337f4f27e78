/* SPDX-License-Identifier: MIT */
/* img_bitmaps: adds to the target what the source has, of the same granularity, and merges. */
#include "tools/img/img_bitmaps.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/img/img_source.h"

static struct dirty_bitmap *bitmap_of(struct list *node)
{
    return list_entry(node, struct dirty_bitmap, node);
}

int img_bitmaps_check(struct disk *from, bool skip_broken)
{
    list_for_each(node, disk_bitmaps(from))
    {
        const struct dirty_bitmap *bitmap = bitmap_of(node);
        if (bitmap->inconsistent && !skip_broken)
            return img_error("Cannot copy inconsistent bitmap '%s'\nTry --skip-broken-bitmaps, or "
                             "use 'evisor-img bitmap --remove' to delete it",
                             bitmap->name);
    }
    return 0;
}

static int copy_one(struct disk *to, const struct dirty_bitmap *from)
{
    struct dirty_bitmap *bitmap;
    struct error err = {0};
    int result =
        disk_add_bitmap(to, from->name, UINT64_C(1) << from->granularity_bits, true, &bitmap, &err);
    if (result)
        return img_error("Failed to create bitmap %s: %s", from->name, err.text);
    dirty_bitmap_merge(bitmap, from);
    bitmap->enabled = from->enabled;
    return 0;
}

int img_bitmaps_copy(struct loop *loop, struct disk *from, const char *target_path,
                     const char *target_format, bool skip_broken)
{
    const struct img_source_options options = {
        .path = target_path, .format = target_format, .writable = true, .no_backing = true};
    struct img_source target;
    if (list_is_empty(disk_bitmaps(from)))
        return 0;
    if (img_bitmaps_check(from, skip_broken) || img_source_open(loop, &options, &target))
        return 1;
    int status = 0;
    list_for_each(node, disk_bitmaps(from))
    {
        const struct dirty_bitmap *bitmap = bitmap_of(node);
        if (bitmap->inconsistent)
            fprintf(stderr, "evisor-img: warning: Skipping inconsistent bitmap '%s'\n",
                    bitmap->name);
        else if (!status && bitmap->persistent)
            status = copy_one(target.disk, bitmap);
    }
    int result = img_source_close(&target);
    if (result && !status)
        status = img_error("Could not close '%s': %s", target_path, strerror(-result));
    return status;
}

struct dirty_bitmap *img_bitmaps_find(struct disk *disk, const char *name, bool use,
                                      struct error *err)
{
    struct dirty_bitmap *bitmap = disk_find_bitmap(disk, name);
    if (!bitmap) {
        error_set(err, ENOENT, "Dirty bitmap '%s' not found", name);
        return NULL;
    }
    if (bitmap->inconsistent && use) {
        error_set(err, EINVAL,
                  "Bitmap '%s' is inconsistent and cannot be used\nTry block-dirty-bitmap-remove "
                  "to delete this bitmap from disk",
                  name);
        return NULL;
    }
    return bitmap;
}
