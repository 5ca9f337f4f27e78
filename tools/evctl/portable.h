/* SPDX-License-Identifier: MIT */
/*
 * portable: machines of other programs. What their descriptions name becomes a plan:
 * {name, os, cpus, memory-mib, disks: [{file, kind: "disk" or "iso", bytes}], nics: ["user",
 * "internal NAME", "bridged NAME", "hostonly NAME"], unplugged: [the places of NICs whose cable is
 * out], forwards: [RULE]}; a file is relative to the
 * description's folder or absolute; without one the disk is an empty one of that many bytes.
 */
#ifndef TOOLS_EVCTL_PORTABLE_H
#define TOOLS_EVCTL_PORTABLE_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/* By the file's name: .ovf, .vbox or .vmx. NULL with err set. */
json_t *portable_read(const char *path, struct error *err);

struct portable_disk {
    char file[320]; /* beside the description */
    uint64_t file_bytes, capacity_bytes;
};
/* An OVF 1.0 description of a machine (DMTF DSP0243). */
void portable_write_ovf(FILE *to, const json_t *config, const struct portable_disk *disks,
                        size_t disk_count);

#endif
