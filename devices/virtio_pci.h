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

#include "devices/pci.h"
#include "devices/virtio.h"

struct virtio_pci_events;

/* Where a device goes. */
struct virtio_pci_place {
    struct loop *loop;
    const struct guest_mem *mem;
    struct pci_bus *pci_bus;
    int slot;       /* -1: the first free one */
    const char *id; /* of the device; may be "" */
};

struct virtio_pci {
    struct pci_device pci; /* first: also the struct device */
    struct virtio_device virtio;
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
    void (*on_closed)(void *opaque);
    void *on_closed_opaque;
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
/* Ends with virtio_ops.destroy, then on_closed. */
void virtio_pci_close(struct device *device, void (*on_closed)(void *opaque), void *opaque);

static inline struct virtio_pci *virtio_pci_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_pci, virtio);
}

/* The functions below are for devices made by virtio_pci_init only. */

/* Nothing in flight: no host I/O of the device reads or writes guest memory. */
bool virtio_pci_is_idle(const struct device *device);

/* Counters for query-stats. */
unsigned virtio_pci_queue_count(const struct device *device);
const struct virtqueue_stats *virtio_pci_queue_stats(const struct device *device, unsigned queue);

#endif
