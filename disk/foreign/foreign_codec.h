/* SPDX-License-Identifier: MIT */
/*
 * foreign_codec: compressed grains are read whole, unpacked in the pool, and kept for a while,
 * because a guest reads a grain in many pieces.
 */
#ifndef DISK_FOREIGN_FOREIGN_CODEC_H
#define DISK_FOREIGN_FOREIGN_CODEC_H

#include "disk/foreign/foreign_private.h"

struct foreign_codecs;

/* NULL if there is no memory. */
struct foreign_codecs *foreign_codecs_create(struct loop *loop);
void foreign_codecs_destroy(struct foreign_codecs *codecs);
/* Nothing is being unpacked. */
void foreign_codecs_move(struct foreign_codecs *codecs, struct loop *loop);

/*
 * The unpacked grain of a PACKED extent in *plain, until the loop's next turn. 0, -errno, or
 * -EINPROGRESS: the waiter will be woken and shall ask again, or give up if `result` is not 0.
 */
int must_check foreign_codec_get(struct foreign_codecs *codecs, const struct foreign_extent *extent,
                                 struct foreign_waiter *waiter, const uint8_t **plain);

#endif
