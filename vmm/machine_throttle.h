/* SPDX-License-Identifier: MIT */
/* machine_throttle: what limits the machine's disks, alone and together: -object throttle-group. */
#ifndef VMM_MACHINE_THROTTLE_H
#define VMM_MACHINE_THROTTLE_H

#include "disk/throttle.h"
#include "vmm/machine.h"

/* All that the config names; `index` below is that of the config's throttle_groups. */
int must_check machine_make_throttle_groups(struct machine *machine, struct error *err);
/* -EEXIST: drives have a group of that name already. */
int must_check machine_start_throttle_group(struct machine *machine, unsigned index,
                                            struct error *err);
void machine_end_throttle_group(struct machine *machine, unsigned index);
void machine_end_throttle_groups(struct machine *machine);
/* A disk counts on it. */
bool machine_throttle_group_is_used(const struct machine *machine, unsigned index);
const struct throttle_limits *machine_throttle_limits(const struct machine *machine,
                                                      unsigned index);
void machine_set_throttle_limits(struct machine *machine, unsigned index,
                                 const struct throttle_limits *limits);
/* As its drive's options say. */
int must_check machine_limit_disk(struct machine *machine, const struct config_disk *config,
                                  struct disk *disk, struct error *err);

#endif
