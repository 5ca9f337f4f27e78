/* SPDX-License-Identifier: MIT */
/*
 * opener: a thread with a loop of its own opens the image, read-only and without locks.
 *
 * Thread and loop share the opener; who lets go of it last frees it.
 */
#include "vmm/opener.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdset.h"
#include "vmm/drive_format.h"

struct opener {
    struct disk_options options; /* its strings are owned here */
    /* The thread's, until it has signalled. */
    int result;
    struct error err;

    pthread_mutex_t mutex; /* of these two */
    bool is_done, is_cancelled;

    atomic_uint users;
    struct loop_event event;
    opener_done_fn *on_done;
    void *opaque;
};

static char *copy(const char *text)
{
    char *duplicate = text ? strdup(text) : NULL;
    CHECK(!text || duplicate);
    return duplicate;
}

static void let_go(struct opener *opener)
{
    if (atomic_fetch_sub(&opener->users, 1) > 1)
        return;
    free((char *)opener->options.path);
    free((char *)opener->options.format);
    free((char *)opener->options.backing_path);
    free((char *)opener->options.backing_format);
    free((char *)opener->options.data_file_path);
    pthread_mutex_destroy(&opener->mutex);
    free(opener);
}

static int open_and_close(struct opener *opener)
{
    struct loop loop;
    struct disk *disk;
    struct disk_options options = opener->options;
    /* A descriptor that was passed is open already, and perhaps only in the way the machine wants.
     */
    if (fdset_is_path(options.path))
        return 0;
    int result = loop_init(&loop);
    if (result)
        return error_set_errno(&opener->err, -result, "cannot make a loop to open '%s'",
                               options.path);
    if (!options.format)
        result = drive_format_tell(options.path, &options.format, &opener->err);
    if (!result)
        result = disk_open(&loop, &options, &disk, &opener->err);
    if (!result)
        unused_result(disk_close_wait(disk));
    loop_fini(&loop);
    return result;
}

static void *thread_main(void *opaque)
{
    struct opener *opener = opaque;
    opener->result = open_and_close(opener);
    pthread_mutex_lock(&opener->mutex);
    opener->is_done = true;
    if (!opener->is_cancelled)
        loop_event_signal(&opener->event);
    pthread_mutex_unlock(&opener->mutex);
    let_go(opener);
    return NULL;
}

static void on_event_closed(struct loop_event *event)
{
    struct opener *opener = event->opaque;
    const struct error cancelled = {ECANCELED, "the machine ends"};
    if (opener->is_cancelled)
        opener->on_done(opener->opaque, -ECANCELED, &cancelled);
    else
        opener->on_done(opener->opaque, opener->result, &opener->err);
    let_go(opener);
}

static void on_signal(struct loop_event *event)
{
    loop_event_close(event, on_event_closed);
}

static int start_thread(struct opener *opener)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&thread, &attributes, thread_main, opener);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -code;
}

static struct opener *make_opener(const struct disk_options *options)
{
    struct opener *opener = calloc(1, sizeof(*opener));
    CHECK(opener);
    opener->options = (struct disk_options){
        .path = copy(options->path),
        .format = copy(options->format),
        .backing_path = copy(options->backing_path),
        .backing_format = copy(options->backing_format),
        .data_file_path = copy(options->data_file_path),
        .no_data_file_name = options->no_data_file_name,
        .no_backing = options->no_backing,
        .read_only = true,
        .no_lock = true,
        .aio = DISK_AIO_THREADS,
        .cache.writeback = true,
    };
    pthread_mutex_init(&opener->mutex, NULL);
    atomic_init(&opener->users, 1);
    return opener;
}

int opener_start(struct loop *loop, const struct disk_options *options, opener_done_fn *on_done,
                 void *opaque, struct opener **out, struct error *err)
{
    struct opener *opener = make_opener(options);
    opener->on_done = on_done;
    opener->opaque = opaque;
    int result = loop_event_init(loop, &opener->event, on_signal);
    if (result) {
        let_go(opener);
        return error_set_errno(err, -result, "cannot wait for '%s'", options->path);
    }
    opener->event.opaque = opener;
    atomic_fetch_add(&opener->users, 1);
    result = start_thread(opener);
    if (result) {
        opener->is_done = true;
        opener->result =
            error_set_errno(&opener->err, -result, "no thread to open '%s'", options->path);
        loop_event_signal(&opener->event);
        let_go(opener);
    }
    *out = opener;
    return 0;
}

void opener_cancel(struct opener *opener)
{
    pthread_mutex_lock(&opener->mutex);
    bool was_cancelled = opener->is_cancelled, was_done = opener->is_done;
    opener->is_cancelled = true;
    pthread_mutex_unlock(&opener->mutex);
    /* One that is done has signalled, and may be closing already. */
    if (!was_cancelled && !was_done)
        loop_event_close(&opener->event, on_event_closed);
}
