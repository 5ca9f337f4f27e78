/* SPDX-License-Identifier: MIT */
/*
 * Random rubbish everywhere: configuration space, BARs, rings, descriptors, resets and a disk that
 * fails and dawdles; biased so that it gets somewhere. Seeded, so that a failure can be replayed.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "tests/two_drives.h"
#include "tests/unit/test.h"

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static uint64_t random_word(struct two_drives *f, uint64_t *seed)
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

static void fuzz_config(struct two_drives *f, struct drive *drive, uint64_t *seed)
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

static void fuzz_registers(struct two_drives *f, struct drive *drive, uint64_t *seed)
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

static void fuzz_rings(struct two_drives *f, struct drive *drive, uint64_t *seed)
{
    const struct fake_queue *queue = &drive->queue;
    const uint64_t areas[] = {queue->desc, queue->avail, queue->used, f->table, f->header};
    uint64_t random = next_random(seed);
    uint64_t gpa = areas[random % ARRAY_SIZE(areas)] + 8 * (random / 64 % 40);
    store_le64(fake_guest_at(&f->guest, gpa, 8), random_word(f, seed));
}

static void fuzz_descriptors(struct two_drives *f, struct drive *drive, uint64_t *seed)
{
    uint64_t random = next_random(seed);
    uint16_t index = (uint16_t)(random % TWO_DRIVES_QUEUE_SIZE);
    static const uint32_t lengths[] = {1, 16, 512, 513, 17, 4096, 48, 0};
    fake_queue_set_descriptor(
        &drive->queue, index, random_word(f, seed), lengths[(random >> 8) % ARRAY_SIZE(lengths)],
        (uint16_t)((random >> 16) % 8), (uint16_t)((random >> 24) % (TWO_DRIVES_QUEUE_SIZE + 1)));
    two_drives_set_header(f, (uint32_t)((random >> 32) % 16), (random >> 40) % 3000);
    fake_queue_offer(&drive->queue, index);
    fake_queue_kick(&drive->queue);
}

/* As many flushes as the queue has heads. */
static void fuzz_fill(struct two_drives *f, struct drive *drive)
{
    uint8_t *table = fake_guest_at(&f->guest, f->table, 32);
    two_drives_set_header(f, VIRTIO_BLK_T_FLUSH, 0);
    store_le64(table, f->header);
    store_le32(table + 8, 16);
    store_le32(table + 12, VRING_DESC_F_NEXT | 1 << 16);
    store_le64(table + 16, f->status);
    store_le32(table + 24, 1);
    store_le32(table + 28, VRING_DESC_F_WRITE);
    for (uint16_t i = 0; i < drive->queue.size; i++) {
        fake_queue_set_descriptor(&drive->queue, i, f->table, 32, VRING_DESC_F_INDIRECT, 0);
        fake_queue_offer(&drive->queue, i);
    }
    fake_queue_kick(&drive->queue);
}

static void fuzz_honest(struct two_drives *f, struct drive *drive, uint64_t *seed)
{
    uint64_t random = next_random(seed);
    if (random % 4 == 0) {
        two_drives_offer_read(f, drive);
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
    if (!fake_device_negotiate(&drive->fd, TWO_DRIVES_FEATURES))
        return;
    fake_queue_init(&drive->queue, &drive->fd, 0, random & 64 ? 0 : TWO_DRIVES_QUEUE_SIZE);
    fake_device_driver_ok(&drive->fd);
}

static void fuzz_host(struct two_drives *f, struct drive *drive, uint64_t *seed)
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
    case 6:
        f->on_error = (enum virtio_blk_action)(random / 16 % 3);
        break;
    case 7:
        virtio_blk_retry(drive->device);
        break;
    default:
        fake_guest_run(&f->guest, 2);
    }
}

static void fuzz(struct two_drives *f, uint64_t seed, unsigned steps)
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
        case 10:
            fuzz_fill(f, drive);
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
        struct two_drives f;
        log_info("seed %llu", (unsigned long long)seed);
        two_drives_start(&f);
        fuzz(&f, seed * UINT64_C(0x9e3779b97f4a7c15), 4000);
        chains += virtio_pci_queue_stats(f.victim.device, 0)->chains;
        /* Whatever happened, an honest driver finds working devices. */
        fuzz_honest(&f, &f.victim, &(uint64_t){5});
        struct drive *const drives[] = {&f.victim, &f.witness};
        for (unsigned i = 0; i < 2; i++) {
            f.guest.irq.no_routes = false;
            f.on_error = VIRTIO_BLK_REPORT;
            drives[i]->disk->fail = 0;
            fake_disk_release(drives[i]->disk);
            fake_guest_run(&f.guest, 3);
            two_drives_set_up(drives[i]);
            memset(drives[i]->disk->bytes, "vw"[i], MIB);
            two_drives_assert_works(&f, drives[i], "vw"[i]);
        }
        two_drives_stop(&f);
    }
    assert_true(chains > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rubbish)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
