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
/* In the disks of these ids. */
int must_check live_disks_delete_snapshot(const struct machine *machine, const json_t *ids,
                                          const char *name, struct error *err);
/* Copies the disks into `to`, which has the same description; its disks name the copies then. */
int must_check live_disks_copy(const struct machine *machine, struct machine *to,
                               struct error *err);
/* Takes into the images of `disks`, which are some of the machine's, all that they build on. */
int must_check live_disks_stream(const struct machine *machine, const json_t *disks,
                                 struct error *err);
/* Runs these actions (taken) as one transaction. */
int must_check live_disks_push(const struct machine *machine, json_t *actions, struct error *err);

#endif
