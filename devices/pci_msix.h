/* SPDX-License-Identifier: MIT */
/*
 * pci_msix: what pci.c needs of the MSI-X part of a function (PCI Local Bus 3.0, section 6.8.2).
 * Devices use pci.h.
 */
#ifndef DEVICES_PCI_MSIX_H
#define DEVICES_PCI_MSIX_H

#include "devices/pci.h"

/* All vectors masked, nothing pending, MSI-X off. Routes are kept for the next driver. */
void pci_msix_reset(struct pci_device *device);
/* Gives the routes back. */
void pci_msix_fini(struct pci_device *device);
/* The control word or bus mastering changed: sends what was pending and may go now. */
void pci_msix_unmask(struct pci_device *device);
void pci_msix_save(const struct pci_device *device, struct pci_saved *saved);
/* The control word is restored already. */
void pci_msix_restore(struct pci_device *device, const struct pci_saved *saved);

#endif
