/* SPDX-License-Identifier: MIT */
/* Memory that grows and shrinks: an honest driver, refusals, rubbish. */
#include "devices/virtio_mem.h"

#include <errno.h>
#include <linux/virtio_mem.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "tools/bench/fake_guest.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

#define GPA    (UINT64_C(8) << 30)
#define BLOCK  (UINT64_C(2) << 20)
#define BLOCKS 512
#define SIZE   (BLOCK * BLOCKS)

struct fixture {
    struct fake_guest guest;
    struct device *device;
    struct fake_device fd;
    struct fake_queue queue;
    uint8_t *host;
    uint64_t usable;
    unsigned changes;
    bool has_no_room;
    uint64_t page;
    uint16_t state; /* of the last answer */
};

static bool make_usable(void *opaque, uint64_t usable_bytes)
{
    struct fixture *f = opaque;
    if (f->has_no_room)
        return false;
    f->usable = usable_bytes;
    f->guest.mem.regions[2].size = usable_bytes;
    return true;
}

static void on_size_changed(void *opaque)
{
    ((struct fixture *)opaque)->changes++;
}

static void start(struct fixture *f, uint64_t requested)
{
    memset(f, 0, sizeof(*f));
    fake_guest_init(&f->guest);
    f->host =
        mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(f->host != MAP_FAILED);
    f->guest.mem.regions[2] = (struct guest_mem_region){.gpa = GPA, .host = f->host};
    f->guest.mem.region_count = 3;
    const struct virtio_mem_options options = {.gpa = GPA,
                                               .size_bytes = SIZE,
                                               .block_bytes = BLOCK,
                                               .requested_bytes = requested,
                                               .make_usable = make_usable,
                                               .on_size_changed = on_size_changed,
                                               .opaque = f};
    struct virtio_pci_place place = fake_guest_place(&f->guest, "mem0");
    assert_int_equal(virtio_mem_create(&place, &options, &f->device, NULL), 0);
    fake_device_probe(&f->fd, &f->guest, f->device);
    assert_true(
        fake_device_negotiate(&f->fd, VIRTIO_FEATURE(VIRTIO_F_VERSION_1) |
                                          VIRTIO_FEATURE(VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE)));
    fake_queue_init(&f->queue, &f->fd, 0, 0);
    fake_device_driver_ok(&f->fd);
    f->page = fake_guest_alloc(&f->guest, 4096);
}

static void stop(struct fixture *f)
{
    fake_guest_close(&f->guest, f->device);
    fake_guest_fini(&f->guest);
    munmap(f->host, SIZE);
}

static uint16_t ask(struct fixture *f, uint16_t type, uint64_t gpa, uint16_t blocks)
{
    uint8_t *request = fake_guest_at(&f->guest, f->page, 24);
    uint32_t bytes;
    memset(request, 0, 24);
    store_le16(request, type);
    store_le64(request + 8, gpa);
    store_le16(request + 16, blocks);
    const struct fake_buffer buffers[] = {{f->page, 24, false}, {f->page + 64, 10, true}};
    fake_queue_add(&f->queue, buffers, 2);
    fake_queue_kick(&f->queue);
    fake_queue_wait(&f->queue, &bytes);
    assert_int_equal(bytes, 10);
    const uint8_t *response = fake_guest_at(&f->guest, f->page + 64, 10);
    f->state = load_le16(response + 8);
    return load_le16(response);
}

static uint64_t plugged(struct fixture *f)
{
    struct virtio_mem_info info;
    virtio_mem_get_info(f->device, &info);
    assert_int_equal(fake_guest_read(&f->guest, f->fd.config + 40, 8), info.plugged_bytes);
    return info.plugged_bytes;
}

static void test_plug_and_unplug(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 0);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config, 8), BLOCK);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config + 16, 8), GPA);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config + 24, 8), SIZE);
    assert_int_equal(f.usable, 0);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_PLUG, GPA, 1), VIRTIO_MEM_RESP_ERROR);
    assert_int_equal(virtio_mem_request(f.device, 4 * BLOCK, NULL), 0);
    assert_true(f.usable >= 4 * BLOCK && f.usable <= SIZE);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config + 48, 8), 4 * BLOCK);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_PLUG, GPA, 5), VIRTIO_MEM_RESP_NACK);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_PLUG, GPA + BLOCK, 3), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(plugged(&f), 3 * BLOCK);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_STATE, GPA, 1), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(f.state, VIRTIO_MEM_STATE_UNPLUGGED);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_STATE, GPA, 2), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(f.state, VIRTIO_MEM_STATE_MIXED);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_STATE, GPA + BLOCK, 3), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(f.state, VIRTIO_MEM_STATE_PLUGGED);
    /* Unplugged memory is the host's again, soon; until then it cannot be plugged. */
    f.host[2 * BLOCK] = 'x';
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_UNPLUG, GPA + 2 * BLOCK, 2), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(plugged(&f), BLOCK);
    fake_guest_run(&f.guest, 3);
    assert_int_equal(f.host[2 * BLOCK], 0);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_PLUG, GPA + 2 * BLOCK, 1), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(plugged(&f), 0);
    assert_int_equal(f.changes, 4);
    stop(&f);
}

static void test_requests_that_make_no_sense(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, SIZE);
    const struct {
        uint64_t gpa;
        uint16_t blocks;
    } cases[] = {{GPA - BLOCK, 1},        {GPA + 4096, 1}, {GPA + SIZE, 1},
                 {GPA + SIZE - BLOCK, 2}, {GPA, 0},        {UINT64_MAX - BLOCK + 1, 65535}};
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
        for (uint16_t type = VIRTIO_MEM_REQ_PLUG; type <= VIRTIO_MEM_REQ_STATE; type++)
            if (type != VIRTIO_MEM_REQ_UNPLUG_ALL)
                assert_int_equal(ask(&f, type, cases[i].gpa, cases[i].blocks),
                                 VIRTIO_MEM_RESP_ERROR);
    assert_int_equal(ask(&f, 99, GPA, 1), VIRTIO_MEM_RESP_ERROR);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_UNPLUG, GPA, 1), VIRTIO_MEM_RESP_ERROR);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_PLUG, GPA, 1), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_PLUG, GPA, 1), VIRTIO_MEM_RESP_ERROR);
    assert_int_equal(plugged(&f), BLOCK);
    stop(&f);
}

static void test_sizes_that_cannot_be_asked_for(void **state)
{
    (void)state;
    struct fixture f;
    struct error err;
    start(&f, BLOCK);
    assert_int_equal(virtio_mem_request(f.device, BLOCK + 1, &err), -EINVAL);
    assert_int_equal(virtio_mem_request(f.device, SIZE + BLOCK, &err), -EINVAL);
    f.has_no_room = true;
    assert_int_equal(virtio_mem_request(f.device, SIZE, &err), -ENOMEM);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config + 48, 8), BLOCK);
    stop(&f);
}

/* A driver that comes anew finds its memory; only the machine's reset takes it. */
static void test_resets(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, SIZE);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_PLUG, GPA, 2), VIRTIO_MEM_RESP_ACK);
    fake_device_reset(&f.fd);
    assert_int_equal(plugged(&f), 2 * BLOCK);
    f.device->ops->reset(f.device);
    fake_guest_run(&f.guest, 3);
    struct virtio_mem_info info;
    virtio_mem_get_info(f.device, &info);
    assert_int_equal(info.plugged_bytes, 0);
    assert_int_equal(info.requested_bytes, SIZE);
    stop(&f);
}

static void test_much_memory_is_given_back_in_pieces(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, SIZE);
    for (unsigned i = 0; i < BLOCKS; i += 64)
        assert_int_equal(ask(&f, VIRTIO_MEM_REQ_PLUG, GPA + i * BLOCK, 64), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(plugged(&f), SIZE);
    for (unsigned i = 0; i < BLOCKS; i++)
        f.host[i * BLOCK] = 'x';
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0), VIRTIO_MEM_RESP_ACK);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_PLUG, GPA + SIZE - BLOCK, 1), VIRTIO_MEM_RESP_BUSY);
    fake_guest_run(&f.guest, BLOCKS);
    for (unsigned i = 0; i < BLOCKS; i++)
        assert_int_equal(f.host[i * BLOCK], 0);
    assert_int_equal(ask(&f, VIRTIO_MEM_REQ_PLUG, GPA + SIZE - BLOCK, 1), VIRTIO_MEM_RESP_ACK);
    stop(&f);
}

static void test_rubbish(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct fixture f;
        struct random random = {seed};
        start(&f, SIZE / 2);
        for (unsigned i = 0; i < 300; i++) {
            if (fake_device_status(&f.fd) & VIRTIO_CONFIG_S_NEEDS_RESET)
                break;
            ask(&f, (uint16_t)random_below(&random, 6),
                GPA + random_below(&random, BLOCKS + 2) * BLOCK + (random_below(&random, 9) == 0),
                (uint16_t)random_below(&random, 40));
            assert_true(plugged(&f) <= SIZE / 2);
            if (random_below(&random, 50))
                continue;
            /* Chains without room for an answer, or without a request. */
            const struct fake_buffer buffer = {f.page, random_below(&random, 64),
                                               random_below(&random, 2)};
            fake_queue_add(&f.queue, &buffer, 1);
            fake_queue_kick(&f.queue);
            fake_guest_run(&f.guest, 2);
        }
        stop(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plug_and_unplug),
        cmocka_unit_test(test_requests_that_make_no_sense),
        cmocka_unit_test(test_sizes_that_cannot_be_asked_for),
        cmocka_unit_test(test_resets),
        cmocka_unit_test(test_much_memory_is_given_back_in_pieces),
        cmocka_unit_test(test_rubbish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
