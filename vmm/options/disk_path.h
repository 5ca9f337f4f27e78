/* SPDX-License-Identifier: MIT */
/*
 * disk_path: what clients call the device that shows a disk: the path that query-block tells as
 * "qdev", as QEMU forms it, and what may stand for it in the argument "id" of commands.
 */
#ifndef VMM_OPTIONS_DISK_PATH_H
#define VMM_OPTIONS_DISK_PATH_H

#include <stdbool.h>

#include "vmm/config.h"

#define DISK_PATH_BYTES 160

/* `index` is the disk's place in the configuration. */
void disk_path_print(const struct config_disk *disk, unsigned index, char path[DISK_PATH_BYTES]);
/* Is it that path, with or without its last part, or the device's id? */
bool disk_path_is(const struct config_disk *disk, unsigned index, const char *name);

#endif
