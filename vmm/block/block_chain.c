/* SPDX-License-Identifier: MIT */
/* block_chain: change-backing-file: what an image of the chain says that it stands on. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/block_private.h"

struct change {
    struct block_call *call;
    struct disk *disk;
    struct node *node;
    bool was_read_only;
    int result;
    struct error err;
};

static void end(struct change *change)
{
    graph_set_user(change->disk, NULL);
    graph_resume(change->disk);
    block_finish(change->call, change->result, &change->err);
    free(change);
}

static void on_frozen(void *opaque, int result)
{
    struct change *change = opaque;
    if (result && !change->result)
        change->result =
            error_set_errno(&change->err, -result, "Could not write '%s'", change->node->path);
    end(change);
}

static void on_changed(void *opaque, int result, const struct error *err)
{
    struct change *change = opaque;
    change->result = result;
    if (result)
        change->err = *err;
    if (change->was_read_only)
        change->node->ops->freeze(change->node, on_frozen, change);
    else
        end(change);
}

/* An image below the top is written to for this moment only. */
static void on_quiet(void *opaque)
{
    struct change *change = opaque;
    const char *path = block_text(change->call->args, "backing-file");
    change->was_read_only = change->node->read_only;
    if (change->was_read_only)
        change->result =
            graph_reopen(change->disk, change->node, false, &change->node, &change->err);
    if (change->result)
        end(change);
    else
        change->node->ops->set_backing(change->node, path, change->node->backing->ops->name,
                                       on_changed, change);
}

static int find(struct block_call *call, struct change *change)
{
    const char *name = block_text(call->args, "image-node-name");
    struct node *ignored;
    struct error *err = &change->err;
    change->disk = block_find(call->block, block_text(call->args, "device"), &ignored, err);
    if (!change->disk)
        return -ENODEV;
    change->node = graph_find(change->disk, name, false);
    if (!change->node)
        return error_set(err, ENODEV, "Cannot find device='' nor node-name='%s'", name);
    if (!change->node->backing || !change->node->ops->set_backing)
        return error_set(err, EINVAL,
                         "not allowing backing file change on an image without a "
                         "backing file");
    return block_check_free(change->disk, err);
}

void block_change_backing(struct block_call *call)
{
    struct change *change = calloc(1, sizeof(*change));
    CHECK(change);
    change->call = call;
    int result = find(call, change);
    if (!result)
        result = graph_quiesce(change->disk, on_quiet, change);
    if (!result)
        graph_set_user(change->disk, "its backing file is being changed");
    if (result) {
        block_finish(call, result, &change->err);
        free(change);
    }
}
