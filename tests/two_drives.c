/* SPDX-License-Identifier: MIT */
/* two_drives: see the header. */
#include "tests/two_drives.h"

#include <linux/virtio_blk.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/virtio_rng.h"
#include "tests/unit/test.h"

static enum virtio_blk_action on_error(void *opaque, enum disk_op op, int error)
{
    const struct two_drives *f = opaque;
    (void)op;
    (void)error;
    return f->on_error;
}

static void make_drive(struct two_drives *f, struct drive *drive, const char *id)
{
    drive->disk = fake_disk_create(&f->guest.loop, MIB, false);
    memset(drive->disk->bytes, id[0], MIB);
    struct virtio_pci_place place = fake_guest_place(&f->guest, id);
    const struct virtio_blk_options options = {
        .queue_count = id[0] == 'v' ? 1 : 2, .on_error = on_error, .on_error_opaque = f};
    assert_int_equal(virtio_blk_create(&place, drive->disk, &options, &drive->device, NULL), 0);
    fake_device_probe(&drive->fd, &f->guest, drive->device);
}

void two_drives_set_up(struct drive *drive)
{
    assert_true(fake_device_negotiate(&drive->fd, TWO_DRIVES_FEATURES));
    fake_queue_init(&drive->queue, &drive->fd, 0, TWO_DRIVES_QUEUE_SIZE);
    fake_device_driver_ok(&drive->fd);
}

void two_drives_start(struct two_drives *f)
{
    f->on_error = VIRTIO_BLK_REPORT;
    fake_guest_init(&f->guest);
    make_drive(f, &f->victim, "victim");
    make_drive(f, &f->witness, "witness");
    struct virtio_pci_place place = fake_guest_place(&f->guest, "rng0");
    assert_int_equal(virtio_rng_create(&place, &f->rng, NULL), 0);
    f->header = fake_guest_alloc(&f->guest, 16);
    f->data = fake_guest_alloc(&f->guest, 4096);
    f->status = fake_guest_alloc(&f->guest, 1);
    f->table = fake_guest_alloc(&f->guest, 16 * 1025);
    two_drives_set_up(&f->witness);
    f->first_free_gpa = f->guest.next_gpa;
    two_drives_set_up(&f->victim);
}

void two_drives_stop(struct two_drives *f)
{
    fake_disk_release(f->victim.disk);
    fake_guest_close(&f->guest, f->victim.device);
    fake_guest_close(&f->guest, f->witness.device);
    fake_guest_close(&f->guest, f->rng);
    fake_disk_destroy(f->victim.disk);
    fake_disk_destroy(f->witness.disk);
    fake_guest_fini(&f->guest);
}

void two_drives_set_header(struct two_drives *f, uint32_t type, uint64_t sector)
{
    uint8_t *header = fake_guest_at(&f->guest, f->header, 16);
    store_le32(header, type);
    store_le64(header + 8, sector);
}

void two_drives_offer_read(struct two_drives *f, struct drive *drive)
{
    two_drives_set_header(f, VIRTIO_BLK_T_IN, 1);
    const struct fake_buffer buffers[] = {
        {f->header, 16, false}, {f->data, 512, true}, {f->status, 1, true}};
    fake_queue_add(&drive->queue, buffers, 3);
}

void two_drives_assert_works(struct two_drives *f, struct drive *drive, char byte)
{
    memset(fake_guest_at(&f->guest, f->data, 512), 0, 512);
    two_drives_offer_read(f, drive);
    fake_queue_kick(&drive->queue);
    fake_queue_wait(&drive->queue, NULL);
    assert_int_equal(*(uint8_t *)fake_guest_at(&f->guest, f->status, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(*(char *)fake_guest_at(&f->guest, f->data, 512), byte);
}
