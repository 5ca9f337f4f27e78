/* SPDX-License-Identifier: MIT */
/* block_private: what the files of the room share. */
#ifndef VMM_BLOCK_BLOCK_PRIVATE_H
#define VMM_BLOCK_BLOCK_PRIVATE_H

#include "base/aside.h"
#include "disk/jobs/job.h"
#include "disk/nbd/nbd_server.h"
#include "vmm/block/block.h"

#define BLOCK_GENERIC    "GenericError"
#define BLOCK_NOT_FOUND  "DeviceNotFound"
#define BLOCK_NOT_ACTIVE "DeviceNotActive"

struct block {
    struct loop *loop;
    struct block_host host;
    struct jobs jobs;
    struct nbd_server *nbd;
    struct list exports;   /* struct block_export */
    struct list makings;   /* struct block_making */
    struct list creations; /* struct block_creation */
    unsigned closing_disks, calls;
    bool is_closing, has_no_jobs, is_stopping_nbd;
    void (*on_closed)(void *opaque);
    void *opaque;
    struct loop_task closed;
};

struct block_call {
    struct block *block;
    json_t *args;
    block_done_fn *done;
    void *opaque;
};

/* Ends the call and frees it. */
void block_return(struct block_call *call, json_t *value);
void block_fail(struct block_call *call, const char *class, const char *format, ...)
    printf_like(3, 4);
/* `result` and its sentence. */
void block_finish(struct block_call *call, int result, const struct error *err);

/* As error_set, over what was said before. */
int must_check block_say_instead(struct error *err, int code, const char *format, ...)
    printf_like(3, 4);

const char *block_text(const json_t *args, const char *name);
bool block_bool(const json_t *args, const char *name, bool otherwise);
uint64_t block_uint(const json_t *args, const char *name, uint64_t otherwise);
/* One of "a|b|c", by its place; `otherwise` if absent. */
int must_check block_choice(const json_t *args, const char *name, const char *choices,
                            unsigned otherwise, unsigned *out, struct error *err);

/* The disk that has a node or a drive of this name; *node is the drive's top, or what was named. */
struct disk *block_find(struct block *block, const char *name, struct node **node,
                        struct error *err);
/* As above, for what must be on top. */
struct disk *block_find_root(struct block *block, const char *name, struct error *err);
/* NULL, with QEMU's sentence, if a job uses it. */
int must_check block_check_free(struct disk *disk, struct error *err);
const char *block_id_of(const struct block *block, const struct disk *disk);
/* Closes a disk of our own, in the background; block_close waits for it. */
void block_close_disk(struct block *block, struct disk *disk);

/* block_image.c: a new image, or one that is there ("existing"), open for writing. */
struct block_image {
    const char *path, *format, *node_name;
    const char *backing_path, *backing_format; /* of a new one, or NULL */
    bool is_existing;
    uint64_t size_bytes;
    bool no_backing; /* do not open what it is backed by */
};
struct block_making;
int must_check block_image_check(const struct block_image *image, struct error *err);
/* Takes as long as the file system takes: not on the loop's thread. */
int must_check block_image_make(struct loop *loop, const struct block_image *image,
                                struct error *err);
/* The parts of it. The file is made if `is_new`, emptied unless it is a device, and locked; *out
 * may be set on failure too. */
int must_check block_image_open_empty(struct loop *loop, const char *path, bool is_new,
                                      struct io_file **out, struct error *err);
/* The file, and its name if it is new, are on the medium. */
int must_check block_image_sync(struct io_file *file, const char *path, bool is_new,
                                struct error *err);
/* After its making. */
int must_check block_image_open(const struct block_making *making, const struct disk *like,
                                const struct block_image *image, struct disk **out,
                                struct error *err);

/* block_making.c: on_done later; the file is this command's until block_making_end. */
int must_check block_making_start(struct block *block, const struct block_image *image,
                                  aside_done_fn *on_done, void *opaque, struct block_making **out,
                                  struct error *err);
/* -EAGAIN: what was made is not what `image` asks for now. */
int must_check block_making_check(const struct block_making *making,
                                  const struct block_image *image, struct error *err);
void block_making_end(struct block_making *making);
void block_making_cancel_all(struct block *block);

/* A step of a transaction. All run while their disks are quiet. */
struct block_action {
    struct list node;
    struct block *block;
    const struct block_action_type *type;
    const json_t *data;
    struct disk *disk;
    struct node *chain_node;
    struct disk *overlay;        /* snapshots */
    struct block_making *making; /* of its file */
    char *backing_name;          /* what a new overlay says that it stands on */
    struct dirty_bitmap *bitmap; /* bitmaps: what was added, removed or changed */
    struct dirty_bitmap *saved;  /* as it was */
    struct list *bitmaps;        /* the list it was removed from */
    bool was_enabled, was_read_only, has_begun, is_frozen;
    struct job_options job; /* backups */
    struct job *started;
    struct disk_snapshot_request snapshot;
    struct transaction *transaction;
};

struct block_action_type {
    const char *name; /* of the transaction's action and of the command */
    bool needs_quiet;
    /* Where the action's disk is named: "node", "device". */
    const char *disk_key;
    /* Optional: the file that it makes or opens; called before the disk is quiet, and again. */
    int (*describe)(struct block_action *action, struct block_image *image, struct error *err);
    int (*prepare)(struct block_action *action, struct error *err);
    /* Optional; asynchronous; ends in block_action_done. */
    void (*run)(struct block_action *action);
    int (*commit)(struct block_action *action, struct error *err); /* optional */
    void (*abort)(struct block_action *action);                    /* optional; undoes prepare */
    void (*clean)(struct block_action *action);                    /* optional; after commit */
};

/* Another action of the transaction is a snapshot of the same disk. */
bool block_action_has_twin(const struct block_action *action);
/* Of the transaction, or NULL: its jobs end well together, or not at all. */
struct job_group *block_action_group(const struct block_action *action);
void block_action_done(struct block_action *action, int result, const struct error *err);

extern const struct block_action_type block_snapshot_actions[], block_bitmap_actions[],
    block_backup_actions[];

/* The commands, by file. */
typedef void block_command_fn(struct block_call *call);
block_command_fn block_transaction, block_single_action;
block_command_fn block_query_jobs, block_query_block_jobs, block_job_verb, block_commit,
    block_stream, block_mirror, block_change_backing, block_create_image;
block_command_fn block_snapshot_delete;
block_command_fn block_set_throttle, block_set_histogram;
block_command_fn block_nbd_start, block_nbd_add, block_nbd_remove, block_nbd_stop, block_export_add,
    block_export_del, block_query_exports;

/* block_jobs.c */
void block_jobs_init(struct block *block);
/* Well formed, and nobody has it. */
int must_check block_job_check_id(struct block *block, const char *id, struct error *err);
/* What all commands that start jobs say alike. `device` names the job if nothing else does. */
int must_check block_job_options(struct block *block, const json_t *args, struct disk *disk,
                                 struct job_options *out, struct error *err);
/* The target of drive-*: a file. */
int must_check block_describe_target(const json_t *args, const struct disk *disk,
                                     const struct job_options *job, const char *backing,
                                     struct block_image *image, struct error *err);
/* Sets job->target: the file, or what blockdev-* names. */
int must_check block_take_target(struct block *block, const json_t *args,
                                 const struct block_making *making, const struct block_image *image,
                                 struct job_options *job, struct error *err);

/* block_export.c */
void block_drop_exports(struct block *block, struct disk *disk);
void block_check_closed(struct block *block);

#endif
