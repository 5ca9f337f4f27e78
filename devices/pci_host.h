/* SPDX-License-Identifier: MIT */
/*
 * pci_host: the guest's ways to PCI configuration space (ports CF8/CFC, and ECAM), the two chipset
 * functions it expects there (Q35 MCH at 0:0.0, ICH9 LPC bridge at 0:31.0), and the reset register.
 *
 * (Intel 3 Series Chipset datasheet, section 5: PCIEXBAR; ICH9 datasheet, section 13: LPC, RST_CNT;
 * PCI 3.0, section 3.2.2.3.2.) Only bus 0 exists. INTA# of slot S is GSI 16 + S % 8, as the DSDT's
 * _PRT says.
 */
#ifndef DEVICES_PCI_HOST_H
#define DEVICES_PCI_HOST_H

#include "devices/pci.h"

#define PCI_HOST_ECAM_BASE    UINT64_C(0xb0000000)
#define PCI_HOST_ADDRESS_PORT 0xcf8
#define PCI_HOST_PORTS        8 /* from there on */
#define PCI_HOST_ECAM_SIZE    (UINT64_C(256) << 20)
#define PCI_HOST_LPC_SLOT     31
/* A guest looks at every slot of every bus that the tables name: name no more than exist. */
#define PCI_HOST_LAST_BUS 0

/* `pin` is 0 for INTA#. */
static inline unsigned pci_host_intx_gsi(unsigned slot, unsigned pin)
{
    return 16 + (slot + pin) % 8;
}

struct pci_host {
    struct device device;
    /* Private. */
    struct bus *bus;
    struct pci_bus *pci_bus;
    void (*on_reset)(void *opaque);
    void *opaque;
    struct pci_device mch, lpc;
    struct bus_region port_region, ecam_region;
    uint32_t address;      /* CF8 */
    uint8_t reset_control; /* CF9 */
};

/*
 * `pci_bus` is initialised and outlives the host. ECAM is on after every reset, as firmware would
 * have left it. on_reset: the reset register; called from inside the guest's write.
 */
int must_check pci_host_create(struct pci_bus *pci_bus, void (*on_reset)(void *opaque),
                               void *opaque, struct pci_host **out, struct error *err);

#endif
