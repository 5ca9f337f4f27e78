/* SPDX-License-Identifier: MIT */
/*
 * path: one measured run of a disk path in this process, without a guest: the engine by itself, or
 * the virtio-blk device with a driver's side in memory before it.
 *
 * A run keeps `depth` requests in flight for `seconds`. Everything happens on one loop's thread,
 * the driver's share included, unless a driver has a thread and a disk a side loop of its own; CPU
 * time of these and of all other threads (pool, kernel workers) is told apart.
 */
#ifndef TOOLS_BENCH_PATH_H
#define TOOLS_BENCH_PATH_H

#include <stdbool.h>
#include <stdint.h>

#include "disk/disk.h"
#include "tools/bench/histogram.h"

#define PATH_DEPTH_MAX  256
#define PATH_QUEUES_MAX 8
#define PATH_DISKS_MAX  8
#define PATH_FRAME_MAX  1514
#define PATH_BLOCK_MAX  (UINT64_C(1) << 20)
/* Of all requests together: what the driver's memory holds. */
#define PATH_DATA_MAX (UINT64_C(6) << 20)

enum path_direction { PATH_SEND, PATH_RECEIVE, PATH_BOTH };

struct path_options {
    const char *images[PATH_DISKS_MAX]; /* one for each disk; ignored by the format "null" */
    const char *format;                 /* "raw", "qcow2", "null", ... */
    bool is_write, is_random, is_direct;
    bool verifies;       /* writes only: what was written is read back and compared */
    bool is_mixed;       /* reads and writes, by `read_percent` */
    bool is_check;       /* the options are looked at, nothing runs */
    bool is_registered;  /* the driver's memory is registered with io_uring */
    bool has_io_threads; /* every disk of ours has a loop of its own; kick only */
    unsigned read_percent;
    unsigned disks;  /* at once, each with its own device, driver and depth; virtio only */
    unsigned queues; /* of a disk, over which its depth is spread; virtio only */
    const char *sockets[PATH_DISKS_MAX]; /* of vhost-user servers, in place of disks of ours */
    uint64_t skip_bytes,
        span_bytes; /* the part of an image that is used; a span of 0: to its end */
    uint64_t block_bytes;
    enum path_direction direction; /* net only, where block_bytes is a frame and queues a stream */
    unsigned depth;
    unsigned seconds;
    uint64_t seed;
};

struct path_result {
    uint64_t operations, elapsed_ns;
    uint64_t loop_cpu_ns, process_cpu_ns;
    uint64_t driver_cpu_ns; /* where it has a thread of its own */
    uint64_t io_thread_cpu_ns;
    uint64_t received; /* frames */
    uint64_t loop_turns;
    uint64_t kicks, interrupts; /* virtio only */
    uint64_t host_operations;   /* reads, writes and flushes of the host's files */
    struct histogram latency_ns;
};

struct side_loop;

/* The state of a run that both paths share. */
struct path_run {
    const struct path_options *options;
    struct path_result *result;
    struct loop *loop, *home; /* the disk's, and this thread's: mostly the same */
    struct side_loop *side;   /* whose `loop` is then; or NULL */
    bool is_under_way;        /* from path_begin to path_stop */
    const char *image;
    struct disk *disk;
    uint64_t blocks, next_block, random;
    uint8_t *written; /* by block, if it verifies */
    uint64_t began_ns, ends_ns, began_cpu_ns, began_process_ns, began_turns;
    uint64_t began_io_thread_ns;
    int failure; /* -errno of the first request that failed */
};

int must_check path_run_disk(const struct path_options *options, struct path_result *result,
                             struct error *err);
int must_check path_run_blk(const struct path_options *options, struct path_result *result,
                            struct error *err);

/* As path_run_blk, with the driver on a thread of its own. */
int must_check path_run_kick(const struct path_options *options, struct path_result *result,
                             struct error *err);

/* As path_run_kick, before the vhost-user server of another program. */
int must_check path_run_vhost(const struct path_options *options, struct path_result *result,
                              struct error *err);

int must_check path_run_net(const struct path_options *options, struct path_result *result,
                            struct error *err);

/* path.c: the steps of a run. */
int must_check path_open(struct path_run *run, struct error *err);
void path_begin(struct path_run *run);
/* No request is in flight any more. */
void path_stop(struct path_run *run);
/* On the driver's own thread, at its end. */
void path_take_driver_cpu(struct path_run *run);
bool path_is_over(const struct path_run *run);
uint64_t path_next_offset(struct path_run *run);
bool path_next_is_write(struct path_run *run);
/* The bytes of a block, told by its offset alone. */
void path_fill(const struct path_run *run, uint64_t offset, void *to);
void path_record(struct path_run *run, uint64_t offset, uint64_t started_ns, int result);
void path_take_figures(struct path_run *run);
/* No request is in flight. Takes the figures, verifies, closes the disk and its loop. */
int must_check path_end(struct path_run *run, struct error *err);

/* null_io.c: a disk of `size_bytes` that answers at once, in the loop's next turn. */
int must_check null_disk_open(struct loop *loop, uint64_t size_bytes, struct disk **out,
                              struct error *err);

#endif
