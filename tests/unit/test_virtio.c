/* SPDX-License-Identifier: MIT */
/* The status machine, below any transport: a device of two queues and a transport that counts. */
#include "devices/virtio.h"

#include <linux/virtio_ring.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/bench/fake_guest.h"
#include "tests/unit/test.h"

#define FEATURE_A 0
#define FEATURE_B 5

#define ACKNOWLEDGE VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER      VIRTIO_CONFIG_S_DRIVER
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK   VIRTIO_CONFIG_S_DRIVER_OK
#define FAILED      VIRTIO_CONFIG_S_FAILED
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET
#define SETUP       (ACKNOWLEDGE | DRIVER)

struct fixture {
    struct fake_guest guest;
    struct fake_device fd;
    struct fake_queue driver;
    struct virtio_device vdev;
    uint8_t config[6];
    unsigned kicks[2], starts, resets, config_writes;
    unsigned queue_interrupts, config_interrupts, resets_done, closed;
    bool refuse_features, keep_chains;
    uint64_t page;
    struct iovec iov[4];
    struct virtqueue_chain chain;
};

static struct fixture *fixture_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct fixture, vdev);
}

static uint64_t features(struct virtio_device *vdev)
{
    (void)vdev;
    return VIRTIO_FEATURE(FEATURE_A) | VIRTIO_FEATURE(FEATURE_B);
}

static bool features_chosen(struct virtio_device *vdev)
{
    return !fixture_of(vdev)->refuse_features;
}

static void config_written(struct virtio_device *vdev, size_t offset, const void *from,
                           size_t length)
{
    struct fixture *f = fixture_of(vdev);
    memcpy(f->config + offset, from, length);
    f->config_writes++;
}

static void started(struct virtio_device *vdev)
{
    fixture_of(vdev)->starts++;
}

static void kick(struct virtio_device *vdev, unsigned queue)
{
    struct fixture *f = fixture_of(vdev);
    f->kicks[queue]++;
    while (virtqueue_pop(virtio_queue(vdev, queue), &f->chain)) {
        if (f->keep_chains)
            return;
        virtqueue_push(virtio_queue(vdev, queue), &f->chain, 0);
    }
}

static void reset(struct virtio_device *vdev)
{
    fixture_of(vdev)->resets++;
}

static void destroy(struct virtio_device *vdev)
{
    (void)vdev;
}

static const struct virtio_ops ops = {
    .name = "gadget",
    .device_id = 63,
    .features = features,
    .features_chosen = features_chosen,
    .config_written = config_written,
    .started = started,
    .kick = kick,
    .reset = reset,
    .destroy = destroy,
};

static void queue_interrupt(struct virtio_device *vdev, unsigned queue)
{
    (void)queue;
    fixture_of(vdev)->queue_interrupts++;
}

static void config_interrupt(struct virtio_device *vdev)
{
    fixture_of(vdev)->config_interrupts++;
}

static void reset_done(struct virtio_device *vdev)
{
    fixture_of(vdev)->resets_done++;
}

static const struct virtio_transport_ops transport_ops = {queue_interrupt, config_interrupt,
                                                          reset_done};

static void on_closed(struct virtio_device *vdev)
{
    fixture_of(vdev)->closed++;
}

static void start(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    fake_guest_init(&f->guest);
    memcpy(f->config, "config", 6);
    f->fd.guest = &f->guest;
    f->page = fake_guest_alloc(&f->guest, 4096);
    f->chain = (struct virtqueue_chain){.iov = f->iov, .iov_max = ARRAY_SIZE(f->iov)};
    const struct virtio_setup setup = {.ops = &ops,
                                       .loop = &f->guest.loop,
                                       .mem = &f->guest.mem,
                                       .config = f->config,
                                       .config_size = sizeof(f->config),
                                       .queue_count = 2,
                                       .queue_size = 16};
    virtio_init(&f->vdev, &setup, &transport_ops);
}

static void stop(struct fixture *f)
{
    if (!f->closed)
        virtio_close(&f->vdev, on_closed);
    fake_guest_run(&f->guest, 2);
    assert_int_equal(f->closed, 1);
    virtio_fini(&f->vdev);
    fake_guest_fini(&f->guest);
}

static void add_status(struct fixture *f, uint8_t bits)
{
    virtio_set_status(&f->vdev, f->vdev.status | bits);
}

static void negotiate(struct fixture *f, uint64_t bits)
{
    add_status(f, ACKNOWLEDGE);
    add_status(f, DRIVER);
    virtio_set_features(&f->vdev, 0, (uint32_t)bits);
    virtio_set_features(&f->vdev, 1, (uint32_t)(bits >> 32));
    add_status(f, FEATURES_OK);
}

static void set_layout(struct fixture *f, unsigned queue)
{
    f->driver = (struct fake_queue){.fd = &f->fd, .index = queue, .size = 16};
    f->driver.desc = fake_guest_alloc(&f->guest, 4096);
    f->driver.avail = fake_guest_alloc(&f->guest, 4096);
    f->driver.used = fake_guest_alloc(&f->guest, 4096);
    *virtio_queue_layout(&f->vdev, queue) =
        (struct virtqueue_layout){16, f->driver.desc, f->driver.avail, f->driver.used};
}

/* All but DRIVER_OK. */
static void prepare(struct fixture *f)
{
    negotiate(f, VIRTIO_FEATURE(VIRTIO_F_VERSION_1));
    set_layout(f, 1);
    virtio_queue_enable(&f->vdev, 1);
}

static void go_live(struct fixture *f)
{
    prepare(f);
    add_status(f, DRIVER_OK);
    assert_true(virtio_is_live(&f->vdev));
}

static void offer(struct fixture *f)
{
    const struct fake_buffer buffer = {f->page, 8, true};
    fake_queue_add(&f->driver, &buffer, 1);
    virtio_kick(&f->vdev, 1);
    fake_guest_run(&f->guest, 2);
}

static void test_features(void **state)
{
    (void)state;
    static const struct {
        uint64_t bits;
        bool is_fine;
    } cases[] = {
        {VIRTIO_FEATURE(VIRTIO_F_VERSION_1), true},
        {VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(FEATURE_B), true},
        {VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_RING_F_EVENT_IDX) |
             VIRTIO_FEATURE(VIRTIO_RING_F_INDIRECT_DESC),
         true},
        {VIRTIO_FEATURE(FEATURE_A), false},
        {0, false},
        {VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(1), false},
        {VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_F_RING_PACKED), false},
        {VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(63), false},
        {UINT64_MAX, false},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fixture f;
        start(&f);
        negotiate(&f, cases[i].bits);
        assert_int_equal(f.vdev.status, SETUP | (cases[i].is_fine ? FEATURES_OK : 0));
        add_status(&f, DRIVER_OK);
        assert_int_equal(virtio_is_live(&f.vdev), cases[i].is_fine);
        /* Latched from FEATURES_OK on. */
        uint64_t before = f.vdev.features;
        virtio_set_features(&f.vdev, 0, 0x55);
        virtio_set_features(&f.vdev, 7, 0x55);
        assert_int_equal(f.vdev.features == before, cases[i].is_fine);
        stop(&f);
    }
}

static void test_a_device_may_refuse(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.refuse_features = true;
    negotiate(&f, VIRTIO_FEATURE(VIRTIO_F_VERSION_1));
    assert_int_equal(f.vdev.status, SETUP);
    f.refuse_features = false;
    add_status(&f, FEATURES_OK);
    assert_int_equal(f.vdev.status, SETUP | FEATURES_OK);
    stop(&f);
}

static void test_status_bits_are_only_added(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    assert_int_equal(f.starts, 1);
    virtio_set_status(&f.vdev, ACKNOWLEDGE);
    virtio_set_status(&f.vdev, SETUP | FEATURES_OK | DRIVER_OK);
    virtio_set_status(&f.vdev, 0x30);
    assert_int_equal(f.vdev.status, SETUP | FEATURES_OK | DRIVER_OK);
    assert_int_equal(f.starts, 1);
    assert_true(virtio_is_live(&f.vdev));
    /* Nobody can pretend NEEDS_RESET. */
    virtio_set_status(&f.vdev, NEEDS_RESET);
    assert_int_equal(f.vdev.status & NEEDS_RESET, 0);
    stop(&f);
}

static void test_kicks_wait_for_driver_ok(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    prepare(&f);
    offer(&f);
    assert_int_equal(f.kicks[1], 0);
    add_status(&f, DRIVER_OK);
    fake_guest_run(&f.guest, 2);
    assert_int_equal(f.kicks[1], 1);
    assert_int_equal(f.kicks[0], 0);
    assert_int_equal(fake_queue_used_index(&f.driver), 1);
    virtio_kick(&f.vdev, 0);
    virtio_kick(&f.vdev, 2);
    virtio_kick(&f.vdev, UINT32_MAX);
    fake_guest_run(&f.guest, 2);
    assert_int_equal(f.kicks[0], 0);
    stop(&f);
}

static void test_queues_are_latched(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    prepare(&f);
    assert_non_null(virtio_queue_layout(&f.vdev, 0));
    assert_null(virtio_queue_layout(&f.vdev, 1));
    add_status(&f, DRIVER_OK);
    assert_null(virtio_queue_layout(&f.vdev, 1));
    assert_null(virtio_queue_layout(&f.vdev, 0));
    assert_null(virtio_queue_layout(&f.vdev, 2));
    virtio_queue_enable(&f.vdev, 0);
    virtio_queue_enable(&f.vdev, 1);
    virtio_queue_enable(&f.vdev, 99);
    assert_false(virtio_queue(&f.vdev, 0)->enabled);
    assert_true(virtio_is_live(&f.vdev));
    offer(&f);
    assert_int_equal(fake_queue_used_index(&f.driver), 1);
    stop(&f);
}

static void test_enabling_badly_breaks(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    set_layout(&f, 0);
    virtio_queue_enable(&f.vdev, 0); /* before FEATURES_OK */
    assert_int_equal(f.vdev.status, NEEDS_RESET);
    assert_int_equal(f.config_interrupts, 0);
    virtio_set_status(&f.vdev, 0);
    assert_int_equal(f.vdev.status, 0);
    negotiate(&f, VIRTIO_FEATURE(VIRTIO_F_VERSION_1));
    virtio_queue_layout(&f.vdev, 0)->size = 5;
    virtio_queue_enable(&f.vdev, 0);
    assert_true(f.vdev.status & NEEDS_RESET);
    add_status(&f, DRIVER_OK);
    assert_false(virtio_is_live(&f.vdev));
    stop(&f);
}

static void test_broken_tells_a_live_driver(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    fake_queue_offer(&f.driver, 999);
    virtio_kick(&f.vdev, 1);
    fake_guest_run(&f.guest, 2);
    assert_int_equal(f.vdev.status, SETUP | FEATURES_OK | DRIVER_OK | NEEDS_RESET);
    assert_int_equal(f.config_interrupts, 1);
    virtio_broken(&f.vdev, "again");
    assert_int_equal(f.config_interrupts, 1);
    virtio_config_changed(&f.vdev);
    assert_int_equal(f.config_interrupts, 1);
    unsigned kicks = f.kicks[1];
    offer(&f);
    assert_int_equal(f.kicks[1], kicks);
    virtio_set_status(&f.vdev, 0);
    assert_int_equal(f.resets_done, 1);
    go_live(&f);
    offer(&f);
    assert_int_equal(fake_queue_used_index(&f.driver), 1);
    stop(&f);
}

static void test_failed(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    add_status(&f, FAILED);
    assert_true(f.vdev.status & FAILED);
    assert_false(virtio_is_live(&f.vdev));
    offer(&f);
    assert_int_equal(fake_queue_used_index(&f.driver), 0);
    virtio_set_status(&f.vdev, 0);
    assert_int_equal(f.vdev.status, 0);
    stop(&f);
}

static void test_reset_drains(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    f.keep_chains = true;
    offer(&f);
    assert_false(virtio_is_idle(&f.vdev));
    virtio_set_status(&f.vdev, 0);
    assert_int_equal(f.resets, 1);
    assert_int_equal(f.resets_done, 0);
    assert_int_not_equal(f.vdev.status, 0);
    /* Until it is done nothing else counts. */
    virtio_set_status(&f.vdev, 0);
    virtio_set_status(&f.vdev, ACKNOWLEDGE);
    virtio_set_features(&f.vdev, 0, 1);
    virtio_queue_enable(&f.vdev, 0);
    virtio_config_write(&f.vdev, 0, "x", 1);
    virtio_broken(&f.vdev, "late");
    assert_null(virtio_queue_layout(&f.vdev, 0));
    assert_int_equal(f.resets, 1);
    assert_int_equal(f.config_writes, 0);
    fake_guest_forget_written(&f.guest);
    virtqueue_push(virtio_queue(&f.vdev, 1), &f.chain, 8);
    assert_int_equal(f.guest.written_bytes, 8);
    fake_guest_run(&f.guest, 2);
    assert_int_equal(f.guest.written_bytes, 8);
    assert_int_equal(f.vdev.status, 0);
    assert_int_equal(f.resets_done, 1);
    assert_int_equal(f.queue_interrupts, 0);
    f.keep_chains = false;
    go_live(&f);
    stop(&f);
}

static void test_close_drains(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    f.keep_chains = true;
    offer(&f);
    virtio_set_status(&f.vdev, 0);
    virtio_close(&f.vdev, on_closed);
    fake_guest_run(&f.guest, 3);
    assert_int_equal(f.closed, 0);
    virtqueue_push(virtio_queue(&f.vdev, 1), &f.chain, 0);
    assert_int_equal(f.closed, 0);
    fake_guest_run(&f.guest, 2);
    assert_int_equal(f.closed, 1);
    stop(&f);
}

static void test_config_space(void **state)
{
    (void)state;
    struct fixture f;
    uint8_t bytes[8];
    start(&f);
    virtio_config_read(&f.vdev, 0, bytes, 8);
    assert_memory_equal(bytes, "config\0\0", 8);
    virtio_config_read(&f.vdev, 5, bytes, 2);
    assert_memory_equal(bytes, "g\0", 2);
    virtio_config_read(&f.vdev, 6, bytes, 4);
    assert_memory_equal(bytes, "\0\0\0\0", 4);
    virtio_config_read(&f.vdev, SIZE_MAX - 1, bytes, 4);
    assert_memory_equal(bytes, "\0\0\0\0", 4);
    virtio_config_write(&f.vdev, 0, "C", 1);
    assert_memory_equal(f.config, "Config", 6);
    virtio_config_write(&f.vdev, 5, "xy", 2);
    virtio_config_write(&f.vdev, 6, "x", 1);
    virtio_config_write(&f.vdev, SIZE_MAX, "xy", 2);
    assert_int_equal(f.config_writes, 1);
    virtio_config_changed(&f.vdev);
    assert_int_equal(f.config_interrupts, 0);
    uint8_t generation = f.vdev.generation;
    go_live(&f);
    virtio_config_changed(&f.vdev);
    assert_int_not_equal(f.vdev.generation, generation);
    assert_int_equal(f.config_interrupts, 1);
    stop(&f);
}

static void test_dma_off(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    fake_guest_run(&f.guest, 2);
    virtio_set_dma(&f.vdev, false);
    fake_guest_forget_written(&f.guest);
    offer(&f);
    assert_int_equal(fake_queue_used_index(&f.driver), 0);
    assert_int_equal(f.guest.written_bytes, 0);
    virtio_set_dma(&f.vdev, true);
    fake_guest_run(&f.guest, 2);
    assert_int_equal(fake_queue_used_index(&f.driver), 1);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_a_device_may_refuse),
        cmocka_unit_test(test_status_bits_are_only_added),
        cmocka_unit_test(test_kicks_wait_for_driver_ok),
        cmocka_unit_test(test_queues_are_latched),
        cmocka_unit_test(test_enabling_badly_breaks),
        cmocka_unit_test(test_broken_tells_a_live_driver),
        cmocka_unit_test(test_failed),
        cmocka_unit_test(test_reset_drains),
        cmocka_unit_test(test_close_drains),
        cmocka_unit_test(test_config_space),
        cmocka_unit_test(test_dma_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
