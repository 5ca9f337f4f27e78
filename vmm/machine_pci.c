/* SPDX-License-Identifier: MIT */
/* machine_pci: reads the configuration space of the functions on the bus. */
#include "vmm/machine_pci.h"

#include <linux/pci_regs.h>

#include "base/bytes.h"
#include "vmm/machine_private.h"

static void describe_bar(const struct pci_device *device, unsigned index,
                         struct machine_pci_bar *out)
{
    const struct pci_bar *bar = &device->bars[index];
    const uint8_t *at = device->config + PCI_BASE_ADDRESS_0 + 4 * index;
    uint16_t command = load_le16(device->config + PCI_COMMAND);
    bool is_on = command & (bar->is_io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY);
    *out = (struct machine_pci_bar){.address = UINT64_MAX};
    if (!bar->region)
        return;
    out->size_bytes = bar->region->size;
    out->is_io = bar->is_io;
    out->is_64bit = bar->is_64bit;
    uint64_t address = load_le32(at) & (bar->is_io ? ~UINT32_C(3) : ~UINT32_C(15));
    if (bar->is_64bit)
        address |= (uint64_t)load_le32(at + 4) << 32;
    if (is_on && address)
        out->address = address;
}

bool machine_get_pci(const struct machine *machine, unsigned slot, struct machine_pci *out)
{
    const struct pci_device *device = slot < PCI_SLOT_MAX ? machine->pci_bus.devices[slot] : NULL;
    if (!device)
        return false;
    *out = (struct machine_pci){
        .vendor = load_le16(device->config + PCI_VENDOR_ID),
        .device = load_le16(device->config + PCI_DEVICE_ID),
        .subsystem_vendor = load_le16(device->config + PCI_SUBSYSTEM_VENDOR_ID),
        .subsystem = load_le16(device->config + PCI_SUBSYSTEM_ID),
        .class = load_le16(device->config + PCI_CLASS_DEVICE),
        .irq = device->config[PCI_INTERRUPT_LINE],
        .irq_pin = device->config[PCI_INTERRUPT_PIN],
        .kind = pci_kind(device),
        .id = device->device.id,
        .index = machine->hotplug.slots[slot].index,
    };
    for (unsigned i = 0; i < MACHINE_PCI_BARS; i++)
        describe_bar(device, i, &out->bars[i]);
    return true;
}
