/* SPDX-License-Identifier: MIT */
/* opener: the thread has a loop of its own, and opens the image read-only and without locks. */
#include "vmm/opener.h"

#include <stdlib.h>

#include "base/fdset.h"
#include "vmm/drive_format.h"

static void release(void *data)
{
    disk_options_fini(data);
    free(data);
}

static int open_and_close(void *data, struct error *err)
{
    struct loop loop;
    struct disk_options options = *(struct disk_options *)data;
    /* A descriptor that was passed is open already, and perhaps only in the way the machine wants.
     */
    if (fdset_is_path(options.path))
        return 0;
    int result = loop_init(&loop);
    if (result)
        return error_set_errno(err, -result, "cannot make a loop to open '%s'", options.path);
    if (!options.format)
        result = drive_format_tell(options.path, &options.format, err);
    if (!result)
        result = disk_options_try(&loop, &options, err);
    loop_fini(&loop);
    return result;
}

int opener_start(struct loop *loop, const struct disk_options *options, aside_done_fn *on_done,
                 void *opaque, struct aside **out, struct error *err)
{
    struct disk_options *own = malloc(sizeof(*own));
    const struct aside_work work = {open_and_close, release, own};
    CHECK(own);
    *own = *options;
    disk_options_own(own);
    int result = aside_start(loop, &work, on_done, opaque, out, err);
    if (result)
        release(work.data);
    return result;
}
