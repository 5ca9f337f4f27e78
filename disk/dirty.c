/* SPDX-License-Identifier: MIT */
/* dirty: bits in an array; runs are found 64 at a time. */
#include "disk/dirty.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

static uint64_t bits_for(uint64_t size_bytes, uint32_t granularity_bits)
{
    uint64_t rest = size_bytes & ((UINT64_C(1) << granularity_bits) - 1);
    return (size_bytes >> granularity_bits) + (rest != 0);
}

static uint64_t room_for(uint64_t bit_count)
{
    return align_up(bit_count, 64) / 8;
}

int dirty_bitmap_create(const char *name, uint64_t size_bytes, uint32_t granularity_bits,
                        struct dirty_bitmap **out)
{
    uint64_t bit_count = bits_for(size_bytes, granularity_bits);
    if (bit_count / 8 > DIRTY_BYTES_MAX)
        return -EFBIG;
    struct dirty_bitmap *bitmap = calloc(1, sizeof(*bitmap));
    if (!bitmap)
        return -ENOMEM;
    list_init(&bitmap->node);
    bitmap->name = strdup(name);
    bitmap->bits = calloc(1, room_for(bit_count) + 8);
    bitmap->bit_count = bit_count;
    bitmap->size_bytes = size_bytes;
    bitmap->granularity_bits = granularity_bits;
    bitmap->enabled = true;
    bitmap->changed = true;
    if (bitmap->name && bitmap->bits) {
        *out = bitmap;
        return 0;
    }
    dirty_bitmap_destroy(bitmap);
    return -ENOMEM;
}

void dirty_bitmap_destroy(struct dirty_bitmap *bitmap)
{
    if (!bitmap)
        return;
    CHECK(list_is_empty(&bitmap->node));
    free(bitmap->name);
    free(bitmap->bits);
    free(bitmap);
}

static void set_bits(struct dirty_bitmap *bitmap, uint64_t first, uint64_t end)
{
    while (first < end && first % 8) {
        bitmap->bits[first / 8] |= (uint8_t)(1u << first % 8);
        first++;
    }
    if (end - first >= 8)
        memset(bitmap->bits + first / 8, 0xff, (end - first) / 8);
    for (first = first + (end - first) / 8 * 8; first < end; first++)
        bitmap->bits[first / 8] |= (uint8_t)(1u << first % 8);
}

void dirty_bitmap_mark(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t end = MIN(offset + bytes, bitmap->size_bytes);
    bitmap->changed = true;
    if (offset < end)
        set_bits(bitmap, offset >> bitmap->granularity_bits,
                 ((end - 1) >> bitmap->granularity_bits) + 1);
}

void dirty_bitmap_clear(struct dirty_bitmap *bitmap)
{
    memset(bitmap->bits, 0, room_for(bitmap->bit_count));
    bitmap->changed = true;
}

void dirty_bitmap_clear_range(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t granule = UINT64_C(1) << bitmap->granularity_bits, end = offset + bytes;
    uint64_t first = (offset + granule - 1) >> bitmap->granularity_bits;
    uint64_t last = end >= bitmap->size_bytes ? bitmap->bit_count : end >> bitmap->granularity_bits;
    bitmap->changed = true;
    for (; first < last && first % 8; first++)
        bitmap->bits[first / 8] &= (uint8_t) ~(1u << first % 8);
    for (; first + 8 <= last; first += 8)
        bitmap->bits[first / 8] = 0;
    for (; first < last; first++)
        bitmap->bits[first / 8] &= (uint8_t) ~(1u << first % 8);
}

/* The first bit from `first` on that is not as `first` is. */
static uint64_t run_end(const struct dirty_bitmap *bitmap, uint64_t first, uint64_t end)
{
    uint64_t flip = bitmap->bits[first / 8] >> first % 8 & 1 ? UINT64_MAX : 0;
    while (first < end) {
        uint64_t differs = (load_le64(bitmap->bits + first / 64 * 8) ^ flip) >> first % 64;
        if (differs)
            return MIN(end, first + (uint64_t)__builtin_ctzll(differs));
        first = align_down(first, 64) + 64;
    }
    return end;
}

uint64_t dirty_bitmap_run(const struct dirty_bitmap *bitmap, uint64_t offset, uint64_t end,
                          bool *is_dirty)
{
    uint64_t first = offset >> bitmap->granularity_bits;
    end = MIN(end, bitmap->size_bytes);
    CHECK(offset < end);
    *is_dirty = bitmap->bits[first / 8] >> first % 8 & 1;
    uint64_t stop = run_end(bitmap, first, ((end - 1) >> bitmap->granularity_bits) + 1);
    return MIN(end, stop << bitmap->granularity_bits);
}

uint64_t dirty_bitmap_count_bytes(const struct dirty_bitmap *bitmap)
{
    uint64_t count = 0;
    for (uint64_t at = 0; at < room_for(bitmap->bit_count); at += 8)
        count += (uint64_t)__builtin_popcountll(load_le64(bitmap->bits + at));
    return count << bitmap->granularity_bits;
}

void dirty_bitmap_merge(struct dirty_bitmap *to, const struct dirty_bitmap *from)
{
    uint64_t size = MIN(to->size_bytes, from->size_bytes);
    for (uint64_t at = 0, end; at < size; at = end) {
        bool is_dirty;
        end = dirty_bitmap_run(from, at, size, &is_dirty);
        if (is_dirty)
            dirty_bitmap_mark(to, at, end - at);
    }
}

int dirty_bitmap_resize(struct dirty_bitmap *bitmap, uint64_t size_bytes)
{
    uint64_t old_count = bitmap->bit_count, count = bits_for(size_bytes, bitmap->granularity_bits);
    if (count / 8 > DIRTY_BYTES_MAX)
        return -EFBIG;
    if (count > old_count) {
        uint8_t *bits = realloc(bitmap->bits, room_for(count) + 8);
        if (!bits)
            return -ENOMEM;
        memset(bits + room_for(old_count), 0, room_for(count) + 8 - room_for(old_count));
        bitmap->bits = bits;
    }
    bitmap->size_bytes = size_bytes;
    bitmap->bit_count = count;
    bitmap->changed = true;
    for (uint64_t i = count; i < old_count && i % 64; i++)
        bitmap->bits[i / 8] &= (uint8_t) ~(1u << i % 8);
    return 0;
}

uint64_t dirty_bitmap_bytes(const struct dirty_bitmap *bitmap)
{
    return (bitmap->bit_count + 7) / 8;
}

void dirty_bitmap_save(const struct dirty_bitmap *bitmap, uint64_t first, uint8_t *out,
                       uint64_t bytes)
{
    uint64_t have = dirty_bitmap_bytes(bitmap);
    uint64_t copied = first < have ? MIN(bytes, have - first) : 0;
    if (copied)
        memcpy(out, bitmap->bits + first, copied);
    memset(out + copied, 0, bytes - copied);
}

void dirty_bitmap_load(struct dirty_bitmap *bitmap, uint64_t first, const uint8_t *from,
                       uint64_t bytes)
{
    uint64_t have = dirty_bitmap_bytes(bitmap);
    if (first >= have)
        return;
    memcpy(bitmap->bits + first, from, MIN(bytes, have - first));
    for (uint64_t i = bitmap->bit_count; i % 64; i++)
        bitmap->bits[i / 8] &= (uint8_t) ~(1u << i % 8);
}
