/* SPDX-License-Identifier: MIT */
/*
 * pci: stores configuration space through write masks and acts on what matters in it: the command
 * register, BARs and MSI-X. (MSI-X's table lives in pci_msix.c.)
 *
 * A BAR is mapped while decoding is on and its address is usable. All ones is sizing, not an
 * address. Where a live BAR would land on another region, the write is rolled back: register and
 * mapping stay. A BAR that cannot be mapped when decoding goes on stays dark until it is moved.
 */
#include "devices/pci.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "devices/pci_host.h"
#include "devices/pci_msix.h"

#define FIRST_CAPABILITY 0x40

#define COMMAND_WRITABLE                                                                           \
    (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |               \
     PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE)

void pci_bus_init(struct pci_bus *pci_bus, struct bus *bus, struct irq_hub *irq)
{
    *pci_bus = (struct pci_bus){.bus = bus, .irq = irq};
}

void pci_device_init(struct pci_device *device, const struct pci_ids *ids,
                     const struct pci_device_ops *ops)
{
    const struct device embedded = device->device;
    *device = (struct pci_device){.device = embedded, .pci_ops = ops};
    uint8_t *config = device->config, *mask = device->write_mask;
    store_le16(config + PCI_VENDOR_ID, ids->vendor);
    store_le16(config + PCI_DEVICE_ID, ids->device);
    store_le32(config + PCI_CLASS_REVISION, ids->class_revision);
    store_le16(config + PCI_SUBSYSTEM_VENDOR_ID, ids->subsystem_vendor);
    store_le16(config + PCI_SUBSYSTEM_ID, ids->subsystem);
    store_le16(mask + PCI_COMMAND, COMMAND_WRITABLE);
    mask[PCI_CACHE_LINE_SIZE] = 0xff;
    mask[PCI_LATENCY_TIMER] = 0xff;
    mask[PCI_INTERRUPT_LINE] = 0xff;
    device->capability_end = FIRST_CAPABILITY;
}

static uint16_t command_of(const struct pci_device *device)
{
    return load_le16(device->config + PCI_COMMAND);
}

static unsigned bar_register(unsigned index)
{
    return PCI_BASE_ADDRESS_0 + 4 * index;
}

void pci_add_bar(struct pci_device *device, unsigned index, struct bus_region *region,
                 bool is_64bit, bool is_io)
{
    CHECK(index < PCI_BAR_MAX && !device->bars[index].region);
    CHECK(!is_64bit || (!is_io && index + 1 < PCI_BAR_MAX && !device->bars[index + 1].region));
    CHECK(is_power_of_2(region->size) && region->size >= 16 && region->size <= GIB);
    device->bars[index] = (struct pci_bar){region, is_io, is_64bit};
    uint32_t flags = is_io      ? PCI_BASE_ADDRESS_SPACE_IO
                     : is_64bit ? PCI_BASE_ADDRESS_MEM_TYPE_64
                                : PCI_BASE_ADDRESS_MEM_TYPE_32;
    store_le32(device->config + bar_register(index), flags);
    store_le32(device->write_mask + bar_register(index), (uint32_t) ~(region->size - 1));
    if (is_64bit)
        store_le32(device->write_mask + bar_register(index + 1), UINT32_MAX);
}

unsigned pci_add_capability(struct pci_device *device, uint8_t id, unsigned size)
{
    unsigned at = device->capability_end;
    CHECK(size >= PCI_CAP_SIZEOF && range_fits(at, size, PCI_CONFIG_SIZE));
    unsigned link = PCI_CAPABILITY_LIST;
    while (device->config[link])
        link = device->config[link] + PCI_CAP_LIST_NEXT;
    device->config[link] = (uint8_t)at;
    device->config[at] = id;
    device->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    device->capability_end = (unsigned)align_up(at + size, 4);
    return at;
}

/* Where the BAR's register points; false for sizing, for zero and beyond the register's reach. */
static bool bar_address(const struct pci_device *device, unsigned index, uint64_t *base)
{
    const struct pci_bar *bar = &device->bars[index];
    const uint8_t *reg = device->config + bar_register(index);
    uint64_t address_mask = load_le32(device->write_mask + bar_register(index));
    uint64_t limit = bar->is_io ? UINT64_C(1) << 16 : UINT64_C(1) << 32;
    *base = load_le32(reg) & address_mask;
    if (*base == address_mask)
        return false;
    if (bar->is_64bit) {
        *base |= (uint64_t)load_le32(reg + 4) << 32;
        limit = UINT64_C(1) << 52;
    }
    return *base && range_fits(*base, bar->region->size, limit);
}

/* Makes the mapping follow the registers. False if it could not, and stayed as it was. */
static bool update_bar(struct pci_device *device, unsigned index)
{
    const struct pci_bar *bar = &device->bars[index];
    struct bus *bus = device->pci_bus->bus;
    struct bus_region *region = bar->region;
    uint16_t decode = bar->is_io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
    uint64_t base;
    if (!(command_of(device) & decode) || !bar_address(device, index, &base)) {
        bus_unmap(bus, region);
        return true;
    }
    enum bus_space space = bar->is_io ? BUS_PIO : BUS_MMIO;
    if (region->mapped && region->base == base)
        return true;
    bool was_mapped = region->mapped;
    uint64_t old_base = region->base;
    bus_unmap(bus, region);
    if (!bus_map(bus, space, base, region))
        return true;
    log_limited("PCI slot %u: BAR %u at 0x%" PRIx64 " would overlap another device: refused",
                device->slot, index, base);
    if (was_mapped)
        CHECK(bus_map(bus, space, old_base, region) == 0);
    return !was_mapped;
}

static void update_all_bars(struct pci_device *device)
{
    for (unsigned i = 0; i < PCI_BAR_MAX; i++)
        if (device->bars[i].region)
            unused_result(update_bar(device, i));
}

static void unmap_all_bars(struct pci_device *device)
{
    for (unsigned i = 0; i < PCI_BAR_MAX; i++)
        if (device->bars[i].region)
            bus_unmap(device->pci_bus->bus, device->bars[i].region);
}

/* The BAR whose registers hold `offset`, or -1. */
static int bar_at(const struct pci_device *device, unsigned offset)
{
    if (offset < PCI_BASE_ADDRESS_0 || offset >= bar_register(PCI_BAR_MAX))
        return -1;
    unsigned index = (offset - PCI_BASE_ADDRESS_0) / 4;
    if (device->bars[index].region)
        return (int)index;
    if (index > 0 && device->bars[index - 1].is_64bit)
        return (int)index - 1;
    return -1;
}

static void update_intx(struct pci_device *device)
{
    irq_line_set(&device->intx, device->intx_level &&
                                    !(command_of(device) & PCI_COMMAND_INTX_DISABLE) &&
                                    !pci_msix_is_enabled(device));
}

void pci_set_intx(struct pci_device *device, bool level)
{
    device->intx_level = level;
    if (level)
        device->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    else
        device->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
    update_intx(device);
}

const char *pci_kind(const struct pci_device *device)
{
    return device->device.ops ? device->device.ops->kind : device->pci_ops->kind;
}

/* For people: the id that they gave, or else the kind. */
static const char *name_of(const struct pci_device *device)
{
    return *device->device.id ? device->device.id : pci_kind(device);
}

int pci_plug(struct pci_bus *pci_bus, struct pci_device *device, int slot, struct error *err)
{
    loop_check_thread(pci_bus->bus->loop);
    if (slot < 0)
        for (slot = 0; slot < PCI_SLOT_MAX && pci_bus->devices[slot];)
            slot++;
    if (slot >= PCI_SLOT_MAX)
        return error_set(err, ENOSPC,
                         "no free PCI slot for device '%s': all %d are taken, leave a device out",
                         name_of(device), PCI_SLOT_MAX);
    if (pci_bus->devices[slot])
        return error_set(err, EBUSY, "PCI slot %d is taken by device '%s': choose another", slot,
                         name_of(pci_bus->devices[slot]));
    pci_bus->devices[slot] = device;
    device->pci_bus = pci_bus;
    device->slot = (unsigned)slot;
    irq_line_init(&device->intx, pci_bus->irq, pci_host_intx_gsi(device->slot, 0));
    return 0;
}

void pci_unplug(struct pci_device *device)
{
    loop_check_thread(device->pci_bus->bus->loop);
    CHECK(device->pci_bus->devices[device->slot] == device);
    pci_set_intx(device, false);
    unmap_all_bars(device);
    pci_msix_fini(device);
    device->pci_bus->devices[device->slot] = NULL;
}

void pci_device_reset(struct pci_device *device)
{
    uint8_t *config = device->config;
    pci_set_intx(device, false);
    store_le16(config + PCI_COMMAND, 0);
    unmap_all_bars(device);
    for (unsigned i = 0; i < 4 * PCI_BAR_MAX; i++)
        config[PCI_BASE_ADDRESS_0 + i] &= (uint8_t)~device->write_mask[PCI_BASE_ADDRESS_0 + i];
    config[PCI_CACHE_LINE_SIZE] = 0;
    config[PCI_LATENCY_TIMER] = 0;
    config[PCI_INTERRUPT_LINE] = 0;
    pci_msix_reset(device);
}

void pci_save(const struct pci_device *device, struct pci_saved *saved)
{
    memcpy(saved->config, device->config, sizeof(saved->config));
    pci_msix_save(device, saved);
}

void pci_restore(struct pci_device *device, const struct pci_saved *saved)
{
    for (unsigned i = 0; i < sizeof(saved->config); i++) {
        uint8_t mask = device->write_mask[i];
        device->config[i] = (uint8_t)((device->config[i] & ~mask) | (saved->config[i] & mask));
    }
    update_all_bars(device);
    pci_msix_restore(device, saved);
    update_intx(device);
}

bool pci_is_bus_master(const struct pci_device *device)
{
    return command_of(device) & PCI_COMMAND_MASTER;
}

static struct pci_device *find(const struct pci_bus *pci_bus, unsigned slot, unsigned function,
                               unsigned offset, unsigned size)
{
    loop_check_thread(pci_bus->bus->loop);
    bool is_valid = slot < PCI_SLOT_MAX && function == 0 && (size == 1 || size == 2 || size == 4) &&
                    is_aligned(offset, size) && range_fits(offset, size, PCI_EXT_CONFIG_SIZE);
    return is_valid ? pci_bus->devices[slot] : NULL;
}

uint32_t pci_config_read(struct pci_bus *pci_bus, unsigned slot, unsigned function, unsigned offset,
                         unsigned size)
{
    struct pci_device *device = find(pci_bus, slot, function, offset, size);
    if (!device)
        return (uint32_t)bus_all_ones(MIN(size, 4u));
    if (device->pci_ops && device->pci_ops->config_read)
        device->pci_ops->config_read(device, offset, size);
    uint8_t bytes[4] = {0};
    memcpy(bytes, device->config + offset, size);
    return load_le32(bytes);
}

/* Stores `value` through the write mask. */
static void store_masked(struct pci_device *device, unsigned offset, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++, value >>= 8) {
        uint8_t mask = device->write_mask[offset + i];
        uint8_t *byte = &device->config[offset + i];
        *byte = (uint8_t)((*byte & ~mask) | (value & mask));
    }
}

void pci_config_write(struct pci_bus *pci_bus, unsigned slot, unsigned function, unsigned offset,
                      unsigned size, uint32_t value)
{
    struct pci_device *device = find(pci_bus, slot, function, offset, size);
    if (!device)
        return;
    uint8_t old[4];
    memcpy(old, device->config + offset, size);
    store_masked(device, offset, size, value);

    int bar = bar_at(device, offset);
    if (bar >= 0 && !update_bar(device, (unsigned)bar))
        memcpy(device->config + offset, old, size);
    bool is_command = ranges_overlap(offset, size, PCI_COMMAND, 2);
    bool is_msix = device->vector_count &&
                   ranges_overlap(offset, size, device->msix_capability + PCI_MSIX_FLAGS, 2);
    if (is_command)
        update_all_bars(device);
    if (is_command || is_msix) {
        pci_msix_unmask(device);
        update_intx(device);
    }
    if (device->pci_ops && device->pci_ops->config_written)
        device->pci_ops->config_written(device, offset, size);
}
