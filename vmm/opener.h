/* SPDX-License-Identifier: MIT */
/*
 * opener: opens an image once on a thread of its own, before the loop opens it.
 *
 * Looking up a name, or reading a header, may take for ever: a file server that is gone. The thread
 * goes the whole way, through the images below too, with the code that the loop is going to use,
 * and closes again. What then answers has answered just now, and its tables are in the host's
 * memory. One that never answers keeps its thread, and the machine runs on and ends without it.
 */
#ifndef VMM_OPENER_H
#define VMM_OPENER_H

#include "base/aside.h"
#include "disk/disk.h"

/*
 * Reads `options` now. On -errno on_done is not
 * called.
 */
int must_check opener_start(struct loop *loop, const struct disk_options *options,
                            aside_done_fn *on_done, void *opaque, struct aside **out,
                            struct error *err);

#endif
