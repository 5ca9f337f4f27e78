/* SPDX-License-Identifier: MIT */
/*
 * pci: type 0 functions on one bus: configuration space, BARs, capabilities, MSI-X.
 *
 * (PCI Local Bus 3.0, section 6; PCI Express Base.) The host bridge (pci_host) gives the guest its
 * ways to configuration space (CF8/CFC, ECAM); this room decides what is read and written there.
 * Odd, wide or out-of-range accesses read as all ones and are ignored on write.
 */
#ifndef DEVICES_PCI_H
#define DEVICES_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"
#include "devices/bus.h"
#include "devices/device.h"
#include "devices/irq.h"

#define PCI_CONFIG_SIZE     256
#define PCI_EXT_CONFIG_SIZE 4096

struct pci_device;

struct pci_bus {
    struct bus *bus;
    struct irq_hub *irq;
    struct pci_device *devices[PCI_SLOT_MAX]; /* by slot; function 0 only */
};

struct pci_bar {
    struct bus_region *region; /* NULL: no such BAR */
    bool is_io;
    bool is_64bit; /* takes the next BAR's register too */
};

struct pci_msix_vector {
    struct irq_route *route; /* NULL until first unmasked */
    uint64_t address;
    uint32_t data;
    uint32_t control; /* bit 0: masked */
    bool pending;
    uint64_t routed_address; /* what the route holds */
    uint32_t routed_data;
};

/* What a function remembers across save and restore, flat, for a state table. */
struct pci_saved {
    uint8_t config[PCI_CONFIG_SIZE];
    uint64_t address[MSIX_VECTOR_MAX];
    uint32_t data[MSIX_VECTOR_MAX];
    uint32_t control[MSIX_VECTOR_MAX];
    uint8_t pending[MSIX_VECTOR_MAX];
};

struct pci_device_ops {
    const char *kind; /* of a function that is a part of another device; else its device says it */
    /* Optional: after any write, which is stored through its mask and acted on by then. */
    void (*config_written)(struct pci_device *device, unsigned offset, unsigned size);
    /* Optional: just before a read, so that the device can refresh a window. */
    void (*config_read)(struct pci_device *device, unsigned offset, unsigned size);
};

struct pci_device {
    struct device device; /* first: a PCI device is a device */
    const struct pci_device_ops *pci_ops;
    struct pci_bus *pci_bus;
    unsigned slot;
    uint8_t config[PCI_EXT_CONFIG_SIZE];
    uint8_t write_mask[PCI_EXT_CONFIG_SIZE];
    struct pci_bar bars[PCI_BAR_MAX];
    unsigned capability_end; /* where the next capability goes */
    /* MSI-X; vector_count 0 if it has none. */
    unsigned vector_count;
    unsigned msix_capability;
    struct pci_msix_vector vectors[MSIX_VECTOR_MAX];
    struct bus_region msix_region;
    bool intx_level; /* what the device asked for */
    struct irq_line intx;
};

struct pci_ids {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint32_t class_revision; /* class, subclass, interface, revision: as at offset 8 */
};

void pci_bus_init(struct pci_bus *pci_bus, struct bus *bus, struct irq_hub *irq);

/* The functions below are for the device's create function, in this order. */
void pci_device_init(struct pci_device *device, const struct pci_ids *ids,
                     const struct pci_device_ops *ops);
/* "virtio-blk-pci", "mch" */
const char *pci_kind(const struct pci_device *device);

/* The region's size must be a power of two; it is mapped and moved as the guest programs the BAR.
 */
void pci_add_bar(struct pci_device *device, unsigned index, struct bus_region *region,
                 bool is_64bit, bool is_io);
/* Returns the offset of the new capability of `size` bytes, its id and next pointer filled in. */
unsigned pci_add_capability(struct pci_device *device, uint8_t id, unsigned size);
/* Table and PBA in a BAR of their own; `vectors` is 1 to MSIX_VECTOR_MAX. */
void pci_add_msix(struct pci_device *device, unsigned bar_index, unsigned vectors);
/* Puts it on the bus at `slot`, or at the first free one if slot is -1. */
int must_check pci_plug(struct pci_bus *pci_bus, struct pci_device *device, int slot,
                        struct error *err);
/* Unmaps its BARs, gives its routes back, leaves the slot. */
void pci_unplug(struct pci_device *device);
/* Command register, BARs and MSI-X back to power-on. */
void pci_device_reset(struct pci_device *device);

void pci_save(const struct pci_device *device, struct pci_saved *saved);
/* Of a device that was reset. Takes what the driver may write, and maps BARs and routes by it. */
void pci_restore(struct pci_device *device, const struct pci_saved *saved);

/* Bus mastering is on: without it the device may neither read nor write guest memory. */
bool pci_is_bus_master(const struct pci_device *device);

/* False if MSI-X is off (then the device uses INTx). */
bool pci_msix_is_enabled(const struct pci_device *device);
/* Fires, or remembers while masked. Out-of-range vectors are ignored. */
void pci_msix_notify(struct pci_device *device, unsigned vector);

/* Drives the function's INTA#. Reaches the line unless the driver disabled it or uses MSI-X. */
void pci_set_intx(struct pci_device *device, bool level);

/* For the host bridge. `offset` up to PCI_EXT_CONFIG_SIZE. */
uint32_t pci_config_read(struct pci_bus *pci_bus, unsigned slot, unsigned function, unsigned offset,
                         unsigned size);
void pci_config_write(struct pci_bus *pci_bus, unsigned slot, unsigned function, unsigned offset,
                      unsigned size, uint32_t value);

#endif
