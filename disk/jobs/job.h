/* SPDX-License-Identifier: MIT */
/*
 * job: long work on the images of a disk in use: mirror, commit, stream, backup. One life cycle for
 * all of them, QEMU's (docs of its qapi/job.json); states change on the loop, each is told to the
 * listener.
 *
 * A job copies what is marked in its bitmap, a bounded number of pieces at a time, and ends with a
 * change of the graph (disk/graph.h) while the disk is quiet. One job uses a disk at a time.
 */
#ifndef DISK_JOBS_JOB_H
#define DISK_JOBS_JOB_H

#include "base/list.h"
#include "disk/dirty.h"
#include "disk/graph.h"

#define JOB_OPS         16
#define JOB_PIECE_BYTES (UINT64_C(256) << 10)
#define JOB_ID_MAX      255

enum job_kind { JOB_MIRROR, JOB_COMMIT, JOB_STREAM, JOB_BACKUP };

enum job_status {
    JOB_CREATED,
    JOB_RUNNING,
    JOB_PAUSED,
    JOB_READY,
    JOB_STANDBY, /* ready, and paused */
    JOB_WAITING,
    JOB_PENDING, /* for job_finalize */
    JOB_ABORTING,
    JOB_CONCLUDED,
    JOB_NULL,
};

enum job_sync { JOB_SYNC_FULL, JOB_SYNC_TOP, JOB_SYNC_NONE, JOB_SYNC_BITMAP };

/* What happens to a sync bitmap at the end of a backup. */
enum job_bitmap_mode { JOB_BITMAP_ON_SUCCESS, JOB_BITMAP_NEVER, JOB_BITMAP_ALWAYS };

enum job_on_error { JOB_ERROR_REPORT, JOB_ERROR_IGNORE, JOB_ERROR_STOP, JOB_ERROR_ENOSPC };

enum job_event {
    JOB_EVENT_READY,
    JOB_EVENT_PENDING, /* it waits for job_finalize */
    JOB_EVENT_COMPLETED,
    JOB_EVENT_CANCELLED
};

struct job;

struct job_listener {
    void (*on_status)(void *opaque, const struct job *job);
    void (*on_event)(void *opaque, const struct job *job, enum job_event event);
    /* `action`: "report", "ignore" or "stop". */
    void (*on_error)(void *opaque, const struct job *job, bool is_read, const char *action,
                     int code);
    /* The target was a mirror's or a backup's, and the job is done with it. After a pivot it is the
     * old chain of the source. */
    void (*on_target_free)(void *opaque, struct disk *target, bool has_pivoted);
    void (*on_empty)(void *opaque); /* the last job is gone */
    void *opaque;
};

/* Zeroed memory and list_init(&members): an empty one. Freed with its last job. */
struct job_group {
    struct list members;
};

struct jobs {
    struct loop *loop;
    struct list list;
    struct job_listener listener;
};

struct job_options {
    enum job_kind kind;
    const char *id;
    struct disk *disk;
    struct disk *target;   /* MIRROR, BACKUP: becomes the job's */
    struct node *top;      /* COMMIT: what is committed; STREAM: into what; NULL: the disk's top */
    struct node *base;     /* COMMIT: into it. STREAM: what stays below, or NULL */
    const char *base_name; /* COMMIT below the top, STREAM: what the image is told; NULL: base's */
    enum job_sync sync;
    struct dirty_bitmap *bitmap; /* BACKUP: or NULL; with JOB_SYNC_BITMAP it says what is copied */
    enum job_bitmap_mode bitmap_mode;
    uint64_t speed; /* bytes a second; 0: no limit */
    uint32_t granularity_bytes;
    uint64_t buffer_bytes; /* at most so much on its way at once, but a piece; 0: JOB_OPS pieces */
    enum job_on_error on_source_error, on_target_error;
    bool unmap; /* zeroes give space back */
    bool manual_finalize, manual_dismiss;
    bool is_write_blocking;  /* MIRROR: what a guest writes is on the target when it is told so */
    struct job_group *group; /* of jobs that end well together, or not at all; or NULL */
    bool is_quiet;           /* BACKUP: the disk is quiet already, and the caller lets it go on */
};

struct job_op {
    struct list node; /* job->idle or job->active */
    struct job *job;
    uint64_t offset, bytes;
    enum { JOB_OP_STATUS, JOB_OP_READ, JOB_OP_WRITE, JOB_OP_GUEST } state;
    struct disk_request *guest; /* JOB_OP_GUEST: what is written to both */
    uint64_t guest_at;          /* how far */
    int target_result;
    struct disk_request request;
    struct iovec iov;
    uint8_t *buffer;
};

struct job {
    struct list node;
    struct list group_node; /* job_group.members */
    bool is_waiting;        /* for the rest of its group */
    bool is_prepared;       /* likewise: only the pivots are left */
    struct jobs *jobs;
    struct job_options options;
    char *id, *base_name;
    char user[64];
    enum job_status status;
    bool is_active_commit;
    bool has_started; /* copies */
    bool is_scanning;
    bool is_ready;
    bool is_paused_by_user;
    bool is_stopped_by_error;
    bool is_cancelled, is_forced;
    bool wants_complete;
    bool is_quiet; /* ours: at the end */
    bool is_ending, is_finalized, has_pivoted, is_starting;
    int result, io_error;
    struct error err;
    uint64_t offset_bytes; /* progress */
    uint64_t left_bytes;   /* of a concluded one */
    /* The copier. */
    struct node *source, *destination;
    struct disk *destination_disk;
    struct dirty_bitmap *todo;
    struct dirty_bitmap *taken; /* BACKUP: what the sync bitmap said */
    struct job_op ops[JOB_OPS];
    struct list idle, active;
    unsigned active_count, guest_count; /* of those active, a guest's own (JOB_OP_GUEST) */
    uint64_t cursor;
    uint64_t allowed_ns; /* when the speed permits the next piece */
    struct loop_timer timer;
    struct loop_task work;
    struct disk_filter filter;
    bool has_filter;
    struct list waiting; /* guest's requests that wait for a backup's copy */
    struct disk_request scan, flush;
    struct node *scan_node;
    uint64_t scan_at, scan_bytes;
};

void jobs_init(struct jobs *jobs, struct loop *loop, const struct job_listener *listener);
/* Cancels all; on_empty follows (at once if there is none). */
void jobs_cancel_all(struct jobs *jobs);
struct job *jobs_find(struct jobs *jobs, const char *id);

/* On failure nothing happened, the target is still the caller's. */
int must_check job_start(struct jobs *jobs, const struct job_options *options, struct job **out,
                         struct error *err);

/* In QEMU's words of refusal. */
int must_check job_pause(struct job *job, struct error *err);
int must_check job_resume(struct job *job, struct error *err);
int must_check job_cancel(struct job *job, bool force, struct error *err);
int must_check job_complete(struct job *job, struct error *err);
int must_check job_finalize(struct job *job, struct error *err);
int must_check job_dismiss(struct job *job, struct error *err);
int must_check job_set_speed(struct job *job, uint64_t speed, struct error *err);

const char *job_kind_name(enum job_kind kind);
const char *job_status_name(enum job_status status);
uint64_t job_total_bytes(const struct job *job);
bool job_is_paused(const struct job *job);

#endif
