/* SPDX-License-Identifier: MIT */
/* seed: a small ISO 9660 image with the volume name "cidata", as cloud-init's NoCloud looks for. */
#ifndef TOOLS_EVCTL_SEED_H
#define TOOLS_EVCTL_SEED_H

#include <stddef.h>

#include "base/error.h"

#define SEED_FILE_MAX_BYTES (1 << 20)

struct seed_file {
    const char *name; /* up to 30 bytes; a Joliet name gives it as it is */
    const char *text;
};

/* At most 8 files, each of at most SEED_FILE_MAX_BYTES. The image appears whole or not at all. */
int must_check seed_write(const char *path, const struct seed_file *files, size_t count,
                          struct error *err);

#endif
