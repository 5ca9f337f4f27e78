/* SPDX-License-Identifier: MIT */
/*
 * A guest that breaks every rule it can reach, through real registers and rings. After each of its
 * tricks the victim is either broken (NEEDS_RESET, a config interrupt, rings left alone) or works
 * on, a second disk never notices, and a reset makes the victim whole again. RAM lies between
 * inaccessible pages, and all runs under ASan.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_rng.h"
#include "tests/fake_disk.h"
#include "tests/fake_guest.h"
#include "tests/unit/test.h"

#define QUEUE_SIZE 16
#define FEATURES                                                                                   \
    (VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |            \
     VIRTIO_FEATURE(VIRTIO_RING_F_EVENT_IDX))

struct drive {
    struct disk *disk;
    struct device *device;
    struct fake_device fd;
    struct fake_queue queue;
};

struct fixture {
    struct fake_guest guest;
    struct drive victim, witness;
    struct device *rng;
    uint64_t header, data, status, table;
    uint64_t first_free_gpa;
};

static void make_drive(struct fixture *f, struct drive *drive, const char *id)
{
    drive->disk = fake_disk_create(&f->guest.loop, MIB, false);
    memset(drive->disk->bytes, id[0], MIB);
    struct virtio_pci_place place = fake_guest_place(&f->guest, id);
    const struct virtio_blk_options options = {.queue_count = 2};
    assert_int_equal(virtio_blk_create(&place, drive->disk, &options, &drive->device, NULL), 0);
    fake_device_probe(&drive->fd, &f->guest, drive->device);
}

static void set_up(struct drive *drive)
{
    assert_true(fake_device_negotiate(&drive->fd, FEATURES));
    fake_queue_init(&drive->queue, &drive->fd, 0, QUEUE_SIZE);
    fake_device_driver_ok(&drive->fd);
}

static void start(struct fixture *f)
{
    fake_guest_init(&f->guest);
    make_drive(f, &f->victim, "victim");
    make_drive(f, &f->witness, "witness");
    struct virtio_pci_place place = fake_guest_place(&f->guest, "rng0");
    assert_int_equal(virtio_rng_create(&place, &f->rng, NULL), 0);
    f->header = fake_guest_alloc(&f->guest, 16);
    f->data = fake_guest_alloc(&f->guest, 4096);
    f->status = fake_guest_alloc(&f->guest, 1);
    f->table = fake_guest_alloc(&f->guest, 16 * 1025);
    set_up(&f->witness);
    f->first_free_gpa = f->guest.next_gpa;
    set_up(&f->victim);
}

static void stop(struct fixture *f)
{
    fake_disk_release(f->victim.disk);
    fake_guest_close(&f->guest, f->victim.device);
    fake_guest_close(&f->guest, f->witness.device);
    fake_guest_close(&f->guest, f->rng);
    fake_disk_destroy(f->victim.disk);
    fake_disk_destroy(f->witness.disk);
    fake_guest_fini(&f->guest);
}

static void set_header(struct fixture *f, uint32_t type, uint64_t sector)
{
    uint8_t *header = fake_guest_at(&f->guest, f->header, 16);
    store_le32(header, type);
    store_le64(header + 8, sector);
}

static void offer_read(struct fixture *f, struct drive *drive)
{
    set_header(f, VIRTIO_BLK_T_IN, 1);
    const struct fake_buffer buffers[] = {
        {f->header, 16, false}, {f->data, 512, true}, {f->status, 1, true}};
    fake_queue_add(&drive->queue, buffers, 3);
}

static void assert_works(struct fixture *f, struct drive *drive, char byte)
{
    memset(fake_guest_at(&f->guest, f->data, 512), 0, 512);
    offer_read(f, drive);
    fake_queue_kick(&drive->queue);
    fake_queue_wait(&drive->queue, NULL);
    assert_int_equal(*(uint8_t *)fake_guest_at(&f->guest, f->status, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(*(char *)fake_guest_at(&f->guest, f->data, 512), byte);
}

static void descriptor(struct fixture *f, uint16_t index, uint64_t gpa, uint32_t bytes,
                       uint16_t flags, uint16_t next)
{
    fake_queue_set_descriptor(&f->victim.queue, index, gpa, bytes, flags, next);
}

static void offer(struct fixture *f, uint16_t head)
{
    fake_queue_offer(&f->victim.queue, head);
}

static void offer_one(struct fixture *f, uint64_t gpa, uint32_t bytes, uint16_t flags,
                      uint16_t next)
{
    descriptor(f, 0, gpa, bytes, flags, next);
    offer(f, 0);
}

static void table_entry(struct fixture *f, unsigned index, uint64_t gpa, uint32_t bytes,
                        uint16_t flags, uint16_t next)
{
    uint8_t *entry = fake_guest_at(&f->guest, f->table + 16 * index, 16);
    store_le64(entry, gpa);
    store_le32(entry + 8, bytes);
    store_le16(entry + 12, flags);
    store_le16(entry + 14, next);
}

/* Tricks that must break the victim. They run while it is live, before a kick. */

static void loop_of_one(struct fixture *f)
{
    offer_one(f, f->data, 1, VRING_DESC_F_NEXT, 0);
}

static void loop_of_all(struct fixture *f)
{
    for (uint16_t i = 0; i < QUEUE_SIZE; i++)
        descriptor(f, i, f->data, 1, VRING_DESC_F_NEXT, (uint16_t)((i + 5) % QUEUE_SIZE));
    offer(f, 2);
}

static void head_beyond(struct fixture *f)
{
    offer(f, QUEUE_SIZE);
}

static void next_beyond(struct fixture *f)
{
    offer_one(f, f->data, 1, VRING_DESC_F_NEXT, QUEUE_SIZE);
}

static void no_length(struct fixture *f)
{
    descriptor(f, 1, f->data, 0, VRING_DESC_F_WRITE, 0);
    offer_one(f, f->header, 16, VRING_DESC_F_NEXT, 1);
}

static void huge_length(struct fixture *f)
{
    offer_one(f, f->data, UINT32_MAX, VRING_DESC_F_WRITE, 0);
}

static void address_wraps(struct fixture *f)
{
    offer_one(f, UINT64_MAX - 7, 16, VRING_DESC_F_WRITE, 0);
}

static void leaves_low_ram(struct fixture *f)
{
    offer_one(f, FAKE_RAM_LOW - 1, 2, VRING_DESC_F_WRITE, 0);
}

static void leaves_high_ram(struct fixture *f)
{
    offer_one(f, FAKE_HIGH_GPA + FAKE_RAM_HIGH - 511, 512, VRING_DESC_F_WRITE, 0);
}

static void before_high_ram(struct fixture *f)
{
    offer_one(f, FAKE_HIGH_GPA - 1, 2, VRING_DESC_F_WRITE, 0);
}

static void into_own_bar(struct fixture *f)
{
    offer_one(f, f->victim.fd.common, 16, VRING_DESC_F_WRITE, 0);
}

static void into_msix_table(struct fixture *f)
{
    offer_one(f, f->victim.fd.msix_table, 16, VRING_DESC_F_WRITE, 0);
}

static void into_lapic(struct fixture *f)
{
    offer_one(f, 0xfee00000, 16, VRING_DESC_F_WRITE, 0);
}

static void available_index_jumps(struct fixture *f)
{
    fake_queue_set_avail_index(&f->victim.queue,
                               (uint16_t)(f->victim.queue.avail_at + QUEUE_SIZE + 1));
}

static void available_index_goes_back(struct fixture *f)
{
    fake_queue_set_avail_index(&f->victim.queue, (uint16_t)(f->victim.queue.avail_at - 1));
}

static void same_head_twice(struct fixture *f)
{
    f->victim.disk->hold = true;
    offer_read(f, &f->victim);
    offer(f, (uint16_t)((f->victim.queue.next_desc + QUEUE_SIZE - 3) % QUEUE_SIZE));
}

static void indirect_in_indirect(struct fixture *f)
{
    table_entry(f, 0, f->table + 16, 16, VRING_DESC_F_INDIRECT, 0);
    offer_one(f, f->table, 32, VRING_DESC_F_INDIRECT, 0);
}

static void indirect_and_next(struct fixture *f)
{
    table_entry(f, 0, f->header, 16, 0, 0);
    offer_one(f, f->table, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
}

static void indirect_odd_length(struct fixture *f)
{
    offer_one(f, f->table, 17, VRING_DESC_F_INDIRECT, 0);
}

static void indirect_no_length(struct fixture *f)
{
    offer_one(f, f->table, 0, VRING_DESC_F_INDIRECT, 0);
}

static void indirect_too_long(struct fixture *f)
{
    offer_one(f, f->table, 16 * 1025, VRING_DESC_F_INDIRECT, 0);
}

static void indirect_out_of_ram(struct fixture *f)
{
    offer_one(f, FAKE_BAR_BASE, 16, VRING_DESC_F_INDIRECT, 0);
}

static void indirect_next_beyond(struct fixture *f)
{
    table_entry(f, 0, f->header, 16, VRING_DESC_F_NEXT, 2);
    offer_one(f, f->table, 32, VRING_DESC_F_INDIRECT, 0);
}

static void more_segments_than_seg_max(struct fixture *f)
{
    for (uint16_t i = 0; i < BLK_SEG_MAX + 3; i++)
        table_entry(f, i, f->data, 1, VRING_DESC_F_NEXT, (uint16_t)(i + 1));
    table_entry(f, BLK_SEG_MAX + 3, f->status, 1, VRING_DESC_F_WRITE, 0);
    offer_one(f, f->table, 16 * (BLK_SEG_MAX + 4), VRING_DESC_F_INDIRECT, 0);
}

static void read_after_write(struct fixture *f)
{
    descriptor(f, 1, f->header, 16, 0, 0);
    offer_one(f, f->status, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
}

static void status_not_writable(struct fixture *f)
{
    set_header(f, VIRTIO_BLK_T_IN, 0);
    descriptor(f, 1, f->status, 1, 0, 0);
    offer_one(f, f->header, 16, VRING_DESC_F_NEXT, 1);
}

static void header_not_readable(struct fixture *f)
{
    offer_one(f, f->header, 600, VRING_DESC_F_WRITE, 0);
}

static void header_too_short(struct fixture *f)
{
    descriptor(f, 1, f->status, 1, VRING_DESC_F_WRITE, 0);
    offer_one(f, f->header, 15, VRING_DESC_F_NEXT, 1);
}

#define TRICK(name)                                                                                \
    {                                                                                              \
#name, name                                                                                \
    }

struct trick {
    const char *name;
    void (*play)(struct fixture *f);
};

static void assert_left_alone(struct fixture *f)
{
    struct drive *victim = &f->victim;
    fake_guest_run(&f->guest, 2);
    fake_guest_forget_written(&f->guest);
    memset(f->guest.irq.sent, 0, sizeof(f->guest.irq.sent));
    offer_read(f, victim);
    fake_queue_kick(&victim->queue);
    fake_guest_run(&f->guest, 3);
    assert_int_equal(f->guest.written_bytes, 0);
    assert_int_equal(f->guest.irq.sent[1], 0);
}

static void test_rings_that_break_the_device(void **state)
{
    (void)state;
    static const struct trick tricks[] = {
        TRICK(loop_of_one),
        TRICK(loop_of_all),
        TRICK(head_beyond),
        TRICK(next_beyond),
        TRICK(no_length),
        TRICK(huge_length),
        TRICK(address_wraps),
        TRICK(leaves_low_ram),
        TRICK(leaves_high_ram),
        TRICK(before_high_ram),
        TRICK(into_own_bar),
        TRICK(into_msix_table),
        TRICK(into_lapic),
        TRICK(available_index_jumps),
        TRICK(available_index_goes_back),
        TRICK(same_head_twice),
        TRICK(indirect_in_indirect),
        TRICK(indirect_and_next),
        TRICK(indirect_odd_length),
        TRICK(indirect_no_length),
        TRICK(indirect_too_long),
        TRICK(indirect_out_of_ram),
        TRICK(indirect_next_beyond),
        TRICK(more_segments_than_seg_max),
        TRICK(read_after_write),
        TRICK(status_not_writable),
        TRICK(header_not_readable),
        TRICK(header_too_short),
    };
    struct fixture f;
    start(&f);
    for (unsigned i = 0; i < ARRAY_SIZE(tricks); i++) {
        memset(f.guest.irq.sent, 0, sizeof(f.guest.irq.sent));
        tricks[i].play(&f);
        fake_queue_kick(&f.victim.queue);
        fake_guest_run(&f.guest, 3);
        if (!(fake_device_status(&f.victim.fd) & VIRTIO_CONFIG_S_NEEDS_RESET))
            fail_msg("%s did not break the device", tricks[i].name);
        assert_int_equal(f.guest.irq.sent[0], 1);
        assert_left_alone(&f);
        assert_works(&f, &f.witness, 'w');
        fake_disk_release(f.victim.disk);
        f.guest.next_gpa = f.first_free_gpa;
        set_up(&f.victim);
        assert_works(&f, &f.victim, 'v');
    }
    stop(&f);
}

static void write_layout(struct fixture *f, uint64_t size, uint64_t desc, uint64_t avail,
                         uint64_t used)
{
    struct fake_device *fd = &f->victim.fd;
    fake_device_write(fd, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    fake_device_write(fd, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
    fake_device_write(fd, VIRTIO_PCI_COMMON_Q_DESCLO, 8, desc);
    fake_device_write(fd, VIRTIO_PCI_COMMON_Q_AVAILLO, 8, avail);
    fake_device_write(fd, VIRTIO_PCI_COMMON_Q_USEDLO, 8, used);
    fake_device_write(fd, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

static void test_rings_that_cannot_be(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    const struct fake_queue good = f.victim.queue;
    uint64_t bar = f.victim.fd.common;
    const struct {
        uint64_t size, desc, avail, used;
    } bad[] = {
        {0, good.desc, good.avail, good.used},
        {3, good.desc, good.avail, good.used},
        {512, good.desc, good.avail, good.used},
        {0xffff, good.desc, good.avail, good.used},
        {16, good.desc + 1, good.avail, good.used},
        {16, good.desc, good.avail + 1, good.used},
        {16, good.desc, good.avail, good.used + 1},
        {16, bar, good.avail, good.used},
        {16, good.desc, bar, good.used},
        {16, good.desc, good.avail, bar},
        {16, good.desc, good.avail, FAKE_RAM_LOW - 8},
        {16, FAKE_RAM_LOW - 128, good.avail, good.used},
        {16, ~UINT64_C(15), good.avail, good.used},
        {16, good.desc, good.avail, ~UINT64_C(3)},
        {16, good.desc, FAKE_HIGH_GPA - 2, good.used},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_true(fake_device_negotiate(&f.victim.fd, FEATURES));
        write_layout(&f, bad[i].size, bad[i].desc, bad[i].avail, bad[i].used);
        assert_true(fake_device_status(&f.victim.fd) & VIRTIO_CONFIG_S_NEEDS_RESET);
        fake_device_driver_ok(&f.victim.fd);
        assert_left_alone(&f);
        assert_works(&f, &f.witness, 'w');
    }
    set_up(&f.victim);
    assert_works(&f, &f.victim, 'v');
    stop(&f);
}

static void test_unlimited_submissions(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.victim.disk->hold = true;
    /* As many as the ring can name, again and again, without waiting for any. */
    for (unsigned round = 0; round < 20; round++) {
        for (uint16_t i = 0; i < QUEUE_SIZE / 2; i++) {
            descriptor(&f, (uint16_t)(2 * i), f.header, 16, VRING_DESC_F_NEXT,
                       (uint16_t)(2 * i + 1));
            descriptor(&f, (uint16_t)(2 * i + 1), f.data, 513, VRING_DESC_F_WRITE, 0);
            offer(&f, (uint16_t)(2 * i));
        }
        fake_queue_kick(&f.victim.queue);
        fake_guest_run(&f.guest, 2);
        assert_true(f.victim.disk->in_flight <= QUEUE_SIZE);
    }
    assert_true(fake_device_status(&f.victim.fd) & VIRTIO_CONFIG_S_NEEDS_RESET);
    assert_works(&f, &f.witness, 'w');
    fake_disk_release(f.victim.disk);
    set_up(&f.victim);
    assert_works(&f, &f.victim, 'v');
    stop(&f);
}

static void test_every_register_at_every_width(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    static const uint64_t values[] = {0, 1, 0x80, 0xffff, 0x80000000, UINT64_MAX};
    for (unsigned bar = 0; bar < PCI_BAR_MAX; bar++) {
        for (uint64_t offset = 0; offset < f.victim.fd.bar_bytes[bar]; offset++) {
            if (offset % 4096 > 256 && offset % 251)
                continue;
            for (unsigned size = 1; size <= 8; size *= 2) {
                uint64_t address = f.victim.fd.bars[bar] + offset;
                fake_guest_read(&f.guest, address, size);
                fake_guest_write(&f.guest, address, size, values[offset % ARRAY_SIZE(values)]);
                fake_guest_write(&f.guest, address, size, values[size % ARRAY_SIZE(values)]);
            }
        }
        fake_guest_run(&f.guest, 2);
        assert_works(&f, &f.witness, 'w');
    }
    fake_device_probe(&f.victim.fd, &f.guest, f.victim.device);
    set_up(&f.victim);
    assert_works(&f, &f.victim, 'v');
    stop(&f);
}

static void test_every_byte_of_configuration_space(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    for (unsigned offset = 0; offset < 4100; offset++) {
        for (unsigned size = 1; size <= 4; size++) {
            fake_device_config_read(&f.victim.fd, offset, size);
            fake_device_config_write(&f.victim.fd, offset, size, 0xffffffff);
            fake_device_config_write(&f.victim.fd, offset, size, 0xa5a5a5a5);
            fake_device_config_write(&f.victim.fd, offset, size, 0);
        }
    }
    assert_works(&f, &f.witness, 'w');
    fake_device_probe(&f.victim.fd, &f.guest, f.victim.device);
    set_up(&f.victim);
    assert_works(&f, &f.victim, 'v');
    stop(&f);
}

static void test_bars_in_the_way(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    uint64_t own = f.victim.fd.bars[0], other = f.witness.fd.bars[0];
    const uint64_t targets[] = {other,      other + 0x1000, f.witness.fd.bars[2],
                                0,          0x4000,         FAKE_RAM_LOW - 0x4000,
                                0xfffff000, 0xffffc000,     f.victim.fd.bars[2]};
    for (unsigned i = 0; i < ARRAY_SIZE(targets); i++) {
        fake_device_config_write(&f.victim.fd, PCI_BASE_ADDRESS_0, 4, (uint32_t)targets[i]);
        assert_works(&f, &f.witness, 'w');
        fake_device_config_write(&f.victim.fd, PCI_BASE_ADDRESS_0, 4, UINT32_MAX);
        fake_device_config_write(&f.victim.fd, PCI_BASE_ADDRESS_0, 4, (uint32_t)own);
        assert_works(&f, &f.victim, 'v');
    }
    stop(&f);
}

static void test_leaving_in_the_middle(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    for (unsigned way = 0; way < 4; way++) {
        f.victim.disk->hold = true;
        offer_read(&f, &f.victim);
        fake_queue_kick(&f.victim.queue);
        fake_guest_run(&f.guest, 2);
        assert_int_equal(f.victim.disk->in_flight, 1);
        switch (way) {
        case 0: /* status 0, and at once everything else */
            fake_device_write(&f.victim.fd, VIRTIO_PCI_COMMON_STATUS, 1, 0);
            write_layout(&f, 0, 1, 2, 3);
            fake_device_write(&f.victim.fd, VIRTIO_PCI_COMMON_STATUS, 1, 15);
            break;
        case 1:
            fake_device_config_write(&f.victim.fd, PCI_COMMAND, 2, 0);
            break;
        case 2:
            f.victim.device->ops->reset(f.victim.device);
            break;
        case 3:
            fake_device_write(&f.victim.fd, VIRTIO_PCI_COMMON_STATUS, 1, 0x8f);
            break;
        }
        fake_guest_run(&f.guest, 3);
        assert_int_equal(f.victim.disk->in_flight, 1);
        assert_works(&f, &f.witness, 'w');
        fake_disk_release(f.victim.disk);
        fake_guest_run(&f.guest, 3);
        fake_device_probe(&f.victim.fd, &f.guest, f.victim.device);
        f.guest.next_gpa = f.first_free_gpa;
        set_up(&f.victim);
        assert_works(&f, &f.victim, 'v');
    }
    stop(&f);
}

static void test_a_storm_of_kicks(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    uint64_t turns = f.guest.loop.turns;
    for (unsigned i = 0; i < 20000; i++) {
        fake_guest_write(&f.guest, f.victim.fd.notify + 4 * (i % 64), 2, i);
        if (i % 1000 == 0)
            assert_works(&f, &f.witness, 'w');
    }
    /* Kicks are not counted up: a thousand cost no more turns than one. */
    assert_true(f.guest.loop.turns - turns < 20 * 10);
    assert_works(&f, &f.victim, 'v');
    stop(&f);
}

/* Rewrites descriptors and rings while the device reads them. */
struct mutator {
    struct fixture *f;
    atomic_bool stop;
    pthread_t thread;
};

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static void *mutate(void *opaque)
{
    struct mutator *mutator = opaque;
    struct fixture *f = mutator->f;
    uint64_t seed = 0x5eed;
    uint64_t *descriptors = fake_guest_at(&f->guest, f->victim.queue.desc, 16 * QUEUE_SIZE);
    const uint64_t words[] = {f->data,
                              f->header,
                              UINT64_MAX,
                              FAKE_RAM_LOW - 1,
                              FAKE_BAR_BASE,
                              16 | UINT64_C(1) << 32 | UINT64_C(1) << 48,
                              513 | UINT64_C(2) << 32,
                              UINT64_MAX >> 1,
                              16 | UINT64_C(4) << 32};
    while (!atomic_load(&mutator->stop)) {
        uint64_t random = next_random(&seed);
        __atomic_store_n(&descriptors[random % (2 * QUEUE_SIZE)],
                         words[random / 64 % ARRAY_SIZE(words)], __ATOMIC_RELAXED);
    }
    return NULL;
}

static void test_rings_mutated_while_they_are_read(void **state)
{
    (void)state;
    struct fixture f;
    struct mutator mutator = {.f = &f};
    unsigned broken = 0;
    start(&f);
    assert_int_equal(pthread_create(&mutator.thread, NULL, mutate, &mutator), 0);
    for (unsigned i = 0; i < 3000; i++) {
        for (uint16_t head = 0; head < 4; head++)
            offer(&f, head);
        fake_queue_kick(&f.victim.queue);
        fake_guest_run(&f.guest, 2);
        if (!(fake_device_status(&f.victim.fd) & VIRTIO_CONFIG_S_NEEDS_RESET))
            continue;
        broken++;
        f.guest.next_gpa = f.first_free_gpa;
        set_up(&f.victim);
    }
    atomic_store(&mutator.stop, true);
    pthread_join(mutator.thread, NULL);
    assert_true(broken > 0);
    assert_works(&f, &f.witness, 'w');
    stop(&f);
}

/* Random rubbish everywhere, biased so that it gets somewhere. */

static uint64_t random_word(struct fixture *f, uint64_t *seed)
{
    uint64_t random = next_random(seed);
    switch (random % 8) {
    case 0:
        return next_random(seed);
    case 1:
        return f->data + random / 8 % 4096;
    case 2:
        return f->victim.queue.desc;
    case 3:
        return UINT64_C(1) << (random / 8 % 64);
    case 4:
        return UINT64_MAX;
    case 5:
        return FAKE_BAR_BASE + (random / 8 % 0x20000);
    default:
        return random / 8 % 32;
    }
}

static void fuzz_config(struct fixture *f, struct drive *drive, uint64_t *seed)
{
    static const unsigned offsets[] = {PCI_COMMAND,        PCI_BASE_ADDRESS_0, PCI_BASE_ADDRESS_2,
                                       PCI_INTERRUPT_LINE, PCI_STATUS,         PCI_BASE_ADDRESS_5};
    uint64_t random = next_random(seed);
    unsigned offset = (unsigned)(random >> 8) % 300;
    if (random & 1)
        offset = offsets[(random >> 8) % ARRAY_SIZE(offsets)];
    else if (random & 2)
        offset = drive->fd.window + (unsigned)(random >> 8) % 20;
    else if (random & 4)
        offset = drive->fd.msix + (unsigned)(random >> 8) % 12;
    unsigned size = 1u << (random >> 4) % 3;
    fake_device_config_write(&drive->fd, offset, size, (uint32_t)random_word(f, seed));
    fake_device_config_read(&drive->fd, offset, size);
}

static void fuzz_registers(struct fixture *f, struct drive *drive, uint64_t *seed)
{
    uint64_t random = next_random(seed);
    unsigned bar = random & 1 ? 0 : (unsigned)(random >> 1) % PCI_BAR_MAX;
    uint64_t offset = random & 2 ? (random >> 8) % 64 : (random >> 8) % 0x4000;
    if (random & 8)
        offset &= ~UINT64_C(1);
    unsigned size = 1u << (random >> 4) % 4;
    fake_guest_write(&f->guest, drive->fd.bars[bar] + offset, size, random_word(f, seed));
    fake_guest_read(&f->guest, drive->fd.bars[bar] + offset, size);
}

static void fuzz_rings(struct fixture *f, struct drive *drive, uint64_t *seed)
{
    const struct fake_queue *queue = &drive->queue;
    const uint64_t areas[] = {queue->desc, queue->avail, queue->used, f->table, f->header};
    uint64_t random = next_random(seed);
    uint64_t gpa = areas[random % ARRAY_SIZE(areas)] + 8 * (random / 64 % 40);
    store_le64(fake_guest_at(&f->guest, gpa, 8), random_word(f, seed));
}

static void fuzz_descriptors(struct fixture *f, struct drive *drive, uint64_t *seed)
{
    uint64_t random = next_random(seed);
    uint16_t index = (uint16_t)(random % QUEUE_SIZE);
    static const uint32_t lengths[] = {1, 16, 512, 513, 17, 4096, 48, 0};
    fake_queue_set_descriptor(
        &drive->queue, index, random_word(f, seed), lengths[(random >> 8) % ARRAY_SIZE(lengths)],
        (uint16_t)((random >> 16) % 8), (uint16_t)((random >> 24) % (QUEUE_SIZE + 1)));
    set_header(f, (uint32_t)((random >> 32) % 16), (random >> 40) % 3000);
    fake_queue_offer(&drive->queue, index);
    fake_queue_kick(&drive->queue);
}

static void fuzz_honest(struct fixture *f, struct drive *drive, uint64_t *seed)
{
    uint64_t random = next_random(seed);
    if (random % 4 == 0) {
        offer_read(f, drive);
        fake_queue_kick(&drive->queue);
        return;
    }
    drive->disk->hold = false;
    loop_task_queue(&drive->disk->complete);
    fake_guest_run(&f->guest, 3);
    f->guest.next_gpa = f->first_free_gpa;
    f->guest.next_bar = FAKE_BAR_BASE;
    fake_device_config_write(&f->witness.fd, PCI_COMMAND, 2, 0);
    fake_device_probe(&f->victim.fd, &f->guest, f->victim.device);
    fake_device_probe(&f->witness.fd, &f->guest, f->witness.device);
    fake_device_reset(&drive->fd);
    if (!fake_device_negotiate(&drive->fd, FEATURES))
        return;
    fake_queue_init(&drive->queue, &drive->fd, 0, QUEUE_SIZE);
    fake_device_driver_ok(&drive->fd);
}

static void fuzz_host(struct fixture *f, struct drive *drive, uint64_t *seed)
{
    uint64_t random = next_random(seed);
    switch (random % 16) {
    case 0:
        drive->device->ops->reset(drive->device);
        break;
    case 1:
        drive->disk->hold = true;
        break;
    case 2:
        fake_disk_release(drive->disk);
        break;
    case 3:
        drive->disk->fail = random & 16 ? -EIO : 0;
        break;
    case 4:
        drive->disk->backwards = random & 16;
        break;
    case 5:
        f->guest.irq.no_routes = random & 16;
        break;
    default:
        fake_guest_run(&f->guest, 2);
    }
}

static void fuzz(struct fixture *f, uint64_t seed, unsigned steps)
{
    for (unsigned i = 0; i < steps; i++) {
        uint64_t random = next_random(&seed);
        struct drive *drive = random & 1 ? &f->victim : &f->witness;
        switch (random / 2 % 16) {
        case 0:
        case 1:
            fuzz_config(f, drive, &seed);
            break;
        case 2:
        case 3:
        case 4:
            fuzz_registers(f, drive, &seed);
            break;
        case 5:
        case 6:
            fuzz_rings(f, drive, &seed);
            break;
        case 7:
            fuzz_honest(f, drive, &seed);
            break;
        case 8:
        case 9:
            fuzz_host(f, drive, &seed);
            break;
        default:
            fuzz_descriptors(f, drive, &seed);
        }
    }
}

/* EVISOR_FUZZ_ROUNDS makes it longer, EVISOR_FUZZ_SEED replays one round. */
static void test_rubbish(void **state)
{
    (void)state;
    const char *rounds_text = getenv("EVISOR_FUZZ_ROUNDS"), *seed_text = getenv("EVISOR_FUZZ_SEED");
    uint64_t seed = seed_text ? strtoull(seed_text, NULL, 0) : 1;
    uint64_t rounds = seed_text ? 1 : rounds_text ? strtoull(rounds_text, NULL, 0) : 40;
    uint64_t chains = 0;
    for (; rounds > 0; rounds--, seed++) {
        struct fixture f;
        log_info("seed %llu", (unsigned long long)seed);
        start(&f);
        fuzz(&f, seed * UINT64_C(0x9e3779b97f4a7c15), 4000);
        chains += virtio_pci_queue_stats(f.victim.device, 0)->chains;
        /* Whatever happened, an honest driver finds working devices. */
        fuzz_honest(&f, &f.victim, &(uint64_t){5});
        struct drive *const drives[] = {&f.victim, &f.witness};
        for (unsigned i = 0; i < 2; i++) {
            f.guest.irq.no_routes = false;
            drives[i]->disk->fail = 0;
            fake_disk_release(drives[i]->disk);
            fake_guest_run(&f.guest, 3);
            set_up(drives[i]);
            memset(drives[i]->disk->bytes, "vw"[i], MIB);
            assert_works(&f, drives[i], "vw"[i]);
        }
        stop(&f);
    }
    assert_true(chains > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rings_that_break_the_device),
        cmocka_unit_test(test_rings_that_cannot_be),
        cmocka_unit_test(test_unlimited_submissions),
        cmocka_unit_test(test_every_register_at_every_width),
        cmocka_unit_test(test_every_byte_of_configuration_space),
        cmocka_unit_test(test_bars_in_the_way),
        cmocka_unit_test(test_leaving_in_the_middle),
        cmocka_unit_test(test_a_storm_of_kicks),
        cmocka_unit_test(test_rings_mutated_while_they_are_read),
        cmocka_unit_test(test_rubbish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
