/* SPDX-License-Identifier: MIT */
/*
 * block_making: makes the file of an image, or looks at one that is there, on a thread of its own
 * before the loop opens it: its file system may answer late, or never.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdset.h"
#include "base/text.h"
#include "vmm/block/block_private.h"

struct block_making {
    struct list node; /* block->makings: nobody else makes this file meanwhile */
    struct block *block;
    struct aside *aside; /* NULL: it is done */
    struct block_image image;
    aside_done_fn *on_done;
    void *opaque;
};

static struct block_image copy_image(const struct block_image *image)
{
    struct block_image own = *image;
    own.path = text_copy(image->path);
    own.format = text_copy(image->format);
    own.node_name = NULL;
    own.backing_path = text_copy(image->backing_path);
    own.backing_format = text_copy(image->backing_format);
    return own;
}

static void free_image(struct block_image *image)
{
    free((char *)image->path);
    free((char *)image->format);
    free((char *)image->backing_path);
    free((char *)image->backing_format);
}

static void release(void *data)
{
    free_image(data);
    free(data);
}

static int make(void *data, struct error *err)
{
    const struct block_image *image = data;
    const struct disk_options options = {
        .path = image->path, .format = image->format, .no_backing = image->no_backing};
    struct loop loop;
    if (fdset_is_path(image->path))
        return 0; /* open already */
    int result = loop_init(&loop);
    if (result)
        return error_set_errno(err, -result, "Could not open '%s'", image->path);
    if (!image->is_existing)
        result = block_image_make(&loop, image, err);
    if (!result)
        result = disk_options_try(&loop, &options, err);
    loop_fini(&loop);
    return result;
}

static void on_made(void *opaque, int result, const struct error *err)
{
    struct block_making *making = opaque;
    making->aside = NULL;
    making->on_done(making->opaque, result, err);
}

static int check_free(struct block *block, const struct block_image *image, struct error *err)
{
    list_for_each(node, &block->makings)
    {
        if (!strcmp(list_entry(node, struct block_making, node)->image.path, image->path))
            return error_set(err, EBUSY, "Another command is making '%s': try again when it ends",
                             image->path);
    }
    return 0;
}

static int start(struct block_making *making, struct error *err)
{
    struct aside_work work = {make, release, calloc(1, sizeof(struct block_image))};
    CHECK(work.data);
    *(struct block_image *)work.data = copy_image(&making->image);
    int result = aside_start(making->block->loop, &work, on_made, making, &making->aside, err);
    if (result)
        release(work.data);
    return result;
}

int block_making_start(struct block *block, const struct block_image *image, aside_done_fn *on_done,
                       void *opaque, struct block_making **out, struct error *err)
{
    int result = block_image_check(image, err);
    if (!result)
        result = check_free(block, image, err);
    if (result)
        return result;
    struct block_making *making = calloc(1, sizeof(*making));
    CHECK(making);
    *making = (struct block_making){.block = block, .on_done = on_done, .opaque = opaque};
    making->image = copy_image(image);
    list_push_back(&block->makings, &making->node);
    result = start(making, err);
    if (result)
        block_making_end(making);
    else
        *out = making;
    return result;
}

static bool is_same(const char *a, const char *b)
{
    return a == b || (a && b && !strcmp(a, b));
}

int block_making_check(const struct block_making *making, const struct block_image *image,
                       struct error *err)
{
    const struct block_image *made = &making->image;
    if (image->is_existing ||
        (is_same(made->path, image->path) && is_same(made->format, image->format) &&
         is_same(made->backing_path, image->backing_path) &&
         is_same(made->backing_format, image->backing_format) &&
         made->size_bytes == image->size_bytes))
        return 0;
    return error_set(err, EAGAIN, "The disk changed while '%s' was made for it: try again",
                     made->path);
}

void block_making_end(struct block_making *making)
{
    if (!making)
        return;
    CHECK(!making->aside);
    list_remove(&making->node);
    free_image(&making->image);
    free(making);
}

void block_making_cancel_all(struct block *block)
{
    list_for_each(node, &block->makings)
    {
        struct block_making *making = list_entry(node, struct block_making, node);
        if (making->aside)
            aside_cancel(making->aside);
    }
}
