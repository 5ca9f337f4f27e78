/* SPDX-License-Identifier: MIT */
/* commands_pci: query-pci, in QEMU's shape. */
#include "base/limits.h"
#include "vmm/control/commands.h"
#include "vmm/machine_pci.h"

const char *commands_pci_class_name(uint16_t class)
{
    switch (class) {
    case 0x0600:
        return "Host bridge";
    case 0x0601:
        return "ISA bridge";
    case 0x0200:
        return "Ethernet controller";
    case 0x0100:
        return "SCSI controller";
    default:
        return NULL;
    }
}

static json_t *describe_bar(const struct machine_pci_bar *bar, unsigned index)
{
    json_int_t address = bar->address == UINT64_MAX ? -1 : (json_int_t)bar->address;
    if (bar->is_io)
        return json_pack("{s:i,s:I,s:I,s:s}", "bar", (int)index, "size",
                         (json_int_t)bar->size_bytes, "address", address, "type", "io");
    return json_pack("{s:i,s:I,s:I,s:s,s:b,s:b}", "bar", (int)index, "size",
                     (json_int_t)bar->size_bytes, "address", address, "type", "memory", "prefetch",
                     0, "mem_type_64", bar->is_64bit);
}

static json_t *describe(const struct machine_pci *pci, unsigned slot)
{
    json_t *regions = json_array();
    for (unsigned i = 0; i < MACHINE_PCI_BARS; i++)
        if (pci->bars[i].size_bytes)
            json_array_append_new(regions, describe_bar(&pci->bars[i], i));
    json_t *device = json_pack(
        "{s:i,s:i,s:i,s:{s:i,s:s*},s:{s:i,s:i,s:i,s:i},s:i,s:s,s:o}", "bus", 0, "slot", (int)slot,
        "function", 0, "class_info", "class", (int)pci->class, "desc", commands_pci_class_name(pci->class), "id",
        "vendor", (int)pci->vendor, "device", (int)pci->device, "subsystem-vendor",
        (int)pci->subsystem_vendor, "subsystem", (int)pci->subsystem, "irq_pin", (int)pci->irq_pin,
        "qdev_id", pci->id, "regions", regions);
    if (device && pci->irq_pin)
        json_object_set_new(device, "irq", json_integer(pci->irq));
    return device;
}

void qmp_query_pci(struct qmp_call *call)
{
    json_t *devices = json_array();
    for (unsigned slot = 0; slot < PCI_SLOT_MAX; slot++) {
        struct machine_pci pci;
        if (machine_get_pci(call->control->machine, slot, &pci))
            json_array_append_new(devices, describe(&pci, slot));
    }
    qmp_call_return(call, json_pack("[{s:i,s:o}]", "bus", 0, "devices", devices));
}
