/* SPDX-License-Identifier: MIT */
/*
 * fw_cfg: a small table of blobs, a cursor, and one DMA transfer at a time.
 *
 * The guest describes a transfer in its memory and writes where; the description is copied once,
 * then checked, then used. The loop copies a piece per turn and at the end writes the control word
 * back, for which the guest waits. Numbers in guest memory are big-endian here.
 */
#include "devices/fw_cfg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

enum { /* offsets */
       PORT_SELECT = 0,
       PORT_DATA = 1,
       PORT_DMA_HIGH = 4,
       PORT_DMA_LOW = 8,
       PORTS = 12,
};

enum {
    CONTROL_ERROR = 1 << 0,
    CONTROL_READ = 1 << 1,
    CONTROL_SKIP = 1 << 2,
    CONTROL_SELECT = 1 << 3,
    CONTROL_WRITE = 1 << 4,
};

#define DMA_DESCRIPTION_BYTES 16
#define DMA_SIGNATURE         UINT64_C(0x51454d5520434647) /* "QEMU CFG" */
#define ID_PORTS              1
#define ID_DMA                2
#define SELECT_KEY            0xbfff /* bit 14 asks to write; bit 15 is the architecture's items */
#define DIRECTORY_ENTRY_BYTES 64
#define COPY_PIECE_BYTES      4096

static struct fw_cfg_item *find(struct fw_cfg *fw_cfg, uint16_t key)
{
    for (unsigned i = 0; i < fw_cfg->item_count; i++)
        if (fw_cfg->items[i].key == key)
            return &fw_cfg->items[i];
    return NULL;
}

static void select_item(struct fw_cfg *fw_cfg, uint16_t key)
{
    fw_cfg->selected = key & SELECT_KEY;
    fw_cfg->offset = 0;
}

/* Copies from the cursor on, zeroes past the end, and moves the cursor. */
static void take(struct fw_cfg *fw_cfg, uint8_t *to, uint32_t length)
{
    const struct fw_cfg_item *item = find(fw_cfg, fw_cfg->selected);
    uint32_t left = item ? item->length - MIN(fw_cfg->offset, item->length) : 0;
    uint32_t copied = MIN(left, length);
    if (copied > 0)
        memcpy(to, item->bytes + fw_cfg->offset, copied);
    memset(to + copied, 0, length - copied);
    fw_cfg->offset += copied;
}

static void end_dma(struct fw_cfg *fw_cfg, uint32_t control)
{
    uint8_t bytes[4];
    fw_cfg->dma_is_running = 0;
    store_be32(bytes, control);
    /* Where it is not memory nobody can wait for it. */
    unused_result(guest_mem_write(fw_cfg->mem, fw_cfg->dma_control_gpa, bytes, sizeof(bytes)));
}

static void skip(struct fw_cfg *fw_cfg, uint32_t length)
{
    const struct fw_cfg_item *item = find(fw_cfg, fw_cfg->selected);
    uint32_t left = item ? item->length - MIN(fw_cfg->offset, item->length) : 0;
    fw_cfg->offset += MIN(left, length);
}

/* False if the guest's memory ended. */
static bool copy_piece(struct fw_cfg *fw_cfg)
{
    uint8_t piece[COPY_PIECE_BYTES];
    uint32_t length = MIN(fw_cfg->dma_left, (uint32_t)sizeof(piece));
    take(fw_cfg, piece, length);
    if (!guest_mem_write(fw_cfg->mem, fw_cfg->dma_gpa, piece, length))
        return false;
    fw_cfg->dma_gpa += length;
    fw_cfg->dma_left -= length;
    return true;
}

static void on_dma(struct loop_task *task)
{
    struct fw_cfg *fw_cfg = container_of(task, struct fw_cfg, dma_task);
    if (fw_cfg->dma_is_skip) {
        skip(fw_cfg, fw_cfg->dma_left);
        fw_cfg->dma_left = 0;
    }
    for (unsigned done = 0; done < FW_CFG_DMA_TURN_BYTES && fw_cfg->dma_left > 0;
         done += COPY_PIECE_BYTES) {
        if (!copy_piece(fw_cfg)) {
            end_dma(fw_cfg, CONTROL_ERROR);
            return;
        }
    }
    if (fw_cfg->dma_left > 0)
        loop_task_queue(task);
    else
        end_dma(fw_cfg, 0);
}

/* Reading far past the end would keep the loop busy with zeroes. */
static bool is_reasonable(struct fw_cfg *fw_cfg, uint32_t length)
{
    const struct fw_cfg_item *item = find(fw_cfg, fw_cfg->selected);
    uint32_t left = item ? item->length - MIN(fw_cfg->offset, item->length) : 0;
    return length <= left || length - left <= FW_CFG_PAST_END_BYTES;
}

static void start_dma(struct fw_cfg *fw_cfg, uint64_t description_gpa)
{
    uint8_t description[DMA_DESCRIPTION_BYTES];
    if (fw_cfg->dma_is_running ||
        !guest_mem_read(fw_cfg->mem, description_gpa, description, sizeof(description)))
        return;
    uint32_t control = load_be32(description), length = load_be32(description + 4);
    fw_cfg->dma_control_gpa = description_gpa;
    fw_cfg->dma_gpa = load_be64(description + 8);
    fw_cfg->dma_left = control & (CONTROL_READ | CONTROL_SKIP) ? length : 0;
    fw_cfg->dma_is_skip = !(control & CONTROL_READ);
    if (control & CONTROL_SELECT)
        select_item(fw_cfg, (uint16_t)(control >> 16));
    if ((control & CONTROL_WRITE) || ((control & CONTROL_READ) && !is_reasonable(fw_cfg, length))) {
        end_dma(fw_cfg, CONTROL_ERROR);
        return;
    }
    fw_cfg->dma_is_running = 1;
    loop_task_queue(&fw_cfg->dma_task);
}

/* The two halves of the address are big-endian; the lower one starts the transfer. */
static void write_dma_address(struct fw_cfg *fw_cfg, uint64_t offset, unsigned size, uint64_t value)
{
    if (offset == PORT_DMA_HIGH && size == 4) {
        fw_cfg->dma_address_high = be32toh((uint32_t)value);
    } else if (offset == PORT_DMA_LOW && size == 4) {
        start_dma(fw_cfg, (uint64_t)fw_cfg->dma_address_high << 32 | be32toh((uint32_t)value));
        fw_cfg->dma_address_high = 0;
    }
}

static uint64_t fw_cfg_read(void *device, uint64_t offset, unsigned size)
{
    struct fw_cfg *fw_cfg = device;
    uint8_t byte;
    if (offset == PORT_DATA && size == 1) {
        take(fw_cfg, &byte, 1);
        return byte;
    }
    if (offset == PORT_DMA_HIGH && size == 4)
        return htobe32((uint32_t)(DMA_SIGNATURE >> 32));
    if (offset == PORT_DMA_LOW && size == 4)
        return htobe32((uint32_t)DMA_SIGNATURE);
    return bus_all_ones(size);
}

static void fw_cfg_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct fw_cfg *fw_cfg = device;
    if (offset == PORT_SELECT && size == 2)
        select_item(fw_cfg, (uint16_t)value);
    else if (offset >= PORT_DMA_HIGH)
        write_dma_address(fw_cfg, offset, size, value);
}

static const struct bus_region_ops region_ops = {fw_cfg_read, fw_cfg_write};

static int append(struct fw_cfg *fw_cfg, uint16_t key, const char *name, const void *bytes,
                  size_t length, struct error *err)
{
    CHECK(!find(fw_cfg, key));
    if (fw_cfg->item_count == FW_CFG_ITEMS_MAX || length > INT32_MAX)
        return error_set(err, ENOSPC, "no room for '%s' among what firmware is told", name);
    struct fw_cfg_item *item = &fw_cfg->items[fw_cfg->item_count++];
    item->key = key;
    item->length = (uint32_t)length;
    item->bytes = malloc(MAX(length, 1u));
    CHECK(item->bytes);
    memcpy(item->bytes, bytes, length);
    strncpy(item->name, name, sizeof(item->name) - 1);
    return 0;
}

int fw_cfg_add(struct fw_cfg *fw_cfg, enum fw_cfg_key key, const void *bytes, size_t length,
               struct error *err)
{
    CHECK(key < FW_CFG_FIRST_FILE);
    return append(fw_cfg, (uint16_t)key, "", bytes, length, err);
}

static uint16_t next_file_key(const struct fw_cfg *fw_cfg)
{
    uint16_t key = FW_CFG_FIRST_FILE;
    for (unsigned i = 0; i < fw_cfg->item_count; i++)
        if (fw_cfg->items[i].name[0])
            key++;
    return key;
}

/* A count, then an entry for each file: its size, its number, its name. */
static void rewrite_directory(struct fw_cfg *fw_cfg)
{
    struct fw_cfg_item *directory = find(fw_cfg, FW_CFG_DIRECTORY);
    unsigned count = (unsigned)next_file_key(fw_cfg) - FW_CFG_FIRST_FILE;
    free(directory->bytes);
    directory->length = 4 + count * DIRECTORY_ENTRY_BYTES;
    directory->bytes = calloc(1, directory->length);
    CHECK(directory->bytes);
    store_be32(directory->bytes, count);
    uint8_t *entry = directory->bytes + 4;
    for (unsigned i = 0; i < fw_cfg->item_count; i++) {
        const struct fw_cfg_item *item = &fw_cfg->items[i];
        if (!item->name[0])
            continue;
        store_be32(entry, item->length);
        store_be16(entry + 4, item->key);
        memcpy(entry + 8, item->name, sizeof(item->name));
        entry += DIRECTORY_ENTRY_BYTES;
    }
}

int fw_cfg_add_file(struct fw_cfg *fw_cfg, const char *name, const void *bytes, size_t length,
                    struct error *err)
{
    if (!*name || strlen(name) >= FW_CFG_FILE_NAME_SIZE)
        return error_set(err, EINVAL, "fw_cfg file name '%s' must have between 1 and %d characters",
                         name, FW_CFG_FILE_NAME_SIZE - 1);
    int result = append(fw_cfg, next_file_key(fw_cfg), name, bytes, length, err);
    if (!result)
        rewrite_directory(fw_cfg);
    return result;
}

int fw_cfg_set_file(struct fw_cfg *fw_cfg, const char *name, const void *bytes, size_t length,
                    struct error *err)
{
    for (unsigned i = 0; i < fw_cfg->item_count; i++) {
        struct fw_cfg_item *item = &fw_cfg->items[i];
        if (strcmp(item->name, name) != 0)
            continue;
        free(item->bytes);
        item->bytes = malloc(MAX(length, 1u));
        CHECK(item->bytes && length <= INT32_MAX);
        memcpy(item->bytes, bytes, length);
        item->length = (uint32_t)length;
        rewrite_directory(fw_cfg);
        return 0;
    }
    return fw_cfg_add_file(fw_cfg, name, bytes, length, err);
}

static void fw_cfg_reset(struct device *device)
{
    struct fw_cfg *fw_cfg = (struct fw_cfg *)device;
    select_item(fw_cfg, 0);
    fw_cfg->dma_address_high = 0;
    fw_cfg->dma_is_running = 0;
    loop_task_cancel(&fw_cfg->dma_task);
}

static int fw_cfg_after_restore(struct device *device, struct error *err)
{
    struct fw_cfg *fw_cfg = (struct fw_cfg *)device;
    (void)err;
    if (fw_cfg->dma_is_running)
        loop_task_queue(&fw_cfg->dma_task);
    return 0;
}

static void free_items(struct fw_cfg *fw_cfg)
{
    for (unsigned i = 0; i < fw_cfg->item_count; i++)
        free(fw_cfg->items[i].bytes);
    fw_cfg->item_count = 0;
}

static void fw_cfg_close(struct device *device, void (*on_closed)(void *opaque), void *opaque)
{
    struct fw_cfg *fw_cfg = (struct fw_cfg *)device;
    loop_task_cancel(&fw_cfg->dma_task);
    bus_unmap(fw_cfg->bus, &fw_cfg->region);
    free_items(fw_cfg);
    device_close_later(fw_cfg->bus->loop, device, on_closed, opaque);
}

static const struct state_field fields[] = {
    STATE_FIELD(struct fw_cfg, selected),         STATE_FIELD(struct fw_cfg, offset),
    STATE_FIELD(struct fw_cfg, dma_address_high), STATE_FIELD(struct fw_cfg, dma_is_running),
    STATE_FIELD(struct fw_cfg, dma_control_gpa),  STATE_FIELD(struct fw_cfg, dma_gpa),
    STATE_FIELD(struct fw_cfg, dma_left),         STATE_FIELD(struct fw_cfg, dma_is_skip),
};

static const struct state_table state = {"fw-cfg", 1, fields, ARRAY_SIZE(fields)};

static const struct device_ops device_ops = {
    .kind = "fw-cfg",
    .reset = fw_cfg_reset,
    .state = &state,
    .after_restore = fw_cfg_after_restore,
    .close = fw_cfg_close,
};

int fw_cfg_create(struct bus *bus, const struct guest_mem *mem, struct fw_cfg **out,
                  struct error *err)
{
    static const uint8_t id[4] = {ID_PORTS | ID_DMA};
    struct fw_cfg *fw_cfg = calloc(1, sizeof(*fw_cfg));
    CHECK(fw_cfg);
    fw_cfg->device.ops = &device_ops;
    fw_cfg->bus = bus;
    fw_cfg->mem = mem;
    loop_task_init(bus->loop, &fw_cfg->dma_task, LOOP_STAGE_DRAIN, on_dma);
    fw_cfg->region =
        (struct bus_region){.name = "fw-cfg", .ops = &region_ops, .device = fw_cfg, .size = PORTS};
    int result = bus_map(bus, BUS_PIO, FW_CFG_PORT, &fw_cfg->region);
    if (result) {
        free(fw_cfg);
        return error_set(err, -result, "the firmware configuration device finds its ports taken");
    }
    CHECK(fw_cfg_add(fw_cfg, FW_CFG_SIGNATURE, "QEMU", 4, NULL) == 0);
    CHECK(fw_cfg_add(fw_cfg, FW_CFG_ID, id, sizeof(id), NULL) == 0);
    CHECK(fw_cfg_add(fw_cfg, FW_CFG_DIRECTORY, "\0\0\0\0", 4, NULL) == 0);
    *out = fw_cfg;
    return 0;
}
