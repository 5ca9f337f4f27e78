/* SPDX-License-Identifier: MIT */
/* img_progress: "-p", SIGUSR1, and giving up on SIGINT and SIGTERM. */
#ifndef TOOLS_IMG_IMG_PROGRESS_H
#define TOOLS_IMG_IMG_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* Catches the signals; `show` prints the progress on standard output as it grows. */
void img_progress_start(bool show);
/* Fits img_copy's on_progress; `opaque` is not used. */
void img_progress_report(void *opaque, uint64_t done, uint64_t total);
/* Ends the line that -p printed; says 100% if all went well. */
void img_progress_end(bool ok);

/* SIGINT or SIGTERM came. Fits img_copy's is_cancelled. */
bool img_progress_is_cancelled(void *opaque);

#endif
