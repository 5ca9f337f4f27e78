/* SPDX-License-Identifier: MIT */
/* path_disk: the disk engine by itself. */
#include <stdlib.h>

#include "base/bytes.h"
#include "tools/bench/path.h"

struct disk_path;

struct slot {
    struct disk_path *path;
    struct disk_request request;
    struct iovec iov;
    uint64_t started_ns;
};

struct disk_path {
    struct path_run run;
    struct slot slots[PATH_DEPTH_MAX];
    unsigned in_flight;
};

static void submit(struct slot *slot);

static void on_done(struct disk_request *request, int result)
{
    struct slot *slot = container_of(request, struct slot, request);
    struct disk_path *path = slot->path;
    path->in_flight--;
    path_record(&path->run, request->offset, slot->started_ns, result);
    if (!path_is_over(&path->run))
        submit(slot);
}

static void submit(struct slot *slot)
{
    struct disk_path *path = slot->path;
    const struct path_options *options = path->run.options;
    slot->request = (struct disk_request){
        .op = path_next_is_write(&path->run) ? DISK_WRITE : DISK_READ,
        .offset = path_next_offset(&path->run),
        .bytes = options->block_bytes,
        .iov = &slot->iov,
        .iov_count = 1,
        .on_done = on_done,
    };
    if (options->verifies)
        path_fill(&path->run, slot->request.offset, slot->iov.iov_base);
    slot->started_ns = loop_now_ns();
    path->in_flight++;
    disk_submit(path->run.disk, &slot->request);
}

static void run_requests(struct disk_path *path)
{
    const struct path_options *options = path->run.options;
    for (unsigned i = 0; i < options->depth; i++) {
        struct slot *slot = &path->slots[i];
        slot->path = path;
        slot->iov.iov_len = options->block_bytes;
        slot->iov.iov_base = aligned_alloc(4096, align_up(options->block_bytes, 4096));
        CHECK(slot->iov.iov_base);
        path_fill(&path->run, i, slot->iov.iov_base);
    }
    path_begin(&path->run);
    for (unsigned i = 0; i < options->depth; i++)
        submit(&path->slots[i]);
    while (path->in_flight)
        loop_run_once(path->run.loop, true);
}

int path_run_disk(const struct path_options *options, struct path_result *result, struct error *err)
{
    struct loop loop;
    struct disk_path *path = calloc(1, sizeof(*path));
    CHECK(path && loop_init(&loop) == 0);
    path->run = (struct path_run){
        .options = options, .result = result, .loop = &loop, .image = options->images[0]};
    int status = path_open(&path->run, err);
    if (!status) {
        run_requests(path);
        status = path_end(&path->run, err);
        for (unsigned i = 0; i < options->depth; i++)
            free(path->slots[i].iov.iov_base);
        loop_fini(&loop);
    }
    free(path);
    return status;
}
