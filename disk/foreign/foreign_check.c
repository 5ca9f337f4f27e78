/* SPDX-License-Identifier: MIT */
/*
 * foreign_check: walks the map of an image, cluster by cluster. Where two clusters share a place is
 * told by a bitmap of the file's clusters, so memory is a bit for each of them.
 */
#include "disk/foreign/foreign_check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/limits.h"

#define MESSAGES_MAX 100

struct walk {
    const struct foreign_check_options *options;
    struct foreign_check_result *result;
    uint64_t cluster_bytes;
    struct io_file *file; /* whose clusters `used` is about: the first with data */
    uint8_t *used;        /* a bit for each cluster of the file, by where a cluster begins */
    uint64_t used_bits;
};

static void complain(struct walk *walk, const char *line)
{
    if (walk->result->corruptions++ < MESSAGES_MAX)
        walk->options->on_message(walk->options->opaque, line);
}

static int count_file(struct walk *walk, struct io_file *file)
{
    uint64_t length = 0;
    int result = io_length(file, &length);
    walk->file = file;
    walk->used_bits = length / walk->cluster_bytes + 2;
    free(walk->used);
    walk->used = result ? NULL : calloc(walk->used_bits / 8 + 1, 1);
    return walk->used ? 0 : -ENOMEM;
}

/* Clusters of one image begin at the same remainder, so that the quotient tells them apart. */
static int mark(struct walk *walk, uint64_t offset, const struct foreign_extent *extent)
{
    char line[160];
    int result = extent->file == walk->file ? 0 : count_file(walk, extent->file);
    uint64_t bit = extent->host_offset / walk->cluster_bytes;
    if (result || extent->kind != FOREIGN_DATA || bit >= walk->used_bits)
        return result;
    if (walk->used[bit / 8] >> bit % 8 & 1) {
        snprintf(line, sizeof(line),
                 "ERROR: the data at offset %llu of the disk is at %llu of the file, where other "
                 "data is",
                 (unsigned long long)offset, (unsigned long long)extent->host_offset);
        complain(walk, line);
    }
    walk->used[bit / 8] |= (uint8_t)(1 << bit % 8);
    return 0;
}

static int walk_disk(struct walk *walk, struct foreign *foreign)
{
    uint64_t size = foreign_size_bytes(foreign), step = walk->cluster_bytes;
    int result = 0;
    for (uint64_t offset = 0; offset < size && !result;) {
        struct foreign_extent extent;
        uint64_t end = MIN(align_down(offset, step) + step, size);
        if (foreign_find(foreign, offset, end, &extent)) {
            complain(walk, foreign_problem(foreign));
            offset = end;
            continue;
        }
        if (extent.kind == FOREIGN_ABSENT || extent.kind == FOREIGN_ZERO) {
            /* A missing table is passed in one step. */
            result = foreign_find(foreign, offset, size, &extent);
        } else {
            result = mark(walk, offset, &extent);
        }
        offset += extent.bytes;
    }
    return result;
}

int foreign_check(struct io_file *file, const struct foreign_check_options *options,
                  struct foreign_check_result *out, struct error *err)
{
    const struct foreign_options open_options = {
        .path = options->path,
        .format = options->format,
        .blocking = true,
        .no_lock = options->no_lock,
        .io = {.read_only = true, .aio = DISK_AIO_THREADS},
    };
    struct walk walk = {.options = options, .result = out};
    struct foreign *foreign;
    *out = (struct foreign_check_result){0};
    int result = foreign_open(file->loop, file, &open_options, &foreign, err);
    if (result)
        return result;
    walk.cluster_bytes = foreign_cluster_bytes(foreign) ? foreign_cluster_bytes(foreign) : 1 * MIB;
    result = walk_disk(&walk, foreign);
    free(walk.used);
    foreign_abandon(foreign);
    return result ? error_set_errno(err, -result, "cannot check '%s'", options->path) : 0;
}
