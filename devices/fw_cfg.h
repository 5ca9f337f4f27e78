/* SPDX-License-Identifier: MIT */
/*
 * fw_cfg: named blobs that firmware reads from the machine that it starts on.
 *
 * (QEMU's docs/specs/fw_cfg; ports 0x510 to 0x51b.) An item is selected by number and read byte by
 * byte at the data port, or copied to guest memory by DMA, a bounded piece per loop turn. Nothing
 * can be written by the guest. What is read past an item's end is zero.
 */
#ifndef DEVICES_FW_CFG_H
#define DEVICES_FW_CFG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "devices/bus.h"
#include "devices/device.h"
#include "devices/guest_mem.h"

#define FW_CFG_PORT           0x510
#define FW_CFG_FILE_NAME_SIZE 56 /* with its terminating zero */

enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_BYTES = 0x03, /* 8 bytes, little-endian */
    FW_CFG_CPUS = 0x05,      /* 2 bytes, little-endian */
    FW_CFG_BOOT_MENU = 0x0e, /* 2 bytes: 1 shows it */
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_DIRECTORY = 0x19,
    FW_CFG_FIRST_FILE = 0x20,
};

struct fw_cfg_item {
    uint16_t key;
    uint8_t *bytes;
    uint32_t length;
    char name[FW_CFG_FILE_NAME_SIZE]; /* "" if it is no file */
};

struct fw_cfg {
    struct device device;
    /* Private. */
    struct bus *bus;
    const struct guest_mem *mem;
    struct bus_region region;
    struct fw_cfg_item items[FW_CFG_ITEMS_MAX];
    unsigned item_count;
    uint16_t selected;
    uint32_t offset; /* of the next byte in the selected item */
    uint32_t dma_address_high;
    struct loop_task dma_task;
    uint8_t dma_is_running;
    uint64_t dma_control_gpa; /* where the guest waits for the end */
    uint64_t dma_gpa;
    uint32_t dma_left;
    uint8_t dma_is_skip;
};

int must_check fw_cfg_create(struct bus *bus, const struct guest_mem *mem, struct fw_cfg **out,
                             struct error *err);

/* A file that may be there already; also between two runs of the guest. */
int must_check fw_cfg_set_file(struct fw_cfg *fw_cfg, const char *name, const void *bytes,
                               size_t length, struct error *err);

/* The bytes are copied. Numbers and names are each used once; before the guest runs. */
int must_check fw_cfg_add(struct fw_cfg *fw_cfg, enum fw_cfg_key key, const void *bytes,
                          size_t length, struct error *err);
int must_check fw_cfg_add_file(struct fw_cfg *fw_cfg, const char *name, const void *bytes,
                               size_t length, struct error *err);

#endif
