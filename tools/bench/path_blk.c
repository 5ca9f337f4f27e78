/* SPDX-License-Identifier: MIT */
/* path_blk: virtio-blk and the engine below it, driver and device taking turns on one thread. */
#include <stdlib.h>

#include "tools/bench/blk_driver.h"

static void kick_if_wanted(struct blk_driver *driver)
{
    for (unsigned i = 0; i < driver->run.options->queues; i++) {
        if (!ring_must_kick(&driver->rings[i]))
            continue;
        driver->run.result->kicks++;
        fake_queue_kick(&driver->rings[i].queue);
    }
}

static void run_requests(struct blk_driver *driver)
{
    path_begin(&driver->run);
    for (unsigned i = 0; i < driver->run.options->depth; i++)
        blk_driver_offer(driver, i);
    kick_if_wanted(driver);
    while (driver->in_flight) {
        loop_run_once(&driver->guest.loop, true);
        blk_driver_take(driver);
        kick_if_wanted(driver);
    }
}

int path_run_blk(const struct path_options *options, struct path_result *result, struct error *err)
{
    struct blk_driver *driver = calloc(1, sizeof(*driver));
    CHECK(driver);
    blk_driver_init(driver);
    int status = blk_driver_open(driver, options, result, err);
    if (!status) {
        run_requests(driver);
        status = blk_driver_close(driver, err);
    }
    free(driver);
    return status;
}
