/* SPDX-License-Identifier: MIT */
/* throttle_group: limits that have a name, and how long they live: as long as somebody uses them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/throttle.h"

void throttle_groups_init(struct throttle_groups *groups, struct loop *loop)
{
    groups->loop = loop;
    list_init(&groups->list);
}

struct throttle_group *throttle_groups_find(const struct throttle_groups *groups, const char *name)
{
    list_for_each(node, &groups->list)
    {
        struct throttle_group *group = list_entry(node, struct throttle_group, node);
        if (strcmp(group->name, name) == 0)
            return group;
    }
    return NULL;
}

static void free_group(struct throttle_group *group)
{
    free(group->name);
    free(group);
}

int throttle_group_create(struct loop *loop, const char *name, struct throttle_group **out)
{
    struct throttle_group *group = calloc(1, sizeof(*group));
    if (!group)
        return -ENOMEM;
    list_init(&group->node);
    list_init(&group->members);
    group->limits = throttle_no_limits;
    group->users = 1;
    group->name = name ? strdup(name) : NULL;
    int result =
        name && !group->name ? -ENOMEM : loop_timer_init(loop, &group->timer, throttle_on_expired);
    if (result) {
        free_group(group);
        return result;
    }
    group->timer.opaque = group;
    group->loop = loop;
    *out = group;
    return 0;
}

int throttle_groups_get(struct throttle_groups *groups, const char *name,
                        struct throttle_group **out)
{
    struct throttle_group *group = throttle_groups_find(groups, name);
    if (group) {
        group->users++;
        *out = group;
        return 0;
    }
    int result = throttle_group_create(groups->loop, name, out);
    if (!result)
        list_push_back(&groups->list, &(*out)->node);
    return result;
}

int throttle_groups_join(struct throttle_groups *groups, struct disk *disk, const char *name,
                         const struct throttle_limits *limits)
{
    struct throttle_group *group;
    int result = throttle_groups_get(groups, name, &group);
    if (result)
        return result;
    if (limits)
        throttle_group_set(group, limits);
    disk_set_throttle_group(disk, group);
    throttle_group_put(group);
    return 0;
}

static void on_timer_closed(struct loop_timer *timer)
{
    free_group(timer->opaque);
}

/* Its name is free at once. */
void throttle_group_put(struct throttle_group *group)
{
    if (--group->users)
        return;
    CHECK(list_is_empty(&group->members) && !group->waiting[0] && !group->waiting[1]);
    list_remove(&group->node);
    loop_timer_close(&group->timer, on_timer_closed);
}
