/* SPDX-License-Identifier: MIT */
#include "devices/pci_host.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/fake_board.h"
#include "tests/unit/test.h"

static struct fake_board board;
static struct pci_bus pci_bus;
static struct pci_host *host;
static unsigned resets;

static void on_reset(void *opaque)
{
    assert_ptr_equal(opaque, &board);
    resets++;
}

static int set_up(void **state)
{
    (void)state;
    fake_board_init(&board);
    resets = 0;
    pci_bus_init(&pci_bus, &board.bus, &board.hub);
    return pci_host_create(&pci_bus, on_reset, &board, &host, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    fake_board_close(&board, &host->device);
    assert_null(pci_bus.devices[0]);
    assert_null(pci_bus.devices[31]);
    fake_board_fini(&board);
    return 0;
}

static uint32_t address(unsigned bus, unsigned slot, unsigned function, unsigned offset)
{
    return UINT32_C(1) << 31 | bus << 16 | slot << 11 | function << 8 | offset;
}

static uint32_t port_read(unsigned bus, unsigned slot, unsigned offset)
{
    fake_board_out32(&board, 0xcf8, address(bus, slot, 0, offset));
    return fake_board_in32(&board, 0xcfc);
}

static uint64_t ecam_read(uint64_t base, unsigned bus, unsigned slot, unsigned offset,
                          unsigned size)
{
    uint64_t value;
    bus_read(&board.bus, BUS_MMIO, base + (bus << 20 | slot << 15 | offset), size, &value);
    return value;
}

static void test_ports(void **state)
{
    (void)state;
    assert_int_equal(port_read(0, 0, 0), 0x29c08086);
    assert_int_equal(port_read(0, 31, 0), 0x29188086);
    assert_int_equal(port_read(0, 0, 8) >> 8, 0x060000);
    assert_int_equal(port_read(0, 31, 8) >> 8, 0x060100);
    assert_int_equal(port_read(0, 5, 0), UINT32_MAX);
    assert_int_equal(port_read(1, 0, 0), UINT32_MAX);
    fake_board_out32(&board, 0xcf8, address(0, 0, 1, 0));
    assert_int_equal(fake_board_in32(&board, 0xcfc), UINT32_MAX);
    fake_board_out32(&board, 0xcf8, address(0, 31, 0, 0));
    assert_int_equal(fake_board_in16(&board, 0xcfe), 0x2918);
    assert_int_equal(fake_board_in8(&board, 0xcfd), 0x80);
    assert_int_equal(fake_board_in16(&board, 0xcfd), 0xffff);
    assert_int_equal(fake_board_in32(&board, 0xcf8), address(0, 31, 0, 0));
    fake_board_out32(&board, 0xcf8, address(0, 31, 0, 0) & INT32_MAX);
    assert_int_equal(fake_board_in32(&board, 0xcfc), UINT32_MAX);
}

static void test_ecam(void **state)
{
    (void)state;
    assert_int_equal(ecam_read(PCI_HOST_ECAM_BASE, 0, 0, 0, 4), 0x29c08086);
    assert_int_equal(ecam_read(PCI_HOST_ECAM_BASE, 0, 31, 2, 2), 0x2918);
    assert_int_equal(ecam_read(PCI_HOST_ECAM_BASE, 255, 31, 0, 4), UINT32_MAX);
    assert_true(ecam_read(PCI_HOST_ECAM_BASE, 0, 0, 0, 8) == UINT64_MAX);
    assert_int_equal(ecam_read(PCI_HOST_ECAM_BASE, 0, 0, 0x100, 4), 0);
    assert_int_equal(ecam_read(PCI_HOST_ECAM_BASE, 0, 0, 1, 2), 0xffff);
    assert_true(bus_write(&board.bus, BUS_MMIO, PCI_HOST_ECAM_BASE + 0x3c, 1, 0x55));
    assert_int_equal(port_read(0, 0, 0x3c) & 0xff, 0x55);
}

static void write_pciexbar(uint64_t value)
{
    fake_board_out32(&board, 0xcf8, address(0, 0, 0, 0x64));
    fake_board_out32(&board, 0xcfc, (uint32_t)(value >> 32));
    fake_board_out32(&board, 0xcf8, address(0, 0, 0, 0x60));
    fake_board_out32(&board, 0xcfc, (uint32_t)value);
}

static void test_ecam_moves(void **state)
{
    (void)state;
    write_pciexbar(0xe0000001);
    assert_int_equal(ecam_read(0xe0000000, 0, 0, 0, 4), 0x29c08086);
    assert_int_equal(ecam_read(PCI_HOST_ECAM_BASE, 0, 0, 0, 4), UINT32_MAX);
    write_pciexbar(0xe0000000);
    assert_int_equal(ecam_read(0xe0000000, 0, 0, 0, 4), UINT32_MAX);
    write_pciexbar(0xe0000003); /* 128 MiB: not to be had */
    assert_int_equal(ecam_read(0xe0000000, 0, 0, 0, 4), UINT32_MAX);
    write_pciexbar(UINT64_MAX & ~UINT64_C(6)); /* cut to 36 bits */
    assert_int_equal(ecam_read(UINT64_C(0xff0000000), 0, 0, 0, 4), 0x29c08086);
    host->device.ops->reset(&host->device);
    assert_int_equal(ecam_read(PCI_HOST_ECAM_BASE, 0, 0, 0, 4), 0x29c08086);
    /* From inside ECAM itself. */
    bus_write(&board.bus, BUS_MMIO, PCI_HOST_ECAM_BASE + 0x60, 4, 0xd0000001);
    assert_int_equal(ecam_read(0xd0000000, 0, 31, 0, 4), 0x29188086);
}

static void test_ecam_does_not_land_on_others(void **state)
{
    (void)state;
    static const struct bus_region_ops no_ops = {NULL, NULL};
    struct bus_region other = {.name = "other", .ops = &no_ops, .size = 0x1000};
    assert_int_equal(bus_map(&board.bus, BUS_MMIO, 0xe1000000, &other), 0);
    write_pciexbar(0xe0000001);
    assert_false(host->ecam_region.mapped);
    write_pciexbar(0xd0000001);
    assert_true(host->ecam_region.mapped);
    bus_unmap(&board.bus, &other);
}

static void test_firmware_state(void **state)
{
    (void)state;
    assert_int_equal(port_read(0, 31, 0x40), 0x601);
    assert_int_equal(port_read(0, 31, 0x44) & 0xff, 0x80);
    assert_int_equal(port_read(0, 31, 0x60), 0x80808080);
    fake_board_out32(&board, 0xcf8, address(0, 31, 0, 0x60));
    fake_board_out8(&board, 0xcfc, 0x0b);
    assert_int_equal(port_read(0, 31, 0x60), 0x8080800b);
    fake_board_out32(&board, 0xcf8, address(0, 31, 0, 0x40));
    fake_board_out32(&board, 0xcfc, 0);
    assert_int_equal(port_read(0, 31, 0x40), 0x601);
}

static void test_reset_register(void **state)
{
    (void)state;
    fake_board_out8(&board, 0xcf9, 0x02);
    assert_int_equal(resets, 0);
    fake_board_out8(&board, 0xcf9, 0x06);
    assert_int_equal(resets, 1);
    fake_board_out8(&board, 0xcf9, 0x06);
    assert_int_equal(resets, 1);
    assert_int_equal(fake_board_in8(&board, 0xcf9), 0x06);
    fake_board_out32(&board, 0xcf8, address(0, 0, 0, 0x3c));
    fake_board_out8(&board, 0xcfc, 0x55);
    fake_board_out32(&board, 0xcf8, address(0, 0, 0, 0x90));
    fake_board_out32(&board, 0xcfc, 0xffffffff);
    assert_int_equal(port_read(0, 0, 0x90), 0x33333333); /* PAM */
    host->device.ops->reset(&host->device);
    assert_int_equal(fake_board_in8(&board, 0xcf9), 0);
    assert_int_equal(fake_board_in32(&board, 0xcf8), 0);
    assert_int_equal(port_read(0, 0, 0x3c) & 0xff, 0);
    assert_int_equal(port_read(0, 0, 0x90), 0);
    fake_board_out8(&board, 0xcf9, 0x0e);
    assert_int_equal(resets, 2);
    fake_board_out32(&board, 0xcf8, 0xffffffff); /* the dword port is not the register */
    assert_int_equal(resets, 2);
}

static void test_interrupt_lines(void **state)
{
    (void)state;
    for (unsigned slot = 0; slot < 32; slot++)
        for (unsigned pin = 0; pin < 4; pin++)
            assert_in_range(pci_host_intx_gsi(slot, pin), 16, 23);
    assert_int_equal(pci_host_intx_gsi(1, 0), 17);
    assert_int_equal(pci_host_intx_gsi(7, 3), 18);
}

static void test_save_and_restore(void **state)
{
    (void)state;
    write_pciexbar(0xe0000001);
    fake_board_out32(&board, 0xcf8, address(0, 31, 0, 0x68));
    fake_board_out8(&board, 0xcfc, 0x0a);
    fake_board_save_and_restore(&host->device);
    assert_int_equal(fake_board_in8(&board, 0xcfc), 0x0a);
    assert_int_equal(ecam_read(0xe0000000, 0, 0, 0, 4), 0x29c08086);
    write_pciexbar(PCI_HOST_ECAM_BASE | 1);
}

static void test_slot_taken(void **state)
{
    (void)state;
    struct pci_host *other;
    struct error err = {0};
    assert_true(pci_host_create(&pci_bus, on_reset, NULL, &other, &err) < 0);
    assert_true(err.text[0]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ports),           TEST(test_ecam),
        TEST(test_ecam_moves),      TEST(test_ecam_does_not_land_on_others),
        TEST(test_firmware_state),  TEST(test_reset_register),
        TEST(test_interrupt_lines), TEST(test_save_and_restore),
        TEST(test_slot_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
