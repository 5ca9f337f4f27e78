/* SPDX-License-Identifier: MIT */
#include "vmm/boot/acpi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "devices/bus.h"
#include "tests/unit/test.h"
#include "vmm/boot/aml.h"

static uint8_t ram[1024 * 1024];

static const struct guest_mem mem = {
    .regions = {{.gpa = 0, .size = sizeof(ram), .host = ram}},
    .region_count = 1,
};

static struct acpi_config config_for(unsigned cpus)
{
    return (struct acpi_config){
        .area_gpa = ACPI_AREA_GPA,
        .cpus = cpus,
        .max_cpus = cpus,
        .cpus_present = bus_all_ones(8) >> (64 - cpus),
        .pci_hole_gpa = 0xc0000000,
        .pci_hole_size = 0x3ec00000,
        .pci_hole64_gpa = UINT64_C(0x4000000000),
        .pci_hole64_size = UINT64_C(0x8000000000),
        .ecam_gpa = 0xb0000000,
        .has_serial = {true, true},
        .has_pvpanic = true,
    };
}

static uint8_t sum(const uint8_t *bytes, size_t length)
{
    uint8_t total = 0;
    while (length--)
        total = (uint8_t)(total + *bytes++);
    return total;
}

/* With `cpus` from the start, of `max_cpus`. */
static const uint8_t *build_pluggable(unsigned cpus, unsigned max_cpus, uint64_t present)
{
    uint64_t rsdp = 0;
    struct acpi_config config = config_for(cpus);
    config.max_cpus = max_cpus;
    config.cpus_present = present;
    assert_int_equal(acpi_build(&config, &mem, &rsdp, NULL), 0);
    return ram + rsdp;
}

static const uint8_t *build(unsigned cpus)
{
    uint64_t rsdp = 0;
    struct error err = {0};
    struct acpi_config config = config_for(cpus);
    memset(ram, 0xee, sizeof(ram));
    if (acpi_build(&config, &mem, &rsdp, &err))
        fail_msg("%s", err.text);
    assert_true(rsdp >= ACPI_AREA_GPA && rsdp % 16 == 0);
    return ram + rsdp;
}

static const uint8_t *table_at(uint64_t gpa)
{
    assert_true(gpa >= ACPI_AREA_GPA && gpa < ACPI_AREA_GPA + ACPI_AREA_SIZE - 36);
    assert_int_equal(gpa % 16, 0);
    uint32_t length = load_le32(ram + gpa + 4);
    assert_true(range_fits(gpa - ACPI_AREA_GPA, length, ACPI_AREA_SIZE));
    assert_int_equal(sum(ram + gpa, length), 0);
    return ram + gpa;
}

static const uint8_t *find(const uint8_t *rsdp, const char *signature)
{
    const uint8_t *xsdt = table_at(load_le64(rsdp + 24));
    for (uint32_t at = 36; at < load_le32(xsdt + 4); at += 8) {
        const uint8_t *table = table_at(load_le64(xsdt + at));
        if (!memcmp(table, signature, 4))
            return table;
        if (!memcmp(table, "FACP", 4) && !strcmp(signature, "DSDT"))
            return table_at(load_le64(table + 140));
    }
    return NULL;
}

static void test_pointer_and_checksums(void **state)
{
    (void)state;
    const uint8_t *rsdp = build(2);
    assert_memory_equal(rsdp, "RSD PTR ", 8);
    assert_int_equal(rsdp[15], 2);
    assert_int_equal(load_le32(rsdp + 20), 36);
    assert_int_equal(sum(rsdp, 20), 0);
    assert_int_equal(sum(rsdp, 36), 0);
    assert_memory_equal(table_at(load_le64(rsdp + 24)), "XSDT", 4);
    assert_non_null(find(rsdp, "FACP"));
    assert_non_null(find(rsdp, "APIC"));
    assert_non_null(find(rsdp, "MCFG"));
    assert_non_null(find(rsdp, "DSDT"));
    assert_null(find(rsdp, "HPET"));
    assert_int_equal(ram[ACPI_AREA_GPA - 1], 0xee);
}

static void test_fadt(void **state)
{
    (void)state;
    const uint8_t *fadt = find(build(1), "FACP");
    assert_int_equal(load_le32(fadt + 4), 276);
    assert_int_equal(load_le16(fadt + 46), 9);
    assert_int_equal(load_le32(fadt + 48), 0xb2);
    assert_int_equal(load_le32(fadt + 56), 0x600);
    assert_int_equal(load_le32(fadt + 64), 0x604);
    assert_int_equal(load_le32(fadt + 76), 0x608);
    assert_int_equal(load_le32(fadt + 80), 0x620);
    assert_int_equal(fadt[92], 16);
    assert_int_equal(load_le16(fadt + 109), 0x15);
    assert_int_equal(load_le32(fadt + 112), 0x465);
    assert_int_equal(load_le64(fadt + 120), 0xcf9);
    assert_int_equal(fadt[128], 0x06);
    assert_int_equal(load_le64(fadt + 152), 0x600);
    assert_int_equal(load_le64(fadt + 140), load_le32(fadt + 40));
    uint32_t facs = load_le32(fadt + 36);
    assert_int_equal(facs % 64, 0);
    assert_memory_equal(ram + facs, "FACS", 4);
    assert_int_equal(load_le32(ram + facs + 4), 64);
}

static void test_madt_lists_every_processor(void **state)
{
    (void)state;
    for (unsigned cpus = 1; cpus <= VCPU_MAX; cpus *= 4) {
        const uint8_t *madt = find(build(cpus), "APIC");
        unsigned lapics = 0, ioapics = 0, overrides = 0, nmis = 0;
        uint32_t at = 44;
        for (; at < load_le32(madt + 4); at += madt[at + 1]) {
            assert_true(madt[at + 1] >= 2);
            lapics += madt[at] == 0;
            ioapics += madt[at] == 1;
            overrides += madt[at] == 2;
            nmis += madt[at] == 4;
            if (madt[at] == 0)
                assert_int_equal(madt[at + 3], lapics - 1);
        }
        assert_int_equal(at, load_le32(madt + 4));
        assert_int_equal(lapics, cpus);
        assert_int_equal(ioapics, 1);
        assert_int_equal(overrides, 2);
        assert_int_equal(nmis, 1);
    }
}

static void test_processors_that_may_come(void **state)
{
    (void)state;
    const uint8_t *madt = find(build_pluggable(1, 4, 0x5), "APIC");
    static const uint32_t flags[] = {1, 2, 1, 2}; /* enabled, or online capable */
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(load_le32(madt + 44 + 8 * i + 4), flags[i]);
}

static void test_needs_memory_below_1m(void **state)
{
    (void)state;
    struct guest_mem small = mem;
    struct acpi_config config = config_for(1);
    struct error err = {0};
    uint64_t rsdp;
    small.regions[0].size = 0xe0000;
    assert_int_equal(acpi_build(&config, &small, &rsdp, &err), -EFAULT);
    assert_non_null(strstr(err.text, "0xe0000"));
}

static void test_mcfg_names_only_the_bus_that_exists(void **state)
{
    (void)state;
    const uint8_t *mcfg = find(build(1), "MCFG");
    assert_int_equal(load_le32(mcfg + 4), 60);
    assert_int_equal(load_le64(mcfg + 44), 0xb0000000);
    assert_int_equal(load_le16(mcfg + 52), 0);
    assert_int_equal(mcfg[54], 0);
    assert_int_equal(mcfg[55], 0);
}

/* The exit status of a shell command. */
static int run(const char *command)
{
    FILE *output = popen(command, "r");
    assert_non_null(output);
    return pclose(output);
}

/* Writes the table to a file and lets Intel's own tool read it. */
static char *disassemble(const uint8_t *table, const char *folder)
{
    char path[128], command[400], *text = calloc(1, 1 << 20);
    snprintf(path, sizeof(path), "%s/%.4s.aml", folder, (const char *)table);
    FILE *file = fopen(path, "w");
    assert_int_equal(fwrite(table, 1, load_le32(table + 4), file), load_le32(table + 4));
    fclose(file);
    snprintf(command, sizeof(command), "cd %s && iasl -d %s 2>&1 && cat %.4s.dsl", folder, path,
             (const char *)table);
    FILE *output = popen(command, "r");
    size_t length = fread(text, 1, (1 << 20) - 1, output);
    assert_true(length > 0);
    assert_int_equal(pclose(output), 0);
    return text;
}

/* What it writes must compile again, without errors and warnings. */
static void recompile(const char *folder)
{
    char command[256], text[4096];
    snprintf(command, sizeof(command), "cd %s && iasl -p again DSDT.dsl 2>&1", folder);
    FILE *output = popen(command, "r");
    size_t length = fread(text, 1, sizeof(text) - 1, output);
    text[length] = '\0';
    if (pclose(output) || !strstr(text, "0 Errors, 0 Warnings"))
        fail_msg("%s", text);
}

/* What the disassembled DSDT must say, in this order. */
static const char *const expected[] = {
    "Name (\\_S5",
    "Device (PCI0)",
    "_UID, Zero",
    "WordBusNumber (ResourceProducer, MinFixed, MaxFixed",
    "0x0000,             // Range Maximum",
    "0x0CF8,             // Range Minimum",
    "WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange",
    "0x0CF7,             // Range Maximum",
    "0x0CF8,             // Length",
    "0x0D00,             // Range Minimum",
    "0xFFFF,             // Range Maximum",
    "DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite",
    "0xC0000000,         // Range Minimum",
    "0xFEBFFFFF,         // Range Maximum",
    "0x3EC00000,         // Length",
    "QWordMemory (",
    "0x000000BFFFFFFFFF, // Range Maximum",
    "0x0000008000000000, // Length",
    "Name (_PRT",
    "0x001FFFFF",
    "0x17",
    "Method (_OSC, 4",
    "Return (Arg3)",
    "Device (LPC)",
    "_ADR, 0x001F0000",
    "PNP0B00",
    "0x0070,             // Range Minimum",
    "{8}",
    "Device (COM1)",
    "0x03F8,             // Range Minimum",
    "{4}",
    "Device (COM2)",
    "{3}",
    "PNP0C02",
    "Memory32Fixed (ReadWrite",
    "0xB0000000,         // Address Base",
    "0x10000000,         // Address Length",
    "QEMU0001",
    "0x0505,             // Range Minimum",
    "_STA, 0x0F",
};

static const char *const pluggable[] = {
    "Device (C002)",
    "Name (_MAT, Buffer",
    "Method (_STA, 0",
    "Method (_EJ0, 1",
    "Method (_OST, 3",
    "OperationRegion (CHP, SystemIO, 0xAE00, 0x40)",
    "Offset (0x10)",
    "CPR0",
    "Notify (C002, One)",
    "Notify (C002, 0x03)",
    "OperationRegion (PHP, SystemIO",
    "Device (S01)",
    "_ADR, 0x00010000",
    "PEJ = 0x02",
    "Device (S1E)",
    "Method (PCNT, 0, Serialized",
    "Notify (S01, One)",
    "Notify (S1E, 0x03)",
    "Scope (\\_GPE)",
    "Method (_E01",
    "\\_SB.PCI0.PCNT ()",
    "Method (_E02",
};

static void assert_has_all(const char *text, size_t count, const char *const *parts)
{
    for (size_t i = 0; i < count; i++) {
        text = strstr(text, parts[i]);
        if (!text)
            fail_msg("the DSDT lacks, or has in another place: %s", parts[i]);
    }
}

static void test_iasl_reads_the_tables(void **state)
{
    (void)state;
    static const char *const tables[] = {"FACP", "APIC", "MCFG", "DSDT"};
    char folder[] = "/tmp/evisor-acpi-XXXXXX", command[64];
    if (run("command -v iasl >/dev/null") != 0) {
        print_message("skipped: iasl is not installed (apt-get install acpica-tools)\n");
        skip();
    }
    assert_non_null(mkdtemp(folder));
    const uint8_t *rsdp = build(VCPU_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        char *text = disassemble(find(rsdp, tables[i]), folder);
        if (strcasestr(text, "error") && !strstr(text, "HEST"))
            fail_msg("%s", text);
        assert_null(strstr(text, "Unknown"));
        if (strcmp(tables[i], "DSDT") == 0) {
            assert_has_all(text, ARRAY_SIZE(expected), expected);
            assert_non_null(strstr(text, "Device (PCI0)"));
            assert_non_null(strstr(text, "Device (C03F)"));
            assert_non_null(strstr(text, "EisaId (\"PNP0501\")"));
            assert_non_null(strstr(text, "Name (\\_S5"));
        }
        free(text);
    }
    recompile(folder);
    free(disassemble(find(build_pluggable(1, VCPU_MAX, 1), "DSDT"), folder));
    recompile(folder);
    char *text = disassemble(find(build_pluggable(2, 3, 3), "DSDT"), folder);
    assert_has_all(text, ARRAY_SIZE(pluggable), pluggable);
    assert_null(strstr(text, "Notify (C001"));
    free(text);
    recompile(folder);
    snprintf(command, sizeof(command), "rm -r %s", folder);
    assert_int_equal(run(command), 0);
}

static void test_aml_says_when_it_does_not_fit(void **state)
{
    (void)state;
    for (size_t capacity = 0; capacity < 40; capacity++) {
        uint8_t *bytes = malloc(capacity + 1);
        struct aml aml;
        aml_init(&aml, bytes, capacity);
        aml_device(&aml, "ABCD");
        aml_name(&aml, "_CRS");
        aml_resources(&aml);
        aml_resource_io(&aml, 0x60, 1);
        aml_end(&aml);
        aml_end(&aml);
        assert_int_equal(aml_overflowed(&aml), capacity < 33);
        free(bytes);
    }
}

static void test_aml_integers(void **state)
{
    (void)state;
    static const struct {
        uint64_t value;
        uint8_t bytes[9];
        size_t length;
    } cases[] = {
        {0, {0x00}, 1},
        {1, {0x01}, 1},
        {2, {0x0a, 2}, 2},
        {0xff, {0x0a, 0xff}, 2},
        {0x1234, {0x0b, 0x34, 0x12}, 3},
        {0x12345678, {0x0c, 0x78, 0x56, 0x34, 0x12}, 5},
        {UINT64_C(1) << 32, {0x0e, 0, 0, 0, 0, 1, 0, 0, 0}, 9},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t bytes[16];
        struct aml aml;
        aml_init(&aml, bytes, sizeof(bytes));
        aml_integer(&aml, cases[i].value);
        assert_int_equal(aml.length, cases[i].length);
        assert_memory_equal(bytes, cases[i].bytes, cases[i].length);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pointer_and_checksums),
        cmocka_unit_test(test_fadt),
        cmocka_unit_test(test_madt_lists_every_processor),
        cmocka_unit_test(test_processors_that_may_come),
        cmocka_unit_test(test_mcfg_names_only_the_bus_that_exists),
        cmocka_unit_test(test_needs_memory_below_1m),
        cmocka_unit_test(test_iasl_reads_the_tables),
        cmocka_unit_test(test_aml_says_when_it_does_not_fit),
        cmocka_unit_test(test_aml_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
