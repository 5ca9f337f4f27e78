/* SPDX-License-Identifier: MIT */
/*
 * fake_guest: the driver's side of PCI, virtio_pci and virtqueues, in memory, without a vCPU.
 *
 * RAM is 8 MiB at 0 and 1 MiB at 4 GiB, each between inaccessible pages, so that a device which
 * leaves it dies at once. Every access goes the way of a real driver: configuration space, BARs on
 * a real bus, rings in RAM. Functions that make chains come in an honest form (add) and a raw one
 * (set_descriptor, offer) for malice.
 */
#ifndef TOOLS_BENCH_FAKE_GUEST_H
#define TOOLS_BENCH_FAKE_GUEST_H

#include "devices/bus.h"
#include "devices/guest_mem.h"
#include "devices/irq.h"
#include "devices/pci.h"
#include "devices/virtio_pci.h"

#define FAKE_RAM_LOW   (UINT64_C(8) << 20)
#define FAKE_RAM_HIGH  (UINT64_C(1) << 20)
#define FAKE_HIGH_GPA  (UINT64_C(4) << 30)
#define FAKE_BAR_BASE  UINT64_C(0xc0000000)
#define FAKE_ROUTE_MAX 128
#define FAKE_MSI(n)    (0x4000u + (n)) /* the data of vector n */

struct fake_irq {
    struct irq_hub hub; /* first */
    unsigned lines[64]; /* level by GSI */
    unsigned line_changes;
    unsigned routes;               /* alive */
    bool no_routes;                /* route_create fails */
    unsigned sent[FAKE_ROUTE_MAX]; /* messages by data - FAKE_MSI(0) */
    unsigned sent_other;
    void (*on_sent)(struct fake_irq *irq, unsigned vector); /* may be NULL */
};

struct fake_guest {
    struct loop loop;
    struct bus bus;
    struct pci_bus pci_bus;
    struct fake_irq irq;
    struct guest_mem mem;
    uint64_t next_gpa; /* of the bump allocator */
    uint64_t next_bar;
    unsigned first_vector;  /* of the device that is probed next */
    uint64_t written_bytes; /* told by guest_mem_written */
    uint8_t *written;       /* by byte of low RAM: was it told? */
};

void fake_guest_init(struct fake_guest *guest);
/* All devices are closed. */
void fake_guest_fini(struct fake_guest *guest);
/* Runs the loop for `turns` turns without waiting. */
void fake_guest_run(struct fake_guest *guest, unsigned turns);
/* Closes the device and runs the loop until it is gone. */
void fake_guest_close(struct fake_guest *guest, struct device *device);
struct virtio_pci_place fake_guest_place(struct fake_guest *guest, const char *id);
/* Zeroed RAM, aligned to 4 KiB. */
uint64_t fake_guest_alloc(struct fake_guest *guest, uint64_t bytes);
/* The memory at `gpa`; a CHECK fails if it is not RAM. */
void *fake_guest_at(struct fake_guest *guest, uint64_t gpa, uint64_t bytes);
/* Were all of these bytes of low RAM told since fake_guest_forget_written? */
bool fake_guest_was_written(struct fake_guest *guest, uint64_t gpa, uint64_t bytes);
void fake_guest_forget_written(struct fake_guest *guest);
uint64_t fake_guest_read(struct fake_guest *guest, uint64_t address, unsigned size);
void fake_guest_write(struct fake_guest *guest, uint64_t address, unsigned size, uint64_t value);

struct fake_device {
    struct fake_guest *guest;
    unsigned slot;
    uint64_t bars[PCI_BAR_MAX];
    uint64_t bar_bytes[PCI_BAR_MAX];
    uint64_t common, isr, config, notify; /* addresses; 0 if the capability is missing */
    uint32_t notify_multiplier;
    unsigned window;     /* offset of the configuration window's capability */
    uint64_t msix_table; /* address */
    unsigned msix;       /* offset of the capability */
    unsigned vector_count;
};

uint32_t fake_device_config_read(struct fake_device *fd, unsigned offset, unsigned size);
void fake_device_config_write(struct fake_device *fd, unsigned offset, unsigned size,
                              uint32_t value);
/* Sizes and places BARs, finds capabilities, turns on decoding, bus mastering and MSI-X. */
void fake_device_probe(struct fake_device *fd, struct fake_guest *guest,
                       const struct device *device);
uint64_t fake_device_read(struct fake_device *fd, unsigned common_offset, unsigned size);
void fake_device_write(struct fake_device *fd, unsigned common_offset, unsigned size,
                       uint64_t value);
uint8_t fake_device_status(struct fake_device *fd);
uint64_t fake_device_features(struct fake_device *fd);
/* Writes 0 to status and runs the loop until it reads 0. */
void fake_device_reset(struct fake_device *fd);
/* Reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK. True if the device agreed. */
bool fake_device_negotiate(struct fake_device *fd, uint64_t features);
void fake_device_driver_ok(struct fake_device *fd);

struct fake_queue {
    struct fake_device *fd;
    unsigned index;
    uint16_t size;
    uint64_t desc, avail, used;
    uint16_t next_desc; /* of the next honest chain: descriptors are used round robin */
    uint16_t avail_at;
    uint16_t used_at;
};

struct fake_buffer {
    uint64_t gpa;
    uint32_t bytes;
    bool is_in;
};

/* Rings of `size` (0: the device's maximum); queue n gets vector n + 1. Enables the queue. */
void fake_queue_init(struct fake_queue *queue, struct fake_device *fd, unsigned index,
                     uint16_t size);
/* An honest chain; its head. Not more in flight than descriptors: the caller's care. */
uint16_t fake_queue_add(struct fake_queue *queue, const struct fake_buffer *buffers,
                        unsigned count);
uint16_t fake_queue_add_indirect(struct fake_queue *queue, const struct fake_buffer *buffers,
                                 unsigned count);
void fake_queue_kick(struct fake_queue *queue);
/* Takes the next used entry, if there is one. */
bool fake_queue_used(struct fake_queue *queue, uint32_t *head, uint32_t *bytes);
/* As above, after running the loop until there is one; a CHECK fails if it never comes. */
uint32_t fake_queue_wait(struct fake_queue *queue, uint32_t *bytes);

void fake_queue_set_descriptor(struct fake_queue *queue, uint16_t index, uint64_t gpa,
                               uint32_t bytes, uint16_t flags, uint16_t next);
/* Puts a head into the available ring and moves its index. */
void fake_queue_offer(struct fake_queue *queue, uint16_t head);
void fake_queue_set_avail_index(struct fake_queue *queue, uint16_t index);
uint16_t fake_queue_used_index(struct fake_queue *queue);

#endif
