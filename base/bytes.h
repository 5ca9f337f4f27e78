/* SPDX-License-Identifier: MIT */
/* bytes: loads and stores of fixed endianness from unaligned byte pointers; checked arithmetic. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define BYTES_LOAD_STORE(bits, order)                                                              \
    static inline uint##bits##_t load_##order##bits(const void *from)                              \
    {                                                                                              \
        uint##bits##_t value;                                                                      \
        memcpy(&value, from, sizeof(value));                                                       \
        return order##bits##toh(value);                                                            \
    }                                                                                              \
    static inline void store_##order##bits(void *to, uint##bits##_t value)                         \
    {                                                                                              \
        value = hto##order##bits(value);                                                           \
        memcpy(to, &value, sizeof(value));                                                         \
    }

BYTES_LOAD_STORE(16, le)
BYTES_LOAD_STORE(32, le)
BYTES_LOAD_STORE(64, le)
BYTES_LOAD_STORE(16, be)
BYTES_LOAD_STORE(32, be)
BYTES_LOAD_STORE(64, be)
#undef BYTES_LOAD_STORE

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)

static inline bool is_power_of_2(uint64_t value)
{
    return value && !(value & (value - 1));
}

/* `alignment` is a power of two. */
static inline uint64_t align_down(uint64_t value, uint64_t alignment)
{
    return value & ~(alignment - 1);
}

static inline uint64_t align_up(uint64_t value, uint64_t alignment)
{
    return align_down(value + alignment - 1, alignment);
}

static inline bool is_aligned(uint64_t value, uint64_t alignment)
{
    return !(value & (alignment - 1));
}

/* True if [offset, offset + length) lies inside [0, limit), without wrapping. */
static inline bool range_fits(uint64_t offset, uint64_t length, uint64_t limit)
{
    return offset <= limit && length <= limit - offset;
}

static inline bool ranges_overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a < b + b_length && b < a + a_length;
}

#endif
