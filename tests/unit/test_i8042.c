/* SPDX-License-Identifier: MIT */
#include "devices/i8042.h"

#include "devices/pvpanic.h"
#include "tests/fake_board.h"
#include "tests/unit/test.h"

static struct fake_board board;
static struct i8042 *i8042;
static struct pvpanic *pvpanic;
static unsigned resets, panics;

static void on_reset(void *opaque)
{
    assert_ptr_equal(opaque, &board);
    resets++;
}

static void on_panic(void *opaque, unsigned events)
{
    assert_ptr_equal(opaque, &board);
    assert_int_not_equal(events, 0);
    panics |= events;
}

static int set_up(void **state)
{
    (void)state;
    fake_board_init(&board);
    resets = panics = 0;
    if (i8042_create(&board.bus, &board.hub, on_reset, &board, &i8042, NULL))
        return -1;
    return pvpanic_create(&board.bus, on_panic, &board, &pvpanic, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    fake_board_close(&board, &pvpanic->device);
    fake_board_close(&board, &i8042->device);
    fake_board_fini(&board);
    return 0;
}

static void command(uint8_t value)
{
    fake_board_out8(&board, 0x64, value);
}

static uint8_t data(void)
{
    return fake_board_in8(&board, 0x60);
}

static bool is_full(void)
{
    return fake_board_in8(&board, 0x64) & 1;
}

static void test_the_ways_to_reset(void **state)
{
    (void)state;
    command(0xfe);
    assert_int_equal(resets, 1);
    command(0xff);
    assert_int_equal(resets, 1);
    fake_board_out8(&board, 0x92, 0x02);
    assert_int_equal(resets, 1);
    fake_board_out8(&board, 0x92, 0x03);
    assert_int_equal(resets, 2);
    command(0xd1);
    fake_board_out8(&board, 0x60, 0xdf);
    assert_int_equal(resets, 2);
    command(0xd1);
    fake_board_out8(&board, 0x60, 0xde);
    assert_int_equal(resets, 3);
    assert_int_equal(fake_board_in8(&board, 0x92), 0x02);
}

static void test_commands(void **state)
{
    (void)state;
    assert_false(is_full());
    assert_int_equal(fake_board_in8(&board, 0x64) & 0x02, 0); /* never busy */
    command(0xaa);
    assert_true(is_full());
    assert_int_equal(data(), 0x55);
    assert_false(is_full());
    command(0x60);
    fake_board_out8(&board, 0x60, 0x47);
    command(0x20);
    assert_int_equal(data(), 0x47);
    command(0xad);
    command(0xa7);
    command(0x20);
    assert_int_equal(data(), 0x77);
    command(0xae);
    command(0xa8);
    command(0x20);
    assert_int_equal(data(), 0x47);
    command(0x65);
    fake_board_out8(&board, 0x60, 0x99);
    command(0x25);
    assert_int_equal(data(), 0x99);
    command(0xab);
    assert_int_equal(data(), 0);
    command(0xd0);
    assert_int_equal(data() & 3, 3);
    command(0xd3);
    fake_board_out8(&board, 0x60, 0x5a);
    assert_int_equal(data(), 0x5a);
}

static void test_nobody_is_attached(void **state)
{
    (void)state;
    fake_board_out8(&board, 0x60, 0xff); /* keyboard reset */
    assert_int_equal(data(), 0xfe);
    command(0xd4);
    fake_board_out8(&board, 0x60, 0xf2);
    assert_int_equal(data(), 0xfe);
    assert_false(is_full());
}

static void test_interrupt_per_byte(void **state)
{
    (void)state;
    command(0x60);
    fake_board_out8(&board, 0x60, 0x05);
    command(0xaa);
    command(0xab);
    assert_true(board.levels[1]);
    data();
    assert_true(board.levels[1]);
    assert_int_equal(board.raises[1], 2);
    data();
    assert_false(board.levels[1]);
}

static void test_a_guest_that_never_reads(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        command(0xaa);
    for (int i = 0; i < I8042_OUTPUT_MAX; i++) {
        assert_true(is_full());
        assert_int_equal(data(), 0x55);
    }
    assert_false(is_full());
}

static void test_save_and_restore(void **state)
{
    (void)state;
    command(0x60);
    fake_board_out8(&board, 0x60, 0x05);
    command(0xaa);
    command(0x60);
    fake_board_save_and_restore(&i8042->device);
    assert_true(board.levels[1]);
    fake_board_out8(&board, 0x60, 0x04);
    assert_false(board.levels[1]);
    assert_int_equal(data(), 0x55);
}

static void test_panic_and_post(void **state)
{
    (void)state;
    assert_int_equal(fake_board_in8(&board, PVPANIC_PORT), 3);
    fake_board_out8(&board, PVPANIC_PORT, 0xfc);
    assert_int_equal(panics, 0);
    fake_board_out8(&board, PVPANIC_PORT, PVPANIC_PANICKED);
    assert_int_equal(panics, PVPANIC_PANICKED);
    fake_board_out16(&board, PVPANIC_PORT, 0xffff);
    assert_int_equal(panics, PVPANIC_PANICKED);
    fake_board_out8(&board, 0x80, 0x42);
    assert_int_equal(fake_board_in8(&board, 0x80), 0x42);
}

static void test_status_and_reset(void **state)
{
    (void)state;
    assert_int_equal(fake_board_in8(&board, 0x64), 0x14);
    command(0x60);
    assert_int_equal(fake_board_in8(&board, 0x64), 0x1c);
    fake_board_out8(&board, 0x60, 0x00);
    assert_int_equal(fake_board_in8(&board, 0x64), 0x10);
    command(0xaa); /* the self-test sets the system flag again */
    assert_int_equal(data(), 0x55);
    assert_int_equal(fake_board_in8(&board, 0x64), 0x1c);
    command(0xd1);
    fake_board_out8(&board, 0x80, 0x17);
    i8042->device.ops->reset(&i8042->device);
    pvpanic->device.ops->reset(&pvpanic->device);
    assert_int_equal(fake_board_in8(&board, 0x64), 0x14);
    command(0x20);
    assert_int_equal(data(), 0x34); /* both devices off */
    command(0xd0);
    assert_int_equal(data(), 0x03);
    assert_int_equal(fake_board_in8(&board, 0x80), 0);
    fake_board_out8(&board, 0x60, 0x00); /* no command waits for this */
    assert_int_equal(data(), 0xfe);
    assert_int_equal(resets, 0);
}

static void test_a_command_replaces_the_one_that_waits(void **state)
{
    (void)state;
    command(0xd1);
    command(0xad);
    fake_board_out8(&board, 0x60, 0x00);
    assert_int_equal(resets, 0);
    assert_int_equal(data(), 0xfe); /* it went to the keyboard */
    command(0x60);
    fake_board_out8(&board, 0x60, 0x11);
    fake_board_out8(&board, 0x60, 0x22); /* not for the configuration any more */
    data();
    command(0x20);
    assert_int_equal(data(), 0x11);
}

static void test_impossible_saved_state_is_refused(void **state)
{
    (void)state;
    i8042->output_start = I8042_OUTPUT_MAX;
    assert_true(i8042->device.ops->after_restore(&i8042->device, NULL) < 0);
    i8042->output_start = 0;
    i8042->output_count = I8042_OUTPUT_MAX + 1;
    assert_true(i8042->device.ops->after_restore(&i8042->device, NULL) < 0);
    i8042->output_count = 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_ways_to_reset),
        TEST(test_commands),
        TEST(test_nobody_is_attached),
        TEST(test_interrupt_per_byte),
        TEST(test_a_guest_that_never_reads),
        TEST(test_save_and_restore),
        TEST(test_panic_and_post),
        TEST(test_status_and_reset),
        TEST(test_a_command_replaces_the_one_that_waits),
        TEST(test_impossible_saved_state_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
