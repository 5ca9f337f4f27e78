/* SPDX-License-Identifier: MIT */
/* disk_move: a disk, or a part of its chain, goes over to another loop while it is at rest. */
#include <errno.h>

#include "disk/disk_private.h"
#include "disk/graph.h"

static bool node_is_at_rest(const struct node *node)
{
    return list_is_empty(&node->done) && !loop_task_is_queued(&node->complete) &&
           io_is_idle(node->file) && (!node->data_file || io_is_idle(node->data_file)) &&
           (!node->ops->is_at_rest || node->ops->is_at_rest(node));
}

static bool is_at_rest(const struct disk *disk)
{
    for (const struct node *node = disk->top; node; node = node->backing)
        if (!node_is_at_rest(node))
            return false;
    return !disk->pending && !disk->throttle.waiting_count && !disk->closing && !disk->filter &&
           !disk->user && list_is_empty(&disk->exclusives) && !loop_task_is_queued(&disk->advance);
}

/* Its files have been moved. */
static void move_node(struct node *node, struct loop *loop)
{
    enum loop_stage stage = node->complete.stage;
    node->loop = loop;
    loop_task_init(loop, &node->complete, stage, node->complete.run);
    if (node->ops->move)
        node->ops->move(node, loop);
}

static void move_nodes(struct disk *disk, struct loop *loop)
{
    for (struct node *node = disk->top; node; node = node->backing) {
        if (node->loop == loop)
            continue;
        io_move(node->file, loop);
        if (node->data_file)
            io_move(node->data_file, loop);
        move_node(node, loop);
    }
}

static int move_all(struct disk *disk, struct loop *loop)
{
    loop_check_thread(disk->loop);
    loop_check_thread(loop);
    for (const struct node *node = disk->top; node; node = node->backing)
        loop_check_thread(node->loop);
    if (!is_at_rest(disk))
        return -EBUSY;
    move_nodes(disk, loop);
    return 0;
}

int disk_move(struct disk *disk, struct loop *loop)
{
    int result = move_all(disk, loop);
    for (struct disk *view = disk; view && !result; view = view->backing) {
        view->loop = loop;
        loop_task_init(loop, &view->advance, view->advance.stage, view->advance.run);
    }
    return result;
}

static bool is_whole(const struct disk *disk)
{
    for (const struct node *node = disk->top; node; node = node->backing)
        if (node->loop != disk->loop)
            return false;
    return true;
}

bool disk_gather(struct disk *disk)
{
    return is_whole(disk) || move_all(disk, disk->loop) == 0;
}

struct loop *disk_loop(const struct disk *disk)
{
    return disk->loop;
}

bool disk_is_alone(const struct disk *disk)
{
    const struct throttle_group *group = disk->throttle.group;
    return is_whole(disk) && !disk->closing && !disk->filter && !disk->user &&
           list_is_empty(&disk->exclusives) && (!group || group->loop == disk->loop);
}
