/* SPDX-License-Identifier: MIT */
/* boot_rig: guest memory for tests of booting, and kernels that are files for a moment. */
#ifndef TESTS_BOOT_RIG_H
#define TESTS_BOOT_RIG_H

#include "vmm/boot/boot.h"

extern struct memory memory; /* 64 MiB, of each test */
extern struct boot boot;
extern struct error err;       /* of the last boot_rig_open */
extern char boot_rig_path[64]; /* of the last kernel, which is gone */

/* Of each test, as cmocka calls them. */
int boot_rig_set_up(void **state);
int boot_rig_tear_down(void **state);

/* What boot_open makes of a file with these bytes, into `boot`. */
int boot_rig_open(const void *kernel, size_t bytes, const char *initrd, const char *cmdline);

#endif
