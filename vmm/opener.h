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

#include "base/error.h"
#include "base/list.h"
#include "base/loop.h"
#include "disk/disk.h"

struct opener;

/* On the loop, later; `err` says what the opening came to. The opener is gone afterwards. */
typedef void opener_done_fn(void *opaque, int result, const struct error *err);

/*
 * Reads `options` now; of them path, format, backing and data file count. On -errno on_done is not
 * called.
 */
int must_check opener_start(struct loop *loop, const struct disk_options *options,
                            opener_done_fn *on_done, void *opaque, struct opener **out,
                            struct error *err);
/* on_done is called with -ECANCELED, later, whatever the thread does. */
void opener_cancel(struct opener *opener);

#endif
