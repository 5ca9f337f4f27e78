/* SPDX-License-Identifier: MIT */
/*
 * io_thread: a thread that does the host's part of the I/O of the files given to it. It waits on a
 * ring of io_uring of its own, and copies from and to the page cache while the loop serves others.
 *
 * It gets what is worth waking it for (io_ring_keeps in disk/io_host.h). Disks and devices stay on
 * the loop's thread, with all their state: requests cross in batches, one for each loop turn, and
 * come back in batches. Everything here is called on the loop's thread.
 */
#ifndef DISK_IO_THREAD_H
#define DISK_IO_THREAD_H

#include <sys/types.h>

#include "base/check.h"
#include "base/error.h"
#include "base/loop.h"

struct io_request;
struct io_thread;

/* `id` names the thread. -ENOSYS, -EPERM, ... where the host has no io_uring for us. */
int must_check io_thread_create(struct loop *loop, const char *id, struct io_thread **out,
                                struct error *err);
/* Nobody uses it any more. Ends the thread; `on_closed` comes later, on the loop. */
void io_thread_close(struct io_thread *thread, void (*on_closed)(void *opaque), void *opaque);

/* As the host knows it: for query-iothreads. */
pid_t io_thread_id(const struct io_thread *thread);

/* Files that count on it. */
void io_thread_get(struct io_thread *thread);
void io_thread_put(struct io_thread *thread);
unsigned io_thread_users(const struct io_thread *thread);

/* The answer comes as from io_ring_submit (disk/io_host.h). */
void io_thread_submit(struct io_thread *thread, struct io_request *request);

#endif
