/* SPDX-License-Identifier: MIT */
/* img_source: an image that is read: opened by disk.h, with its map beside it. */
#ifndef TOOLS_IMG_IMG_SOURCE_H
#define TOOLS_IMG_IMG_SOURCE_H

#include "disk/disk.h"
#include "disk/map.h"
#include "tools/img/img.h"

struct img_source_options {
    const char *path;
    const char *format; /* NULL: found out from the file */
    bool no_lock;
    bool no_backing; /* the top layer alone */
    bool writable;
    const char *snapshot; /* an internal one, or NULL */
    const char *cache;    /* a QEMU cache mode, or NULL */
    const char *discard;  /* ignore or unmap; NULL: unmap if writable */
    const char *aio;      /* threads, native or io_uring; NULL: the best there is */
    bool no_map;          /* only the disk is wanted */
};

struct img_source {
    struct disk *disk;
    struct map *map;
    const char *format;
};

/* 0, or 1 after saying what is wrong. On failure nothing is to be closed. */
int img_source_open(struct loop *loop, const struct img_source_options *options,
                    struct img_source *out);
/* 0 or -errno: what the last write back of a writable image gave. */
int img_source_close(struct img_source *source);

/* QEMU's names: none, writeback, writethrough, directsync, unsafe. -1 if unknown, nothing said. */
int img_parse_cache(const char *name, struct disk_cache_mode *mode);
/* -t and -T as a person gave them, each NULL if not given: 0, or 1 after saying what is wrong. */
int img_check_caches(const char *cache, const char *source_cache);

#endif
