/* SPDX-License-Identifier: MIT */
/* img_overlay: an image over another one that takes all writes and is gone when it is closed. */
#ifndef TOOLS_IMG_IMG_OVERLAY_H
#define TOOLS_IMG_IMG_OVERLAY_H

#include "tools/img/img_source.h"

/* As img_source_open, but the image stays as it is. Uses $TMPDIR, or /var/tmp. */
int img_overlay_open(struct loop *loop, const struct img_source_options *options,
                     struct img_source *out);

#endif
