/* SPDX-License-Identifier: MIT */
/*
 * acpi: lays the tables out one after another in a copy of the area, then writes it to the guest.
 *
 * A table is begun with its header, filled field by field in the order of the specification, and
 * ended, which sets length and checksum. (The DSDT's content is in acpi_dsdt.c.)
 */
#include "vmm/boot/acpi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/acpi_pm.h"
#include "devices/ioapic.h"
#include "devices/pci_host.h"
#include "vmm/boot/acpi_dsdt.h"

#define HEADER_BYTES  36
#define FADT_BYTES    276
#define FACS_BYTES    64
#define LENGTH_AT     4
#define CHECKSUM_AT   9
#define LAPIC_GPA     0xfee00000u
#define RESET_PORT    0xcf9
#define RESET_VALUE   0x06
#define CENTURY_INDEX 0x32
#define TABLES_MAX    4
#define MADT_ENABLED  1
#define MADT_ONLINE_CAPABLE 2
#define NO_C2_LATENCY 0x0fff
#define ECAM_LAST_BUS 255

enum { /* FADT flags */
       FADT_WBINVD = 1 << 0,
       FADT_C1 = 1 << 2,
       FADT_NO_SLEEP_BUTTON = 1 << 5,
       FADT_NO_FIXED_RTC = 1 << 6,
       FADT_RESET_REGISTER = 1 << 10,
};

enum { /* FADT IA-PC boot architecture */
       BOOT_LEGACY_DEVICES = 1 << 0,
       BOOT_NO_VGA = 1 << 2,
       BOOT_NO_ASPM = 1 << 4,
};

struct area {
    uint8_t bytes[ACPI_AREA_SIZE];
    uint64_t gpa; /* of the first byte */
    size_t length;
    size_t table; /* where the present table begins */
    uint64_t tables[TABLES_MAX];
    unsigned table_count;
    bool has_overflowed;
};

/* Room for `length` bytes of zeroes at the end of the area. */
static uint8_t *reserve(struct area *area, size_t length)
{
    if (!range_fits(area->length, length, sizeof(area->bytes))) {
        area->has_overflowed = true;
        return NULL;
    }
    uint8_t *at = area->bytes + area->length;
    area->length += length;
    return at;
}

static void put(struct area *area, uint64_t value, unsigned bytes)
{
    uint8_t all[8], *at = reserve(area, bytes);
    store_le64(all, value);
    if (at)
        memcpy(at, all, bytes);
}

static void put_text(struct area *area, const char *text, size_t bytes)
{
    uint8_t *at = reserve(area, bytes);
    if (at)
        memcpy(at, text, bytes);
}

/* A generic address: `bits` wide at an I/O port; all zeroes if port is 0. */
static void put_port(struct area *area, uint16_t port, uint8_t bits)
{
    put(area, port ? 1 : 0, 1);
    put(area, port ? bits : 0, 1);
    put(area, 0, 2);
    put(area, port, 8);
}

static uint8_t checksum(const uint8_t *bytes, size_t length)
{
    uint8_t sum = 0;
    while (length--)
        sum = (uint8_t)(sum + *bytes++);
    return (uint8_t)-sum;
}

static uint64_t gpa_of(const struct area *area, size_t offset)
{
    return area->gpa + offset;
}

static void align(struct area *area, size_t alignment)
{
    size_t aligned = (size_t)align_up(area->length, alignment);
    reserve(area, aligned - area->length);
}

static void begin_table(struct area *area, const char *signature, uint8_t revision)
{
    align(area, 16);
    area->table = area->length;
    put_text(area, signature, 4);
    put(area, 0, 4); /* length */
    put(area, revision, 1);
    put(area, 0, 1); /* checksum */
    put_text(area, "EVISORMACHINE ", 14);
    put(area, 1, 4);
    put_text(area, "EVSR", 4);
    put(area, 1, 4);
}

/* Returns where the table is. */
static uint64_t end_table(struct area *area)
{
    uint8_t *table = area->bytes + area->table;
    size_t length = area->length - area->table;
    if (!area->has_overflowed) {
        store_le32(table + LENGTH_AT, (uint32_t)length);
        table[CHECKSUM_AT] = checksum(table, length);
    }
    return gpa_of(area, area->table);
}

static void end_listed_table(struct area *area)
{
    uint64_t gpa = end_table(area);
    CHECK(area->table_count < TABLES_MAX);
    area->tables[area->table_count++] = gpa;
}

static uint64_t build_facs(struct area *area)
{
    align(area, 64);
    uint64_t gpa = gpa_of(area, area->length);
    put_text(area, "FACS", 4);
    put(area, FACS_BYTES, 4);
    reserve(area, 24);
    put(area, 2, 1); /* version */
    reserve(area, FACS_BYTES - 33);
    return gpa;
}

static uint64_t build_dsdt(struct area *area, const struct acpi_config *config)
{
    struct aml aml;
    begin_table(area, "DSDT", 2);
    aml_init(&aml, area->bytes + area->length, sizeof(area->bytes) - area->length);
    acpi_dsdt_write(config, &aml);
    if (aml_overflowed(&aml))
        area->has_overflowed = true;
    area->length += aml.length;
    return end_table(area);
}

/* The register blocks as plain addresses and lengths, bytes 56 to 95 of the FADT. */
static void put_fadt_blocks(struct area *area)
{
    put(area, ACPI_PM1_EVENT, 4);
    put(area, 0, 4);
    put(area, ACPI_PM1_CONTROL, 4);
    put(area, 0, 4);
    put(area, 0, 4); /* PM2 */
    put(area, ACPI_PM_TIMER, 4);
    put(area, ACPI_GPE0, 4);
    put(area, 0, 4); /* GPE1 */
    put(area, 4, 1);
    put(area, 2, 1);
    put(area, 0, 1);
    put(area, 4, 1);
    put(area, ACPI_GPE0_BYTES, 1);
    put(area, 0, 3); /* GPE1's length and base, C-state control */
}

/* The same blocks as generic addresses, bytes 148 to 267. */
static void put_fadt_generic_blocks(struct area *area)
{
    put_port(area, ACPI_PM1_EVENT, 32);
    put_port(area, 0, 0);
    put_port(area, ACPI_PM1_CONTROL, 16);
    put_port(area, 0, 0);
    put_port(area, 0, 0); /* PM2 */
    put_port(area, ACPI_PM_TIMER, 32);
    put_port(area, ACPI_GPE0, 8 * ACPI_GPE0_BYTES);
    put_port(area, 0, 0); /* GPE1 */
    put_port(area, 0, 0); /* sleep control and status: for reduced hardware only */
    put_port(area, 0, 0);
}

static void build_fadt(struct area *area, uint64_t facs, uint64_t dsdt)
{
    begin_table(area, "FACP", 6);
    put(area, facs, 4);
    put(area, dsdt, 4);
    put(area, 0, 2); /* interrupt model, power profile: unspecified */
    put(area, ACPI_SCI_GSI, 2);
    put(area, ACPI_SMI_CMD, 4);
    put(area, ACPI_SMI_ENABLE, 1);
    put(area, ACPI_SMI_DISABLE, 1);
    put(area, 0, 2); /* S4BIOS, P-states */
    put_fadt_blocks(area);
    put(area, NO_C2_LATENCY, 2);
    put(area, NO_C2_LATENCY, 2);
    put(area, 0, 8); /* cache flush, duty cycle, alarm of day and month */
    put(area, CENTURY_INDEX, 1);
    put(area, BOOT_LEGACY_DEVICES | BOOT_NO_VGA | BOOT_NO_ASPM, 2);
    put(area, 0, 1);
    put(area,
        FADT_WBINVD | FADT_C1 | FADT_NO_SLEEP_BUTTON | FADT_NO_FIXED_RTC | FADT_RESET_REGISTER, 4);
    put_port(area, RESET_PORT, 8);
    put(area, RESET_VALUE, 1);
    put(area, 0, 2); /* ARM */
    put(area, 3, 1); /* minor version */
    put(area, 0, 8); /* the FACS was named above */
    put(area, dsdt, 8);
    put_fadt_generic_blocks(area);
    put(area, 0, 8); /* hypervisor */
    CHECK(area->has_overflowed || area->length - area->table == FADT_BYTES);
    end_listed_table(area);
}

static void put_override(struct area *area, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    put(area, 2, 1);
    put(area, 10, 1);
    put(area, 0, 1); /* ISA */
    put(area, irq, 1);
    put(area, gsi, 4);
    put(area, flags, 2);
}

static void build_madt(struct area *area, const struct acpi_config *config)
{
    begin_table(area, "APIC", 5);
    put(area, LAPIC_GPA, 4);
    put(area, 1, 4); /* there is a pair of 8259s too */
    for (unsigned i = 0; i < config->max_cpus; i++) {
        put(area, 0, 1);
        put(area, 8, 1);
        put(area, i, 1); /* the processor's _UID, then its APIC id */
        put(area, i, 1);
        put(area, config->cpus_present >> i & 1 ? MADT_ENABLED : MADT_ONLINE_CAPABLE, 4);
    }
    put(area, 1, 1);
    put(area, 12, 1);
    put(area, 0, 2); /* id */
    put(area, IOAPIC_BASE, 4);
    put(area, 0, 4); /* first GSI */
    put_override(area, 0, 2, 0);
    put_override(area, ACPI_SCI_GSI, ACPI_SCI_GSI, 0x0d); /* level, active high */
    put(area, 4, 1);                                      /* NMI: LINT1 of every processor */
    put(area, 6, 1);
    put(area, 0xff, 1);
    put(area, 0, 2);
    put(area, 1, 1);
    end_listed_table(area);
}

static void build_mcfg(struct area *area, uint64_t ecam_gpa)
{
    begin_table(area, "MCFG", 1);
    put(area, 0, 8);
    put(area, ecam_gpa, 8);
    put(area, 0, 2); /* segment */
    put(area, 0, 1);
    put(area, PCI_HOST_LAST_BUS, 1);
    put(area, 0, 4);
    end_listed_table(area);
}

static uint64_t build_xsdt(struct area *area)
{
    begin_table(area, "XSDT", 1);
    for (unsigned i = 0; i < area->table_count; i++)
        put(area, area->tables[i], 8);
    return end_table(area);
}

/* The pointer lies at the start of the area, which was left free for it. */
static void fill_rsdp(uint8_t *rsdp, uint64_t xsdt)
{
    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "EVISOR", 6);
    rsdp[15] = 2; /* revision */
    store_le32(rsdp + 20, ACPI_RSDP_BYTES);
    store_le64(rsdp + 24, xsdt);
    rsdp[8] = checksum(rsdp, 20);
    rsdp[32] = checksum(rsdp, ACPI_RSDP_BYTES);
}

int acpi_build(const struct acpi_config *config, const struct guest_mem *mem, uint64_t *rsdp_gpa,
               struct error *err)
{
    struct area *area = calloc(1, sizeof(*area));
    CHECK(area);
    area->gpa = config->area_gpa;
    reserve(area, ACPI_RSDP_BYTES);
    uint64_t facs = build_facs(area);
    uint64_t dsdt = build_dsdt(area, config);
    build_fadt(area, facs, dsdt);
    build_madt(area, config);
    build_mcfg(area, config->ecam_gpa);
    fill_rsdp(area->bytes, build_xsdt(area));
    *rsdp_gpa = area->gpa;

    int result = 0;
    if (area->has_overflowed)
        result = error_set(err, ENOSPC, "the ACPI tables for %u CPUs do not fit in their area",
                           config->max_cpus);
    else if (!guest_mem_write(mem, area->gpa, area->bytes, area->length))
        result = error_set(err, EFAULT, "the guest has no memory at 0x%llx for the ACPI tables",
                           (unsigned long long)area->gpa);
    free(area);
    return result;
}
