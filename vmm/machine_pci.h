/* SPDX-License-Identifier: MIT */
/* machine_pci: what a client may learn of the functions on the PCI bus. */
#ifndef VMM_MACHINE_PCI_H
#define VMM_MACHINE_PCI_H

#include "vmm/machine.h"

#define MACHINE_PCI_BARS 6

struct machine_pci_bar {
    uint64_t size_bytes; /* 0: there is none */
    uint64_t address;    /* UINT64_MAX: the guest has not placed it, or turned it off */
    bool is_io, is_64bit;
};

struct machine_pci {
    uint16_t vendor, device, subsystem_vendor, subsystem, class;
    uint8_t irq, irq_pin; /* pin 0: none */
    const char *kind;     /* "virtio-blk-pci" */
    const char *id;       /* "" if it has none */
    unsigned index;       /* of what it was made from, in the config */
    struct machine_pci_bar bars[MACHINE_PCI_BARS];
};

/* False if the slot is empty. */
bool machine_get_pci(const struct machine *machine, unsigned slot, struct machine_pci *out);

#endif
