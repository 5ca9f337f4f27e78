/* SPDX-License-Identifier: MIT */
/*
 * format: what the image formats offer to the graph: a node is one open image file, and answers
 * requests through its format's table of functions.
 *
 * Nodes are given requests by the disk above them, or by the node that they back. They may assume
 * what disk_submit checks, and that `bytes` is not zero. Everything runs on the loop's thread.
 */
#ifndef DISK_FORMAT_H
#define DISK_FORMAT_H

#include "disk/disk.h"
#include "disk/io.h"

struct format_ops;

#define NODE_NAME_MAX 31 /* as QEMU's node names */

struct node {
    const struct format_ops *ops;
    char name[NODE_NAME_MAX + 1]; /* a person's, or "#block" and a number */
    struct loop *loop;
    struct io_file *file;
    struct io_file *data_file; /* where the guest's data is if not in `file`; or NULL */
    struct node *backing;      /* owned; NULL at the bottom of the chain */
    char *path;
    uint64_t size_bytes;
    uint64_t vmstate_offset, vmstate_bytes; /* the area of DISK_VMSTATE, in this node's offsets */
    uint32_t discard_granularity;
    bool read_only;
    bool unmap;       /* freed space goes back to the host */
    bool zeroes_fast; /* DISK_ZERO writes no data, but for the edges of a range */
    /* Completions that needed no I/O. */
    struct list done;
    struct loop_task complete;
    struct list bitmaps; /* struct dirty_bitmap, marked by the requests of the disk above */
};

struct format_ops {
    const char *name;
    bool has_status; /* DISK_STATUS is served; else all of the disk counts as data */
    /* Blocks. Owns `file` only on success. Fills *out with node_init done. */
    int (*open)(struct loop *loop, struct io_file *file, const struct disk_options *options,
                struct node **out, struct error *err);
    /* What the image names as its backing; NULL if nothing. May be absent. */
    const char *(*backing)(const struct node *node, const char **format);
    /* Ends in node_complete or node_complete_later, once, never from inside. */
    void (*submit)(struct node *node, struct disk_request *request);
    /* disk_expect; absent where there is nothing to be fetched. */
    void (*expect)(const struct node *node, uint64_t offset);
    /* Whether a bitmap could be kept in the image. Absent where the format keeps none. */
    int (*check_bitmap)(const struct node *node, const char *name, uint64_t granularity_bytes,
                        struct error *err);
    /* No request is in flight. `on_done` comes later, on the loop. */
    void (*resize)(struct node *node, uint64_t size_bytes,
                   void (*on_done)(void *opaque, int result, const struct error *err),
                   void *opaque);
    /* No request is in flight. Absent where the format has no internal snapshots. */
    void (*snapshot)(struct node *node, const struct disk_snapshot_request *request,
                     void (*on_done)(void *opaque, int result, const struct error *err),
                     void *opaque);
    void (*vmstate_reserve)(struct node *node, uint64_t bytes,
                            void (*on_done)(void *opaque, int result, const struct error *err),
                            void *opaque);
    size_t (*snapshot_count)(const struct node *node);
    void (*snapshot_get)(const struct node *node, size_t index, struct disk_snapshot_info *out);
    /*
     * No request is in flight, the node may be written to. Writes all back, bitmaps too, and from
     * then on nothing: other nodes may read the file. `on_done` may come at once.
     */
    void (*freeze)(struct node *node, void (*on_done)(void *opaque, int result), void *opaque);
    /* No request is in flight. Records another backing file, or none (NULL), durably; a crash
     * leaves the old or the new one. Absent where there is no backing. */
    void (*set_backing)(struct node *node, const char *path, const char *format,
                        void (*on_done)(void *opaque, int result, const struct error *err),
                        void *opaque);
    /* Nothing of the format's own is under way. Absent: as long as its files are idle. */
    bool (*is_at_rest)(const struct node *node);
    /* At rest: what the format has on its node's loop, but for the files, goes over. Absent: it has
     * nothing there. */
    void (*move)(struct node *node, struct loop *loop);
    /* No request is in flight. Writes metadata back, closes the file, frees the node (but not its
     * backing). */
    void (*close)(struct node *node, void (*on_closed)(void *opaque, int result), void *opaque);
};

extern const struct format_ops raw_format;
extern const struct format_ops qcow2_format;
extern const struct format_ops vdi_format, vmdk_format, vpc_format, vhdx_format; /* read-only */

/* NULL if the name is unknown. */
const struct format_ops *format_find(const char *name);

/* Fills what all formats share; path is copied. -ENOMEM or 0. */
int must_check node_init(struct node *node, const struct format_ops *ops, struct loop *loop,
                         struct io_file *file, const struct disk_options *options);
/* Frees what node_init made, and the bitmaps; the file is closed by then. */
void node_fini(struct node *node);

/* To the node's own submit, or answers for formats that cannot. */
void node_submit(struct node *node, struct disk_request *request);
/* From an I/O completion: the request is finished. */
void node_complete(struct disk_request *request, int result);
/* From inside submit: finished, to be told in the complete stage of this turn. */
void node_complete_later(struct node *node, struct disk_request *request, int result);

/* Opens `options->path` and the chain below it. Blocks. */
int must_check chain_open(struct loop *loop, const struct disk_options *options, struct node **out,
                          struct error *err);

/* A name in an image that is no file's: "nbd:...", "json:{...}". */
bool chain_names_a_protocol(const char *name);

/*
 * For tests: a disk over a file that is already open (and owned from now on if this succeeds), with
 * a backing disk's node or NULL.
 */
int must_check disk_open_file(struct loop *loop, struct io_file *file, struct node *backing,
                              const struct disk_options *options, struct disk **out,
                              struct error *err);

#endif
