/* SPDX-License-Identifier: MIT */
/*
 * map: which parts of an image hold data, and where. For tools: reads tables with blocking I/O over
 * descriptors of its own, without locks; whoever uses it holds the image open by disk.h and writes
 * nothing in between.
 */
#ifndef DISK_MAP_H
#define DISK_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"

struct map;

enum map_kind {
    MAP_ABSENT, /* in no layer: reads as zeroes */
    MAP_ZERO,   /* a layer says that it is zero */
    MAP_DATA,
    MAP_COMPRESSED,
};

struct map_extent {
    uint64_t offset;
    uint64_t bytes;
    enum map_kind kind;
    unsigned depth; /* 0 is the top layer; of MAP_ABSENT the deepest one looked at */
    bool is_hidden; /* MAP_ABSENT: a layer ends before here, and what is below it does not show */
    bool has_host;  /* a place in that layer's file: MAP_DATA, and MAP_ZERO set aside */
    uint64_t host_offset;
    const char *path; /* of the layer */
};

struct map_options {
    const char *path;
    const char *format;
    const char *snapshot; /* an internal one of the top layer, or NULL */
    bool whole_chain;     /* the images below, too */
};

/* Blocks. */
int must_check map_open(struct loop *loop, const struct map_options *options, struct map **out,
                        struct error *err);
void map_close(struct map *map);

uint64_t map_size_bytes(const struct map *map);
unsigned map_layer_count(const struct map *map);

/*
 * The extent that begins at `offset` (below the size), looking through the first `depth` layers; 0
 * for all. It ends at `end` at the latest, and may be shorter than it could be.
 */
int must_check map_find(struct map *map, uint64_t offset, uint64_t end, unsigned depth,
                        struct map_extent *out, struct error *err);

#endif
