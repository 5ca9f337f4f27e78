/* SPDX-License-Identifier: MIT */
/*
 * The way of a disk request from the ring to the host's file and back, as a whole: it takes no
 * memory from the heap, the loop looks for chains by itself under load, and sleeps when idle.
 */
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/virtio_blk.h"
#include "disk/disk.h"
#include "disk/qcow2/qcow2_create.h"
#include "tools/bench/fake_guest.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

#define DISK_BYTES (8 * MIB)
#define DEPTH      16u
#define BLOCK      4096u
#define FEATURES                                                                                   \
    (VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_RING_F_EVENT_IDX) |                \
     VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH))

struct fixture {
    struct fake_guest guest;
    struct disk *disk;
    struct device *device;
    struct fake_device fd;
    struct fake_queue queue;
    struct loop_event *doorbell;
    uint64_t header[DEPTH], data[DEPTH];
    struct random random;
};

/* Of the sanitizers' common interface; gcc comes without its header. 0 on failure. */
int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *, size_t),
                                              void (*free_hook)(const volatile void *));

/* Allocations of this process, while `counts`. */
static volatile bool counts;
static volatile unsigned allocations;

static void on_malloc(const volatile void *memory, size_t bytes)
{
    (void)memory;
    (void)bytes;
    allocations += counts;
}

static void on_free(const volatile void *memory)
{
    (void)memory;
}

static int on_doorbell(void *opaque, enum bus_space space, uint64_t address,
                       const struct bus_doorbell *bell)
{
    struct fixture *f = opaque;
    (void)space;
    (void)address;
    f->doorbell = bell->event;
    return 0;
}

static void on_doorbell_gone(void *opaque, enum bus_space space, uint64_t address,
                             const struct bus_doorbell *bell)
{
    (void)opaque;
    (void)space;
    (void)address;
    (void)bell;
}

/* An image of the real host, under a name that is gone already. */
static struct disk *open_image(struct fixture *f, const char *format)
{
    char path[] = "/tmp/evisor-io-path-XXXXXX";
    struct qcow2_create_options options;
    struct io_file *file;
    struct disk *disk;
    struct error err = {0};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    if (strcmp(format, "raw") == 0) {
        assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
    } else {
        const struct io_options plain = {.aio = DISK_AIO_THREADS};
        qcow2_create_defaults(&options);
        options.size_bytes = DISK_BYTES;
        assert_int_equal(io_open(&f->guest.loop, path, &plain, &file, &err), 0);
        assert_int_equal(qcow2_create(file, NULL, &options, &err), 0);
        io_close(file, NULL, NULL);
    }
    const struct disk_options disk_options = {
        .path = path, .format = format, .cache.writeback = true};
    assert_int_equal(disk_open(&f->guest.loop, &disk_options, &disk, &err), 0);
    unlink(path);
    close(fd);
    return disk;
}

static void start(struct fixture *f, const char *format)
{
    static const struct bus_listener listener = {.doorbell_add = on_doorbell,
                                                 .doorbell_del = on_doorbell_gone};
    const struct virtio_blk_options options = {0};
    *f = (struct fixture){.random.state = 1};
    fake_guest_init(&f->guest);
    f->guest.loop.host_cpus = 2;
    bus_set_listener(&f->guest.bus, &listener, f);
    f->disk = open_image(f, format);
    struct virtio_pci_place place = fake_guest_place(&f->guest, "disk0");
    assert_int_equal(virtio_blk_create(&place, f->disk, &options, &f->device, NULL), 0);
    fake_device_probe(&f->fd, &f->guest, f->device);
    assert_true(fake_device_negotiate(&f->fd, FEATURES));
    fake_queue_init(&f->queue, &f->fd, 0, 64);
    fake_device_driver_ok(&f->fd);
    for (unsigned i = 0; i < DEPTH; i++) {
        f->header[i] = fake_guest_alloc(&f->guest, 32);
        f->data[i] = fake_guest_alloc(&f->guest, BLOCK);
    }
    fake_guest_run(&f->guest, 4);
}

static void stop(struct fixture *f)
{
    fake_guest_close(&f->guest, f->device);
    assert_int_equal(disk_close_wait(f->disk), 0);
    fake_guest_fini(&f->guest);
}

static void offer(struct fixture *f, unsigned slot, uint32_t type, unsigned block)
{
    uint8_t *header = fake_guest_at(&f->guest, f->header[slot], 32);
    store_le32(header, type);
    store_le32(header + 4, 0);
    store_le64(header + 8, type == VIRTIO_BLK_T_FLUSH ? 0 : (uint64_t)block * BLOCK / 512);
    header[16] = 0xff;
    struct fake_buffer buffers[3] = {
        {f->header[slot], 16, false},
        {f->data[slot], BLOCK, type == VIRTIO_BLK_T_IN},
        {f->header[slot] + 16, 1, true},
    };
    if (type == VIRTIO_BLK_T_FLUSH)
        buffers[1] = buffers[2];
    fake_queue_add(&f->queue, buffers, type == VIRTIO_BLK_T_FLUSH ? 2 : 3);
}

static void ring(struct fixture *f)
{
    loop_event_signal(f->doorbell);
}

/* The host works as long as it likes. */
static void await_used(struct fixture *f)
{
    uint32_t head, bytes;
    while (!fake_queue_used(&f->queue, &head, &bytes))
        loop_run_once(&f->guest.loop, true);
}

static void await(struct fixture *f, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        await_used(f);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(*(uint8_t *)fake_guest_at(&f->guest, f->header[i] + 16, 1), 0);
}

static void run_batch(struct fixture *f)
{
    const unsigned blocks = DISK_BYTES / BLOCK;
    for (unsigned i = 0; i < DEPTH; i++) {
        bool is_write = random_below(&f->random, 2);
        offer(f, i, is_write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
              random_below(&f->random, blocks));
    }
    ring(f);
    await(f, DEPTH);
}

/* Every block once, so that the image is allocated; then a while of what is counted next. */
static void warm_up(struct fixture *f)
{
    for (unsigned block = 0; block < DISK_BYTES / BLOCK; block += DEPTH) {
        for (unsigned i = 0; i < DEPTH; i++)
            offer(f, i, VIRTIO_BLK_T_OUT, block + i);
        ring(f);
        await(f, DEPTH);
    }
    for (unsigned i = 0; i < 20; i++)
        run_batch(f);
    offer(f, 0, VIRTIO_BLK_T_FLUSH, 0);
    ring(f);
    await(f, 1);
}

static void check_heap(const char *format)
{
    struct fixture f;
    start(&f, format);
    warm_up(&f);
    allocations = 0;
    counts = true;
    for (unsigned i = 0; i < 200; i++) {
        run_batch(&f);
        offer(&f, 0, VIRTIO_BLK_T_FLUSH, 0);
        ring(&f);
        await(&f, 1);
    }
    counts = false;
    assert_int_equal(allocations, 0);
    stop(&f);
}

static void test_raw_takes_nothing_from_the_heap(void **state)
{
    (void)state;
    check_heap("raw");
}

static void test_qcow2_takes_nothing_from_the_heap(void **state)
{
    (void)state;
    check_heap("qcow2");
}

static void test_the_heap_is_watched(void **state)
{
    (void)state;
    allocations = 0;
    counts = true;
    void *volatile memory = malloc(10);
    counts = false;
    free(memory);
    assert_int_equal(allocations, 1);
}

/* As a driver sees it: the device's avail_event, against what was made available since `before`. */
static bool wants_kick(struct fixture *f, uint16_t before)
{
    uint64_t gpa = f->queue.used + 4 + 8u * f->queue.size;
    return vring_need_event(load_le16(fake_guest_at(&f->guest, gpa, 2)), f->queue.avail_at, before);
}

static struct spinner *spinner_of(struct fixture *f)
{
    return &container_of(container_of(f->device, struct virtio_pci, pci.device)->virtio.queues,
                         struct virtio_queue, vq)
                ->spinner;
}

static void ring_quickly(struct fixture *f)
{
    for (unsigned i = 0; i < 4; i++) {
        spinner_of(f)->signalled_ns = loop_now_ns(); /* however slow this machine is */
        offer(f, 0, VIRTIO_BLK_T_IN, i);
        virtio_doorbell(&container_of(f->device, struct virtio_pci, pci.device)->virtio, 0);
        if (spinner_of(f)->is_on)
            return;
        await(f, 1);
    }
}

static void test_under_load_no_kick_is_asked_for(void **state)
{
    struct fixture f;
    (void)state;
    start(&f, "raw");
    ring_quickly(&f);
    assert_true(spinner_of(&f)->is_on);
    await_used(&f);
    /* Nobody rings, and yet the chain is found: now, or when the waiting ends. */
    uint16_t before = f.queue.avail_at;
    offer(&f, 1, VIRTIO_BLK_T_IN, 1);
    assert_true(!wants_kick(&f, before) || !spinner_of(&f)->is_on);
    if (wants_kick(&f, before))
        ring(&f);
    await_used(&f);
    stop(&f);
}

/* Sleeps until something comes: no timer, nothing queued, nothing readable, nothing polled. */
static bool is_asleep(struct fixture *f)
{
    struct pollfd fd = {.fd = uv_backend_fd(&f->guest.loop.uv), .events = POLLIN};
    return !spinner_of(f)->is_on && uv_backend_timeout(&f->guest.loop.uv) == -1 &&
           poll(&fd, 1, 0) == 0;
}

static void test_an_idle_machine_sleeps_and_asks_for_kicks(void **state)
{
    struct fixture f;
    (void)state;
    start(&f, "raw");
    ring_quickly(&f);
    await_used(&f);
    for (unsigned i = 0; i < 1000 && !is_asleep(&f); i++)
        fake_guest_run(&f.guest, 1);
    assert_true(is_asleep(&f));
    uint16_t before = f.queue.avail_at;
    offer(&f, 0, VIRTIO_BLK_T_IN, 0);
    assert_true(wants_kick(&f, before));
    ring(&f);
    await_used(&f);
    stop(&f);
}

static void test_registered_memory_carries_the_same_data(void **state)
{
    struct fixture f;
    (void)state;
    start(&f, "raw");
    const struct guest_mem_region *ram = &f.guest.mem.regions[0];
    if (!disk_register_memory(&f.guest.loop, ram->host, ram->size)) {
        print_message("this host registers no memory: raise ulimit -l\n");
        stop(&f);
        skip();
    }
    uint8_t *sent = fake_guest_at(&f.guest, f.data[0], BLOCK);
    for (unsigned i = 0; i < BLOCK; i++)
        sent[i] = (uint8_t)(i * 7 + i / 256);
    offer(&f, 0, VIRTIO_BLK_T_OUT, 5);
    ring(&f);
    await(&f, 1);
    offer(&f, 1, VIRTIO_BLK_T_IN, 5);
    ring(&f);
    await_used(&f);
    assert_memory_equal(fake_guest_at(&f.guest, f.data[1], BLOCK), sent, BLOCK);
    /* Once only; and what is forgotten goes the ordinary way. */
    assert_false(disk_register_memory(&f.guest.loop, ram->host, ram->size));
    disk_forget_memory(&f.guest.loop);
    run_batch(&f);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_heap_is_watched),
        cmocka_unit_test(test_raw_takes_nothing_from_the_heap),
        cmocka_unit_test(test_qcow2_takes_nothing_from_the_heap),
        cmocka_unit_test(test_under_load_no_kick_is_asked_for),
        cmocka_unit_test(test_an_idle_machine_sleeps_and_asks_for_kicks),
        cmocka_unit_test(test_registered_memory_carries_the_same_data),
    };
    CHECK(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
