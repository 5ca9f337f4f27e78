/* SPDX-License-Identifier: MIT */
/* machine_throttle: makes the groups that objects and drives name, and puts disks into them. */
#include "vmm/machine_throttle.h"

#include <errno.h>

#include "vmm/machine_private.h"

int machine_start_throttle_group(struct machine *machine, unsigned index, struct error *err)
{
    const struct config_throttle_group *config = &machine->config->guest.throttle_groups[index];
    if (throttle_groups_find(&machine->throttle_groups, config->id))
        return error_set(err, EEXIST, "A group with this name already exists");
    int result = throttle_groups_get(&machine->throttle_groups, config->id,
                                     &machine->throttle_objects[index]);
    if (result)
        return error_set_errno(err, -result, "throttle-group '%s'", config->id);
    throttle_group_set(machine->throttle_objects[index], config->limits);
    return 0;
}

int machine_make_throttle_groups(struct machine *machine, struct error *err)
{
    int result = 0;
    throttle_groups_init(&machine->throttle_groups, machine->loop);
    for (unsigned i = 0; i < CONFIG_THROTTLE_MAX && !result; i++)
        if (machine->config->guest.throttle_groups[i].id)
            result = machine_start_throttle_group(machine, i, err);
    return result;
}

void machine_end_throttle_group(struct machine *machine, unsigned index)
{
    throttle_group_put(machine->throttle_objects[index]);
    machine->throttle_objects[index] = NULL;
}

void machine_end_throttle_groups(struct machine *machine)
{
    for (unsigned i = 0; i < CONFIG_THROTTLE_MAX; i++)
        if (machine->throttle_objects[i])
            machine_end_throttle_group(machine, i);
}

bool machine_throttle_group_is_used(const struct machine *machine, unsigned index)
{
    return machine->throttle_objects[index]->users > 1;
}

const struct throttle_limits *machine_throttle_limits(const struct machine *machine, unsigned index)
{
    return &machine->throttle_objects[index]->limits;
}

void machine_set_throttle_limits(struct machine *machine, unsigned index,
                                 const struct throttle_limits *limits)
{
    throttle_group_set(machine->throttle_objects[index], limits);
}

int machine_limit_disk(struct machine *machine, const struct config_disk *config, struct disk *disk,
                       struct error *err)
{
    const char *name = config->throttle_group;
    bool is_limited = config->limits && throttle_is_limited(config->limits);
    if (!name && !is_limited)
        return 0;
    /* Named, but without limits of its own: it shares what the group has, now or later. */
    int result = throttle_groups_join(&machine->throttle_groups, disk, name ? name : config->id,
                                      is_limited ? config->limits : NULL);
    return result ? error_set_errno(err, -result, "cannot limit '%s'", disk_path(disk)) : 0;
}
