/* SPDX-License-Identifier: MIT */
/*
 * pci_msix: MSI-X table, pending bits and delivery (PCI 3.0, section 6.8.2).
 *
 * A vector gets its route (an irqfd, where there are some) when it is first unmasked, and the route
 * its message when that changed by then. Without a route each message is sent by a call.
 */
#include "devices/pci_msix.h"

#include <linux/pci_regs.h>

#include "base/bytes.h"

#define TABLE_BYTES (MSIX_VECTOR_MAX * PCI_MSIX_ENTRY_SIZE)
#define PBA_OFFSET  2048
#define BAR_BYTES   4096

_Static_assert(TABLE_BYTES <= PBA_OFFSET, "table and pending bits must not overlap");

static uint16_t control_of(const struct pci_device *device)
{
    return load_le16(device->config + device->msix_capability + PCI_MSIX_FLAGS);
}

bool pci_msix_is_enabled(const struct pci_device *device)
{
    return device->vector_count && (control_of(device) & PCI_MSIX_FLAGS_ENABLE);
}

/* A message is a write to memory, which takes bus mastering. */
static bool is_masked(const struct pci_device *device, const struct pci_msix_vector *vector)
{
    uint16_t control = control_of(device);
    return !pci_is_bus_master(device) || !(control & PCI_MSIX_FLAGS_ENABLE) ||
           (control & PCI_MSIX_FLAGS_MASKALL) || (vector->control & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

/* Anything but the LAPICs' window would be a write to memory, which a message must not be. */
static bool is_message(const struct pci_msix_vector *vector)
{
    return (uint32_t)vector->address >> 20 == 0xfee;
}

static void fire(struct pci_device *device, struct pci_msix_vector *vector)
{
    vector->pending = false;
    if (!is_message(vector))
        return;
    struct irq_hub *irq = device->pci_bus->irq;
    if (vector->route)
        irq->ops->route_fire(vector->route);
    else
        irq->ops->send_msi(irq, vector->address, vector->data);
}

static void update_route(struct pci_device *device, struct pci_msix_vector *vector)
{
    struct irq_hub *irq = device->pci_bus->irq;
    if (!is_message(vector))
        return;
    if (!vector->route) {
        if (irq->ops->route_create(irq, &vector->route))
            return;
    } else if (vector->routed_address == vector->address && vector->routed_data == vector->data) {
        return;
    }
    vector->routed_address = vector->address;
    vector->routed_data = vector->data;
    irq->ops->route_set(vector->route, vector->address, vector->data);
}

/* The vector, or the whole function, may have become unmasked. */
static void update_vector(struct pci_device *device, struct pci_msix_vector *vector)
{
    if (is_masked(device, vector))
        return;
    update_route(device, vector);
    if (vector->pending)
        fire(device, vector);
}

void pci_msix_unmask(struct pci_device *device)
{
    for (unsigned i = 0; i < device->vector_count; i++)
        update_vector(device, &device->vectors[i]);
}

void pci_msix_save(const struct pci_device *device, struct pci_saved *saved)
{
    for (unsigned i = 0; i < MSIX_VECTOR_MAX; i++) {
        const struct pci_msix_vector *vector = &device->vectors[i];
        saved->address[i] = vector->address;
        saved->data[i] = vector->data;
        saved->control[i] = vector->control;
        saved->pending[i] = vector->pending;
    }
}

void pci_msix_restore(struct pci_device *device, const struct pci_saved *saved)
{
    for (unsigned i = 0; i < device->vector_count; i++) {
        struct pci_msix_vector *vector = &device->vectors[i];
        vector->address = saved->address[i] & ~UINT64_C(3);
        vector->data = saved->data[i];
        vector->control = saved->control[i] & PCI_MSIX_ENTRY_CTRL_MASKBIT;
        vector->pending = saved->pending[i];
    }
    pci_msix_unmask(device);
}

void pci_msix_notify(struct pci_device *device, unsigned vector)
{
    if (vector >= device->vector_count)
        return;
    if (is_masked(device, &device->vectors[vector]))
        device->vectors[vector].pending = true;
    else
        fire(device, &device->vectors[vector]);
}

static uint32_t read_table(const struct pci_device *device, uint64_t offset)
{
    unsigned index = (unsigned)(offset / PCI_MSIX_ENTRY_SIZE);
    if (index >= device->vector_count)
        return 0;
    const struct pci_msix_vector *vector = &device->vectors[index];
    switch (offset % PCI_MSIX_ENTRY_SIZE) {
    case PCI_MSIX_ENTRY_LOWER_ADDR:
        return (uint32_t)vector->address;
    case PCI_MSIX_ENTRY_UPPER_ADDR:
        return (uint32_t)(vector->address >> 32);
    case PCI_MSIX_ENTRY_DATA:
        return vector->data;
    default:
        return vector->control;
    }
}

static void write_table(struct pci_device *device, uint64_t offset, uint32_t value)
{
    unsigned index = (unsigned)(offset / PCI_MSIX_ENTRY_SIZE);
    if (index >= device->vector_count)
        return;
    struct pci_msix_vector *vector = &device->vectors[index];
    switch (offset % PCI_MSIX_ENTRY_SIZE) {
    case PCI_MSIX_ENTRY_LOWER_ADDR:
        vector->address = (vector->address & ~UINT64_C(0xffffffff)) | (value & ~UINT32_C(3));
        break;
    case PCI_MSIX_ENTRY_UPPER_ADDR:
        vector->address = (uint32_t)vector->address | (uint64_t)value << 32;
        break;
    case PCI_MSIX_ENTRY_DATA:
        vector->data = value;
        break;
    default:
        vector->control = value & PCI_MSIX_ENTRY_CTRL_MASKBIT;
    }
    update_vector(device, vector);
}

static uint32_t read_pending(const struct pci_device *device, uint64_t offset)
{
    uint32_t bits = 0;
    uint64_t first = (offset - PBA_OFFSET) * 8;
    for (unsigned i = 0; i < 32 && first + i < device->vector_count; i++)
        bits |= (uint32_t)device->vectors[first + i].pending << i;
    return bits;
}

static uint32_t read_word(const struct pci_device *device, uint64_t offset)
{
    return offset < PBA_OFFSET ? read_table(device, offset) : read_pending(device, offset);
}

/* Software uses aligned dwords and qwords only (section 6.8.2). */
static bool is_legal(uint64_t offset, unsigned size)
{
    return (size == 4 || size == 8) && is_aligned(offset, size);
}

static uint64_t on_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pci_device *device = opaque;
    if (!is_legal(offset, size))
        return bus_all_ones(size);
    uint64_t value = read_word(device, offset);
    if (size == 8)
        value |= (uint64_t)read_word(device, offset + 4) << 32;
    return value;
}

static void on_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_device *device = opaque;
    if (!is_legal(offset, size))
        return; /* the pending bits lie beyond all vectors, and so are ignored below */
    write_table(device, offset, (uint32_t)value);
    if (size == 8)
        write_table(device, offset + 4, (uint32_t)(value >> 32));
}

static const struct bus_region_ops region_ops = {on_read, on_write};

void pci_add_msix(struct pci_device *device, unsigned bar_index, unsigned vectors)
{
    CHECK(vectors >= 1 && vectors <= MSIX_VECTOR_MAX);
    unsigned at = pci_add_capability(device, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
    store_le16(device->config + at + PCI_MSIX_FLAGS, (uint16_t)(vectors - 1));
    store_le16(device->write_mask + at + PCI_MSIX_FLAGS,
               PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    store_le32(device->config + at + PCI_MSIX_TABLE, bar_index);
    store_le32(device->config + at + PCI_MSIX_PBA, PBA_OFFSET | bar_index);
    device->msix_capability = at;
    device->vector_count = vectors;
    device->msix_region = (struct bus_region){
        .name = "msix", .ops = &region_ops, .device = device, .size = BAR_BYTES};
    pci_add_bar(device, bar_index, &device->msix_region, false, false);
    pci_msix_reset(device);
}

void pci_msix_reset(struct pci_device *device)
{
    if (!device->vector_count)
        return;
    store_le16(device->config + device->msix_capability + PCI_MSIX_FLAGS,
               (uint16_t)(device->vector_count - 1));
    for (unsigned i = 0; i < device->vector_count; i++) {
        struct pci_msix_vector *vector = &device->vectors[i];
        vector->address = 0;
        vector->data = 0;
        vector->control = PCI_MSIX_ENTRY_CTRL_MASKBIT;
        vector->pending = false;
    }
}

void pci_msix_fini(struct pci_device *device)
{
    struct irq_hub *irq = device->pci_bus->irq;
    for (unsigned i = 0; i < device->vector_count; i++) {
        if (device->vectors[i].route)
            irq->ops->route_destroy(device->vectors[i].route);
        device->vectors[i].route = NULL;
    }
}
