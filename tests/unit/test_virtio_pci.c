/* SPDX-License-Identifier: MIT */
/* The transport, with a virtio-blk of three queues behind it. */
#include "devices/virtio_pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/resource.h>

#include "base/bytes.h"
#include "devices/pci_host.h"
#include "devices/virtio_blk.h"
#include "tests/fake_disk.h"
#include "tools/bench/fake_guest.h"
#include "tests/unit/test.h"

#define QUEUES    3
#define VERSION_1 VIRTIO_FEATURE(VIRTIO_F_VERSION_1)

struct fixture {
    struct fake_guest guest;
    struct disk *disk;
    struct device *device;
    struct fake_device fd;
    struct fake_queue queues[QUEUES];
    uint64_t page;
};

static void start(struct fixture *f)
{
    fake_guest_init(&f->guest);
    f->disk = fake_disk_create(&f->guest.loop, MIB, false);
    struct virtio_pci_place place = fake_guest_place(&f->guest, "disk0");
    const struct virtio_blk_options options = {.queue_count = QUEUES};
    assert_int_equal(virtio_blk_create(&place, f->disk, &options, &f->device, NULL), 0);
    fake_device_probe(&f->fd, &f->guest, f->device);
    f->page = fake_guest_alloc(&f->guest, 4096);
}

static void go_live(struct fixture *f)
{
    assert_true(fake_device_negotiate(&f->fd, VERSION_1));
    for (unsigned i = 0; i < QUEUES; i++)
        fake_queue_init(&f->queues[i], &f->fd, i, 16);
    fake_device_driver_ok(&f->fd);
}

static void stop(struct fixture *f)
{
    fake_guest_close(&f->guest, f->device);
    fake_disk_destroy(f->disk);
    fake_guest_fini(&f->guest);
}

/* Offers a flush, the smallest request. */
static void offer(struct fixture *f, unsigned queue)
{
    uint8_t *header = fake_guest_at(&f->guest, f->page, 17);
    memset(header, 0, 17);
    store_le32(header, VIRTIO_BLK_T_FLUSH);
    const struct fake_buffer buffers[] = {{f->page, 16, false}, {f->page + 16, 1, true}};
    fake_queue_add(&f->queues[queue], buffers, 2);
}

static void flush(struct fixture *f, unsigned queue)
{
    offer(f, queue);
    fake_queue_kick(&f->queues[queue]);
    fake_queue_wait(&f->queues[queue], NULL);
}

static uint64_t reg(struct fixture *f, unsigned offset, unsigned size)
{
    return fake_device_read(&f->fd, offset, size);
}

static void test_looks_like_a_modern_device(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    assert_int_equal(fake_device_config_read(&f.fd, PCI_VENDOR_ID, 4), 0x10421af4);
    assert_int_equal(fake_device_config_read(&f.fd, PCI_CLASS_REVISION, 4), 0x01000001);
    assert_true(f.fd.common && f.fd.isr && f.fd.config && f.fd.notify && f.fd.window);
    assert_int_equal(f.fd.notify_multiplier, 4);
    assert_int_equal(f.fd.vector_count, QUEUES + 1);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_NUMQ, 2), QUEUES);
    assert_int_equal(fake_device_status(&f.fd), 0);
    uint64_t features = fake_device_features(&f.fd);
    assert_true(features & VERSION_1);
    assert_true(features & VIRTIO_FEATURE(VIRTIO_RING_F_EVENT_IDX));
    assert_true(features & VIRTIO_FEATURE(VIRTIO_BLK_F_MQ));
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_DFSELECT, 4, 2);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_DF, 4), 0);
    for (uint16_t i = 0; i < QUEUES; i++) {
        fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_SELECT, 2, i);
        assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_NOFF, 2), i);
        assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 256);
        assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
        assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
    }
    /* Only 1 enables. */
    assert_true(fake_device_negotiate(&f.fd, VERSION_1));
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 7);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    stop(&f);
}

static void test_absent_queues(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    static const uint16_t absent[] = {QUEUES, 64, 0x7fff, UINT16_MAX};
    for (unsigned i = 0; i < ARRAY_SIZE(absent); i++) {
        fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_SELECT, 2, absent[i]);
        for (unsigned offset = VIRTIO_PCI_COMMON_Q_SIZE; offset < 56; offset += 2)
            fake_device_write(&f.fd, offset, 2, 1);
        assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
        assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
        assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_DESCLO, 4), 0);
        assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
        fake_guest_write(&f.guest, f.fd.notify + 4 * (uint64_t)(absent[i] % 1024), 2, absent[i]);
    }
    fake_guest_run(&f.guest, 3);
    assert_int_equal(fake_device_status(&f.fd) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    flush(&f, 2);
    stop(&f);
}

static void test_widths(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    /* Only the natural width is answered. */
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_STATUS, 2), 0xffff);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_STATUS, 4), 0xffffffff);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_NUMQ, 1), 0xff);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_NUMQ + 1, 1), 0xff);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_DF, 2), 0xffff);
    assert_true(reg(&f, VIRTIO_PCI_COMMON_DFSELECT, 8) == UINT64_MAX);
    assert_true(reg(&f, VIRTIO_PCI_COMMON_Q_DESCHI, 8) == UINT64_MAX);
    assert_int_equal(reg(&f, 60, 4), 0xffffffff);
    assert_int_equal(reg(&f, 0xffc, 4), 0xffffffff);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_STATUS, 4, 1);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_SIZE, 1, 8);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_SIZE, 4, 8);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_DESCLO + 2, 4, 8);
    assert_int_equal(fake_device_status(&f.fd), 0);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 256);
    assert_true(reg(&f, VIRTIO_PCI_COMMON_Q_DESCLO, 8) == 0);
    /* 64-bit registers take halves and wholes. */
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_DESCLO, 8, UINT64_C(0x123456789abcdef0));
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_DESCLO, 4), 0x9abcdef0);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_DESCHI, 4, 0x77);
    assert_true(reg(&f, VIRTIO_PCI_COMMON_Q_DESCLO, 8) == UINT64_C(0x779abcdef0));
    /* Device configuration: any width; zeroes beyond its end. */
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config + 1, 1), 0x08);
    assert_true(fake_guest_read(&f.guest, f.fd.config, 8) == MIB / 512);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config + 0xff8, 8), 0);
    fake_guest_write(&f.guest, f.fd.config, 8, 0);
    assert_true(fake_guest_read(&f.guest, f.fd.config, 8) == MIB / 512);
    stop(&f);
}

static void test_each_queue_has_its_doorbell_and_vector(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    for (unsigned i = QUEUES; i-- > 0;) {
        flush(&f, i);
        assert_int_equal(f.guest.irq.sent[i + 1], 1);
        assert_int_equal(virtio_pci_queue_stats(f.device, i)->kicks, 1);
    }
    assert_int_equal(f.guest.irq.sent[0], 0);
    /* A doorbell of one queue does not drain another. */
    offer(&f, 0);
    fake_queue_kick(&f.queues[1]);
    fake_guest_run(&f.guest, 5);
    assert_int_equal(fake_queue_used_index(&f.queues[0]), 1);
    fake_queue_kick(&f.queues[0]);
    fake_queue_wait(&f.queues[0], NULL);
    fake_guest_run(&f.guest, 2);
    stop(&f);
}

static void test_vectors(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_MSIX, 2, QUEUES + 1);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
    flush(&f, 0);
    for (unsigned i = 0; i <= QUEUES; i++)
        assert_int_equal(f.guest.irq.sent[i], 0);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_MSIX, 2, 3);
    flush(&f, 0);
    assert_int_equal(f.guest.irq.sent[3], 1);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_MSIX, 2, 0xfffe);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
    stop(&f);
}

static void test_intx_and_isr(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    fake_device_config_write(&f.fd, f.fd.msix + PCI_MSIX_FLAGS, 2, 0);
    go_live(&f);
    unsigned gsi = pci_host_intx_gsi(f.fd.slot, 0);
    assert_int_equal(fake_device_config_read(&f.fd, PCI_INTERRUPT_PIN, 1), 1);
    flush(&f, 1);
    assert_int_equal(f.guest.irq.lines[gsi], 1);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.isr, 4), 0xffffffff);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.isr, 1), 1);
    assert_int_equal(f.guest.irq.lines[gsi], 0);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.isr, 1), 0);
    fake_disk_resize(f.disk, 2 * MIB);
    assert_int_equal(f.guest.irq.lines[gsi], 1);
    flush(&f, 1);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.isr, 1), 3);
    flush(&f, 1);
    fake_device_reset(&f.fd);
    assert_int_equal(f.guest.irq.lines[gsi], 0);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.isr, 1), 0);
    stop(&f);
}

static void window(struct fixture *f, uint8_t bar, uint32_t offset, uint32_t length)
{
    fake_device_config_write(&f->fd, f->fd.window + VIRTIO_PCI_CAP_BAR, 1, bar);
    fake_device_config_write(&f->fd, f->fd.window + VIRTIO_PCI_CAP_OFFSET, 4, offset);
    fake_device_config_write(&f->fd, f->fd.window + VIRTIO_PCI_CAP_LENGTH, 4, length);
}

static uint32_t window_read(struct fixture *f)
{
    return fake_device_config_read(&f->fd, f->fd.window + 16, 4);
}

static void window_write(struct fixture *f, uint32_t value)
{
    fake_device_config_write(&f->fd, f->fd.window + 16, 4, value);
}

static void test_configuration_window(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    uint32_t notify = (uint32_t)(f.fd.notify - f.fd.bars[0]);
    /* No BAR is mapped from here on. */
    fake_device_config_write(&f.fd, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    window(&f, 0, VIRTIO_PCI_COMMON_NUMQ, 2);
    assert_int_equal(window_read(&f), QUEUES);
    window(&f, 0, VIRTIO_PCI_COMMON_Q_SELECT, 2);
    window_write(&f, 2);
    window(&f, 0, VIRTIO_PCI_COMMON_Q_NOFF, 2);
    assert_int_equal(window_read(&f), 2);
    offer(&f, 2);
    window(&f, 0, notify + 8, 2);
    window_write(&f, 2);
    fake_queue_wait(&f.queues[2], NULL);
    window(&f, 0, notify + 4 * 500, 2);
    window_write(&f, 500);

    static const struct {
        uint8_t bar;
        uint32_t offset, length;
    } bad[] = {{1, VIRTIO_PCI_COMMON_NUMQ, 2},
               {1, 0, 4},
               {2, 0, 4},
               {255, 0, 4},
               {0, 0x4000, 4},
               {0, 0x3ffe, 4},
               {0, UINT32_MAX, 4},
               {0, UINT32_MAX - 3, 4},
               {0, 0, 0},
               {0, 0, 3},
               {0, 0, 8},
               {0, 0, UINT32_MAX},
               {0, 2, 4}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        window(&f, bad[i].bar, bad[i].offset, bad[i].length);
        window_write(&f, 0x5a5a5a5a);
        assert_int_equal(window_read(&f), 0x5a5a5a5a);
    }
    window(&f, 0, VIRTIO_PCI_COMMON_STATUS, 1);
    assert_int_equal(window_read(&f) & 0xff, 15);
    window_write(&f, 0);
    assert_int_equal(window_read(&f) & 0xff, 0);
    stop(&f);
}

static void test_queue_registers_are_latched(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_SIZE, 2, 0);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0xdead0000);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_AVAILHI, 4, 1);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_USEDLO, 4, 3);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 7);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
    assert_true(reg(&f, VIRTIO_PCI_COMMON_Q_DESCLO, 8) == f.queues[1].desc);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
    flush(&f, 1);
    stop(&f);
}

static void test_bus_master_off(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    f.disk->hold = true;
    offer(&f, 0);
    fake_queue_kick(&f.queues[0]);
    fake_guest_run(&f.guest, 3);
    fake_device_config_write(&f.fd, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    offer(&f, 0);
    fake_queue_kick(&f.queues[0]);
    fake_disk_release(f.disk);
    fake_guest_run(&f.guest, 5);
    assert_int_equal(fake_queue_used_index(&f.queues[0]), 0);
    assert_int_equal(f.guest.irq.sent[1], 0);
    fake_device_config_write(&f.fd, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    fake_queue_wait(&f.queues[0], NULL);
    fake_queue_wait(&f.queues[0], NULL);
    assert_int_equal(virtio_pci_queue_stats(f.device, 0)->chains, 2);
    stop(&f);
}

static void test_bar_moves_with_its_doorbells(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    uint64_t old = f.fd.bars[0];
    fake_device_config_write(&f.fd, PCI_BASE_ADDRESS_0, 4, 0xd0000000);
    f.fd.notify += 0xd0000000 - old;
    flush(&f, 1);
    fake_guest_write(&f.guest, old, 4, 0);
    stop(&f);
}

static void test_machine_reset(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    go_live(&f);
    flush(&f, 0);
    f.device->ops->reset(f.device);
    assert_true(virtio_pci_is_idle(f.device));
    assert_int_equal(fake_device_config_read(&f.fd, PCI_COMMAND, 2), 0);
    fake_device_probe(&f.fd, &f.guest, f.device);
    assert_int_equal(fake_device_status(&f.fd), 0);
    go_live(&f);
    flush(&f, 0);
    stop(&f);
}

static void test_no_descriptors_left(void **state)
{
    (void)state;
    struct fake_guest guest;
    struct error err = {0};
    struct rlimit old, none;
    struct device *device = NULL;
    fake_guest_init(&guest);
    struct disk *disk = fake_disk_create(&guest.loop, MIB, false);
    struct virtio_pci_place place = fake_guest_place(&guest, "disk0");
    const struct virtio_blk_options options = {.queue_count = 60};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 30;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int result = virtio_blk_create(&place, disk, &options, &device, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(result, -EMFILE);
    assert_non_null(strstr(err.text, "disk0"));
    assert_null(guest.pci_bus.devices[0]);
    fake_guest_run(&guest, 3);
    fake_disk_destroy(disk);
    fake_guest_fini(&guest);
}

static void test_a_taken_slot(void **state)
{
    (void)state;
    struct fixture f;
    struct error err = {0};
    struct device *device = NULL;
    start(&f);
    struct virtio_pci_place place = fake_guest_place(&f.guest, "disk1");
    place.slot = (int)f.fd.slot;
    const struct virtio_blk_options options = {0};
    assert_int_equal(virtio_blk_create(&place, f.disk, &options, &device, &err), -EBUSY);
    assert_non_null(strstr(err.text, "disk0"));
    stop(&f);
}

static void save(struct fixture *f, struct state_buffer *buffer)
{
    *buffer = (struct state_buffer){0};
    f->device->ops->before_save(f->device);
    state_save(f->device->ops->state, f->device, buffer);
}

/* As the machine does it: reset, read, act. */
static int restore(struct fixture *f, struct state_buffer *buffer)
{
    f->device->ops->reset(f->device);
    fake_guest_run(&f->guest, 2);
    buffer->read_at = 0;
    int result = state_restore(f->device->ops->state, f->device, buffer, NULL);
    return result ? result : f->device->ops->after_restore(f->device, NULL);
}

static void test_save_and_restore(void **state)
{
    (void)state;
    struct fixture f;
    struct state_buffer buffer;
    start(&f);
    go_live(&f);
    for (unsigned i = 0; i < 20; i++)
        flush(&f, i % QUEUES);
    fake_device_write(&f.fd, VIRTIO_PCI_COMMON_Q_SELECT, 2, 2);
    save(&f, &buffer);
    offer(&f, 1); /* its kick gets lost */
    memset(f.guest.irq.sent, 0, sizeof(f.guest.irq.sent));
    assert_int_equal(restore(&f, &buffer), 0);
    fake_queue_wait(&f.queues[1], NULL);
    assert_true(f.guest.irq.sent[1] && f.guest.irq.sent[2] && f.guest.irq.sent[3]);
    assert_int_equal(reg(&f, VIRTIO_PCI_COMMON_Q_SELECT, 2), 2);
    assert_int_equal(fake_device_status(&f.fd), 15);
    for (unsigned i = 0; i < 20; i++)
        flush(&f, i % QUEUES);
    state_buffer_fini(&buffer);
    stop(&f);
}

static void test_save_in_every_state(void **state)
{
    (void)state;
    struct fixture f;
    struct state_buffer buffer;
    start(&f);
    save(&f, &buffer);
    assert_int_equal(restore(&f, &buffer), 0);
    assert_int_equal(fake_device_status(&f.fd), 0);
    state_buffer_fini(&buffer);

    assert_true(fake_device_negotiate(&f.fd, VERSION_1));
    fake_queue_init(&f.queues[0], &f.fd, 0, 16);
    save(&f, &buffer);
    assert_int_equal(restore(&f, &buffer), 0);
    fake_device_driver_ok(&f.fd);
    flush(&f, 0);
    state_buffer_fini(&buffer);

    fake_queue_offer(&f.queues[0], 500);
    fake_queue_kick(&f.queues[0]);
    fake_guest_run(&f.guest, 2);
    save(&f, &buffer);
    assert_int_equal(restore(&f, &buffer), 0);
    assert_true(fake_device_status(&f.fd) & VIRTIO_CONFIG_S_NEEDS_RESET);
    fake_device_reset(&f.fd);
    go_live(&f);
    flush(&f, 2);
    state_buffer_fini(&buffer);
    stop(&f);
}

static void test_a_saved_state_is_not_trusted(void **state)
{
    (void)state;
    struct fixture f;
    struct state_buffer buffer;
    unsigned refused = 0, random = 12345;
    start(&f);
    go_live(&f);
    flush(&f, 0);
    save(&f, &buffer);
    for (unsigned i = 0; i < 4000; i++) {
        random = random * 1103515245 + 12345;
        uint8_t *byte = &buffer.bytes[(random >> 8) % buffer.length], old = *byte;
        *byte ^= (uint8_t)(1u << i % 8);
        refused += restore(&f, &buffer) != 0;
        fake_guest_run(&f.guest, 2);
        *byte = old;
    }
    assert_true(refused > 0);
    static const uint64_t wild[] = {UINT64_MAX, FAKE_BAR_BASE, FAKE_RAM_LOW - 4, 1};
    for (unsigned i = 0; i < ARRAY_SIZE(wild); i++) {
        struct virtio_pci *vp = container_of(f.device, struct virtio_pci, pci.device);
        assert_int_equal(restore(&f, &buffer), 0);
        f.device->ops->reset(f.device);
        vp->saved.virtio.used_gpa[0] = wild[i];
        assert_int_equal(f.device->ops->after_restore(f.device, NULL), -EINVAL);
    }
    assert_int_equal(restore(&f, &buffer), 0);
    flush(&f, 0);
    state_buffer_fini(&buffer);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_looks_like_a_modern_device),
        cmocka_unit_test(test_absent_queues),
        cmocka_unit_test(test_widths),
        cmocka_unit_test(test_each_queue_has_its_doorbell_and_vector),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_intx_and_isr),
        cmocka_unit_test(test_configuration_window),
        cmocka_unit_test(test_queue_registers_are_latched),
        cmocka_unit_test(test_bus_master_off),
        cmocka_unit_test(test_bar_moves_with_its_doorbells),
        cmocka_unit_test(test_machine_reset),
        cmocka_unit_test(test_save_and_restore),
        cmocka_unit_test(test_save_in_every_state),
        cmocka_unit_test(test_a_saved_state_is_not_trusted),
        cmocka_unit_test(test_no_descriptors_left),
        cmocka_unit_test(test_a_taken_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
