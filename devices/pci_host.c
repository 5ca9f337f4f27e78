/* SPDX-License-Identifier: MIT */
/* pci_host: turns ports and ECAM addresses into slots and offsets; pci decides what lies there. */
#include "devices/pci_host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/acpi_pm.h"

#define ADDRESS_PORT  0
#define RESET_OFFSET  1
#define DATA_PORT     4
#define ADDRESS_ON    (1u << 31)
#define RESET_SYSTEM  0x02
#define RESET_CPU     0x04
#define RESET_FULL    0x08
#define HOST_CLASS    0x06000000u
#define ISA_CLASS     0x06010000u
#define MCH_PCIEXBAR  0x60
#define MCH_PAM0      0x90
#define PAM_REGISTERS 7
#define PCIEXBAR_ON   1u
#define PCIEXBAR_SIZE 0x06u /* bits 1-2; 0 is 256 MiB, the only size here */
#define LPC_PMBASE    0x40
#define LPC_ACPI_CNTL 0x44
#define LPC_PIRQ_A    0x60
#define LPC_PIRQ_E    0x68
#define PIRQ_OFF      0x80
#define ACPI_CNTL_ON  0x80

static uint64_t config_read(struct pci_host *host, unsigned bus_number, unsigned function_number,
                            unsigned offset, unsigned size)
{
    if (bus_number != 0)
        return bus_all_ones(size);
    return pci_config_read(host->pci_bus, function_number >> 3, function_number & 7, offset, size);
}

static void config_write(struct pci_host *host, unsigned bus_number, unsigned function_number,
                         unsigned offset, unsigned size, uint64_t value)
{
    if (bus_number == 0)
        pci_config_write(host->pci_bus, function_number >> 3, function_number & 7, offset, size,
                         (uint32_t)value);
}

/* The register is edge-triggered: a reset happens when the CPU bit goes from 0 to 1. */
static void write_reset_control(struct pci_host *host, uint8_t value)
{
    bool rises = (value & RESET_CPU) && !(host->reset_control & RESET_CPU);
    host->reset_control = value & (RESET_SYSTEM | RESET_CPU | RESET_FULL);
    if (rises)
        host->on_reset(host->opaque);
}

static uint64_t port_read(void *device, uint64_t offset, unsigned size)
{
    struct pci_host *host = device;
    if (offset == ADDRESS_PORT && size == 4)
        return host->address;
    if (offset == RESET_OFFSET && size == 1)
        return host->reset_control;
    if (offset < DATA_PORT || size > 4 || !(host->address & ADDRESS_ON))
        return bus_all_ones(size);
    return config_read(host, host->address >> 16 & 0xff, host->address >> 8 & 0xff,
                       (host->address & 0xfc) + (unsigned)offset - DATA_PORT, size);
}

static void port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_host *host = device;
    if (offset == ADDRESS_PORT && size == 4)
        host->address = (uint32_t)value & 0x80fffffc;
    else if (offset == RESET_OFFSET && size == 1)
        write_reset_control(host, (uint8_t)value);
    else if (offset >= DATA_PORT && size <= 4 && (host->address & ADDRESS_ON))
        config_write(host, host->address >> 16 & 0xff, host->address >> 8 & 0xff,
                     (host->address & 0xfc) + (unsigned)offset - DATA_PORT, size, value);
}

/* An ECAM offset is bus, device and function, then 12 bits of register. */
static uint64_t ecam_read(void *device, uint64_t offset, unsigned size)
{
    if (size > 4)
        return bus_all_ones(size);
    return config_read(device, (unsigned)(offset >> 20), (unsigned)(offset >> 12) & 0xff,
                       (unsigned)offset & 0xfff, size);
}

static void ecam_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    if (size <= 4)
        config_write(device, (unsigned)(offset >> 20), (unsigned)(offset >> 12) & 0xff,
                     (unsigned)offset & 0xfff, size, value);
}

static const struct bus_region_ops port_ops = {port_read, port_write};
static const struct bus_region_ops ecam_ops = {ecam_read, ecam_write};

/* Puts ECAM where PCIEXBAR says; nowhere if that is off, impossible or taken. */
static void place_ecam(struct pci_host *host)
{
    uint64_t pciexbar = load_le64(host->mch.config + MCH_PCIEXBAR);
    uint64_t base = align_down(pciexbar, PCI_HOST_ECAM_SIZE);
    bool is_on = (pciexbar & (PCIEXBAR_ON | PCIEXBAR_SIZE)) == PCIEXBAR_ON;
    if (host->ecam_region.mapped && is_on && host->ecam_region.base == base)
        return;
    bus_unmap(host->bus, &host->ecam_region);
    if (is_on)
        unused_result(bus_map(host->bus, BUS_MMIO, base, &host->ecam_region));
}

static void mch_config_written(struct pci_device *device, unsigned offset, unsigned size)
{
    if (ranges_overlap(offset, size, MCH_PCIEXBAR, 8))
        place_ecam(container_of(device, struct pci_host, mch));
}

static const struct pci_device_ops mch_ops = {.kind = "mch", .config_written = mch_config_written};
static const struct pci_device_ops lpc_ops = {.kind = "ICH9-LPC"};

/* As firmware would have left the two functions. */
static void set_up_functions(struct pci_host *host)
{
    store_le64(host->mch.config + MCH_PCIEXBAR, PCI_HOST_ECAM_BASE | PCIEXBAR_ON);
    /* Firmware copies itself into RAM where the first of these says that it is not there yet. */
    memset(host->mch.config + MCH_PAM0, 0, PAM_REGISTERS);
    store_le32(host->lpc.config + LPC_PMBASE, ACPI_PM_BASE | 1);
    host->lpc.config[LPC_ACPI_CNTL] = ACPI_CNTL_ON;
    memset(host->lpc.config + LPC_PIRQ_A, PIRQ_OFF, 4);
    memset(host->lpc.config + LPC_PIRQ_E, PIRQ_OFF, 4);
}

static void pci_host_reset(struct device *device)
{
    struct pci_host *host = (struct pci_host *)device;
    host->address = 0;
    host->reset_control = 0;
    pci_device_reset(&host->mch);
    pci_device_reset(&host->lpc);
    set_up_functions(host);
    place_ecam(host);
}

static int pci_host_after_restore(struct device *device, struct error *err)
{
    (void)err;
    place_ecam((struct pci_host *)device);
    return 0;
}

static void pci_host_close(struct device *device, void (*on_closed)(void *opaque), void *opaque)
{
    struct pci_host *host = (struct pci_host *)device;
    bus_unmap(host->bus, &host->port_region);
    bus_unmap(host->bus, &host->ecam_region);
    pci_unplug(&host->lpc);
    pci_unplug(&host->mch);
    device_close_later(host->bus->loop, device, on_closed, opaque);
}

static const struct state_field fields[] = {
    STATE_FIELD(struct pci_host, address),
    STATE_FIELD(struct pci_host, reset_control),
    {"mch.config", offsetof(struct pci_host, mch.config), 1, PCI_CONFIG_SIZE},
    {"lpc.config", offsetof(struct pci_host, lpc.config), 1, PCI_CONFIG_SIZE},
};

static const struct state_table state = {"pci-host", 1, fields, ARRAY_SIZE(fields)};

static const struct device_ops device_ops = {
    .kind = "pci-host",
    .reset = pci_host_reset,
    .state = &state,
    .after_restore = pci_host_after_restore,
    .close = pci_host_close,
};

static void init_functions(struct pci_host *host)
{
    static const struct pci_ids mch_ids = {0x8086, 0x29c0, 0x1af4, 0x1100, HOST_CLASS};
    static const struct pci_ids lpc_ids = {0x8086, 0x2918, 0x1af4, 0x1100, ISA_CLASS | 2};
    pci_device_init(&host->mch, &mch_ids, &mch_ops);
    pci_device_init(&host->lpc, &lpc_ids, &lpc_ops);
    store_le64(host->mch.write_mask + MCH_PCIEXBAR,
               ((UINT64_C(1) << 36) - PCI_HOST_ECAM_SIZE) | PCIEXBAR_SIZE | PCIEXBAR_ON);
    /* All below 1 MiB is RAM whatever these say; firmware wants to find what it wrote. */
    memset(host->mch.write_mask + MCH_PAM0, 0x33, PAM_REGISTERS);
    memset(host->lpc.write_mask + LPC_PIRQ_A, 0x8f, 4);
    memset(host->lpc.write_mask + LPC_PIRQ_E, 0x8f, 4);
}

static int plug(struct pci_host *host, struct error *err)
{
    int result = pci_plug(host->pci_bus, &host->mch, 0, err);
    if (result)
        return result;
    result = pci_plug(host->pci_bus, &host->lpc, PCI_HOST_LPC_SLOT, err);
    if (result)
        goto unplug_mch;
    result = bus_map(host->bus, BUS_PIO, PCI_HOST_ADDRESS_PORT, &host->port_region);
    if (!result)
        return 0;
    error_set(err, -result, "the PCI host bridge finds its ports taken");
    pci_unplug(&host->lpc);
unplug_mch:
    pci_unplug(&host->mch);
    return result;
}

int pci_host_create(struct pci_bus *pci_bus, void (*on_reset)(void *opaque), void *opaque,
                    struct pci_host **out, struct error *err)
{
    struct pci_host *host = calloc(1, sizeof(*host));
    CHECK(host);
    host->device.ops = &device_ops;
    host->bus = pci_bus->bus;
    host->pci_bus = pci_bus;
    host->on_reset = on_reset;
    host->opaque = opaque;
    host->port_region = (struct bus_region){
        .name = "pci-ports", .ops = &port_ops, .device = host, .size = PCI_HOST_PORTS};
    host->ecam_region = (struct bus_region){
        .name = "ecam", .ops = &ecam_ops, .device = host, .size = PCI_HOST_ECAM_SIZE};
    init_functions(host);
    int result = plug(host, err);
    if (result) {
        free(host);
        return result;
    }
    pci_host_reset(&host->device);
    *out = host;
    return 0;
}
