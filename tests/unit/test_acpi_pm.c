/* SPDX-License-Identifier: MIT */
#include "devices/acpi_pm.h"

#include "tests/fake_board.h"
#include "tests/unit/test.h"

static struct fake_board board;
static struct acpi_pm *pm;
static unsigned power_offs;

static void on_power_off(void *opaque)
{
    (void)opaque;
    power_offs++;
}

static int set_up(void **state)
{
    (void)state;
    fake_board_init(&board);
    power_offs = 0;
    return acpi_pm_create(&board.bus, &board.clock, &board.hub, on_power_off, NULL, &pm, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    fake_board_close(&board, &pm->device);
    fake_board_fini(&board);
    return 0;
}

static bool sci(void)
{
    return board.levels[ACPI_SCI_GSI];
}

static void enable(void)
{
    fake_board_out8(&board, 0xb2, ACPI_SMI_ENABLE);
}

static void test_acpi_is_turned_on_by_the_command_port(void **state)
{
    (void)state;
    assert_int_equal(fake_board_in16(&board, 0x604) & 1, 0);
    fake_board_out16(&board, 0x604, 1);
    assert_int_equal(fake_board_in16(&board, 0x604) & 1, 0);
    enable();
    assert_int_equal(fake_board_in16(&board, 0x604) & 1, 1);
    assert_int_equal(fake_board_in8(&board, 0xb2), 2);
    fake_board_out16(&board, 0x604, 0);
    assert_int_equal(fake_board_in16(&board, 0x604) & 1, 1);
    fake_board_out8(&board, 0xb2, ACPI_SMI_DISABLE);
    assert_int_equal(fake_board_in16(&board, 0x604) & 1, 0);
    fake_board_out8(&board, 0xb3, 0x5a);
    assert_int_equal(fake_board_in8(&board, 0xb3), 0x5a);
}

static void test_power_button(void **state)
{
    (void)state;
    acpi_pm_power_button(pm);
    assert_false(sci());
    assert_int_equal(fake_board_in16(&board, 0x600), 0x100);
    fake_board_out16(&board, 0x602, 0x100);
    assert_false(sci());
    enable();
    assert_true(sci());
    fake_board_out16(&board, 0x600, 0x001);
    assert_true(sci());
    fake_board_out16(&board, 0x600, 0x100);
    assert_false(sci());
    assert_int_equal(fake_board_in16(&board, 0x600), 0);
    acpi_pm_power_button(pm);
    assert_true(sci());
    fake_board_out32(&board, 0x600, 0x00000100); /* status and enable in one go */
    assert_false(sci());
    assert_int_equal(fake_board_in32(&board, 0x600), 0);
}

static void test_s5(void **state)
{
    (void)state;
    fake_board_out16(&board, 0x604, 1 << 1);
    assert_int_equal(fake_board_in16(&board, 0x604), 1 << 1);
    fake_board_out16(&board, 0x604, 1 << 13 | 5 << 10);
    assert_int_equal(power_offs, 0);
    assert_int_equal(fake_board_in16(&board, 0x604), 5 << 10);
    fake_board_out16(&board, 0x604, 0 << 10);
    assert_int_equal(power_offs, 0);
    fake_board_out16(&board, 0x604, 1 << 13);
    assert_int_equal(power_offs, 1);
    assert_int_equal(fake_board_in16(&board, 0x604) & 1 << 13, 0);
    fake_board_out8(&board, 0x605, 0x20);
    assert_int_equal(power_offs, 2);
    fake_board_out8(&board, 0x604, 0x20);
    assert_int_equal(power_offs, 2);
    fake_board_out32(&board, 0x602, 0x20000000);
    assert_int_equal(power_offs, 3);
}

static void test_timer(void **state)
{
    (void)state;
    uint32_t before = fake_board_in32(&board, 0x608);
    fake_board_pass(&board, 1000000000);
    assert_in_range(fake_board_in32(&board, 0x608) - before, 3579544, 3579546);
    fake_board_pass(&board, 4000000000);
    assert_true(fake_board_in32(&board, 0x608) < 1 << 24);
    fake_board_out32(&board, 0x608, 0);
    assert_true(fake_board_in32(&board, 0x608) > 1000);
}

static void test_timer_overflow(void **state)
{
    (void)state;
    enable();
    fake_board_out16(&board, 0x602, 1);
    unsigned overflows = 0;
    for (int i = 0; i < 100; i++) { /* the top bit flips every 2.34 s */
        fake_board_pass(&board, 100000000);
        if (!sci())
            continue;
        overflows++;
        fake_board_out16(&board, 0x600, 1);
        assert_false(sci());
    }
    assert_int_equal(overflows, 4);
    fake_board_out16(&board, 0x602, 0);
    fake_board_pass(&board, 10000000000);
    assert_false(sci());
}

static void test_gpe(void **state)
{
    (void)state;
    enable();
    acpi_pm_raise_gpe(pm, 9);
    assert_false(sci());
    fake_board_out8(&board, 0x620 + 8 + 1, 0x02);
    assert_true(sci());
    assert_int_equal(fake_board_in8(&board, 0x621), 0x02);
    fake_board_out8(&board, 0x621, 0x01);
    assert_true(sci());
    fake_board_out8(&board, 0x621, 0x02);
    assert_false(sci());
    acpi_pm_raise_gpe(pm, 63);
    assert_int_equal(fake_board_in8(&board, 0x627), 0x80);
}

static void test_odd_accesses(void **state)
{
    (void)state;
    for (uint16_t port = 0x600; port < 0x680; port++) {
        fake_board_in8(&board, port);
        if (port < 0x67d)
            fake_board_in32(&board, port);
    }
    assert_int_equal(fake_board_in16(&board, 0x67f), 0xffff);
    assert_int_equal(fake_board_in16(&board, 0xb2), 0xffff);
    fake_board_out32(&board, 0x630, 0x12345678);
    assert_int_equal(fake_board_in32(&board, 0x630), 0x12345678);
    fake_board_out8(&board, 0x631, 0xff);
    assert_int_equal(fake_board_in32(&board, 0x630), 0x1234ff78);
    assert_int_equal(fake_board_in16(&board, 0x640), 0);
}

static void test_save_and_restore(void **state)
{
    (void)state;
    enable();
    fake_board_out16(&board, 0x602, 0x100);
    acpi_pm_power_button(pm);
    fake_board_save_and_restore(&pm->device);
    assert_true(sci());
    fake_board_out16(&board, 0x602, 0x001);
    fake_board_save_and_restore(&pm->device);
    fake_board_out16(&board, 0x600, 0x101);
    fake_board_pass(&board, UINT64_C(2500000000));
    assert_true(sci()); /* the timer's overflow is armed again */
    pm->device.ops->reset(&pm->device);
    assert_int_equal(fake_board_in8(&board, 0xb2), 0);
    assert_false(sci());
    assert_int_equal(fake_board_in32(&board, 0x600), 0);
    assert_int_equal(fake_board_in16(&board, 0x604), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_acpi_is_turned_on_by_the_command_port),
        TEST(test_power_button),
        TEST(test_s5),
        TEST(test_timer),
        TEST(test_timer_overflow),
        TEST(test_gpe),
        TEST(test_odd_accesses),
        TEST(test_save_and_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
