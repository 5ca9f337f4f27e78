/* SPDX-License-Identifier: MIT */
/*
 * blk_thread: the driver on a thread of its own, as a vCPU is: a doorbell is a write to an eventfd,
 * an interrupt one that the driver sleeps on. Rings and slots belong to that thread while it runs.
 */
#ifndef TOOLS_BENCH_BLK_THREAD_H
#define TOOLS_BENCH_BLK_THREAD_H

#include "tools/bench/blk_driver.h"

struct blk_thread {
    struct blk_driver *driver;
    int kick_fds[PATH_QUEUES_MAX];
    int irq_fd;
    /* Private. */
    struct loop_event finished;
    bool is_finished;
    pthread_t thread;
};

/* All drive at once until the run is over; the loop of their guest runs meanwhile. */
int must_check blk_threads_run(struct blk_thread *threads, unsigned count, struct error *err);

#endif
