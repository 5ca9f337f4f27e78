/* SPDX-License-Identifier: MIT */
/* blk_driver: chains that stay described, one for each slot; only header and status change. */
#include "tools/bench/blk_driver.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>

#include "base/bytes.h"

#define QUEUE_SIZE 256u
#define CHAIN      3u /* header, data, status */

#define FEATURES                                                                                   \
    (UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX |                  \
     UINT64_C(1) << VIRTIO_BLK_F_FLUSH | UINT64_C(1) << VIRTIO_BLK_F_MQ)

static struct fake_queue *queue_of(struct blk_driver *driver, unsigned index)
{
    return &driver->rings[index % driver->run.options->queues].queue;
}

static uint16_t head_of(const struct blk_driver *driver, unsigned index)
{
    return (uint16_t)(index / driver->run.options->queues * CHAIN);
}

static void describe_data(struct blk_driver *driver, unsigned index, bool is_write)
{
    uint16_t head = head_of(driver, index);
    fake_queue_set_descriptor(
        queue_of(driver, index), (uint16_t)(head + 1), driver->slots[index].data_gpa,
        (uint32_t)driver->run.options->block_bytes,
        VRING_DESC_F_NEXT | (is_write ? 0 : VRING_DESC_F_WRITE), (uint16_t)(head + 2));
}

static void describe_chain(struct blk_driver *driver, unsigned index)
{
    const struct path_options *options = driver->run.options;
    struct blk_slot *slot = &driver->slots[index];
    struct fake_queue *queue = queue_of(driver, index);
    uint16_t head = head_of(driver, index);
    slot->header_gpa = fake_guest_alloc(driver->guest, 17);
    slot->status_gpa = slot->header_gpa + 16;
    slot->data_gpa = fake_guest_alloc(driver->guest, options->block_bytes);
    path_fill(&driver->run, index,
              fake_guest_at(driver->guest, slot->data_gpa, options->block_bytes));
    fake_queue_set_descriptor(queue, head, slot->header_gpa, 16, VRING_DESC_F_NEXT,
                              (uint16_t)(head + 1));
    describe_data(driver, index, options->is_write);
    fake_queue_set_descriptor(queue, (uint16_t)(head + 2), slot->status_gpa, 1, VRING_DESC_F_WRITE,
                              0);
}

void blk_driver_offer(struct blk_driver *driver, unsigned index)
{
    const struct path_options *options = driver->run.options;
    struct blk_slot *slot = &driver->slots[index];
    uint8_t *header = fake_guest_at(driver->guest, slot->header_gpa, 17);
    bool is_write = path_next_is_write(&driver->run);
    slot->offset = path_next_offset(&driver->run);
    if (options->is_mixed)
        describe_data(driver, index, is_write);
    store_le32(header, is_write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN);
    store_le32(header + 4, 0);
    store_le64(header + 8, slot->offset / 512);
    header[16] = 0xff;
    if (options->verifies)
        path_fill(&driver->run, slot->offset,
                  fake_guest_at(driver->guest, slot->data_gpa, options->block_bytes));
    slot->started_ns = loop_now_ns();
    driver->in_flight++;
    fake_queue_offer(queue_of(driver, index), head_of(driver, index));
}

static void take_one(struct blk_driver *driver, unsigned index)
{
    struct blk_slot *slot = &driver->slots[index];
    uint8_t status = *(uint8_t *)fake_guest_at(driver->guest, slot->status_gpa, 1);
    driver->in_flight--;
    path_record(&driver->run, slot->offset, slot->started_ns, status ? -EIO : 0);
    if (!path_is_over(&driver->run))
        blk_driver_offer(driver, index);
}

static void take_queue(struct blk_driver *driver, unsigned at)
{
    struct ring *ring = &driver->rings[at];
    uint32_t head, bytes;
    do {
        while (fake_queue_used(&ring->queue, &head, &bytes))
            take_one(driver, head / CHAIN * driver->run.options->queues + at);
    } while (ring_await(ring));
}

void blk_driver_take(struct blk_driver *driver)
{
    for (unsigned i = 0; i < driver->run.options->queues; i++)
        take_queue(driver, i);
}

void blk_driver_describe(struct blk_driver *driver)
{
    for (unsigned i = 0; i < driver->run.options->depth; i++)
        describe_chain(driver, i);
}

static int make_device(struct blk_driver *driver, struct error *err)
{
    struct fake_guest *guest = driver->guest;
    struct virtio_pci_place place = fake_guest_place(guest, "bench");
    place.loop = driver->run.loop;
    const struct virtio_blk_options options = {.queue_count = driver->run.options->queues};
    int result = virtio_blk_create(&place, driver->run.disk, &options, &driver->device, err);
    if (result)
        return result;
    driver->first_vector = guest->first_vector;
    fake_device_probe(&driver->driver, guest, driver->device);
    guest->first_vector += driver->driver.vector_count;
    CHECK(fake_device_negotiate(&driver->driver, fake_device_features(&driver->driver) & FEATURES));
    for (unsigned i = 0; i < driver->run.options->queues; i++)
        fake_queue_init(&driver->rings[i].queue, &driver->driver, i, QUEUE_SIZE);
    fake_device_driver_ok(&driver->driver);
    blk_driver_describe(driver);
    return 0;
}

int blk_driver_open(struct blk_driver *driver, struct error *err)
{
    const struct path_options *options = driver->run.options;
    CHECK(options->depth <= options->queues * (QUEUE_SIZE / CHAIN));
    int status = path_open(&driver->run, err);
    return status ? status : make_device(driver, err);
}

int blk_driver_close(struct blk_driver *driver, struct error *err)
{
    uint64_t sent = 0;
    for (unsigned i = 0; i < driver->run.options->queues; i++)
        sent += driver->guest->irq.sent[driver->first_vector + i + 1];
    driver->run.result->interrupts = sent;
    fake_guest_close(driver->guest, driver->device);
    return path_end(&driver->run, err);
}
