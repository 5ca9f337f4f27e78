/* SPDX-License-Identifier: MIT */
/*
 * options_groups: the options that take parameters, under QEMU's names for them, with the tables
 * that their parsers check against: what query-command-line-options tells.
 */
#ifndef VMM_OPTIONS_OPTIONS_GROUPS_H
#define VMM_OPTIONS_OPTIONS_GROUPS_H

#include "vmm/options/keyval.h"

/* Where the parsers are; those of chardev end with NULL. */
extern const struct keyval_known options_accel_known[], options_action_known[],
    options_add_fd_known[], options_boot_known[], options_drive_known[], options_machine_known[],
    options_memory_known[], options_mon_known[], options_name_known[], options_smp_known[];
extern const struct keyval_known *const options_chardev_known[];

struct options_group {
    const char *name;
    const struct keyval_known *const
        *tables; /* NULL after the last; NULL: as -device help has it */
};

#define OPTIONS_GROUPS 16
extern const struct options_group options_groups[OPTIONS_GROUPS];

/* "string", "boolean", "number" or "size" */
const char *options_group_type(const char *group, const char *key);

#endif
