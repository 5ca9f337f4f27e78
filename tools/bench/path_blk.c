/* SPDX-License-Identifier: MIT */
/*
 * path_blk: a driver's side of virtio-blk in memory (virtio 1.2, sections 2.7 and 5.2) before the
 * real device and the disk engine. Kicks and interrupts follow event_idx as Linux's driver does.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "devices/virtio_blk.h"
#include "tests/fake_guest.h"
#include "tools/bench/path.h"

#define QUEUE_SIZE 256u
#define CHAIN      3u /* header, data, status */

struct slot {
    uint64_t header_gpa, data_gpa, status_gpa;
    uint64_t offset, started_ns;
};

struct blk_path {
    struct path_run run;
    struct fake_guest guest;
    struct device *device;
    struct fake_device driver;
    struct fake_queue queue;
    struct slot slots[PATH_DEPTH_MAX];
    unsigned in_flight;
    uint16_t kicked_at; /* the available index at the last kick */
};

static void describe_chain(struct blk_path *path, unsigned index)
{
    const struct path_options *options = path->run.options;
    struct slot *slot = &path->slots[index];
    uint16_t head = (uint16_t)(index * CHAIN);
    uint16_t data_flags = options->is_write ? 0 : VRING_DESC_F_WRITE;
    slot->header_gpa = fake_guest_alloc(&path->guest, 16);
    slot->status_gpa = slot->header_gpa + 16;
    slot->data_gpa = fake_guest_alloc(&path->guest, options->block_bytes);
    path_fill(&path->run, index, fake_guest_at(&path->guest, slot->data_gpa, options->block_bytes));
    fake_queue_set_descriptor(&path->queue, head, slot->header_gpa, 16, VRING_DESC_F_NEXT,
                              (uint16_t)(head + 1));
    fake_queue_set_descriptor(&path->queue, (uint16_t)(head + 1), slot->data_gpa,
                              (uint32_t)options->block_bytes, VRING_DESC_F_NEXT | data_flags,
                              (uint16_t)(head + 2));
    fake_queue_set_descriptor(&path->queue, (uint16_t)(head + 2), slot->status_gpa, 1,
                              VRING_DESC_F_WRITE, 0);
}

static void offer(struct blk_path *path, unsigned index)
{
    const struct path_options *options = path->run.options;
    struct slot *slot = &path->slots[index];
    uint8_t *header = fake_guest_at(&path->guest, slot->header_gpa, 17);
    slot->offset = path_next_offset(&path->run);
    store_le32(header, options->is_write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN);
    store_le32(header + 4, 0);
    store_le64(header + 8, slot->offset / 512);
    header[16] = 0xff;
    if (options->verifies)
        path_fill(&path->run, slot->offset,
                  fake_guest_at(&path->guest, slot->data_gpa, options->block_bytes));
    slot->started_ns = loop_now_ns();
    path->in_flight++;
    fake_queue_offer(&path->queue, (uint16_t)(index * CHAIN));
}

/* The device says after which chain it wants to be told (VIRTIO_F_EVENT_IDX). */
static void kick_if_wanted(struct blk_path *path)
{
    struct fake_queue *queue = &path->queue;
    uint16_t now = queue->avail_at, before = path->kicked_at;
    uint16_t event = load_le16(fake_guest_at(&path->guest, queue->used + 4 + 8 * QUEUE_SIZE, 2));
    path->kicked_at = now;
    if (vring_need_event(event, now, before)) {
        path->run.result->kicks++;
        fake_queue_kick(queue);
    }
}

static void take_used(struct blk_path *path)
{
    uint32_t head, bytes;
    while (fake_queue_used(&path->queue, &head, &bytes)) {
        unsigned index = head / CHAIN;
        struct slot *slot = &path->slots[index];
        uint8_t status = *(uint8_t *)fake_guest_at(&path->guest, slot->status_gpa, 1);
        path->in_flight--;
        path_record(&path->run, slot->offset, slot->started_ns, status ? -EIO : 0);
        if (!path_is_over(&path->run))
            offer(path, index);
    }
    store_le16(fake_guest_at(&path->guest, path->queue.avail + 4 + 2 * QUEUE_SIZE, 2),
               path->queue.used_at);
}

static int make_device(struct blk_path *path, struct error *err)
{
    struct virtio_pci_place place = fake_guest_place(&path->guest, "bench");
    const struct virtio_blk_options options = {.queue_count = 1};
    int result = virtio_blk_create(&place, path->run.disk, &options, &path->device, err);
    if (result)
        return result;
    path->guest.mem.on_written = NULL; /* nothing here keeps decoded code */
    fake_device_probe(&path->driver, &path->guest, path->device);
    CHECK(fake_device_negotiate(&path->driver, fake_device_features(&path->driver) &
                                                   (UINT64_C(1) << VIRTIO_F_VERSION_1 |
                                                    UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX |
                                                    UINT64_C(1) << VIRTIO_BLK_F_FLUSH)));
    fake_queue_init(&path->queue, &path->driver, 0, QUEUE_SIZE);
    fake_device_driver_ok(&path->driver);
    return 0;
}

static void run_requests(struct blk_path *path)
{
    for (unsigned i = 0; i < path->run.options->depth; i++)
        describe_chain(path, i);
    path_begin(&path->run);
    for (unsigned i = 0; i < path->run.options->depth; i++)
        offer(path, i);
    kick_if_wanted(path);
    while (path->in_flight) {
        loop_run_once(&path->guest.loop, true);
        take_used(path);
        kick_if_wanted(path);
    }
    path->run.result->interrupts = path->guest.irq.sent[path->queue.index + 1];
}

int path_run_blk(const struct path_options *options, struct path_result *result, struct error *err)
{
    struct blk_path *path = calloc(1, sizeof(*path));
    CHECK(path && options->depth * CHAIN <= QUEUE_SIZE);
    fake_guest_init(&path->guest);
    path->run = (struct path_run){.options = options, .result = result, .loop = &path->guest.loop};
    int status = path_open(&path->run, err);
    if (!status)
        status = make_device(path, err);
    if (!status) {
        run_requests(path);
        fake_guest_close(&path->guest, path->device);
        status = path_end(&path->run, err);
        fake_guest_fini(&path->guest);
    }
    free(path);
    return status;
}
