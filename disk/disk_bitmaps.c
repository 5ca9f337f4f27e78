/* SPDX-License-Identifier: MIT */
/* disk_bitmaps: making and finding the dirty bitmaps of a disk. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/dirty.h"
#include "disk/disk_private.h"

struct list *disk_bitmaps(struct disk *disk)
{
    return &disk->top->bitmaps;
}

struct dirty_bitmap *disk_find_bitmap(struct disk *disk, const char *name)
{
    list_for_each(entry, &disk->top->bitmaps)
    {
        struct dirty_bitmap *bitmap = list_entry(entry, struct dirty_bitmap, node);
        if (!strcmp(bitmap->name, name))
            return bitmap;
    }
    return NULL;
}

static int check_bitmap(struct disk *disk, const char *name, uint64_t granularity_bytes,
                        bool persistent, struct error *err)
{
    const struct node *top = disk->top;
    if (!*name)
        return error_set(err, EINVAL, "Bitmap name cannot be empty");
    if (granularity_bytes < 512 || !is_power_of_2(granularity_bytes))
        return error_set(err, EINVAL, "Granularity must be power of 2 and at least 512");
    if (disk_find_bitmap(disk, name))
        return error_set(err, EEXIST, "Bitmap already exists: %s", name);
    if (!persistent)
        return 0;
    if (!top->ops->check_bitmap)
        return error_set(err, ENOTSUP,
                         "Can't store persistent bitmaps to %s: Operation not supported",
                         top->path);
    int result = top->ops->check_bitmap(top, name, granularity_bytes, err);
    if (result)
        error_prefix(err, "Can't make bitmap '%s' persistent in '%s'", name, top->path);
    return result;
}

int disk_add_bitmap(struct disk *disk, const char *name, uint64_t granularity_bytes,
                    bool persistent, struct dirty_bitmap **out, struct error *err)
{
    struct dirty_bitmap *bitmap;
    if (!granularity_bytes)
        granularity_bytes = MIN(MAX(disk->top->discard_granularity, 4096u), 65536u);
    int result = check_bitmap(disk, name, granularity_bytes, persistent, err);
    if (result)
        return result;
    result = dirty_bitmap_create(name, disk->top->size_bytes,
                                 (uint32_t)__builtin_ctzll(granularity_bytes), &bitmap);
    if (result)
        return error_set_errno(err, -result, "Cannot make bitmap '%s'", name);
    bitmap->persistent = persistent;
    list_push_back(&disk->top->bitmaps, &bitmap->node);
    *out = bitmap;
    return 0;
}
