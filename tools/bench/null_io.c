/* SPDX-License-Identifier: MIT */
/* null_io: a host file that does nothing, in the next turn: what remains is evisor's own work. */
#include <errno.h>
#include <stdlib.h>

#include "disk/format.h"
#include "tools/bench/path.h"

struct null_io {
    struct io_file file;
    uint64_t size_bytes;
    struct list requests;
    struct loop_task complete;
    void (*on_closed)(void *opaque);
    void *opaque;
    struct loop_task close;
};

static void complete_all(struct loop_task *task)
{
    struct null_io *null = container_of(task, struct null_io, complete);
    struct io_request *last = list_entry(null->requests.prev, struct io_request, node);
    for (struct io_request *request = NULL; request != last;) {
        request = list_entry(list_pop_front(&null->requests), struct io_request, node);
        request->on_done(request, 0);
    }
}

static void submit(struct io_file *file, struct io_request *request)
{
    struct null_io *null = container_of(file, struct null_io, file);
    list_push_back(&null->requests, &request->node);
    loop_task_queue(&null->complete);
}

static int now(struct io_file *file, enum io_kind kind, void *buffer, uint64_t offset,
               uint64_t bytes)
{
    (void)file;
    (void)kind;
    (void)buffer;
    (void)offset;
    (void)bytes;
    return 0;
}

static int length(struct io_file *file, uint64_t *length_bytes)
{
    *length_bytes = container_of(file, struct null_io, file)->size_bytes;
    return 0;
}

static void run_close(struct loop_task *task)
{
    struct null_io *null = container_of(task, struct null_io, close);
    void (*on_closed)(void *opaque) = null->on_closed;
    void *opaque = null->opaque;
    free(null);
    if (on_closed)
        on_closed(opaque);
}

static void close_null(struct io_file *file, void (*on_closed)(void *opaque), void *opaque)
{
    struct null_io *null = container_of(file, struct null_io, file);
    null->on_closed = on_closed;
    null->opaque = opaque;
    loop_task_queue(&null->close);
}

int null_disk_open(struct loop *loop, uint64_t size_bytes, struct disk **out, struct error *err)
{
    static const struct io_ops ops = {submit, now, length, close_null};
    const struct disk_options options = {.path = "null", .format = "raw", .no_lock = true};
    struct null_io *null = calloc(1, sizeof(*null));
    CHECK(null);
    null->file = (struct io_file){.ops = &ops, .loop = loop, .fd = -1, .block_bytes = 4096};
    null->size_bytes = size_bytes;
    list_init(&null->requests);
    loop_task_init(loop, &null->complete, LOOP_STAGE_COMPLETE, complete_all);
    loop_task_init(loop, &null->close, LOOP_STAGE_COMPLETE, run_close);
    int result = disk_open_file(loop, &null->file, NULL, &options, out, err);
    if (result)
        free(null);
    return result;
}
