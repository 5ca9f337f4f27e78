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

static int make_events(struct blk_thread *threads, unsigned count, struct error *err)
{
    int result = 0;
    for (unsigned i = 0; i < count && !result; i++)
        result =
            loop_event_init(&threads[i].driver->guest->loop, &threads[i].finished, on_finished);
    return result ? error_set_errno(err, -result, "cannot make an eventfd") : 0;
}

int blk_threads_run(struct blk_thread *threads, unsigned count, struct error *err)
{
    int result = make_events(threads, count, err);
    if (result)
        return result;
    for (unsigned i = 0; i < count; i++)
        path_begin(&threads[i].driver->run);
    for (unsigned i = 0; i < count; i++)
        CHECK(pthread_create(&threads[i].thread, NULL, drive, &threads[i]) == 0);
    for (unsigned i = 0; i < count; i++) {
        while (!threads[i].is_finished)
            loop_run_once(&threads[i].driver->guest->loop, true);
        CHECK(pthread_join(threads[i].thread, NULL) == 0);
        path_stop(&threads[i].driver->run);
        loop_event_close(&threads[i].finished, NULL);
    }
    return 0;
}
