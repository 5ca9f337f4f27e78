/* SPDX-License-Identifier: MIT */
/* The balloon with an honest driver, and with one that sends whatever it likes. */
#include "devices/virtio_balloon.h"

#include <linux/virtio_balloon.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/bench/fake_guest.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

#define PAGE 4096u
#define RAM  (FAKE_RAM_LOW + FAKE_RAM_HIGH)

#define BASIC_FEATURES                                                                             \
    (VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_BALLOON_F_STATS_VQ))
#define ALL_FEATURES                                                                               \
    (BASIC_FEATURES | VIRTIO_FEATURE(VIRTIO_BALLOON_F_REPORTING) |                                 \
     VIRTIO_FEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM))

struct fixture {
    struct fake_guest guest;
    struct device *device;
    struct fake_device fd;
    struct fake_queue queues[4];
    unsigned changes, stats;
    uint64_t page; /* room for what is sent */
};

static void on_changed(void *opaque)
{
    ((struct fixture *)opaque)->changes++;
}

static void on_stats(void *opaque)
{
    ((struct fixture *)opaque)->stats++;
}

static void start(struct fixture *f, uint64_t features, unsigned queues)
{
    memset(f, 0, sizeof(*f));
    fake_guest_init(&f->guest);
    const struct virtio_balloon_options options = {.ram_bytes = RAM,
                                                   .deflate_on_oom = true,
                                                   .free_page_reporting = true,
                                                   .on_changed = on_changed,
                                                   .on_stats = on_stats,
                                                   .opaque = f};
    struct virtio_pci_place place = fake_guest_place(&f->guest, "balloon0");
    assert_int_equal(virtio_balloon_create(&place, &options, &f->device, NULL), 0);
    fake_device_probe(&f->fd, &f->guest, f->device);
    assert_true(fake_device_negotiate(&f->fd, features));
    for (unsigned i = 0; i < queues; i++)
        fake_queue_init(&f->queues[i], &f->fd, i, 0);
    fake_device_driver_ok(&f->fd);
    f->page = fake_guest_alloc(&f->guest, 64 * 1024);
}

static void stop(struct fixture *f)
{
    fake_guest_close(&f->guest, f->device);
    fake_guest_fini(&f->guest);
}

static void send_pages(struct fixture *f, unsigned queue, const uint32_t *pages, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        store_le32(fake_guest_at(&f->guest, f->page + 4 * i, 4), pages[i]);
    const struct fake_buffer buffer = {f->page, 4 * count, false};
    fake_queue_add(&f->queues[queue], &buffer, 1);
    fake_queue_kick(&f->queues[queue]);
    fake_queue_wait(&f->queues[queue], NULL);
}

static bool is_zero(struct fixture *f, uint64_t gpa)
{
    static const uint8_t zeroes[PAGE];
    return memcmp(fake_guest_at(&f->guest, gpa, PAGE), zeroes, PAGE) == 0;
}

/* Two pages upwards, two downwards, one by itself; the page between stays. */
static void test_inflation_gives_pages_back(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, BASIC_FEATURES, 3);
    uint64_t area = fake_guest_alloc(&f.guest, 8 * PAGE);
    uint32_t first = (uint32_t)(area / PAGE);
    memset(fake_guest_at(&f.guest, area, 8 * PAGE), 'x', 8 * PAGE);
    fake_guest_forget_written(&f.guest);
    const uint32_t pages[] = {first, first + 1, first + 4, first + 3, first + 6};
    send_pages(&f, 0, pages, ARRAY_SIZE(pages));
    for (unsigned i = 0; i < 8; i++) {
        bool is_given = i != 2 && i != 5 && i != 7;
        assert_int_equal(is_zero(&f, area + i * PAGE), is_given);
        assert_int_equal(fake_guest_was_written(&f.guest, area + i * PAGE, PAGE), is_given);
    }
    assert_int_equal(virtio_balloon_released(f.device), 5 * PAGE);
    send_pages(&f, 1, pages, ARRAY_SIZE(pages)); /* deflation asks nothing of the device */
    stop(&f);
}

static void test_pages_that_are_none_are_passed_over(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, BASIC_FEATURES, 3);
    const uint32_t pages[] = {UINT32_MAX, 0xfee00, (uint32_t)(FAKE_RAM_LOW / PAGE),
                              (uint32_t)((FAKE_HIGH_GPA + FAKE_RAM_HIGH) / PAGE)};
    send_pages(&f, 0, pages, ARRAY_SIZE(pages));
    assert_int_equal(virtio_balloon_released(f.device), 0);
    /* The last page below the hole and the first after it are no row. */
    const uint32_t edges[] = {(uint32_t)(FAKE_RAM_LOW / PAGE - 1),
                              (uint32_t)(FAKE_HIGH_GPA / PAGE)};
    send_pages(&f, 0, edges, 2);
    assert_int_equal(virtio_balloon_released(f.device), 2 * PAGE);
    assert_int_equal(fake_device_status(&f.fd) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    stop(&f);
}

static void test_target_and_actual(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, BASIC_FEATURES, 3);
    unsigned before = f.guest.irq.sent[0];
    virtio_balloon_set_target(f.device, RAM - 5 * PAGE);
    fake_guest_run(&f.guest, 2);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config, 4), 5);
    assert_int_equal(f.guest.irq.sent[0], before + 1);
    virtio_balloon_set_target(f.device, UINT64_MAX);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config, 4), 0);
    assert_int_equal(virtio_balloon_actual(f.device), RAM);
    fake_guest_write(&f.guest, f.fd.config + 4, 4, 3);
    assert_int_equal(virtio_balloon_actual(f.device), RAM - 3 * PAGE);
    assert_int_equal(f.changes, 1);
    fake_guest_write(&f.guest, f.fd.config + 4, 4, 3); /* nothing new */
    fake_guest_write(&f.guest, f.fd.config, 4, 9);     /* not the driver's to write */
    assert_int_equal(f.changes, 1);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config, 4), 0);
    /* A guest that claims more than it has. */
    fake_guest_write(&f.guest, f.fd.config + 4, 4, UINT32_MAX);
    assert_int_equal(virtio_balloon_actual(f.device), 0);
    fake_device_reset(&f.fd);
    assert_int_equal(virtio_balloon_actual(f.device), RAM);
    assert_int_equal(f.changes, 3);
    stop(&f);
}

static void put_stat(struct fixture *f, unsigned at, uint16_t tag, uint64_t value)
{
    uint8_t *bytes = fake_guest_at(&f->guest, f->page + 10 * at, 10);
    store_le16(bytes, tag);
    store_le64(bytes + 2, value);
}

static void send_stats(struct fixture *f, unsigned count)
{
    const struct fake_buffer buffer = {f->page, 10 * count, false};
    fake_queue_add(&f->queues[2], &buffer, 1);
    fake_queue_kick(&f->queues[2]);
    fake_guest_run(&f->guest, 4);
}

static void test_statistics_come_when_asked_for(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, BASIC_FEATURES, 3);
    assert_false(virtio_balloon_ask_stats(f.device));
    put_stat(&f, 0, VIRTIO_BALLOON_S_MEMFREE, 1234);
    put_stat(&f, 1, 4711, 1); /* an unknown tag */
    send_stats(&f, 2);
    assert_int_equal(f.stats, 1);
    assert_int_equal(virtio_balloon_stats(f.device)[VIRTIO_BALLOON_S_MEMFREE], 1234);
    assert_true(virtio_balloon_stats(f.device)[VIRTIO_BALLOON_S_MEMTOT] == UINT64_MAX);
    /* The buffer stays until it is asked for; nothing is in flight meanwhile. */
    assert_false(fake_queue_used(&f.queues[2], NULL, NULL));
    assert_true(virtio_pci_is_idle(f.device));
    assert_true(virtio_balloon_ask_stats(f.device));
    fake_queue_wait(&f.queues[2], NULL);
    assert_false(virtio_balloon_ask_stats(f.device)); /* the guest has it */
    put_stat(&f, 0, VIRTIO_BALLOON_S_MEMFREE, 99);
    send_stats(&f, 1);
    assert_int_equal(f.stats, 2);
    assert_int_equal(virtio_balloon_stats(f.device)[VIRTIO_BALLOON_S_MEMFREE], 99);
    /* One that sends two gets them back one by one. */
    send_stats(&f, 1);
    assert_int_equal(f.stats, 2);
    assert_true(virtio_balloon_ask_stats(f.device));
    fake_guest_run(&f.guest, 4);
    assert_int_equal(f.stats, 3);
    stop(&f);
}

static void test_reported_pages_go(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, ALL_FEATURES, 4);
    uint64_t area = fake_guest_alloc(&f.guest, 8 * PAGE);
    memset(fake_guest_at(&f.guest, area, 8 * PAGE), 'x', 8 * PAGE);
    /* Whole pages only: what lies around them is the guest's. */
    const struct fake_buffer buffers[] = {{area, 2 * PAGE, true},
                                          {area + 3 * PAGE + 100, 2 * PAGE, true}};
    fake_queue_add(&f.queues[3], buffers, 2);
    fake_queue_kick(&f.queues[3]);
    fake_queue_wait(&f.queues[3], NULL);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(is_zero(&f, area + i * PAGE), i < 2 || i == 4);
    stop(&f);
}

/* Queues are counted without those of features that were not chosen. */
static void test_queues_without_statistics(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_BALLOON_F_REPORTING), 3);
    uint64_t area = fake_guest_alloc(&f.guest, PAGE);
    memset(fake_guest_at(&f.guest, area, PAGE), 'x', PAGE);
    const struct fake_buffer buffer = {area, PAGE, true};
    fake_queue_add(&f.queues[2], &buffer, 1);
    fake_queue_kick(&f.queues[2]);
    fake_queue_wait(&f.queues[2], NULL);
    assert_true(is_zero(&f, area));
    assert_false(virtio_balloon_ask_stats(f.device));
    stop(&f);
}

/* Descriptors and contents at random: the device may ask for a reset, no more. */
static void test_rubbish(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct fixture f;
        struct random random = {seed};
        start(&f, ALL_FEATURES, 4);
        for (unsigned i = 0; i < 400; i++) {
            struct fake_queue *queue = &f.queues[random_next(&random) % 4];
            uint16_t head = (uint16_t)(random_next(&random) % queue->size);
            uint64_t gpa = random_next(&random) % 3 ? random_next(&random) % FAKE_RAM_LOW
                                                    : random_next(&random);
            fake_queue_set_descriptor(queue, head, gpa, (uint32_t)(random_next(&random) % 100000),
                                      (uint16_t)(random_next(&random) % 4),
                                      (uint16_t)(random_next(&random) % queue->size));
            fake_queue_offer(queue, head);
            fake_queue_kick(queue);
            fake_guest_write(&f.guest, f.fd.config + random_next(&random) % 12, 4,
                             random_next(&random));
            virtio_balloon_ask_stats(f.device);
            fake_guest_run(&f.guest, 1);
            if (fake_device_status(&f.fd) & VIRTIO_CONFIG_S_NEEDS_RESET)
                break;
        }
        fake_guest_run(&f.guest, 3);
        stop(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inflation_gives_pages_back),
        cmocka_unit_test(test_pages_that_are_none_are_passed_over),
        cmocka_unit_test(test_target_and_actual),
        cmocka_unit_test(test_statistics_come_when_asked_for),
        cmocka_unit_test(test_reported_pages_go),
        cmocka_unit_test(test_queues_without_statistics),
        cmocka_unit_test(test_rubbish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
