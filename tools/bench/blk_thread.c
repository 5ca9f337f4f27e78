/* SPDX-License-Identifier: MIT */
/* blk_thread: offers, sleeps, takes, until nothing is in flight. */
#include "tools/bench/blk_thread.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

static void kick_if_wanted(struct blk_thread *thread)
{
    struct blk_driver *driver = thread->driver;
    for (unsigned i = 0; i < driver->run.options->queues; i++) {
        if (!ring_must_kick(&driver->rings[i]))
            continue;
        driver->run.result->kicks++;
        CHECK(eventfd_write(thread->kick_fds[i], 1) == 0);
    }
}

/* A vhost-user server may have made the descriptor, which it shares, one that does not wait. */
static void wait_for_interrupt(int fd)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    eventfd_t count;
    while (eventfd_read(fd, &count)) {
        CHECK(errno == EAGAIN || errno == EINTR);
        poll(&wanted, 1, -1);
    }
}

static void *drive(void *opaque)
{
    struct blk_thread *thread = opaque;
    struct blk_driver *driver = thread->driver;
    for (unsigned i = 0; i < driver->run.options->depth; i++)
        blk_driver_offer(driver, i);
    kick_if_wanted(thread);
    while (driver->in_flight) {
        wait_for_interrupt(thread->irq_fd);
        driver->run.result->interrupts++;
        blk_driver_take(driver);
        kick_if_wanted(thread);
    }
    path_take_driver_cpu(&driver->run);
    loop_event_signal(&thread->finished);
    return NULL;
}

static void on_finished(struct loop_event *event)
{
    container_of(event, struct blk_thread, finished)->is_finished = true;
}

int blk_thread_run(struct blk_thread *thread, struct error *err)
{
    struct loop *loop = &thread->driver->guest.loop;
    int result = loop_event_init(loop, &thread->finished, on_finished);
    if (result)
        return error_set_errno(err, -result, "cannot make an eventfd");
    path_begin(&thread->driver->run);
    CHECK(pthread_create(&thread->thread, NULL, drive, thread) == 0);
    while (!thread->is_finished)
        loop_run_once(loop, true);
    CHECK(pthread_join(thread->thread, NULL) == 0);
    loop_event_close(&thread->finished, NULL);
    return 0;
}
