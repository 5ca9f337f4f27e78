/* SPDX-License-Identifier: MIT */
/* disk_policy: chooses by the drive's options, tells everybody, and keeps whom to try again. */
#include "vmm/disk_policy.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "vmm/machine_private.h"

static enum virtio_blk_action choose(enum config_on_error policy, int error)
{
    switch (policy) {
    case ON_ERROR_REPORT:
        return VIRTIO_BLK_REPORT;
    case ON_ERROR_IGNORE:
        return VIRTIO_BLK_IGNORE;
    case ON_ERROR_STOP:
        return VIRTIO_BLK_HOLD;
    case ON_ERROR_ENOSPC:
        return error == ENOSPC ? VIRTIO_BLK_HOLD : VIRTIO_BLK_REPORT;
    }
    UNREACHABLE("config_on_error");
}

static void tell(struct machine *machine, const struct machine_block_error *error)
{
    const struct machine_listener *listener = &machine->lifecycle.listener;
    if (listener->on_block_error)
        listener->on_block_error(listener->opaque, error);
}

enum virtio_blk_action disk_policy_on_error(void *opaque, enum disk_op op, int error)
{
    static const char *const names[] = {
        [VIRTIO_BLK_REPORT] = "report", [VIRTIO_BLK_IGNORE] = "ignore", [VIRTIO_BLK_HOLD] = "stop"};
    struct disk_policy *policy = opaque;
    struct machine *machine = policy->machine;
    if (!loop_is_on_thread(machine->loop)) {
        machine_call_home(machine, policy->drive);
        return VIRTIO_BLK_ASK_AGAIN;
    }
    const struct config_disk *config = &machine->config->disks[policy->drive];
    bool is_read = op == DISK_READ;
    enum virtio_blk_action action = choose(is_read ? config->rerror : config->werror, error);
    tell(machine, &(struct machine_block_error){policy->drive, is_read, names[action], error});
    if (action != VIRTIO_BLK_HOLD)
        return action;
    if (!policy->held_error)
        log_limited("drive '%s': a %s failed (%s) and the guest stops: mend the cause, then let it "
                    "go on with 'cont'",
                    config->id, is_read ? "read" : "write", strerror(error));
    policy->held_error = error;
    lifecycle_io_error(machine);
    return action;
}

void disk_policy_retry(struct machine *machine)
{
    for (unsigned i = 0; i < machine->config->disk_count; i++) {
        struct disk_policy *policy = &machine->disk_policies[i];
        if (!policy->held_error)
            continue;
        policy->held_error = 0;
        virtio_blk_retry(policy->device);
    }
}

void disk_policy_forget(struct machine *machine)
{
    for (unsigned i = 0; i < machine->config->disk_count; i++)
        machine->disk_policies[i].held_error = 0;
}
