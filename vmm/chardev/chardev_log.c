/* SPDX-License-Identifier: MIT */
/*
 * chardev_log: what a chardev remembers of its output: the last of it for the next client of a
 * socket (history=on), and a file (logfile=).
 *
 * The pool writes the file. A guest must not fill the host's disk by its console: with logsize= the
 * blocks before the last so many bytes are given back, while offsets stay.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "vmm/chardev/chardev_private.h"

#define PUNCH_STEP_BYTES (64 * KIB)

static void trim(struct chardev_log *log)
{
    off_t size = lseek(log->fd, 0, SEEK_END);
    if (!log->limit_bytes || size < 0 || (uint64_t)size <= log->limit_bytes)
        return;
    uint64_t end = align_down((uint64_t)size - log->limit_bytes, PUNCH_STEP_BYTES);
    if (end <= log->punched_bytes)
        return;
    if (fallocate(log->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)log->punched_bytes,
                  (off_t)(end - log->punched_bytes)) < 0)
        log->result = ftruncate(log->fd, 0) < 0 ? -errno : log->result;
    else
        log->punched_bytes = end;
}

static void write_job(struct loop_job *job)
{
    struct chardev_log *log = container_of(job, struct chardev_log, job);
    log->result = write(log->fd, log->job_bytes, log->job_length);
    if (log->result < 0)
        log->result = -errno;
    trim(log);
}

static void write_more(struct chardev *chardev)
{
    struct chardev_log *log = &chardev->log;
    if (log->job_is_running || log->pending.count == 0)
        return;
    log->job_is_running = true;
    log->job_length = ring_run(&log->pending, &log->job_bytes);
    chardev->handles++;
    loop_job_submit(chardev->loop, &log->job);
}

static void on_write_job_done(struct loop_job *job)
{
    struct chardev_log *log = container_of(job, struct chardev_log, job);
    struct chardev *chardev = container_of(log, struct chardev, log);
    log->job_is_running = false;
    if (log->result > 0) {
        ring_drop(&log->pending, MIN((size_t)log->result, log->pending.count));
    } else if (log->result != -EINTR) {
        ring_drop(&log->pending, log->pending.count);
        if (!log->has_failed)
            log_warn("chardev '%s': logfile %s: %s; output is missing there", chardev->config->id,
                     chardev->config->logfile, strerror((int)-log->result));
        log->has_failed = true;
    }
    write_more(chardev);
    chardev_release(chardev);
}

int chardev_log_open(struct chardev *chardev, struct error *err)
{
    const struct config_chardev *config = chardev->config;
    struct chardev_log *log = &chardev->log;
    log->fd = -1;
    log->history =
        (struct chardev_ring){.bytes = log->history_bytes, .capacity = CHARDEV_OUTPUT_BYTES};
    log->pending =
        (struct chardev_ring){.bytes = log->pending_bytes, .capacity = CHARDEV_OUTPUT_BYTES};
    log->job = (struct loop_job){.work = write_job, .on_done = on_write_job_done};
    log->limit_bytes = config->log_bytes;
    if (!config->logfile)
        return 0;
    int how = config->logappend ? 0 : O_TRUNC;
    log->fd =
        open(config->logfile, O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND | O_NOCTTY | how, 0600);
    if (log->fd < 0)
        return error_set_errno(err, errno, "cannot open the logfile %s of chardev '%s'",
                               config->logfile, config->id);
    return 0;
}

/* Makes room by forgetting the oldest. */
static void remember(struct chardev_ring *history, const uint8_t *bytes, size_t length)
{
    if (length > history->capacity) {
        bytes += length - history->capacity;
        length = history->capacity;
    }
    if (ring_room(history) < length)
        ring_drop(history, length - ring_room(history));
    ring_put(history, bytes, length);
}

void chardev_log_take(struct chardev *chardev, const void *bytes, size_t length)
{
    struct chardev_log *log = &chardev->log;
    if (chardev->config->history)
        remember(&log->history, bytes, length);
    if (log->fd < 0)
        return;
    ring_put(&log->pending, bytes, length);
    write_more(chardev);
}

void chardev_log_replay(struct chardev *chardev)
{
    struct chardev_ring history = chardev->log.history;
    const uint8_t *bytes;
    while (history.count > 0) {
        size_t run = ring_run(&history, &bytes);
        chardev_put_output(chardev, bytes, run);
        ring_drop(&history, run);
    }
}

void chardev_log_close(struct chardev *chardev)
{
    if (chardev->log.fd >= 0)
        close(chardev->log.fd);
}
