/* SPDX-License-Identifier: MIT */
/* oracle: straight from the format's description; slow and plain on purpose. */
#include "tests/crash/oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_MASK 0x00fffffffffffe00ull
#define FLAG_ONE  (1ull << 63)
#define FLAG_PACK (1ull << 62)

static bool wrong(struct oracle *o, const char *what, uint64_t at)
{
    snprintf(o->why, sizeof(o->why), "%s (%#llx)", what, (unsigned long long)at);
    return false;
}

/* Big-endian, zero past the end of the file. */
static uint64_t number(const struct oracle *o, uint64_t offset, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | (offset + i < o->length ? o->bytes[offset + i] : 0);
    return value;
}

static bool read_header(struct oracle *o)
{
    if (number(o, 0, 4) != 0x514649fb)
        return wrong(o, "no magic", 0);
    o->version = (unsigned)number(o, 4, 4);
    o->cluster_bits = (unsigned)number(o, 20, 4);
    if (o->cluster_bits < 9 || o->cluster_bits > 21)
        return wrong(o, "cluster bits", o->cluster_bits);
    o->cluster = 1ull << o->cluster_bits;
    o->size = number(o, 24, 8);
    o->l1_size = number(o, 36, 4);
    o->l1_offset = number(o, 40, 8);
    o->reftable_offset = number(o, 48, 8);
    o->reftable_clusters = number(o, 56, 4);
    o->refcount_bits = o->version == 2 ? 16 : 1u << number(o, 96, 4);
    uint64_t incompatible = o->version == 2 ? 0 : number(o, 72, 8);
    o->extended = incompatible & 16;
    if (incompatible & 3)
        return wrong(o, "dirty or corrupt", incompatible);
    if (number(o, 60, 4))
        return wrong(o, "snapshots", 0);
    return true;
}

static uint64_t refcount(const struct oracle *o, uint64_t cluster)
{
    uint64_t per_block = o->cluster * 8 / o->refcount_bits;
    uint64_t entry = cluster / per_block;
    if (entry >= o->reftable_clusters * o->cluster / 8)
        return 0;
    uint64_t block = number(o, o->reftable_offset + entry * 8, 8) & ~511ull;
    if (!block)
        return 0;
    uint64_t bit = cluster % per_block * o->refcount_bits;
    if (o->refcount_bits >= 8)
        return number(o, block + bit / 8, o->refcount_bits / 8);
    return number(o, block + bit / 8, 1) >> bit % 8 & ((1u << o->refcount_bits) - 1);
}

struct census {
    struct oracle *o;
    uint8_t *seen; /* by cluster */
    uint64_t clusters;
};

/* Without snapshots nothing may be referenced twice, and all must be counted. */
static bool count(struct census *c, uint64_t offset, uint64_t bytes, bool may_share,
                  const char *what)
{
    uint64_t first = offset >> c->o->cluster_bits;
    uint64_t last = (offset + bytes - 1) >> c->o->cluster_bits;
    for (uint64_t i = first; i <= last; i++) {
        if (i >= c->clusters)
            return wrong(c->o, "a reference far outside", offset);
        if (c->seen[i] && !(may_share && c->seen[i] < 255))
            return wrong(c->o, what, offset);
        c->seen[i]++;
        if (refcount(c->o, i) < c->seen[i])
            return wrong(c->o, "refcount too low", i << c->o->cluster_bits);
    }
    return true;
}

static bool count_entry(struct census *c, uint64_t at)
{
    struct oracle *o = c->o;
    uint64_t entry = number(o, at, 8), host = entry & HOST_MASK;
    if (entry & FLAG_PACK) {
        unsigned x = 62 - (o->cluster_bits - 8);
        host = entry & ((1ull << x) - 1);
        uint64_t bytes = (((entry & ~FLAG_PACK) >> x) + 1) * 512 - host % 512;
        return count(c, host, bytes, true, "compressed data on other data");
    }
    if (o->extended) {
        uint64_t bitmap = number(o, at + 8, 8);
        if (bitmap & bitmap >> 32 & 0xffffffff)
            return wrong(o, "subcluster is data and zero", at);
        if ((bitmap & 0xffffffff) && !host)
            return wrong(o, "subclusters without a cluster", at);
    }
    if (!host)
        return true;
    if (host % o->cluster)
        return wrong(o, "unaligned cluster", at);
    if (!(entry & FLAG_ONE))
        return wrong(o, "a cluster of nobody's own without snapshots", at);
    if (!count(c, host, o->cluster, false, "two uses of a data cluster"))
        return false;
    return refcount(o, host >> o->cluster_bits) == 1 || wrong(o, "copied flag, but shared", at);
}

static bool count_l2(struct census *c, uint64_t l1_at)
{
    struct oracle *o = c->o;
    uint64_t entry = number(o, l1_at, 8), table = entry & HOST_MASK, step = o->extended ? 16 : 8;
    if (!table)
        return true;
    if (table % o->cluster)
        return wrong(o, "unaligned L2 table", l1_at);
    if (!count(c, table, o->cluster, false, "two uses of an L2 table"))
        return false;
    for (uint64_t at = 0; at < o->cluster; at += step)
        if (!count_entry(c, table + at))
            return false;
    return true;
}

static bool count_all(struct census *c)
{
    struct oracle *o = c->o;
    uint64_t reftable_bytes = o->reftable_clusters * o->cluster;
    if (!count(c, 0, o->cluster, false, "header twice") ||
        (o->l1_size && !count(c, o->l1_offset, o->l1_size * 8, false, "two uses of L1")) ||
        !count(c, o->reftable_offset, reftable_bytes, false, "two uses of the refcount table"))
        return false;
    for (uint64_t i = 0; i < reftable_bytes / 8; i++) {
        uint64_t block = number(o, o->reftable_offset + i * 8, 8);
        if (block % o->cluster)
            return wrong(o, "unaligned refcount block", block);
        if (block && !count(c, block, o->cluster, false, "two uses of a refcount block"))
            return false;
    }
    for (uint64_t i = 0; i < o->l1_size; i++)
        if (!count_l2(c, o->l1_offset + i * 8))
            return false;
    return true;
}

bool oracle_open(struct oracle *o, const uint8_t *bytes, uint64_t length)
{
    *o = (struct oracle){.bytes = bytes, .length = length};
    if (!read_header(o))
        return false;
    struct census c = {.o = o, .clusters = (length >> o->cluster_bits) + 4096};
    c.seen = calloc(c.clusters, 1);
    bool sound = count_all(&c);
    for (uint64_t i = 0; sound && i < length >> o->cluster_bits; i++)
        o->leaks += refcount(o, i) > c.seen[i];
    free(c.seen);
    return sound;
}

enum oracle_sector oracle_read(struct oracle *o, uint64_t offset, uint8_t out[512])
{
    uint64_t step = o->extended ? 16 : 8, per_table = o->cluster / step;
    uint64_t cluster = offset >> o->cluster_bits, in_cluster = offset % o->cluster;
    if (cluster / per_table >= o->l1_size)
        return ORACLE_BROKEN;
    uint64_t table = number(o, o->l1_offset + cluster / per_table * 8, 8) & HOST_MASK;
    memset(out, 0, 512);
    if (!table)
        return ORACLE_BACKING;
    uint64_t at = table + cluster % per_table * step;
    uint64_t entry = number(o, at, 8), host = entry & HOST_MASK;
    if (entry & FLAG_PACK)
        return ORACLE_BROKEN;
    if (o->extended) {
        uint64_t bitmap = number(o, at + 8, 8), sub = in_cluster / (o->cluster / 32);
        if (bitmap >> (32 + sub) & 1)
            return ORACLE_DATA;
        if (!(bitmap >> sub & 1))
            return ORACLE_BACKING;
    } else if (entry & 1) {
        return ORACLE_DATA;
    } else if (!host) {
        return ORACLE_BACKING;
    }
    for (unsigned i = 0; i < 512; i++)
        out[i] = host + in_cluster + i < o->length ? o->bytes[host + in_cluster + i] : 0;
    return ORACLE_DATA;
}
