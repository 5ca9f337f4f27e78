/* SPDX-License-Identifier: MIT */
/* checker: see the header. Straight from the format's description; plain on purpose. */
#include "tests/crash_sim/checker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define HOST_MASK         UINT64_C(0x00fffffffffffe00)
#define FLAG_COPIED       (UINT64_C(1) << 63)
#define FLAG_PACKED       (UINT64_C(1) << 62)
#define BITMAPS_EXTENSION 0x23852875u
#define SPARE             64u /* clusters past the end of the file that may be counted */

enum role {
    ROLE_NONE,
    ROLE_SINGLE, /* header, L1 and refcount tables, refcount blocks, snapshot table */
    ROLE_L2,
    ROLE_DATA,
    ROLE_PACKED,
};

static bool wrong(struct checker *c, const char *what, uint64_t at)
{
    snprintf(c->why, sizeof(c->why), "%s (%#llx; the file has %#llx)", what, (unsigned long long)at,
             (unsigned long long)c->file->length_bytes);
    return false;
}

/* Big-endian, zero past the end of the file; aligned to its own size. */
static uint64_t number(const struct checker *c, uint64_t offset, unsigned bytes)
{
    const uint8_t *at = cell_file_bytes(c->file, offset / CELL_BYTES) + offset % CELL_BYTES;
    uint64_t value = 0;
    if (bytes == 8) {
        memcpy(&value, at, 8);
        return __builtin_bswap64(value);
    }
    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

static uint64_t place(unsigned bits, uint64_t offset, uint64_t *rest)
{
    *rest = offset & ((UINT64_C(1) << bits) - 1);
    return offset >> bits;
}

static bool check_extensions(struct checker *c, uint64_t at)
{
    c->bitmap_count = 0;
    for (;;) {
        if (at + 8 > c->cluster_bytes)
            return wrong(c, "header extensions do not end", at);
        uint64_t type = number(c, at, 4), bytes = number(c, at + 4, 4);
        if (!type)
            return true;
        if (type == BITMAPS_EXTENSION && number(c, 88, 8) & 1) {
            c->bitmap_count = (unsigned)number(c, at + 8, 4);
            c->bitmap_directory_bytes = number(c, at + 16, 8);
            c->bitmap_directory = number(c, at + 24, 8);
        }
        at += 8 + (bytes + 7) / 8 * 8;
    }
}

static bool read_header(struct checker *c)
{
    c->version = (unsigned)number(c, 4, 4);
    c->cluster_bits = (unsigned)number(c, 20, 4);
    if (number(c, 0, 4) != 0x514649fb || (c->version != 2 && c->version != 3))
        return wrong(c, "no header", c->version);
    if (c->cluster_bits < 9 || c->cluster_bits > 21)
        return wrong(c, "cluster bits", c->cluster_bits);
    c->cluster_bytes = UINT64_C(1) << c->cluster_bits;
    c->active.size_bytes = number(c, 24, 8);
    c->active.l1_entries = number(c, 36, 4);
    c->active.l1_offset = number(c, 40, 8);
    c->reftable_offset = number(c, 48, 8);
    c->reftable_bytes = number(c, 56, 4) << c->cluster_bits;
    c->refcount_bits = c->version == 2 ? 16 : 1u << number(c, 96, 4);
    uint64_t incompatible = c->version == 2 ? 0 : number(c, 72, 8);
    uint64_t compatible = c->version == 2 ? 0 : number(c, 80, 8);
    c->is_extended = incompatible & 16;
    c->is_dirty = incompatible & 1;
    if (incompatible & ~UINT64_C(0x19))
        return wrong(c, "marked corrupt, or an unknown feature", incompatible);
    if (c->is_dirty && !(compatible & 1))
        return wrong(c, "dirty without lazy refcounts", incompatible);
    if (c->reftable_bytes > 1u << 23 || c->active.l1_entries > 1u << 22)
        return wrong(c, "a table is too large", c->reftable_bytes);
    uint64_t l2_bits = c->cluster_bits - (c->is_extended ? 4 : 3);
    if (c->active.size_bytes > c->active.l1_entries << (l2_bits + c->cluster_bits))
        return wrong(c, "L1 does not cover the disk", c->active.size_bytes);
    return check_extensions(c, c->version == 2 ? 72 : number(c, 100, 4));
}

static bool count(struct checker *c, uint64_t offset, uint64_t bytes, enum role role)
{
    uint64_t first = offset >> c->cluster_bits;
    uint64_t last = (offset + bytes - 1) >> c->cluster_bits;
    for (uint64_t i = first; bytes && i <= last; i++) {
        if (i >= c->clusters - SPARE + 1)
            return wrong(c, "a reference far outside the file", offset);
        if (c->roles[i] && (role == ROLE_SINGLE || c->roles[i] != role))
            return wrong(c, "one cluster in two roles", i << c->cluster_bits);
        if (role != ROLE_PACKED && c->walks[i] == c->walk)
            return wrong(c, "a cluster mapped twice", i << c->cluster_bits);
        c->roles[i] = (uint8_t)role;
        c->walks[i] = role == ROLE_PACKED ? 0 : c->walk;
        c->references[i]++;
    }
    return true;
}

static uint64_t packed_extent(const struct checker *c, uint64_t entry, uint64_t *offset)
{
    unsigned x = 62 - (c->cluster_bits - 8);
    *offset = entry & ((UINT64_C(1) << x) - 1);
    return (((entry & (FLAG_PACKED - 1)) >> x) + 1) * 512 - *offset % 512;
}

static bool count_entry(struct checker *c, uint64_t at)
{
    uint64_t entry = number(c, at, 8), host = entry & HOST_MASK, offset;
    uint64_t bitmap = c->is_extended ? number(c, at + 8, 8) : 0;
    if (entry & FLAG_PACKED) {
        uint64_t bytes = packed_extent(c, entry, &offset);
        if (bitmap || entry & FLAG_COPIED)
            return wrong(c, "flags on a compressed cluster", at);
        return count(c, offset, bytes, ROLE_PACKED);
    }
    if (bitmap & bitmap >> 32 & 0xffffffff)
        return wrong(c, "a subcluster is data and zero", at);
    if ((bitmap & 0xffffffff) && !host)
        return wrong(c, "subclusters without a cluster", at);
    if (entry & ~(HOST_MASK | FLAG_COPIED | (c->version == 3 && !c->is_extended)))
        return wrong(c, "reserved bits of an L2 entry", entry);
    if (host & (c->cluster_bytes - 1))
        return wrong(c, "a cluster is not aligned", at);
    if ((entry & FLAG_COPIED) && !host)
        return wrong(c, "COPIED without a cluster", at);
    return !host || count(c, host, c->cluster_bytes, ROLE_DATA);
}

/* Calls `visit` for each L2 entry that is not zero. */
static bool each_entry(struct checker *c, uint64_t l2, bool (*visit)(struct checker *, uint64_t))
{
    unsigned step = c->is_extended ? 16 : 8;
    for (uint64_t at = l2; at < l2 + c->cluster_bytes; at += CELL_BYTES) {
        if (!cell_file_get(c->file, at / CELL_BYTES))
            continue;
        for (uint64_t entry = at; entry < at + CELL_BYTES; entry += step)
            if ((number(c, entry, 8) || (step == 16 && number(c, entry + 8, 8))) &&
                !visit(c, entry))
                return false;
    }
    return true;
}

static bool count_table(struct checker *c, const struct checker_table *table)
{
    if (table->l1_offset & (c->cluster_bytes - 1))
        return wrong(c, "an L1 table is not aligned", table->l1_offset);
    c->walk++;
    if (!count(c, table->l1_offset, table->l1_entries * 8, ROLE_SINGLE))
        return false;
    for (uint64_t i = 0; i < table->l1_entries; i++) {
        uint64_t entry = number(c, table->l1_offset + i * 8, 8), l2 = entry & HOST_MASK;
        if (entry & ~(HOST_MASK | FLAG_COPIED) || l2 & (c->cluster_bytes - 1))
            return wrong(c, "a bad L1 entry", entry);
        if (l2 && (!count(c, l2, c->cluster_bytes, ROLE_L2) || !each_entry(c, l2, count_entry)))
            return false;
    }
    return true;
}

/* The first entry of the refcount table that is not zero, from byte `at` on. */
static uint64_t next_block(const struct checker *c, uint64_t at)
{
    while (at < c->reftable_bytes) {
        uint64_t offset = c->reftable_offset + at;
        if (!cell_file_get(c->file, offset / CELL_BYTES))
            at = at / CELL_BYTES * CELL_BYTES + CELL_BYTES;
        else if (!number(c, offset, 8))
            at += 8;
        else
            break;
    }
    return at;
}

static bool count_refcounts(struct checker *c)
{
    if (c->reftable_offset & (c->cluster_bytes - 1))
        return wrong(c, "the refcount table is not aligned", c->reftable_offset);
    if (!count(c, c->reftable_offset, c->reftable_bytes, ROLE_SINGLE))
        return false;
    for (uint64_t at = 0; (at = next_block(c, at)) < c->reftable_bytes; at += 8) {
        uint64_t block = number(c, c->reftable_offset + at, 8);
        if (block & (c->cluster_bytes - 1))
            return wrong(c, "a refcount block is not aligned", block);
        if (!count(c, block, c->cluster_bytes, ROLE_SINGLE))
            return false;
    }
    return true;
}

static void read_text(const struct checker *c, uint64_t offset, uint64_t bytes, char *out,
                      size_t room)
{
    size_t n = bytes < room ? (size_t)bytes : room - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = (char)number(c, offset + i, 1);
    out[n] = 0;
}

static bool read_snapshots(struct checker *c)
{
    uint64_t table = number(c, 64, 8), at = table;
    c->snapshot_count = (unsigned)number(c, 60, 4);
    if (c->snapshot_count > CHECKER_SNAPSHOTS)
        return wrong(c, "too many snapshots", c->snapshot_count);
    for (unsigned i = 0; i < c->snapshot_count; i++) {
        struct checker_snapshot *snapshot = &c->snapshots[i];
        uint64_t id = number(c, at + 12, 2), name = number(c, at + 14, 2);
        uint64_t extra = number(c, at + 36, 4);
        if (!id || extra < 16 || extra > 1024)
            return wrong(c, "a bad entry of the snapshot table", at);
        snapshot->table.l1_offset = number(c, at, 8);
        snapshot->table.l1_entries = number(c, at + 8, 4);
        snapshot->table.size_bytes = number(c, at + 48, 8);
        read_text(c, at + 40 + extra + id, name, snapshot->name, sizeof(snapshot->name));
        at = (at + 40 + extra + id + name + 7) / 8 * 8;
    }
    return !c->snapshot_count ||
           (!(table & (c->cluster_bytes - 1)) && count(c, table, at - table, ROLE_SINGLE));
}

static bool count_bitmap(struct checker *c, const struct checker_bitmap *bitmap)
{
    if (!count(c, bitmap->table_offset, bitmap->table_entries * 8, ROLE_SINGLE))
        return false;
    for (uint64_t i = 0; i < bitmap->table_entries; i++) {
        uint64_t entry = number(c, bitmap->table_offset + i * 8, 8), host = entry & HOST_MASK;
        if (entry & ~(HOST_MASK | 1) || host & (c->cluster_bytes - 1) || (host && entry & 1))
            return wrong(c, "a bad entry of a bitmap's table", entry);
        if (host && !count(c, host, c->cluster_bytes, ROLE_SINGLE))
            return false;
    }
    return true;
}

static bool read_bitmaps(struct checker *c)
{
    uint64_t at = c->bitmap_directory, end = at + c->bitmap_directory_bytes;
    if (c->bitmap_count > CHECKER_BITMAPS)
        return wrong(c, "too many bitmaps", c->bitmap_count);
    if (c->bitmap_count && !count(c, at, c->bitmap_directory_bytes, ROLE_SINGLE))
        return false;
    for (unsigned i = 0; i < c->bitmap_count; i++) {
        struct checker_bitmap *bitmap = &c->bitmaps[i];
        bitmap->table_offset = number(c, at, 8);
        bitmap->table_entries = number(c, at + 8, 4);
        bitmap->is_in_use = number(c, at + 12, 4) & 1;
        bitmap->granularity_bits = (unsigned)number(c, at + 17, 1);
        uint64_t name = number(c, at + 18, 2), extra = number(c, at + 20, 4);
        if (number(c, at + 16, 1) != 1 || !name || extra || at + 24 + name > end)
            return wrong(c, "a bad entry of the bitmap directory", at);
        if (!count_bitmap(c, bitmap))
            return false;
        at = (at + 24 + name + 7) / 8 * 8;
    }
    return true;
}

/* --- the comparison --- */

/* One sector of a refcount block; `first` is the cluster of its first entry. */
static uint64_t compare_sector(struct checker *c, const uint8_t *bytes, uint64_t first)
{
    uint64_t entries = CELL_BYTES * 8 / c->refcount_bits, good = 0;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t stored = 0, found = first + i < c->clusters ? c->references[first + i] : 0;
        if (c->refcount_bits < 8)
            stored = bytes[i * c->refcount_bits / 8] >> i * c->refcount_bits % 8 &
                     ((1u << c->refcount_bits) - 1);
        else
            for (unsigned b = 0; b < c->refcount_bits / 8; b++)
                stored = stored << 8 | bytes[i * (c->refcount_bits / 8) + b];
        good += found && stored >= found;
        c->leaks += stored > found;
        if (found && stored < found)
            wrong(c, "refcount too low", (first + i) << c->cluster_bits);
    }
    return good;
}

static bool compare(struct checker *c)
{
    uint64_t used = 0, good = 0, per_block = c->cluster_bytes * 8 / c->refcount_bits;
    uint64_t per_sector = CELL_BYTES * 8 / c->refcount_bits;
    c->leaks = 0;
    for (uint64_t i = 0; i < c->clusters; i++)
        used += c->references[i] != 0;
    for (uint64_t at = 0; (at = next_block(c, at)) < c->reftable_bytes; at += 8) {
        uint64_t block = number(c, c->reftable_offset + at, 8);
        for (uint64_t s = 0; s < c->cluster_bytes / CELL_BYTES; s++) {
            const struct cell *cell = cell_file_get(c->file, block / CELL_BYTES + s);
            if (cell)
                good += compare_sector(c, cell->bytes, at / 8 * per_block + s * per_sector);
        }
    }
    c->recounted = used - good;
    if (good < used && !c->why[0])
        wrong(c, "no refcount for a cluster in use", used - good);
    return good == used || c->is_dirty;
}

static uint64_t refcount(const struct checker *c, uint64_t cluster)
{
    uint64_t index, block = place(c->cluster_bits + 3, cluster * c->refcount_bits, &index);
    if (block * 8 >= c->reftable_bytes)
        return 0;
    uint64_t offset = number(c, c->reftable_offset + block * 8, 8);
    if (!offset)
        return 0;
    if (c->refcount_bits >= 8)
        return number(c, offset + index / 8, c->refcount_bits / 8);
    return number(c, offset + index / 8, 1) >> index % 8 & ((1u << c->refcount_bits) - 1);
}

/* COPIED promises that nobody else refers to the cluster: then it is written in place. */
static bool check_copied(struct checker *c, uint64_t at)
{
    uint64_t entry = number(c, at, 8);
    if (!(entry & FLAG_COPIED))
        return true;
    uint64_t cluster = (entry & HOST_MASK) >> c->cluster_bits;
    if (c->references[cluster] != 1 && !c->is_dirty)
        return wrong(c, "COPIED on a shared cluster", at);
    c->stale += refcount(c, cluster) != 1 && !c->is_dirty;
    return true;
}

static bool check_all_copied(struct checker *c)
{
    c->stale = 0;
    for (uint64_t i = 0; i < c->active.l1_entries; i++) {
        uint64_t at = c->active.l1_offset + i * 8, l2 = number(c, at, 8) & HOST_MASK;
        if (l2 && (!check_copied(c, at) || !each_entry(c, l2, check_copied)))
            return false;
    }
    return true;
}

static void make_room(struct checker *c)
{
    uint64_t clusters = (c->file->length_bytes >> c->cluster_bits) + 1 + SPARE;
    if (clusters > c->room) {
        free(c->references);
        free(c->roles);
        free(c->walks);
        c->room = clusters * 2;
        c->references = malloc(c->room * sizeof(c->references[0]));
        c->roles = malloc(c->room);
        c->walks = malloc(c->room);
    }
    c->clusters = clusters;
    memset(c->references, 0, clusters * sizeof(c->references[0]));
    memset(c->roles, 0, clusters);
    memset(c->walks, 0, clusters);
    c->walk = 1;
}

bool checker_open(struct checker *c, const struct cell_file *file)
{
    c->file = file;
    c->why[0] = 0;
    if (!read_header(c))
        return false;
    make_room(c);
    if (!count(c, 0, c->cluster_bytes, ROLE_SINGLE) || !count_refcounts(c) || !read_snapshots(c) ||
        !read_bitmaps(c) || !count_table(c, &c->active))
        return false;
    for (unsigned i = 0; i < c->snapshot_count; i++)
        if (!count_table(c, &c->snapshots[i].table))
            return false;
    return compare(c) && check_all_copied(c);
}

void checker_fini(struct checker *c)
{
    for (unsigned i = 0; i < CHECKER_UNPACKED; i++) {
        free(c->unpacked[i].lbas);
        free(c->unpacked[i].versions);
    }
    free(c->references);
    free(c->roles);
    free(c->walks);
    memset(c, 0, sizeof(*c));
}

/* --- reading --- */

static bool inflate_all(const uint8_t *in, uint64_t in_bytes, uint8_t *out, uint64_t out_bytes)
{
    z_stream stream = {.next_in = (z_const Bytef *)in, .avail_in = (uInt)in_bytes};
    stream.next_out = out;
    stream.avail_out = (uInt)out_bytes;
    if (inflateInit2(&stream, -12) != Z_OK)
        return false;
    int result = inflate(&stream, Z_FINISH);
    bool is_full = stream.avail_out == 0;
    inflateEnd(&stream);
    return is_full && (result == Z_STREAM_END || result == Z_BUF_ERROR || result == Z_OK);
}

static bool unpack(struct checker *c, uint64_t offset, uint64_t bytes, struct checker_unpacked *to)
{
    uint64_t sectors = c->cluster_bytes / CELL_BYTES;
    uint8_t *in = malloc(bytes), *out = malloc(c->cluster_bytes);
    for (uint64_t i = 0; i < bytes; i++)
        in[i] = (uint8_t)number(c, offset + i, 1);
    bool is_good = inflate_all(in, bytes, out, c->cluster_bytes);
    to->lbas = realloc(to->lbas, sectors * sizeof(to->lbas[0]));
    to->versions = realloc(to->versions, sectors * sizeof(to->versions[0]));
    for (uint64_t i = 0; is_good && i < sectors; i++)
        cell_identify(out + i * CELL_BYTES, &to->lbas[i], &to->versions[i]);
    free(in);
    free(out);
    return is_good;
}

static const struct checker_unpacked *find_unpacked(struct checker *c, uint64_t entry)
{
    uint64_t offset, bytes = packed_extent(c, entry, &offset), key = entry | 1;
    for (uint64_t s = offset / CELL_BYTES; s <= (offset + bytes - 1) / CELL_BYTES; s++)
        key = (key ^ (uint64_t)(uintptr_t)cell_file_get(c->file, s)) * UINT64_C(0x100000001b3);
    for (unsigned i = 0; i < CHECKER_UNPACKED; i++)
        if (c->unpacked[i].key == key)
            return &c->unpacked[i];
    struct checker_unpacked *slot = &c->unpacked[c->next_unpacked++ % CHECKER_UNPACKED];
    slot->key = unpack(c, offset, bytes, slot) ? key : 0;
    return slot->key ? slot : NULL;
}

void checker_map(struct checker *c, const struct checker_table *table, uint64_t cluster,
                 struct checker_map *map)
{
    unsigned step = c->is_extended ? 16 : 8;
    uint64_t index, l1 = place(c->cluster_bits - (step == 16 ? 4 : 3), cluster, &index);
    *map = (struct checker_map){.kind = CHECKER_BROKEN};
    if (l1 >= table->l1_entries)
        return;
    uint64_t l2 = number(c, table->l1_offset + l1 * 8, 8) & HOST_MASK;
    uint64_t entry = l2 ? number(c, l2 + index * step, 8) : 0;
    map->host = entry & HOST_MASK;
    if (entry & FLAG_PACKED) {
        map->unpacked = find_unpacked(c, entry);
        map->kind = map->unpacked ? CHECKER_PACKED : CHECKER_BROKEN;
        return;
    }
    map->bitmap = l2 && step == 16 ? number(c, l2 + index * step + 8, 8) : 0;
    if (step == 8 && entry & 1)
        map->kind = CHECKER_ZERO;
    else
        map->kind = map->host ? CHECKER_DATA : CHECKER_BACKING;
}

bool checker_bitmap_has(const struct checker *c, const struct checker_bitmap *bitmap,
                        uint64_t offset)
{
    uint64_t bit = offset >> bitmap->granularity_bits, rest;
    uint64_t index = place(c->cluster_bits, bit / 8, &rest);
    if (index >= bitmap->table_entries)
        return false;
    uint64_t entry = number(c, bitmap->table_offset + index * 8, 8), host = entry & HOST_MASK;
    return host ? number(c, host + rest, 1) >> bit % 8 & 1 : entry & 1;
}

enum checker_kind checker_sector(const struct checker *c, const struct checker_map *map,
                                 unsigned sector, uint32_t lba, uint32_t *version)
{
    enum checker_kind kind = map->kind;
    *version = CELL_ZERO;
    if (kind == CHECKER_PACKED) {
        bool is_own = !map->unpacked->versions[sector] || map->unpacked->lbas[sector] == lba;
        *version = is_own ? map->unpacked->versions[sector] : CELL_FOREIGN;
        return CHECKER_DATA;
    }
    if (c->is_extended && kind != CHECKER_BROKEN) {
        uint64_t sub = sector / (c->cluster_bytes / CELL_BYTES / 32);
        kind = map->bitmap >> sub & 1          ? CHECKER_DATA
               : map->bitmap >> (32 + sub) & 1 ? CHECKER_ZERO
                                               : CHECKER_BACKING;
    }
    if (kind == CHECKER_DATA)
        *version = cell_version(cell_file_get(c->file, map->host / CELL_BYTES + sector), lba);
    return kind;
}
