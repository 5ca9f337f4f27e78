/* SPDX-License-Identifier: MIT */
/*
 * job_group: jobs of one transaction that end well together, or not at all. Each waits until all
 * have copied, and again until all that can fail is done; one that fails takes the others with it.
 */
#include <stdlib.h>

#include "disk/jobs/job_private.h"

void job_group_join(struct job *job)
{
    list_init(&job->group_node);
    if (job->options.group)
        list_push_back(&job->options.group->members, &job->group_node);
}

void job_group_leave(struct job *job)
{
    struct job_group *group = job->options.group;
    job->options.group = NULL;
    list_remove(&job->group_node);
    if (group && list_is_empty(&group->members))
        free(group);
}

bool job_group_is_waiting(const struct job *job)
{
    if (!job->options.group)
        return true;
    list_for_each(node, &job->options.group->members)
    {
        if (!list_entry(node, struct job, group_node)->is_waiting)
            return false;
    }
    return true;
}

bool job_group_is_prepared(const struct job *job)
{
    if (!job->options.group)
        return true;
    list_for_each(node, &job->options.group->members)
    {
        if (!list_entry(node, struct job, group_node)->is_prepared)
            return false;
    }
    return true;
}

void job_group_each(struct job *job, void (*action)(struct job *job))
{
    struct job_group *group = job->options.group;
    if (!group) {
        action(job);
        return;
    }
    /* They may leave while it goes on, and the group with the last of them. */
    struct list *node = group->members.next;
    for (bool is_last = false; !is_last;) {
        struct job *member = list_entry(node, struct job, group_node);
        node = node->next;
        is_last = node == &group->members;
        action(member);
    }
}

bool job_group_is_manual(const struct job *job)
{
    if (!job->options.group)
        return job->options.manual_finalize;
    list_for_each(node, &job->options.group->members)
    {
        if (list_entry(node, struct job, group_node)->options.manual_finalize)
            return true;
    }
    return false;
}

void job_group_cancel_others(struct job *job)
{
    struct error ignored = {0};
    if (!job->options.group)
        return;
    list_for_each(node, &job->options.group->members)
    {
        struct job *other = list_entry(node, struct job, group_node);
        if (other != job && !other->is_cancelled && !other->result)
            unused_result(job_cancel(other, true, &ignored));
    }
}
