/* SPDX-License-Identifier: MIT */
/*
 * live_disks: snapshots and copies of the disks of a running machine, all at one moment, as if the
 * power had been cut then. The machine is locked.
 */
#ifndef TOOLS_EVCTL_LIVE_DISKS_H
#define TOOLS_EVCTL_LIVE_DISKS_H

#include <jansson.h>

#include "tools/evctl/store.h"

/* In all disks or in none. */
int must_check live_disks_snapshot(const struct machine *machine, const char *name,
                                   struct error *err);
int must_check live_disks_delete_snapshot(const struct machine *machine, const char *name,
                                          struct error *err);
/* Copies the disks into `to`, which has the same description; its disks name the copies then. */
int must_check live_disks_copy(const struct machine *machine, struct machine *to,
                               struct error *err);
/*
 * What the guest writes from now on goes to new images, so that those there were can be built on.
 * They are in `frozen`, by the disk's id.
 */
int must_check live_disks_freeze(struct machine *machine, json_t *frozen, struct error *err);

#endif
