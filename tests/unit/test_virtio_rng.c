/* SPDX-License-Identifier: MIT */
#include "devices/virtio_rng.h"

#include <linux/virtio_ring.h>
#include <string.h>

#include "tools/bench/fake_guest.h"
#include "tests/unit/test.h"

struct fixture {
    struct fake_guest guest;
    struct device *device;
    struct fake_device fd;
    struct fake_queue queue;
    uint64_t page;
};

static void start(struct fixture *f)
{
    fake_guest_init(&f->guest);
    struct virtio_pci_place place = fake_guest_place(&f->guest, "rng0");
    assert_int_equal(virtio_rng_create(&place, &f->device, NULL), 0);
    fake_device_probe(&f->fd, &f->guest, f->device);
    assert_true(fake_device_negotiate(&f->fd, VIRTIO_FEATURE(VIRTIO_F_VERSION_1) |
                                                  VIRTIO_FEATURE(VIRTIO_RING_F_EVENT_IDX)));
    fake_queue_init(&f->queue, &f->fd, 0, 0);
    fake_device_driver_ok(&f->fd);
    f->page = fake_guest_alloc(&f->guest, 64 * 1024);
}

static void stop(struct fixture *f)
{
    fake_guest_close(&f->guest, f->device);
    fake_guest_fini(&f->guest);
}

static uint32_t ask(struct fixture *f, const struct fake_buffer *buffers, unsigned count)
{
    uint32_t bytes;
    fake_queue_add(&f->queue, buffers, count);
    fake_queue_kick(&f->queue);
    fake_queue_wait(&f->queue, &bytes);
    return bytes;
}

static void test_fills_buffers(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    const struct fake_buffer buffers[] = {{f.page, 32, true}, {f.page + 64, 32, true}};
    fake_guest_forget_written(&f.guest);
    assert_int_equal(ask(&f, buffers, 2), 64);
    static const uint8_t zeroes[32];
    const uint8_t *bytes = fake_guest_at(&f.guest, f.page, 96);
    assert_memory_not_equal(bytes, zeroes, 32);
    assert_memory_equal(bytes + 32, zeroes, 32);
    assert_memory_not_equal(bytes + 64, zeroes, 32);
    assert_memory_not_equal(bytes + 64, bytes, 32);
    assert_true(fake_guest_was_written(&f.guest, f.page, 32));
    assert_false(fake_guest_was_written(&f.guest, f.page + 32, 1));
    stop(&f);
}

static void test_is_bounded(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    const struct fake_buffer large = {f.page, 64 * 1024, true};
    assert_int_equal(ask(&f, &large, 1), 256);
    /* More chains than one turn's share are all answered. */
    const struct fake_buffer small = {f.page, 1, true};
    for (unsigned i = 0; i < 60; i++)
        fake_queue_add(&f.queue, &small, 1);
    fake_queue_kick(&f.queue);
    for (unsigned i = 0; i < 60; i++)
        fake_queue_wait(&f.queue, NULL);
    stop(&f);
}

static void test_a_buffer_to_read_gets_nothing(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    const struct fake_buffer out = {f.page, 64, false};
    assert_int_equal(ask(&f, &out, 1), 0);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fills_buffers),
        cmocka_unit_test(test_is_bounded),
        cmocka_unit_test(test_a_buffer_to_read_gets_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
