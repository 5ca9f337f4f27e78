/* SPDX-License-Identifier: MIT */
/*
 * chain: opens an image and the images that it is backed by, with the bounds that keep a hostile
 * chain finite. A backing file's format is what the person or the header says, never guessed: a
 * guest could have written a qcow2 header into a raw image that names any file of the host.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "disk/dirty.h"
#include "disk/format.h"
#include "disk/lock.h"

const struct format_ops *format_find(const char *name)
{
    static const struct format_ops *const formats[] = {&raw_format,  &qcow2_format, &vdi_format,
                                                       &vmdk_format, &vpc_format,   &vhdx_format};
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (!strcmp(formats[i]->name, name))
            return formats[i];
    return NULL;
}

static void on_complete(struct loop_task *task)
{
    struct node *node = container_of(task, struct node, complete);
    struct list batch;
    list_init(&batch);
    list_splice_back(&batch, &node->done);
    /* The last completion may free the node, so nothing of it is touched below. */
    for (struct list *entry; (entry = list_pop_front(&batch));) {
        struct disk_request *request = list_entry(entry, struct disk_request, node);
        node_complete(request, request->result);
    }
}

int node_init(struct node *node, const struct format_ops *ops, struct loop *loop,
              struct io_file *file, const struct disk_options *options)
{
    node->ops = ops;
    node->loop = loop;
    node->file = file;
    node->read_only = options->read_only;
    node->unmap = options->discard_unmap;
    static atomic_uint next_name = 100; /* other threads open images too: vmm/opener.h */
    snprintf(node->name, sizeof(node->name), "#block%u", atomic_fetch_add(&next_name, 1));
    node->path = strdup(options->path);
    list_init(&node->done);
    list_init(&node->bitmaps);
    loop_task_init(loop, &node->complete, LOOP_STAGE_COMPLETE, on_complete);
    return node->path ? 0 : -ENOMEM;
}

void node_fini(struct node *node)
{
    CHECK(list_is_empty(&node->done));
    for (struct list *bitmap; (bitmap = list_pop_front(&node->bitmaps));)
        dirty_bitmap_destroy(list_entry(bitmap, struct dirty_bitmap, node));
    loop_task_cancel(&node->complete);
    free(node->path);
}

void node_submit(struct node *node, struct disk_request *request)
{
    if (request->op != DISK_STATUS || node->ops->has_status) {
        node->ops->submit(node, request);
        return;
    }
    request->extent.bytes = request->bytes;
    request->extent.is_zero = request->extent.is_absent = false;
    node_complete_later(node, request, 0);
}

void node_complete_later(struct node *node, struct disk_request *request, int result)
{
    request->result = result;
    list_push_back(&node->done, &request->node);
    loop_task_queue(&node->complete);
}

/* The images opened so far, from the top down. */
struct chain {
    struct loop *loop;
    struct node *nodes[DISK_BACKING_DEPTH_MAX];
    size_t depth;
};

static int check_cycle(const struct chain *chain, const struct io_file *file, const char *path,
                       struct error *err)
{
    for (size_t i = 0; i < chain->depth; i++) {
        const struct io_file *above = chain->nodes[i]->file;
        if (above->device == file->device && above->inode == file->inode)
            return error_set(err, ELOOP,
                             "the backing chain runs in a circle: '%s' comes up again below "
                             "itself; give one of them another backing file with evisor-img rebase",
                             path);
    }
    return 0;
}

static int open_one(struct chain *chain, const struct disk_options *options, struct error *err)
{
    struct io_options io = {
        .read_only = options->read_only,
        .direct = options->cache.direct,
        .no_sync = options->cache.no_flush,
        .aio = options->aio,
    };
    struct io_file *file;
    const struct format_ops *format = options->format ? format_find(options->format) : NULL;
    if (!format)
        return error_set(err, EINVAL, "image '%s': %s '%s'; use format=qcow2 or format=raw",
                         options->path, options->format ? "unknown format" : "no format given",
                         options->format ? options->format : "");
    int result = io_open(chain->loop, options->path, &io, &file, err);
    if (result)
        return result;
    result = check_cycle(chain, file, options->path, err);
    if (!result && !options->no_lock)
        result = lock_image(file, options->path, options->read_only, err);
    if (!result)
        result = format->open(chain->loop, file, options, &chain->nodes[chain->depth], err);
    if (result)
        io_close(file, NULL, NULL);
    else
        chain->depth++;
    return result;
}

char *disk_backing_path(const char *image, const char *name)
{
    const char *slash = strrchr(image, '/');
    char *path = NULL;
    if (name[0] == '/' || !slash)
        return strdup(name);
    if (asprintf(&path, "%.*s/%s", (int)(slash - image), image, name) < 0)
        return NULL;
    return path;
}

bool chain_names_a_protocol(const char *name)
{
    const char *colon = strchr(name, ':'), *slash = strchr(name, '/');
    return colon && (!slash || colon < slash);
}

/* What the image below `above` is, in terms of disk_options; *path is the caller's to free. */
static int describe_backing(const struct node *above, const struct disk_options *top, bool first,
                            struct disk_options *out, char **path, struct error *err)
{
    const char *format = NULL;
    const char *name = above->ops->backing ? above->ops->backing(above, &format) : NULL;
    bool from_person = first && top->backing_path;
    if (from_person)
        name = top->backing_path;
    if (first && top->backing_format)
        format = top->backing_format;
    if (!name)
        return 0;
    if (!from_person && chain_names_a_protocol(name))
        return error_set(err, EINVAL,
                         "image '%s' names '%s' as its backing file, which is no file name; set "
                         "one with evisor-img rebase -u",
                         above->path, name);
    if (!format)
        return error_set(err, EINVAL,
                         "image '%s' does not say the format of its backing file '%s'; record it "
                         "with: evisor-img rebase -u -b %s -F qcow2|raw %s",
                         above->path, name, name, above->path);
    *path = from_person ? strdup(name) : disk_backing_path(above->path, name);
    if (!*path)
        return error_set(err, ENOMEM, "no memory to open '%s'", name);
    *out = *top;
    out->path = *path;
    out->format = format;
    out->read_only = true;
    out->discard_unmap = false;
    out->snapshot = NULL; /* of the image on top: the one below may have others of that name */
    out->cache_entry_bytes = 0; /* it may have smaller clusters */
    out->backing_path = out->backing_format = out->data_file_path = NULL;
    return 0;
}

static void on_node_closed(void *opaque, int result)
{
    (void)opaque;
    (void)result;
}

static int open_backings(struct chain *chain, const struct disk_options *top, struct error *err)
{
    for (;;) {
        struct disk_options options;
        char *path = NULL;
        struct node *above = chain->nodes[chain->depth - 1];
        int result = describe_backing(above, top, chain->depth == 1, &options, &path, err);
        if (result || !path)
            return result;
        if (chain->depth == DISK_BACKING_DEPTH_MAX)
            result = error_set(err, ELOOP,
                               "the backing chain of '%s' is longer than %d images; shorten it "
                               "with evisor-img rebase or commit",
                               top->path, DISK_BACKING_DEPTH_MAX);
        else
            result = open_one(chain, &options, err);
        if (result)
            error_prefix(err, "backing file of '%s'", above->path);
        free(path);
        if (result)
            return result;
        above->backing = chain->nodes[chain->depth - 1];
    }
}

int chain_open(struct loop *loop, const struct disk_options *options, struct node **out,
               struct error *err)
{
    struct chain chain = {.loop = loop};
    int result = open_one(&chain, options, err);
    if (result == 0 && !options->no_backing)
        result = open_backings(&chain, options, err);
    if (result == 0) {
        *out = chain.nodes[0];
        return 0;
    }
    for (size_t i = 0; i < chain.depth; i++)
        chain.nodes[i]->ops->close(chain.nodes[i], on_node_closed, NULL);
    return result;
}
