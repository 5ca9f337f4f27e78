/* SPDX-License-Identifier: MIT */
/* hmp_pci: the human monitor about the PCI bus. */
#include "base/limits.h"
#include "vmm/control/commands.h"
#include "vmm/control/hmp_private.h"
#include "vmm/machine_pci.h"

static void print_bar(FILE *out, const struct machine_pci_bar *bar, unsigned index)
{
    unsigned long long last = bar->address + bar->size_bytes - 1;
    if (bar->is_io)
        fprintf(out, "      BAR%u: I/O at 0x%04llx [0x%04llx].\r\n", index,
                (unsigned long long)bar->address, last);
    else
        fprintf(out, "      BAR%u: %d bit memory at 0x%08llx [0x%08llx].\r\n", index,
                bar->is_64bit ? 64 : 32, (unsigned long long)bar->address, last);
}

static void print_function(FILE *out, const struct machine_pci *pci, unsigned slot)
{
    const char *name = commands_pci_class_name(pci->class);
    fprintf(out, "  Bus  0, device %3u, function 0:\r\n", slot);
    if (name)
        fprintf(out, "    %s: PCI device %04x:%04x\r\n", name, pci->vendor, pci->device);
    else
        fprintf(out, "    Class %04x: PCI device %04x:%04x\r\n", pci->class, pci->vendor,
                pci->device);
    fprintf(out, "      PCI subsystem %04x:%04x\r\n", pci->subsystem_vendor, pci->subsystem);
    if (pci->irq_pin)
        fprintf(out, "      IRQ %u, pin %c\r\n", pci->irq, 'A' + pci->irq_pin - 1);
    for (unsigned i = 0; i < MACHINE_PCI_BARS; i++)
        if (pci->bars[i].size_bytes)
            print_bar(out, &pci->bars[i], i);
    fprintf(out, "      id \"%s\"\r\n", pci->id);
}

void hmp_info_pci(struct hmp_call *call)
{
    for (unsigned slot = 0; slot < PCI_SLOT_MAX; slot++) {
        struct machine_pci pci;
        if (machine_get_pci(call->control->machine, slot, &pci))
            print_function(call->out, &pci, slot);
    }
}
