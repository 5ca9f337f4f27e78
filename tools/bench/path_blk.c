/* SPDX-License-Identifier: MIT */
/* path_blk: virtio-blk and the engine below it, drivers and devices taking turns on one thread. */
#include <stdlib.h>

#include "tools/bench/blk_set.h"

static void kick_if_wanted(struct blk_driver *driver)
{
    for (unsigned i = 0; i < driver->run.options->queues; i++) {
        if (!ring_must_kick(&driver->rings[i]))
            continue;
        driver->run.result->kicks++;
        fake_queue_kick(&driver->rings[i].queue);
    }
}

static bool take_all(struct blk_set *set)
{
    bool is_busy = false;
    for (unsigned i = 0; i < set->options->disks; i++) {
        struct blk_driver *driver = &set->drivers[i];
        blk_driver_take(driver);
        kick_if_wanted(driver);
        is_busy |= driver->in_flight != 0;
    }
    return is_busy;
}

static void run_requests(struct blk_set *set)
{
    for (unsigned i = 0; i < set->options->disks; i++)
        path_begin(&set->drivers[i].run);
    for (unsigned i = 0; i < set->options->disks; i++) {
        for (unsigned slot = 0; slot < set->options->depth; slot++)
            blk_driver_offer(&set->drivers[i], slot);
        kick_if_wanted(&set->drivers[i]);
    }
    do
        loop_run_once(&set->guest.loop, true);
    while (take_all(set));
}

int path_run_blk(const struct path_options *options, struct path_result *result, struct error *err)
{
    struct blk_set *set = calloc(1, sizeof(*set));
    CHECK(set);
    blk_set_init(set, options);
    int status = 0;
    for (unsigned i = 0; i < options->disks && !status; i++)
        status = blk_set_open(set, i, err);
    if (!status) {
        run_requests(set);
        status = blk_set_close(set, result, err);
    }
    free(set);
    return status;
}
