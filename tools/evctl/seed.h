/* SPDX-License-Identifier: MIT */
/* seed: a small ISO 9660 image with the volume name "cidata", as cloud-init's NoCloud looks for. */
#ifndef TOOLS_EVCTL_SEED_H
#define TOOLS_EVCTL_SEED_H

#include <stddef.h>

#include "base/error.h"

#define SEED_FILE_MAX_BYTES (1 << 20)
#define SEED_FILES_MAX      8

struct seed_file {
    char *name; /* up to 30 bytes; a Joliet name gives it as it is */
    char *text;
};

/* At most SEED_FILES_MAX files, each of at most SEED_FILE_MAX_BYTES. The image appears whole or not at all. */
int must_check seed_write(const char *path, const struct seed_file *files, size_t count,
                          struct error *err);

/*
 * The files of an image named "cidata", by this or any other program, as long as they are few,
 * small and have Joliet names. Their count; 0 if it is no such image. seed_free frees them.
 */
size_t must_check seed_read(const char *path, struct seed_file files[SEED_FILES_MAX]);
void seed_free(struct seed_file *files, size_t count);
/* The file of that name, or NULL. */
struct seed_file *seed_find(struct seed_file *files, size_t count, const char *name);

#endif
