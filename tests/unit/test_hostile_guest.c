/* SPDX-License-Identifier: MIT */
/*
 * A guest that breaks every rule it can reach, through real registers and rings. After each of its
 * tricks the victim is either broken (NEEDS_RESET, a config interrupt, rings left alone) or works
 * on, a second disk never notices, and a reset makes the victim whole again. RAM lies between
 * inaccessible pages, and all runs under ASan.
 */
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/two_drives.h"
#include "tests/unit/test.h"

static void descriptor(struct two_drives *f, uint16_t index, uint64_t gpa, uint32_t bytes,
                       uint16_t flags, uint16_t next)
{
    fake_queue_set_descriptor(&f->victim.queue, index, gpa, bytes, flags, next);
}

static void offer(struct two_drives *f, uint16_t head)
{
    fake_queue_offer(&f->victim.queue, head);
}

static void offer_one(struct two_drives *f, uint64_t gpa, uint32_t bytes, uint16_t flags,
                      uint16_t next)
{
    descriptor(f, 0, gpa, bytes, flags, next);
    offer(f, 0);
}

static void table_entry(struct two_drives *f, unsigned index, uint64_t gpa, uint32_t bytes,
                        uint16_t flags, uint16_t next)
{
    uint8_t *entry = fake_guest_at(&f->guest, f->table + 16 * index, 16);
    store_le64(entry, gpa);
    store_le32(entry + 8, bytes);
    store_le16(entry + 12, flags);
    store_le16(entry + 14, next);
}

/* Tricks that must break the victim. They run while it is live, before a kick. */

static void loop_of_one(struct two_drives *f)
{
    offer_one(f, f->data, 1, VRING_DESC_F_NEXT, 0);
}

static void loop_of_all(struct two_drives *f)
{
    for (uint16_t i = 0; i < TWO_DRIVES_QUEUE_SIZE; i++)
        descriptor(f, i, f->data, 1, VRING_DESC_F_NEXT,
                   (uint16_t)((i + 5) % TWO_DRIVES_QUEUE_SIZE));
    offer(f, 2);
}

static void head_beyond(struct two_drives *f)
{
    offer(f, TWO_DRIVES_QUEUE_SIZE);
}

static void next_beyond(struct two_drives *f)
{
    offer_one(f, f->data, 1, VRING_DESC_F_NEXT, TWO_DRIVES_QUEUE_SIZE);
}

static void no_length(struct two_drives *f)
{
    descriptor(f, 1, f->data, 0, VRING_DESC_F_WRITE, 0);
    offer_one(f, f->header, 16, VRING_DESC_F_NEXT, 1);
}

static void huge_length(struct two_drives *f)
{
    offer_one(f, f->data, UINT32_MAX, VRING_DESC_F_WRITE, 0);
}

static void address_wraps(struct two_drives *f)
{
    offer_one(f, UINT64_MAX - 7, 16, VRING_DESC_F_WRITE, 0);
}

static void leaves_low_ram(struct two_drives *f)
{
    offer_one(f, FAKE_RAM_LOW - 1, 2, VRING_DESC_F_WRITE, 0);
}

static void leaves_high_ram(struct two_drives *f)
{
    offer_one(f, FAKE_HIGH_GPA + FAKE_RAM_HIGH - 511, 512, VRING_DESC_F_WRITE, 0);
}

static void before_high_ram(struct two_drives *f)
{
    offer_one(f, FAKE_HIGH_GPA - 1, 2, VRING_DESC_F_WRITE, 0);
}

static void into_own_bar(struct two_drives *f)
{
    offer_one(f, f->victim.fd.common, 16, VRING_DESC_F_WRITE, 0);
}

static void into_msix_table(struct two_drives *f)
{
    offer_one(f, f->victim.fd.msix_table, 16, VRING_DESC_F_WRITE, 0);
}

static void into_lapic(struct two_drives *f)
{
    offer_one(f, 0xfee00000, 16, VRING_DESC_F_WRITE, 0);
}

static void available_index_jumps(struct two_drives *f)
{
    fake_queue_set_avail_index(&f->victim.queue,
                               (uint16_t)(f->victim.queue.avail_at + TWO_DRIVES_QUEUE_SIZE + 1));
}

static void available_index_goes_back(struct two_drives *f)
{
    fake_queue_set_avail_index(&f->victim.queue, (uint16_t)(f->victim.queue.avail_at - 1));
}

static void same_head_twice(struct two_drives *f)
{
    f->victim.disk->hold = true;
    two_drives_offer_read(f, &f->victim);
    offer(f, (uint16_t)((f->victim.queue.next_desc + TWO_DRIVES_QUEUE_SIZE - 3) %
                        TWO_DRIVES_QUEUE_SIZE));
}

static void indirect_in_indirect(struct two_drives *f)
{
    table_entry(f, 0, f->table + 16, 16, VRING_DESC_F_INDIRECT, 0);
    offer_one(f, f->table, 32, VRING_DESC_F_INDIRECT, 0);
}

static void indirect_and_next(struct two_drives *f)
{
    table_entry(f, 0, f->header, 16, 0, 0);
    offer_one(f, f->table, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
}

static void indirect_odd_length(struct two_drives *f)
{
    offer_one(f, f->table, 17, VRING_DESC_F_INDIRECT, 0);
}

static void indirect_no_length(struct two_drives *f)
{
    offer_one(f, f->table, 0, VRING_DESC_F_INDIRECT, 0);
}

static void indirect_too_long(struct two_drives *f)
{
    offer_one(f, f->table, 16 * 1025, VRING_DESC_F_INDIRECT, 0);
}

static void indirect_out_of_ram(struct two_drives *f)
{
    offer_one(f, FAKE_BAR_BASE, 16, VRING_DESC_F_INDIRECT, 0);
}

static void indirect_next_beyond(struct two_drives *f)
{
    table_entry(f, 0, f->header, 16, VRING_DESC_F_NEXT, 2);
    offer_one(f, f->table, 32, VRING_DESC_F_INDIRECT, 0);
}

static void more_segments_than_seg_max(struct two_drives *f)
{
    for (uint16_t i = 0; i < BLK_SEG_MAX + 3; i++)
        table_entry(f, i, f->data, 1, VRING_DESC_F_NEXT, (uint16_t)(i + 1));
    table_entry(f, BLK_SEG_MAX + 3, f->status, 1, VRING_DESC_F_WRITE, 0);
    offer_one(f, f->table, 16 * (BLK_SEG_MAX + 4), VRING_DESC_F_INDIRECT, 0);
}

static void read_after_write(struct two_drives *f)
{
    descriptor(f, 1, f->header, 16, 0, 0);
    offer_one(f, f->status, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
}

static void status_not_writable(struct two_drives *f)
{
    two_drives_set_header(f, VIRTIO_BLK_T_IN, 0);
    descriptor(f, 1, f->status, 1, 0, 0);
    offer_one(f, f->header, 16, VRING_DESC_F_NEXT, 1);
}

static void header_not_readable(struct two_drives *f)
{
    offer_one(f, f->header, 600, VRING_DESC_F_WRITE, 0);
}

static void header_too_short(struct two_drives *f)
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
    void (*play)(struct two_drives *f);
};

static void assert_left_alone(struct two_drives *f)
{
    struct drive *victim = &f->victim;
    fake_guest_run(&f->guest, 2);
    fake_guest_forget_written(&f->guest);
    memset(f->guest.irq.sent, 0, sizeof(f->guest.irq.sent));
    two_drives_offer_read(f, victim);
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
    struct two_drives f;
    two_drives_start(&f);
    for (unsigned i = 0; i < ARRAY_SIZE(tricks); i++) {
        memset(f.guest.irq.sent, 0, sizeof(f.guest.irq.sent));
        tricks[i].play(&f);
        fake_queue_kick(&f.victim.queue);
        fake_guest_run(&f.guest, 3);
        if (!(fake_device_status(&f.victim.fd) & VIRTIO_CONFIG_S_NEEDS_RESET))
            fail_msg("%s did not break the device", tricks[i].name);
        assert_int_equal(f.guest.irq.sent[0], 1);
        assert_left_alone(&f);
        two_drives_assert_works(&f, &f.witness, 'w');
        fake_disk_release(f.victim.disk);
        f.guest.next_gpa = f.first_free_gpa;
        two_drives_set_up(&f.victim);
        two_drives_assert_works(&f, &f.victim, 'v');
    }
    two_drives_stop(&f);
}

static void write_layout(struct two_drives *f, uint64_t size, uint64_t desc, uint64_t avail,
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
    struct two_drives f;
    two_drives_start(&f);
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
        assert_true(fake_device_negotiate(&f.victim.fd, TWO_DRIVES_FEATURES));
        write_layout(&f, bad[i].size, bad[i].desc, bad[i].avail, bad[i].used);
        assert_true(fake_device_status(&f.victim.fd) & VIRTIO_CONFIG_S_NEEDS_RESET);
        fake_device_driver_ok(&f.victim.fd);
        assert_left_alone(&f);
        two_drives_assert_works(&f, &f.witness, 'w');
    }
    two_drives_set_up(&f.victim);
    two_drives_assert_works(&f, &f.victim, 'v');
    two_drives_stop(&f);
}

static void test_unlimited_submissions(void **state)
{
    (void)state;
    struct two_drives f;
    two_drives_start(&f);
    f.victim.disk->hold = true;
    /* As many as the ring can name, again and again, without waiting for any. */
    for (unsigned round = 0; round < 20; round++) {
        for (uint16_t i = 0; i < TWO_DRIVES_QUEUE_SIZE / 2; i++) {
            descriptor(&f, (uint16_t)(2 * i), f.header, 16, VRING_DESC_F_NEXT,
                       (uint16_t)(2 * i + 1));
            descriptor(&f, (uint16_t)(2 * i + 1), f.data, 513, VRING_DESC_F_WRITE, 0);
            offer(&f, (uint16_t)(2 * i));
        }
        fake_queue_kick(&f.victim.queue);
        fake_guest_run(&f.guest, 2);
        assert_true(f.victim.disk->in_flight <= TWO_DRIVES_QUEUE_SIZE);
    }
    assert_true(fake_device_status(&f.victim.fd) & VIRTIO_CONFIG_S_NEEDS_RESET);
    two_drives_assert_works(&f, &f.witness, 'w');
    fake_disk_release(f.victim.disk);
    two_drives_set_up(&f.victim);
    two_drives_assert_works(&f, &f.victim, 'v');
    two_drives_stop(&f);
}

static void test_every_register_at_every_width(void **state)
{
    (void)state;
    struct two_drives f;
    two_drives_start(&f);
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
        two_drives_assert_works(&f, &f.witness, 'w');
    }
    fake_device_probe(&f.victim.fd, &f.guest, f.victim.device);
    two_drives_set_up(&f.victim);
    two_drives_assert_works(&f, &f.victim, 'v');
    two_drives_stop(&f);
}

static void test_every_byte_of_configuration_space(void **state)
{
    (void)state;
    struct two_drives f;
    two_drives_start(&f);
    for (unsigned offset = 0; offset < 4100; offset++) {
        for (unsigned size = 1; size <= 4; size++) {
            fake_device_config_read(&f.victim.fd, offset, size);
            fake_device_config_write(&f.victim.fd, offset, size, 0xffffffff);
            fake_device_config_write(&f.victim.fd, offset, size, 0xa5a5a5a5);
            fake_device_config_write(&f.victim.fd, offset, size, 0);
        }
    }
    two_drives_assert_works(&f, &f.witness, 'w');
    fake_device_probe(&f.victim.fd, &f.guest, f.victim.device);
    two_drives_set_up(&f.victim);
    two_drives_assert_works(&f, &f.victim, 'v');
    two_drives_stop(&f);
}

static void test_bars_in_the_way(void **state)
{
    (void)state;
    struct two_drives f;
    two_drives_start(&f);
    uint64_t own = f.victim.fd.bars[0], other = f.witness.fd.bars[0];
    const uint64_t targets[] = {other,      other + 0x1000, f.witness.fd.bars[2],
                                0,          0x4000,         FAKE_RAM_LOW - 0x4000,
                                0xfffff000, 0xffffc000,     f.victim.fd.bars[2]};
    for (unsigned i = 0; i < ARRAY_SIZE(targets); i++) {
        fake_device_config_write(&f.victim.fd, PCI_BASE_ADDRESS_0, 4, (uint32_t)targets[i]);
        two_drives_assert_works(&f, &f.witness, 'w');
        fake_device_config_write(&f.victim.fd, PCI_BASE_ADDRESS_0, 4, UINT32_MAX);
        fake_device_config_write(&f.victim.fd, PCI_BASE_ADDRESS_0, 4, (uint32_t)own);
        two_drives_assert_works(&f, &f.victim, 'v');
    }
    two_drives_stop(&f);
}

static void test_leaving_in_the_middle(void **state)
{
    (void)state;
    struct two_drives f;
    two_drives_start(&f);
    for (unsigned way = 0; way < 4; way++) {
        f.victim.disk->hold = true;
        two_drives_offer_read(&f, &f.victim);
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
        two_drives_assert_works(&f, &f.witness, 'w');
        fake_disk_release(f.victim.disk);
        fake_guest_run(&f.guest, 3);
        fake_device_probe(&f.victim.fd, &f.guest, f.victim.device);
        f.guest.next_gpa = f.first_free_gpa;
        two_drives_set_up(&f.victim);
        two_drives_assert_works(&f, &f.victim, 'v');
    }
    two_drives_stop(&f);
}

static void test_a_storm_of_kicks(void **state)
{
    (void)state;
    struct two_drives f;
    two_drives_start(&f);
    uint64_t turns = f.guest.loop.turns;
    for (unsigned i = 0; i < 20000; i++) {
        fake_guest_write(&f.guest, f.victim.fd.notify + 4 * (i % 64), 2, i);
        if (i % 1000 == 0)
            two_drives_assert_works(&f, &f.witness, 'w');
    }
    /* Kicks are not counted up: a thousand cost no more turns than one. */
    assert_true(f.guest.loop.turns - turns < 20 * 10);
    two_drives_assert_works(&f, &f.victim, 'v');
    two_drives_stop(&f);
}

/* Rewrites descriptors and rings while the device reads them. */
struct mutator {
    struct two_drives *f;
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
    struct two_drives *f = mutator->f;
    uint64_t seed = 0x5eed;
    uint64_t *descriptors =
        fake_guest_at(&f->guest, f->victim.queue.desc, 16 * TWO_DRIVES_QUEUE_SIZE);
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
        __atomic_store_n(&descriptors[random % (2 * TWO_DRIVES_QUEUE_SIZE)],
                         words[random / 64 % ARRAY_SIZE(words)], __ATOMIC_RELAXED);
    }
    return NULL;
}

static void test_rings_mutated_while_they_are_read(void **state)
{
    (void)state;
    struct two_drives f;
    struct mutator mutator = {.f = &f};
    unsigned broken = 0;
    two_drives_start(&f);
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
        two_drives_set_up(&f.victim);
    }
    atomic_store(&mutator.stop, true);
    pthread_join(mutator.thread, NULL);
    assert_true(broken > 0);
    two_drives_assert_works(&f, &f.witness, 'w');
    two_drives_stop(&f);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
