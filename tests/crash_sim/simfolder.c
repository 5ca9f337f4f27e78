/* SPDX-License-Identifier: MIT */
/* simfolder: see the header. A handle leads to its file's disk, of which there is one. */
#include "tests/crash_sim/simfolder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/aside.h"

struct handle {
    struct io_file file;
    struct simfolder *folder;
    struct simdisk *disk;
    struct loop_task closing;
    void (*on_closed)(void *opaque);
    void *opaque;
};

int __real_io_open(struct loop *loop, const char *path, const struct io_options *options,
                   struct io_file **out, struct error *err);
int __wrap_io_open(struct loop *loop, const char *path, const struct io_options *options,
                   struct io_file **out, struct error *err);
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_aside_start(struct loop *loop, const struct aside_work *work, aside_done_fn *on_done,
                       void *opaque, struct aside **out, struct error *err);

static struct simfolder *current;

static struct handle *handle_of(struct io_file *file)
{
    return container_of(file, struct handle, file);
}

static void handle_submit(struct io_file *file, struct io_request *request)
{
    struct simdisk *disk = handle_of(file)->disk;
    disk->file.ops->submit(&disk->file, request);
}

static int handle_now(struct io_file *file, enum io_kind kind, void *buffer, uint64_t offset,
                      uint64_t bytes)
{
    struct simdisk *disk = handle_of(file)->disk;
    return disk->file.ops->now(&disk->file, kind, buffer, offset, bytes);
}

static int handle_length(struct io_file *file, uint64_t *length_bytes)
{
    struct simdisk *disk = handle_of(file)->disk;
    return disk->file.ops->length(&disk->file, length_bytes);
}

static void on_closing(struct loop_task *task)
{
    struct handle *handle = container_of(task, struct handle, closing);
    handle->folder->opened--;
    if (handle->on_closed)
        handle->on_closed(handle->opaque);
    free(handle);
}

static void handle_close(struct io_file *file, void (*on_closed)(void *opaque), void *opaque)
{
    struct handle *handle = handle_of(file);
    handle->on_closed = on_closed;
    handle->opaque = opaque;
    loop_task_init(file->loop, &handle->closing, LOOP_STAGE_SUBMIT, on_closing);
    loop_task_queue(&handle->closing);
}

static const struct io_ops handle_ops = {
    .submit = handle_submit,
    .now = handle_now,
    .length = handle_length,
    .close = handle_close,
};

unsigned simfolder_find(const struct simfolder *folder, const char *name)
{
    unsigned i = 0;
    while (i < folder->clock.count && strcmp(folder->names[i], name) != 0)
        i++;
    return i;
}

int __wrap_io_open(struct loop *loop, const char *path, const struct io_options *options,
                   struct io_file **out, struct error *err)
{
    if (!current)
        return __real_io_open(loop, path, options, out, err);
    unsigned index = simfolder_find(current, path);
    if (index == current->clock.count)
        return error_set(err, ENOENT, "no '%s' in the simulated folder", path);
    struct handle *handle = calloc(1, sizeof(*handle));
    CHECK(handle);
    handle->folder = current;
    handle->disk = current->clock.disks[index];
    handle->file = (struct io_file){.ops = &handle_ops,
                                    .loop = loop,
                                    .fd = -1,
                                    .read_only = options->read_only,
                                    .inode = index + 1,
                                    .block_bytes = CELL_BYTES};
    current->opened++;
    *out = &handle->file;
    return 0;
}

int __wrap_open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;
    va_start(args, flags);
    if (flags & O_CREAT)
        mode = (mode_t)va_arg(args, int);
    va_end(args);
    bool is_ours = current && simfolder_find(current, path) < current->clock.count;
    return is_ours ? __real_open("/dev/null", O_RDWR | O_CLOEXEC) : __real_open(path, flags, mode);
}

/* Work that would be a thread's is done in a turn of the loop: one seed, one order. */
struct aside {
    struct loop_task task;
    struct aside_work work;
    aside_done_fn *on_done;
    void *opaque;
};

static void on_aside(struct loop_task *task)
{
    struct aside *aside = container_of(task, struct aside, task);
    struct error err = {0};
    int result = aside->work.run(aside->work.data, &err);
    aside->on_done(aside->opaque, result, &err);
    aside->work.release(aside->work.data);
    free(aside);
}

int __wrap_aside_start(struct loop *loop, const struct aside_work *work, aside_done_fn *on_done,
                       void *opaque, struct aside **out, struct error *err)
{
    struct aside *aside = calloc(1, sizeof(*aside));
    if (!aside)
        return error_set(err, ENOMEM, "no memory for work");
    *aside = (struct aside){.work = *work, .on_done = on_done, .opaque = opaque};
    loop_task_init(loop, &aside->task, LOOP_STAGE_DRAIN, on_aside);
    loop_task_queue(&aside->task);
    *out = aside;
    return 0;
}

void simfolder_init(struct simfolder *folder, struct loop *loop, struct cell_arena *arena,
                    const char *const *names, unsigned count, uint64_t seed)
{
    struct cell_file empty = {0};
    CHECK(!current);
    *folder = (struct simfolder){.loop = loop, .arena = arena};
    for (unsigned i = 0; i < count; i++) {
        folder->names[i] = names[i];
        simdisk_join(simdisk_create(loop, arena, &empty, seed + i), &folder->clock);
    }
    current = folder;
}

void simfolder_fini(struct simfolder *folder)
{
    CHECK(!folder->opened && current == folder);
    for (unsigned i = 0; i < folder->clock.count; i++)
        simdisk_destroy(folder->clock.disks[i]);
    current = NULL;
}

void simfolder_settle(struct simfolder *folder, uint64_t seed)
{
    struct simdisk_clock old = folder->clock;
    CHECK(!folder->opened);
    folder->clock.count = 0;
    for (unsigned i = 0; i < old.count; i++) {
        struct simdisk *disk =
            simdisk_create(folder->loop, folder->arena, &old.disks[i]->cache, seed + i);
        simdisk_destroy(old.disks[i]);
        simdisk_join(disk, &folder->clock);
    }
}

uint32_t simfolder_note(struct simfolder *folder)
{
    return simdisk_note(folder->clock.disks[0]);
}

uint32_t simfolder_now(const struct simfolder *folder)
{
    return simdisk_now(folder->clock.disks[0]);
}
