/* SPDX-License-Identifier: MIT */
/* cloud: what cloud-init in the guest is told: the NoCloud seed of a machine. */
#ifndef TOOLS_EVCTL_CLOUD_H
#define TOOLS_EVCTL_CLOUD_H

#include <stdbool.h>

#include "tools/evctl/evctl.h"
#include "tools/evctl/store.h"

/*
 * Makes the machine's seed of --user-data and --network-config, or puts them into the one it has;
 * the guest takes itself for a new machine then. Without these options nothing happens.
 */
int must_check cloud_apply(const struct evctl_call *call, struct machine *machine,
                           struct error *err);

/*
 * If the ISO image `source` is a seed, `to` gets one of its own, FOLDER/`file`, which says who it
 * is; else *is_seed is false.
 */
int must_check cloud_clone(const struct machine *to, const char *source, const char *file,
                           bool *is_seed, struct error *err);

#endif
