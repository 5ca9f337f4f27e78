/* SPDX-License-Identifier: MIT */
#include "devices/virtio_blk.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/fake_disk.h"
#include "tools/bench/fake_guest.h"
#include "tests/unit/test.h"

#define DISK_BYTES (MIB)
#define SECTORS    (DISK_BYTES / 512)
#define NO_STATUS  0xaa

#define ALL_FEATURES                                                                               \
    (VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |            \
     VIRTIO_FEATURE(VIRTIO_RING_F_EVENT_IDX) | VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH))

struct policy {
    enum virtio_blk_action action;
    unsigned calls;
    enum disk_op op;
    int error;
};

struct fixture {
    struct policy policy;
    struct fake_guest guest;
    struct disk *disk;
    struct device *device;
    struct fake_device fd;
    struct fake_queue queue;
    uint64_t header, data, status;
};

static enum virtio_blk_action on_error(void *opaque, enum disk_op op, int error)
{
    struct fixture *f = opaque;
    f->policy.calls++;
    f->policy.op = op;
    f->policy.error = error;
    return f->policy.action;
}

static void start_with(struct fixture *f, uint64_t features, bool read_only)
{
    fake_guest_init(&f->guest);
    f->disk = fake_disk_create(&f->guest.loop, DISK_BYTES, read_only);
    for (unsigned i = 0; i < DISK_BYTES; i++)
        f->disk->bytes[i] = (uint8_t)(i / 512 + i);
    struct virtio_pci_place place = fake_guest_place(&f->guest, "disk0");
    f->policy = (struct policy){.action = VIRTIO_BLK_REPORT};
    const struct virtio_blk_options options = {
        .serial = "serial-0123456789-and-more", .on_error = on_error, .on_error_opaque = f};
    assert_int_equal(virtio_blk_create(&place, f->disk, &options, &f->device, NULL), 0);
    fake_device_probe(&f->fd, &f->guest, f->device);
    assert_true(fake_device_negotiate(&f->fd, features));
    fake_queue_init(&f->queue, &f->fd, 0, 0);
    fake_device_driver_ok(&f->fd);
    f->header = fake_guest_alloc(&f->guest, 16);
    f->data = fake_guest_alloc(&f->guest, 256 * KIB);
    f->status = fake_guest_alloc(&f->guest, 1);
}

static void start(struct fixture *f)
{
    start_with(f, ALL_FEATURES, false);
}

static void stop(struct fixture *f)
{
    fake_guest_close(&f->guest, f->device);
    fake_disk_destroy(f->disk);
    fake_guest_fini(&f->guest);
}

static void set_header(struct fixture *f, uint64_t header, uint32_t type, uint64_t sector)
{
    uint8_t *bytes = fake_guest_at(&f->guest, header, 16);
    store_le32(bytes, type);
    store_le32(bytes + 4, 0);
    store_le64(bytes + 8, sector);
}

static uint8_t *data_at(struct fixture *f, uint64_t bytes)
{
    return fake_guest_at(&f->guest, f->data, bytes);
}

static uint8_t *status_at(struct fixture *f)
{
    return fake_guest_at(&f->guest, f->status, 1);
}

static uint16_t offer(struct fixture *f, uint32_t type, uint64_t sector, uint32_t bytes)
{
    bool is_in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
    struct fake_buffer buffers[3] = {{f->header, 16, false}};
    unsigned count = 1;
    set_header(f, f->header, type, sector);
    *status_at(f) = NO_STATUS;
    if (bytes)
        buffers[count++] = (struct fake_buffer){f->data, bytes, is_in};
    buffers[count++] = (struct fake_buffer){f->status, 1, true};
    return fake_queue_add(&f->queue, buffers, count);
}

/* One request from offer to used; its status. */
static uint8_t request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t bytes,
                       uint32_t *used_bytes)
{
    uint16_t head = offer(f, type, sector, bytes);
    fake_queue_kick(&f->queue);
    assert_int_equal(fake_queue_wait(&f->queue, used_bytes), head);
    return *status_at(f);
}

static uint8_t erase(struct fixture *f, uint32_t type, uint64_t sector, uint32_t sectors,
                     uint32_t flags)
{
    uint8_t *segment = data_at(f, 16);
    store_le64(segment, sector);
    store_le32(segment + 8, sectors);
    store_le32(segment + 12, flags);
    return request(f, type, 0, 16, NULL);
}

static void test_reads_and_writes(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t used;
    start(&f);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 3, 4096, &used), VIRTIO_BLK_S_OK);
    assert_int_equal(used, 4097);
    assert_memory_equal(data_at(&f, 4096), f.disk->bytes + 3 * 512, 4096);
    memset(data_at(&f, 1024), 0x5c, 1024);
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, SECTORS - 2, 1024, &used), VIRTIO_BLK_S_OK);
    assert_int_equal(used, 1);
    assert_memory_equal(data_at(&f, 1024), f.disk->bytes + DISK_BYTES - 1024, 1024);
    assert_int_equal(request(&f, VIRTIO_BLK_T_FLUSH, 0, 0, &used), VIRTIO_BLK_S_OK);
    assert_int_equal(f.disk->counts[DISK_FLUSH], 1);
    assert_int_equal(f.disk->flags_seen & DISK_FUA, 0);
    assert_int_equal(f.guest.irq.sent[1], 3);
    assert_int_equal(f.guest.irq.sent[0], 0);
    stop(&f);
}

static void test_tells_what_it_wrote(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    fake_guest_forget_written(&f.guest);
    request(&f, VIRTIO_BLK_T_IN, 0, 8192, NULL);
    assert_true(fake_guest_was_written(&f.guest, f.data, 8192));
    assert_true(fake_guest_was_written(&f.guest, f.status, 1));
    assert_true(fake_guest_was_written(&f.guest, f.queue.used + 2, 2 + 8));
    assert_false(fake_guest_was_written(&f.guest, f.data + 8192, 1));
    fake_guest_forget_written(&f.guest);
    request(&f, VIRTIO_BLK_T_IN, SECTORS, 512, NULL);
    assert_true(fake_guest_was_written(&f.guest, f.status, 1));
    assert_false(fake_guest_was_written(&f.guest, f.data, 1));
    stop(&f);
}

static void test_any_framing(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t used;
    start(&f);
    /* The header in three pieces, the last with data behind it. */
    uint64_t page = fake_guest_alloc(&f.guest, 4096);
    set_header(&f, page, VIRTIO_BLK_T_OUT, 8);
    memset(fake_guest_at(&f.guest, page + 16, 512), 0x17, 512);
    const struct fake_buffer out[] = {{page, 1, false},
                                      {page + 1, 9, false},
                                      {page + 10, 106, false},
                                      {page + 116, 412, false},
                                      {f.status, 1, true}};
    *status_at(&f) = NO_STATUS;
    fake_queue_add_indirect(&f.queue, out, ARRAY_SIZE(out));
    fake_queue_kick(&f.queue);
    fake_queue_wait(&f.queue, NULL);
    assert_int_equal(*status_at(&f), VIRTIO_BLK_S_OK);
    assert_memory_equal(f.disk->bytes + 8 * 512, fake_guest_at(&f.guest, page + 16, 512), 512);

    /* Data in odd pieces, the status behind the last of them in the same buffer. */
    set_header(&f, page, VIRTIO_BLK_T_IN, 100);
    const struct fake_buffer in[] = {
        {page, 16, false}, {f.data, 7, true}, {f.data + 7, 500, true}, {f.data + 507, 518, true}};
    fake_queue_add(&f.queue, in, ARRAY_SIZE(in));
    fake_queue_kick(&f.queue);
    fake_queue_wait(&f.queue, &used);
    assert_int_equal(used, 1025);
    assert_memory_equal(data_at(&f, 1024), f.disk->bytes + 100 * 512, 1024);
    assert_int_equal(data_at(&f, 1025)[1024], VIRTIO_BLK_S_OK);
    stop(&f);
}

static void test_refuses_bad_ranges(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t used;
    start(&f);
    static const struct {
        uint64_t sector;
        uint32_t bytes;
    } bad[] = {{SECTORS, 512},
               {SECTORS - 1, 1024},
               {UINT64_MAX, 512},
               {UINT64_MAX / 512, 512},
               {UINT64_MAX / 512 + 1, 512},
               {0, 511},
               {0, 513}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(request(&f, VIRTIO_BLK_T_IN, bad[i].sector, bad[i].bytes, &used),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(used, 0);
        assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, bad[i].sector, bad[i].bytes, &used),
                         VIRTIO_BLK_S_IOERR);
    }
    assert_int_equal(f.disk->counts[DISK_READ] + f.disk->counts[DISK_WRITE], 0);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 0, 512, &used), VIRTIO_BLK_S_OK);
    stop(&f);
}

static void test_unknown_types_are_answered(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    static const uint32_t types[] = {2, 3, 5, 10, 12, 14, 0x80000000, UINT32_MAX};
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++)
        assert_int_equal(request(&f, types[i], 0, 512, NULL), VIRTIO_BLK_S_UNSUPP);
    stop(&f);
}

static void test_get_id(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t used;
    start(&f);
    assert_int_equal(request(&f, VIRTIO_BLK_T_GET_ID, 0, 20, &used), VIRTIO_BLK_S_OK);
    assert_int_equal(used, 21);
    assert_memory_equal(data_at(&f, 20), "serial-0123456789-an", 20);
    assert_int_equal(request(&f, VIRTIO_BLK_T_GET_ID, 0, 19, &used), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, VIRTIO_BLK_T_GET_ID, 0, 0, &used), VIRTIO_BLK_S_IOERR);
    stop(&f);
}

static void test_discard_and_write_zeroes(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    assert_int_equal(erase(&f, VIRTIO_BLK_T_DISCARD, 4, 4, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(f.disk->counts[DISK_DISCARD], 1);
    assert_int_equal(f.disk->bytes[4 * 512], 0);
    assert_int_equal(f.disk->flags_seen, 0);
    assert_int_equal(erase(&f, VIRTIO_BLK_T_WRITE_ZEROES, 16, 1, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(f.disk->flags_seen, 0);
    assert_int_equal(erase(&f, VIRTIO_BLK_T_WRITE_ZEROES, 16, 1, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(f.disk->flags_seen, DISK_MAY_UNMAP);
    assert_int_equal(f.disk->counts[DISK_ZERO], 2);

    assert_int_equal(erase(&f, VIRTIO_BLK_T_DISCARD, 0, 1, 1), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(erase(&f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(erase(&f, VIRTIO_BLK_T_DISCARD, SECTORS, 1, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(erase(&f, VIRTIO_BLK_T_DISCARD, UINT64_MAX, 2, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(erase(&f, VIRTIO_BLK_T_WRITE_ZEROES, 0, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, VIRTIO_BLK_T_DISCARD, 0, 15, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, VIRTIO_BLK_T_DISCARD, 0, 32, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, NULL), VIRTIO_BLK_S_IOERR);
    f.disk->size_bytes = 8 * GIB; /* so that only the limit of one request is in the way */
    assert_int_equal(erase(&f, VIRTIO_BLK_T_DISCARD, 0, BLK_ERASE_SECTORS_MAX + 1, 0),
                     VIRTIO_BLK_S_IOERR);
    f.disk->size_bytes = DISK_BYTES;
    assert_int_equal(f.disk->counts[DISK_DISCARD] + f.disk->counts[DISK_ZERO], 3);
    stop(&f);
}

static void test_read_only(void **state)
{
    (void)state;
    struct fixture f;
    start_with(&f, ALL_FEATURES, true);
    uint64_t features = fake_device_features(&f.fd);
    assert_true(features & VIRTIO_FEATURE(VIRTIO_BLK_F_RO));
    assert_false(features & VIRTIO_FEATURE(VIRTIO_BLK_F_DISCARD));
    /* The driver did not take VIRTIO_BLK_F_RO; the disk is read-only all the same. */
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 0, 512, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(erase(&f, VIRTIO_BLK_T_DISCARD, 0, 1, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(erase(&f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 0, 512, NULL), VIRTIO_BLK_S_OK);
    stop(&f);
}

static void test_writes_are_durable_for_a_driver_that_never_flushes(void **state)
{
    (void)state;
    struct fixture f;
    start_with(&f, VIRTIO_FEATURE(VIRTIO_F_VERSION_1), false);
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 0, 512, NULL), VIRTIO_BLK_S_OK);
    assert_int_equal(f.disk->flags_seen, DISK_FUA);
    f.disk->flags_seen = 0;
    assert_int_equal(erase(&f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(f.disk->flags_seen, DISK_FUA);
    stop(&f);
}

static void test_a_failed_read_reads_as_zeroes(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t used;
    start(&f);
    f.disk->fail = -EIO;
    memset(data_at(&f, 1024), 0x77, 1024);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 0, 1024, &used), VIRTIO_BLK_S_IOERR);
    assert_int_equal(used, 1025);
    for (unsigned i = 0; i < 1024; i++)
        assert_int_equal(data_at(&f, 1024)[i], 0);
    assert_int_equal(request(&f, VIRTIO_BLK_T_FLUSH, 0, 0, &used), VIRTIO_BLK_S_IOERR);
    f.disk->fail = 0;
    assert_int_equal(request(&f, VIRTIO_BLK_T_FLUSH, 0, 0, &used), VIRTIO_BLK_S_OK);
    stop(&f);
}

static void test_errors_may_be_ignored(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.policy.action = VIRTIO_BLK_IGNORE;
    f.disk->fail = -EIO;
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 0, 512, NULL), VIRTIO_BLK_S_OK);
    assert_int_equal(f.policy.op, DISK_WRITE);
    assert_int_equal(f.policy.error, EIO);
    stop(&f);
}

static void test_errors_may_be_held_and_retried(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t used;
    start(&f);
    f.policy.action = VIRTIO_BLK_HOLD;
    f.disk->fail = -ENOSPC;
    memset(data_at(&f, 512), 0x3c, 512);
    uint64_t headers[2] = {f.header, fake_guest_alloc(&f.guest, 16)};
    uint16_t write = offer(&f, VIRTIO_BLK_T_OUT, 7, 512);
    f.header = headers[1];
    uint16_t read = offer(&f, VIRTIO_BLK_T_IN, 7, 512);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 5);
    assert_int_equal(f.policy.calls, 2);
    assert_int_equal(f.policy.error, ENOSPC);
    assert_int_equal(fake_queue_used_index(&f.queue), 0);
    assert_false(virtio_pci_is_idle(f.device));
    /* Fails again, is held again. */
    virtio_blk_retry(f.device);
    fake_guest_run(&f.guest, 5);
    assert_int_equal(f.policy.calls, 4);
    f.disk->fail = 0;
    memset(data_at(&f, 512), 0x4d, 512);
    virtio_blk_retry(f.device);
    assert_int_equal(fake_queue_wait(&f.queue, &used), write);
    assert_int_equal(used, 1);
    assert_int_equal(fake_queue_wait(&f.queue, &used), read);
    assert_int_equal(used, 513);
    assert_int_equal(f.disk->bytes[7 * 512], 0x4d);
    assert_int_equal(data_at(&f, 512)[511], 0x4d);
    virtio_blk_retry(f.device);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 0, 512, NULL), VIRTIO_BLK_S_OK);
    stop(&f);
}

static void test_errors_may_be_decided_later(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t used;
    start(&f);
    f.policy.action = VIRTIO_BLK_ASK_AGAIN;
    f.disk->fail = -ENOSPC;
    uint16_t write = offer(&f, VIRTIO_BLK_T_OUT, 7, 512);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 5);
    assert_int_equal(f.policy.calls, 1);
    /* It is not held: nothing is submitted again. */
    f.disk->fail = 0;
    virtio_blk_retry(f.device);
    fake_guest_run(&f.guest, 5);
    assert_int_equal(fake_queue_used_index(&f.queue), 0);
    virtio_blk_decide(f.device);
    assert_int_equal(f.policy.calls, 2);
    assert_int_equal(f.policy.op, DISK_WRITE);
    assert_int_equal(f.policy.error, ENOSPC);
    f.policy.action = VIRTIO_BLK_REPORT;
    virtio_blk_decide(f.device);
    assert_int_equal(fake_queue_wait(&f.queue, &used), write);
    assert_int_equal(*status_at(&f), VIRTIO_BLK_S_IOERR);
    virtio_blk_decide(f.device);
    assert_int_equal(f.policy.calls, 3);
    stop(&f);
}

/* It waits for what becomes of it. */
static void start_with_failed_write(struct fixture *f, enum virtio_blk_action action)
{
    start(f);
    f->policy.action = action;
    f->disk->fail = -EIO;
    offer(f, VIRTIO_BLK_T_OUT, 0, 512);
    fake_queue_kick(&f->queue);
    fake_guest_run(&f->guest, 5);
}

static void test_a_reset_lets_go_of_undecided_requests(void **state)
{
    (void)state;
    struct fixture f;
    start_with_failed_write(&f, VIRTIO_BLK_ASK_AGAIN);
    assert_false(virtio_pci_is_idle(f.device));
    fake_device_reset(&f.fd);
    assert_true(virtio_pci_is_idle(f.device));
    virtio_blk_decide(f.device);
    assert_int_equal(f.policy.calls, 1);
    stop(&f);
}

static void test_held_requests_and_a_disk_that_shrank(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.policy.action = VIRTIO_BLK_HOLD;
    f.disk->fail = -EIO;
    offer(&f, VIRTIO_BLK_T_IN, SECTORS - 1, 512);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 5);
    fake_disk_resize(f.disk, DISK_BYTES / 2);
    virtio_blk_retry(f.device);
    fake_queue_wait(&f.queue, NULL);
    assert_int_equal(*status_at(&f), VIRTIO_BLK_S_IOERR);
    stop(&f);
}

static void test_reset_and_close_let_go_of_held_requests(void **state)
{
    (void)state;
    struct fixture f;
    start_with_failed_write(&f, VIRTIO_BLK_HOLD);
    fake_device_reset(&f.fd);
    assert_true(virtio_pci_is_idle(f.device));
    assert_true(fake_device_negotiate(&f.fd, ALL_FEATURES));
    fake_queue_init(&f.queue, &f.fd, 0, 0);
    fake_device_driver_ok(&f.fd);
    /* One is held, and one fails while the device is closing. */
    offer(&f, VIRTIO_BLK_T_OUT, 0, 512);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 5);
    f.disk->hold = true;
    offer(&f, VIRTIO_BLK_T_IN, 0, 512);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 5);
    assert_int_equal(f.disk->in_flight, 1);
    assert_int_equal(f.policy.calls, 2);
    fake_disk_release(f.disk);
    stop(&f);
    assert_int_equal(f.policy.calls, 2);
}

static void test_configuration_and_resize(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    assert_true(fake_guest_read(&f.guest, f.fd.config, 8) == SECTORS);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config + 12, 4), BLK_SEG_MAX);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config + 20, 4), 512);
    uint64_t generation = fake_device_read(&f.fd, VIRTIO_PCI_COMMON_CFGGENERATION, 1);
    fake_disk_resize(f.disk, 2 * DISK_BYTES);
    assert_true(fake_guest_read(&f.guest, f.fd.config, 8) == 2 * SECTORS);
    assert_int_not_equal(fake_device_read(&f.fd, VIRTIO_PCI_COMMON_CFGGENERATION, 1), generation);
    assert_int_equal(f.guest.irq.sent[0], 1);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, SECTORS, 512, NULL), VIRTIO_BLK_S_OK);
    stop(&f);
}

static void test_a_batch_costs_one_interrupt(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    uint64_t kicks = virtio_pci_queue_stats(f.device, 0)->kicks;
    for (unsigned i = 0; i < 4; i++)
        offer(&f, VIRTIO_BLK_T_IN, i, 512);
    fake_queue_kick(&f.queue);
    for (unsigned i = 0; i < 4; i++)
        fake_queue_wait(&f.queue, NULL);
    const struct virtqueue_stats *stats = virtio_pci_queue_stats(f.device, 0);
    assert_int_equal(f.guest.irq.sent[1], 1);
    assert_int_equal(stats->interrupts, 1);
    assert_int_equal(stats->chains, 4);
    assert_int_equal(stats->kicks - kicks, 1);
    stop(&f);
}

/* The driver has the first answers while most of what it wants is still to be done. */
static void test_many_are_taken_in_shares(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    uint64_t kicks = virtio_pci_queue_stats(f.device, 0)->kicks;
    f.disk->hold = true;
    for (unsigned i = 0; i < 40; i++)
        offer(&f, VIRTIO_BLK_T_IN, i, 512);
    fake_queue_kick(&f.queue);
    static const unsigned taken[] = {10, 17, 22, 26, 30, 34, 38, 40};
    while (!f.disk->in_flight)
        fake_guest_run(&f.guest, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(taken); i++, fake_guest_run(&f.guest, 1))
        assert_int_equal(f.disk->in_flight, taken[i]);
    fake_disk_release(f.disk);
    for (unsigned i = 0; i < 40; i++)
        fake_queue_wait(&f.queue, NULL);
    assert_int_equal(virtio_pci_queue_stats(f.device, 0)->kicks - kicks, 1);
    stop(&f);
}

static void test_completions_in_any_order(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.disk->hold = true;
    f.disk->backwards = true;
    uint16_t heads[5];
    for (unsigned i = 0; i < ARRAY_SIZE(heads); i++)
        heads[i] = offer(&f, VIRTIO_BLK_T_IN, i, 512);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 5);
    assert_int_equal(f.disk->in_flight, 5);
    fake_disk_release(f.disk);
    for (unsigned i = ARRAY_SIZE(heads); i-- > 0;)
        assert_int_equal(fake_queue_wait(&f.queue, NULL), heads[i]);
    stop(&f);
}

static void test_more_than_a_turns_budget(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    unsigned done = 0;
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = 0; i < 80; i++)
            offer(&f, VIRTIO_BLK_T_IN, i, 512);
        fake_queue_kick(&f.queue);
        for (unsigned i = 0; i < 80; i++, done++)
            fake_queue_wait(&f.queue, NULL);
    }
    assert_int_equal(done, 640);
    /* As many as the budget at once: kicks are asked for again after them, too. */
    const struct fake_buffer buffers[] = {{f.header, 16, false}, {f.status, 1, true}};
    set_header(&f, f.header, VIRTIO_BLK_T_FLUSH, 0);
    for (unsigned i = 0; i < VIRTIO_DRAIN_BUDGET; i++)
        fake_queue_add_indirect(&f.queue, buffers, 2);
    fake_queue_kick(&f.queue);
    for (unsigned i = 0; i < VIRTIO_DRAIN_BUDGET; i++)
        fake_queue_wait(&f.queue, NULL);
    fake_guest_run(&f.guest, 2);
    uint64_t avail_event = f.queue.used + 4 + 8u * f.queue.size;
    assert_int_equal(load_le16(fake_guest_at(&f.guest, avail_event, 2)), f.queue.avail_at);
    stop(&f);
}

static void test_a_kick_while_every_head_is_in_flight(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.disk->hold = true;
    const struct fake_buffer buffers[] = {{f.header, 16, false}, {f.status, 1, true}};
    set_header(&f, f.header, VIRTIO_BLK_T_FLUSH, 0);
    for (unsigned i = 0; i < f.queue.size; i++)
        fake_queue_add_indirect(&f.queue, buffers, 2);
    for (unsigned i = 0; i < 3; i++) {
        fake_queue_kick(&f.queue);
        fake_guest_run(&f.guest, 20);
    }
    assert_int_equal(f.disk->in_flight, f.queue.size);
    fake_disk_release(f.disk);
    for (unsigned i = 0; i < f.queue.size; i++)
        fake_queue_wait(&f.queue, NULL);
    assert_int_equal(request(&f, VIRTIO_BLK_T_FLUSH, 0, 0, NULL), VIRTIO_BLK_S_OK);

    f.disk->hold = true;
    for (unsigned i = 0; i < f.queue.size; i++)
        fake_queue_add_indirect(&f.queue, buffers, 2);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 20);
    fake_queue_add_indirect(&f.queue, buffers, 2);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 20);
    assert_true(fake_device_status(&f.fd) & VIRTIO_CONFIG_S_NEEDS_RESET);
    fake_disk_release(f.disk);
    stop(&f);
}

static void test_reset_waits_for_what_is_in_flight(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.disk->hold = true;
    offer(&f, VIRTIO_BLK_T_IN, 0, 512);
    offer(&f, VIRTIO_BLK_T_IN, 1, 512);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 3);
    assert_int_equal(f.disk->in_flight, 2);
    assert_false(virtio_pci_is_idle(f.device));
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    fake_guest_run(&f.guest, 3);
    assert_int_not_equal(fake_device_status(&f.fd), 0);
    fake_disk_release(f.disk);
    fake_guest_run(&f.guest, 3);
    assert_int_equal(fake_device_status(&f.fd), 0);
    assert_true(virtio_pci_is_idle(f.device));
    /* Nothing was published behind the driver's back, and the device starts afresh. */
    assert_int_equal(fake_queue_used_index(&f.queue), 0);
    assert_int_equal(f.guest.irq.sent[1], 0);
    assert_true(fake_device_negotiate(&f.fd, ALL_FEATURES));
    fake_queue_init(&f.queue, &f.fd, 0, 64);
    fake_device_driver_ok(&f.fd);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 0, 512, NULL), VIRTIO_BLK_S_OK);
    stop(&f);
}

static void test_machine_reset_and_close_with_io_in_flight(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.disk->hold = true;
    offer(&f, VIRTIO_BLK_T_OUT, 0, 512);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 3);
    f.device->ops->reset(f.device);
    fake_guest_run(&f.guest, 3);
    assert_int_equal(f.disk->in_flight, 1);
    fake_disk_release(f.disk);
    stop(&f);
}

static void test_malformed_requests_break_the_device(void **state)
{
    (void)state;
    static const struct {
        uint32_t header_bytes;
        bool has_status;
    } bad[] = {{15, true}, {1, true}, {16, false}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct fixture f;
        start(&f);
        const struct fake_buffer buffers[] = {{f.header, bad[i].header_bytes, false},
                                              {f.status, 1, true}};
        set_header(&f, f.header, VIRTIO_BLK_T_FLUSH, 0);
        fake_queue_add(&f.queue, buffers, bad[i].has_status ? 2 : 1);
        fake_queue_kick(&f.queue);
        fake_guest_run(&f.guest, 5);
        assert_true(fake_device_status(&f.fd) & VIRTIO_CONFIG_S_NEEDS_RESET);
        assert_int_equal(f.guest.irq.sent[0], 1);
        assert_int_equal(fake_queue_used_index(&f.queue), 0);
        assert_true(virtio_pci_is_idle(f.device));
        stop(&f);
    }
}

/* Those before it are served as if it had not come; what is behind it is not looked at. */
static void test_a_malformed_request_among_good_ones(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.disk->hold = true;
    const struct fake_buffer bad[] = {{f.header, 15, false}, {f.status, 1, true}};
    offer(&f, VIRTIO_BLK_T_IN, 0, 512);
    offer(&f, VIRTIO_BLK_T_IN, 0, 512);
    fake_queue_add(&f.queue, bad, 2);
    offer(&f, VIRTIO_BLK_T_IN, 0, 512);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 3);
    assert_int_equal(f.disk->counts[DISK_READ], 2);
    assert_true(fake_device_status(&f.fd) & VIRTIO_CONFIG_S_NEEDS_RESET);
    fake_disk_release(f.disk);
    fake_guest_run(&f.guest, 3);
    assert_int_equal(fake_queue_used_index(&f.queue), 0);
    assert_true(virtio_pci_is_idle(f.device));
    stop(&f);
}

static void test_the_disk_hears_of_a_batch_before_its_first_request(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.disk->hold = true;
    for (unsigned i = 0; i < 4; i++)
        offer(&f, VIRTIO_BLK_T_IN, 3, 512);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 3);
    assert_int_equal(f.disk->counts[DISK_READ], 4);
    assert_int_equal(f.disk->expected, 4);
    assert_int_equal(f.disk->expected_at_first, 4);
    fake_disk_release(f.disk);
    fake_guest_run(&f.guest, 3);
    stop(&f);
}

static void test_breaking_with_io_in_flight(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.disk->hold = true;
    offer(&f, VIRTIO_BLK_T_IN, 0, 512);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 3);
    fake_queue_offer(&f.queue, 0xfff0);
    fake_queue_kick(&f.queue);
    fake_guest_run(&f.guest, 3);
    assert_true(fake_device_status(&f.fd) & VIRTIO_CONFIG_S_NEEDS_RESET);
    fake_disk_release(f.disk);
    fake_guest_run(&f.guest, 3);
    assert_int_equal(fake_queue_used_index(&f.queue), 0);
    assert_true(fake_device_negotiate(&f.fd, ALL_FEATURES));
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_and_writes),
        cmocka_unit_test(test_tells_what_it_wrote),
        cmocka_unit_test(test_any_framing),
        cmocka_unit_test(test_refuses_bad_ranges),
        cmocka_unit_test(test_unknown_types_are_answered),
        cmocka_unit_test(test_get_id),
        cmocka_unit_test(test_discard_and_write_zeroes),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_writes_are_durable_for_a_driver_that_never_flushes),
        cmocka_unit_test(test_a_failed_read_reads_as_zeroes),
        cmocka_unit_test(test_errors_may_be_ignored),
        cmocka_unit_test(test_errors_may_be_held_and_retried),
        cmocka_unit_test(test_errors_may_be_decided_later),
        cmocka_unit_test(test_a_reset_lets_go_of_undecided_requests),
        cmocka_unit_test(test_held_requests_and_a_disk_that_shrank),
        cmocka_unit_test(test_reset_and_close_let_go_of_held_requests),
        cmocka_unit_test(test_configuration_and_resize),
        cmocka_unit_test(test_a_batch_costs_one_interrupt),
        cmocka_unit_test(test_many_are_taken_in_shares),
        cmocka_unit_test(test_completions_in_any_order),
        cmocka_unit_test(test_more_than_a_turns_budget),
        cmocka_unit_test(test_a_kick_while_every_head_is_in_flight),
        cmocka_unit_test(test_reset_waits_for_what_is_in_flight),
        cmocka_unit_test(test_machine_reset_and_close_with_io_in_flight),
        cmocka_unit_test(test_malformed_requests_break_the_device),
        cmocka_unit_test(test_a_malformed_request_among_good_ones),
        cmocka_unit_test(test_the_disk_hears_of_a_batch_before_its_first_request),
        cmocka_unit_test(test_breaking_with_io_in_flight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
