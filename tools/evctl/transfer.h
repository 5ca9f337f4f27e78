/* SPDX-License-Identifier: MIT */
/* transfer: what export and import share: archives by tar(1), and manifests. */
#ifndef TOOLS_EVCTL_TRANSFER_H
#define TOOLS_EVCTL_TRANSFER_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

/* Small and capital letters are one. */
bool transfer_has_suffix(const char *path, const char *suffix);
/* tar with these words (taken). */
int must_check transfer_tar(json_t *words, const char *archive, const char *what,
                            struct error *err);

/* Writes FOLDER/NAME, a manifest (DSP0243, 5.1) with the sums of these files of the folder. */
int must_check transfer_write_manifest(const char *folder, const char *name, const json_t *files,
                                       struct error *err);
/* Compares the files of a folder with its manifest; one that is missing there says nothing. */
int must_check transfer_check_manifest(const char *folder, const char *name, struct error *err);

#endif
