/* SPDX-License-Identifier: MIT */
/*
 * drive_format: the format of an image that neither the user nor its name tells.
 *
 * A guest can write what it likes into its disk, so contents may decide only where a lie cannot
 * make us open a file of the host's: an image that names another file (backing or data) is refused
 * until the user says what it is. Start-up.
 */
#ifndef VMM_DRIVE_FORMAT_H
#define VMM_DRIVE_FORMAT_H

#include "base/error.h"

/* Sets *format to "raw" or "qcow2". */
int must_check drive_format_tell(const char *path, const char **format, struct error *err);

#endif
