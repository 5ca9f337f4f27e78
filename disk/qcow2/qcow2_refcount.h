/* SPDX-License-Identifier: MIT */
/*
 * qcow2_refcount: one entry of a refcount block, in any of the seven widths. Entries of 8 bits and
 * more are big-endian; smaller ones fill each byte from its least significant bit.
 */
#ifndef DISK_QCOW2_QCOW2_REFCOUNT_H
#define DISK_QCOW2_QCOW2_REFCOUNT_H

#include <stdint.h>

#include "base/bytes.h"

static inline uint64_t qcow2_refcount_max(uint32_t order)
{
    return order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;
}

/* Entries in one block. */
static inline uint64_t qcow2_refcount_entries(uint32_t cluster_bits, uint32_t order)
{
    return (UINT64_C(8) << cluster_bits) >> order;
}

static inline uint64_t qcow2_refcount_get(const uint8_t *block, uint32_t order, uint64_t index)
{
    switch (order) {
    case 3:
        return block[index];
    case 4:
        return load_be16(block + index * 2);
    case 5:
        return load_be32(block + index * 4);
    case 6:
        return load_be64(block + index * 8);
    default: {
        unsigned bits = 1u << order;
        uint64_t bit = index << order;
        return (uint64_t)(block[bit / 8] >> (bit % 8)) & ((1u << bits) - 1);
    }
    }
}

/* `value` must fit. */
static inline void qcow2_refcount_set(uint8_t *block, uint32_t order, uint64_t index,
                                      uint64_t value)
{
    switch (order) {
    case 3:
        block[index] = (uint8_t)value;
        break;
    case 4:
        store_be16(block + index * 2, (uint16_t)value);
        break;
    case 5:
        store_be32(block + index * 4, (uint32_t)value);
        break;
    case 6:
        store_be64(block + index * 8, value);
        break;
    default: {
        unsigned mask = (1u << (1u << order)) - 1;
        uint64_t bit = index << order;
        uint8_t *byte = block + bit / 8;
        *byte = (uint8_t)((*byte & ~(mask << (bit % 8))) | (unsigned)value << (bit % 8));
        break;
    }
    }
}

#endif
