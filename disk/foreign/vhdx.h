/* SPDX-License-Identifier: MIT */
/* vhdx: names and places that reading and writing a VHDX share. Source: [MS-VHDX]. */
#ifndef DISK_FOREIGN_VHDX_H
#define DISK_FOREIGN_VHDX_H

#include <stdint.h>

#define VHDX_HEADER_BYTES 4096u
#define VHDX_TABLE_BYTES  65536u
#define VHDX_GUID_BYTES   16u
#define VHDX_DISK_MAX     (64 * TIB)

enum {
    VHDX_AT_HEADER_1 = 64 * 1024,
    VHDX_AT_HEADER_2 = 128 * 1024,
    VHDX_AT_REGIONS_1 = 192 * 1024,
    VHDX_AT_REGIONS_2 = 256 * 1024,
};

enum vhdx_block { /* bits 0 to 2 of a BAT entry */
                  VHDX_NOT_PRESENT,
                  VHDX_UNDEFINED,
                  VHDX_ZERO,
                  VHDX_UNMAPPED,
                  VHDX_PRESENT = 6,
                  VHDX_PARTLY_PRESENT,
};

/* As they stand in a file. */
extern const uint8_t vhdx_region_bat[VHDX_GUID_BYTES], vhdx_region_metadata[VHDX_GUID_BYTES];
extern const uint8_t vhdx_item_parameters[VHDX_GUID_BYTES], vhdx_item_disk_size[VHDX_GUID_BYTES],
    vhdx_item_page83[VHDX_GUID_BYTES], vhdx_item_logical[VHDX_GUID_BYTES],
    vhdx_item_physical[VHDX_GUID_BYTES];

/* A CRC32C over `bytes` in which the four at `hole` count as zeroes. */
uint32_t vhdx_checksum(const uint8_t *data, uint64_t bytes, uint64_t hole);

#endif
