/* SPDX-License-Identifier: MIT */
#include "devices/ioapic.h"

#include <errno.h>

#include "tests/fake_board.h"
#include "tests/unit/test.h"

#define LEVEL  (1u << 15)
#define MASKED (1u << 16)
#define REMOTE (1u << 14)

static struct fake_board board;
static struct ioapic *ioapic;
static unsigned route_changes;

static void on_routes_changed(void *opaque)
{
    assert_ptr_equal(opaque, &board);
    route_changes++;
}

static int set_up(void **state)
{
    (void)state;
    fake_board_init(&board);
    route_changes = 0;
    return ioapic_create(&board.bus, &board.hub, on_routes_changed, &board, &ioapic, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    fake_board_close(&board, &ioapic->device);
    fake_board_fini(&board);
    return 0;
}

static void write32(uint64_t offset, uint32_t value)
{
    assert_true(bus_write(&board.bus, BUS_MMIO, IOAPIC_BASE + offset, 4, value));
}

static uint32_t read_register(uint8_t index)
{
    uint64_t value;
    write32(0, index);
    assert_true(bus_read(&board.bus, BUS_MMIO, IOAPIC_BASE + 0x10, 4, &value));
    return (uint32_t)value;
}

static void write_register(uint8_t index, uint32_t value)
{
    write32(0, index);
    write32(0x10, value);
}

static void set_entry(unsigned pin, uint32_t low, uint8_t destination)
{
    write_register((uint8_t)(0x11 + 2 * pin), (uint32_t)destination << 24);
    write_register((uint8_t)(0x10 + 2 * pin), low);
}

static void test_identifies_itself(void **state)
{
    (void)state;
    assert_int_equal(read_register(1), 0x20 | 23 << 16);
    write_register(0, 0xff000000);
    assert_int_equal(read_register(0), 0x0f000000);
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++)
        assert_int_equal(read_register((uint8_t)(0x10 + 2 * pin)), MASKED);
    assert_int_equal(read_register(0x40), 0);
    assert_int_equal(read_register(0xff), 0);
}

static void test_edge_sends_once_per_edge(void **state)
{
    (void)state;
    set_entry(4, 0x31, 2);
    ioapic_set_pin(ioapic, 4, true);
    ioapic_set_pin(ioapic, 4, true);
    assert_int_equal(board.msis, 1);
    assert_int_equal(board.msi_address, 0xfee02000);
    assert_int_equal(board.msi_data, 0x31);
    ioapic_set_pin(ioapic, 4, false);
    ioapic_set_pin(ioapic, 4, true);
    assert_int_equal(board.msis, 2);
    ioapic_set_pin(ioapic, 5, true);
    assert_int_equal(board.msis, 2);
}

static void test_logical_destination_and_delivery_mode(void **state)
{
    (void)state;
    set_entry(1, 0x41 | 1 << 8 | 1 << 11, 0xff);
    ioapic_set_pin(ioapic, 1, true);
    assert_int_equal(board.msi_address, 0xfeeff004);
    assert_int_equal(board.msi_data, 0x141);
    set_entry(2, 0x42 | 7 << 8, 0);
    ioapic_set_pin(ioapic, 2, true);
    assert_int_equal(board.msis, 1);
}

static void test_an_edge_waits_behind_the_mask(void **state)
{
    (void)state;
    set_entry(3, 0x33 | MASKED, 0);
    ioapic_set_pin(ioapic, 3, true);
    ioapic_set_pin(ioapic, 3, false);
    assert_int_equal(board.msis, 0);
    set_entry(3, 0x33, 0);
    assert_int_equal(board.msis, 1);
    set_entry(3, 0x33 | MASKED, 0);
    set_entry(3, 0x33, 0);
    assert_int_equal(board.msis, 1);
}

static void test_level_waits_for_its_eoi(void **state)
{
    (void)state;
    set_entry(9, 0x51 | LEVEL, 0);
    ioapic_set_pin(ioapic, 9, true);
    ioapic_set_pin(ioapic, 9, false);
    ioapic_set_pin(ioapic, 9, true);
    assert_int_equal(board.msis, 1);
    assert_true(read_register(0x22) & REMOTE);
    ioapic_eoi(ioapic, 0x52);
    assert_int_equal(board.msis, 1);
    ioapic_eoi(ioapic, 0x51);
    assert_int_equal(board.msis, 2);
    ioapic_set_pin(ioapic, 9, false);
    write32(0x40, 0x51);
    assert_int_equal(board.msis, 2);
    assert_false(read_register(0x22) & REMOTE);
}

static void test_a_level_that_goes_under_the_mask_is_not_sent(void **state)
{
    (void)state;
    set_entry(9, 0x51 | LEVEL | MASKED, 0);
    ioapic_set_pin(ioapic, 9, true);
    ioapic_set_pin(ioapic, 9, false);
    set_entry(9, 0x51 | LEVEL, 0);
    assert_int_equal(board.msis, 0);
}

static void test_read_only_bits_and_the_way_out_of_a_stuck_irr(void **state)
{
    (void)state;
    set_entry(9, 0x51 | LEVEL | REMOTE | 1 << 12, 0);
    assert_int_equal(read_register(0x22), 0x51 | LEVEL);
    ioapic_set_pin(ioapic, 9, true);
    write_register(0x22, 0x51 | LEVEL);
    assert_true(read_register(0x22) & REMOTE);
    write_register(0x22, 0x51 | MASKED);
    assert_false(read_register(0x22) & REMOTE);
    write_register(0x22, 0x51 | LEVEL);
    assert_int_equal(board.msis, 2);
}

static void test_routes(void **state)
{
    (void)state;
    uint64_t address;
    uint32_t data;
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++)
        assert_false(ioapic_get_route(ioapic, pin, &address, &data));
    set_entry(9, 0x51 | LEVEL | MASKED, 1);
    assert_int_equal(route_changes, 0);
    write_register(0x22, 0x51 | LEVEL);
    assert_int_equal(route_changes, 1);
    write_register(0x22, 0x51 | LEVEL);
    assert_int_equal(route_changes, 1);
    assert_true(ioapic_get_route(ioapic, 9, &address, &data));
    assert_int_equal(address, 0xfee01000);
    assert_int_equal(data, 0x51 | 3 << 14);
    /* Masked before its EOI: the EOI must still be reported. */
    ioapic_set_pin(ioapic, 9, true);
    write_register(0x22, 0x51 | LEVEL | MASKED);
    assert_true(ioapic_get_route(ioapic, 9, &address, &data));
    ioapic_eoi(ioapic, 0x51);
    assert_false(ioapic_get_route(ioapic, 9, &address, &data));
    assert_int_equal(route_changes, 2);
}

static void test_odd_accesses(void **state)
{
    (void)state;
    uint64_t value;
    write32(0, 1);
    assert_true(bus_read(&board.bus, BUS_MMIO, IOAPIC_BASE + 0x10, 1, &value));
    assert_int_equal(value, 0xff);
    bus_read(&board.bus, BUS_MMIO, IOAPIC_BASE + 0x12, 4, &value);
    assert_int_equal(value, UINT32_MAX);
    bus_read(&board.bus, BUS_MMIO, IOAPIC_BASE, 8, &value);
    assert_true(value == UINT64_MAX);
    bus_write(&board.bus, BUS_MMIO, IOAPIC_BASE + 0x10, 8, UINT64_MAX);
    bus_write(&board.bus, BUS_MMIO, IOAPIC_BASE + 0xff8, 8, UINT64_MAX);
    assert_int_equal(read_register(0x10), MASKED);
}

static void test_save_and_reset(void **state)
{
    (void)state;
    set_entry(9, 0x51 | LEVEL, 7);
    ioapic_set_pin(ioapic, 9, true);
    fake_board_save_and_restore(&ioapic->device);
    assert_int_equal(read_register(0x22), 0x51 | LEVEL | REMOTE);
    assert_int_equal(read_register(0x23), 7 << 24);
    ioapic_eoi(ioapic, 0x51);
    assert_int_equal(board.msis, 2);
    write_register(0, 0x05000000);
    ioapic->device.ops->reset(&ioapic->device);
    assert_int_equal(ioapic->selected, 0);
    assert_int_equal(read_register(0x22), MASKED);
    assert_int_equal(read_register(0), 0);
}

static void test_address_taken(void **state)
{
    (void)state;
    struct ioapic *other;
    struct error err = {0};
    assert_int_equal(ioapic_create(&board.bus, &board.hub, NULL, NULL, &other, &err), -EEXIST);
    assert_true(err.text[0]);
}

static void test_pins_do_not_disturb_each_other(void **state)
{
    (void)state;
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++)
        set_entry(pin, 0x40 + pin, 0);
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++) {
        ioapic_set_pin(ioapic, pin, true);
        assert_int_equal(board.msi_data, 0x40 + pin);
    }
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++)
        ioapic_set_pin(ioapic, pin, true);
    assert_int_equal(board.msis, GSI_IOAPIC_PINS);
    /* All stand: as level-triggered ones each is sent anew, and again after its EOI. */
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++)
        set_entry(pin, (0x40 + pin) | LEVEL, 0);
    assert_int_equal(board.msis, 2 * GSI_IOAPIC_PINS);
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++)
        ioapic_eoi(ioapic, (uint8_t)(0x40 + pin));
    assert_int_equal(board.msis, 3 * GSI_IOAPIC_PINS);
}

static void test_changing_one_trigger_keeps_the_others_edges(void **state)
{
    (void)state;
    ioapic_set_pin(ioapic, 3, true); /* waits behind the mask */
    set_entry(9, 0x51 | LEVEL, 0);
    set_entry(3, 0x33, 0);
    assert_int_equal(board.msis, 1);
    assert_int_equal(board.msi_data, 0x33);
}

static void test_impossible_saved_state_is_cut(void **state)
{
    (void)state;
    ioapic->levels = ioapic->pending = UINT32_MAX;
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++)
        ioapic->entries[pin] = UINT64_MAX;
    assert_int_equal(ioapic->device.ops->after_restore(&ioapic->device, NULL), 0);
    assert_int_equal(ioapic->levels, 0xffffff);
    assert_int_equal(ioapic->pending, 0xffffff);
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++)
        assert_true(ioapic->entries[pin] == UINT64_C(0xff0000000001ffff));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_identifies_itself),
        TEST(test_edge_sends_once_per_edge),
        TEST(test_logical_destination_and_delivery_mode),
        TEST(test_an_edge_waits_behind_the_mask),
        TEST(test_level_waits_for_its_eoi),
        TEST(test_a_level_that_goes_under_the_mask_is_not_sent),
        TEST(test_read_only_bits_and_the_way_out_of_a_stuck_irr),
        TEST(test_routes),
        TEST(test_odd_accesses),
        TEST(test_save_and_reset),
        TEST(test_address_taken),
        TEST(test_pins_do_not_disturb_each_other),
        TEST(test_changing_one_trigger_keeps_the_others_edges),
        TEST(test_impossible_saved_state_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
