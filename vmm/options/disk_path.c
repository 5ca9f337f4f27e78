/* SPDX-License-Identifier: MIT */
/* disk_path: the names of a disk's device. */
#include "vmm/options/disk_path.h"

#include <stdio.h>
#include <string.h>

#define BACKEND "/virtio-backend"

void disk_path_print(const struct config_disk *disk, unsigned index, char path[DISK_PATH_BYTES])
{
    if (disk->qdev_id)
        snprintf(path, DISK_PATH_BYTES, "/machine/peripheral/%s" BACKEND, disk->qdev_id);
    else
        snprintf(path, DISK_PATH_BYTES, "/machine/peripheral-anon/device[%u]" BACKEND, index);
}

bool disk_path_is(const struct config_disk *disk, unsigned index, const char *name)
{
    char path[DISK_PATH_BYTES];
    if (!disk->is_attached)
        return false;
    if (disk->qdev_id && strcmp(disk->qdev_id, name) == 0)
        return true;
    disk_path_print(disk, index, path);
    size_t length = strlen(path) - strlen(BACKEND);
    return strncmp(path, name, length) == 0 &&
           (!name[length] || strcmp(name + length, BACKEND) == 0);
}
