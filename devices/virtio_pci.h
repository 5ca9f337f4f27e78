/* SPDX-License-Identifier: MIT */
/*
 * virtio_pci: the modern PCI transport (virtio 1.2, section 4.1).
 *
 * A device embeds struct virtio_pci first, calls virtio_pci_init from its create function, and uses
 * the functions below as its device_ops. BAR 0 holds the common, ISR, device and notification
 * structures, BAR 2 MSI-X. Each queue has its own notification address, hence one doorbell.
 */
#ifndef DEVICES_VIRTIO_PCI_H
#define DEVICES_VIRTIO_PCI_H

#include "base/closing.h"
#include "devices/pci.h"
#include "devices/virtio.h"

struct virtio_pci_events;

/* Where a device goes. */
struct virtio_pci_place {
    struct loop *loop; /* of its queues; bus and configuration are the machine's */
    const struct guest_mem *mem;
    struct pci_bus *pci_bus;
    int slot;       /* -1: the first free one */
    const char *id; /* of the device; may be "" */
};

/* The transport's own part of what is saved, and what is beside it; filled by before_save. */
struct virtio_pci_saved {
    struct pci_saved pci;
    struct virtio_saved virtio;
    uint32_t driver_feature_select;
    uint32_t device_feature_select;
    uint16_t queue_select;
    uint16_t config_vector;
    uint16_t queue_vectors[VIRTIO_QUEUES_MAX];
    uint8_t isr;
};

/* For the state table of a device whose struct `type` has the virtio_pci as member `pci`. */
#define VIRTIO_PCI_STATE_FIELDS(type)                                                              \
    STATE_ARRAY(type, pci.saved.pci.config), STATE_ARRAY(type, pci.saved.pci.address),             \
        STATE_ARRAY(type, pci.saved.pci.data), STATE_ARRAY(type, pci.saved.pci.control),           \
        STATE_ARRAY(type, pci.saved.pci.pending), STATE_FIELD(type, pci.saved.virtio.status),      \
        STATE_FIELD(type, pci.saved.virtio.generation),                                            \
        STATE_FIELD(type, pci.saved.virtio.features), STATE_ARRAY(type, pci.saved.virtio.enabled), \
        STATE_ARRAY(type, pci.saved.virtio.size), STATE_ARRAY(type, pci.saved.virtio.avail_at),    \
        STATE_ARRAY(type, pci.saved.virtio.used_at), STATE_ARRAY(type, pci.saved.virtio.desc_gpa), \
        STATE_ARRAY(type, pci.saved.virtio.avail_gpa),                                             \
        STATE_ARRAY(type, pci.saved.virtio.used_gpa),                                              \
        STATE_FIELD(type, pci.saved.driver_feature_select),                                        \
        STATE_FIELD(type, pci.saved.device_feature_select),                                        \
        STATE_FIELD(type, pci.saved.queue_select), STATE_FIELD(type, pci.saved.config_vector),     \
        STATE_ARRAY(type, pci.saved.queue_vectors), STATE_FIELD(type, pci.saved.isr)

struct virtio_pci {
    struct pci_device pci; /* first: also the struct device */
    struct virtio_device virtio;
    struct virtio_pci_saved saved;
    /* Private. */
    struct bus_region region;
    struct bus_doorbell *doorbells; /* one per queue */
    struct virtio_pci_events *events;
    uint32_t driver_feature_select;
    uint32_t device_feature_select;
    uint16_t queue_select;
    uint16_t config_vector;
    uint16_t *queue_vectors;
    uint8_t isr;
    unsigned window_capability; /* of VIRTIO_PCI_CAP_PCI_CFG */
    bool dma_on;                /* bus mastering, as last seen */
    struct closing closing;
};

/*
 * Sets up transport and device and plugs it. `ops` need .kind, .state and the functions below.
 * setup->loop and mem are taken from `place`. On failure nothing remains.
 */
int must_check virtio_pci_init(struct virtio_pci *vp, const struct virtio_pci_place *place,
                               const struct device_ops *ops, const struct virtio_setup *setup,
                               struct error *err);

/* For device_ops. */
void virtio_pci_reset(struct device *device);
/* The device must be idle (virtio_pci_is_idle). */
void virtio_pci_before_save(struct device *device);
/* Of a device that was reset and is idle. On failure: reset it. */
int must_check virtio_pci_after_restore(struct device *device, struct error *err);
/* Ends with virtio_ops.destroy, then on_closed. */
void virtio_pci_close(struct device *device, void (*on_closed)(void *opaque), void *opaque);

static inline struct virtio_pci *virtio_pci_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_pci, virtio);
}

/* The functions below are for devices made by virtio_pci_init only. */

/* No host I/O of the device touches guest memory, and no reset waits for such I/O. */
bool virtio_pci_is_idle(const struct device *device);
/*
 * For a device whose place has a loop of its own (base/side_loop.h): what it does, it does there,
 * and interrupts as messages. While this is false it must be the thread of the machine that runs
 * it.
 */
bool virtio_pci_is_on_its_own(const struct device *device);

/* Counters for query-stats. */
unsigned virtio_pci_queue_count(const struct device *device);
const struct virtqueue_stats *virtio_pci_queue_stats(const struct device *device, unsigned queue);

#endif
