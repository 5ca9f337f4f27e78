/* SPDX-License-Identifier: MIT */
#include "devices/rtc.h"

#include <time.h>

#include "base/bytes.h"
#include "tests/fake_board.h"
#include "tests/unit/test.h"

#define S UINT64_C(1000000000)

static struct fake_board board;
static struct rtc *rtc;

static int set_up(void **state)
{
    (void)state;
    fake_board_init(&board);
    fake_board_wall_ns = INT64_C(1731542399) * 1000000000; /* 2024-11-13 23:59:59, a Wednesday */
    return rtc_create(&board.bus, &board.clock, &board.hub, 3 * GIB, 5 * GIB, 4, &rtc, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    fake_board_close(&board, &rtc->device);
    fake_board_fini(&board);
    return 0;
}

static uint8_t get(uint8_t index)
{
    fake_board_out8(&board, 0x70, index);
    return fake_board_in8(&board, 0x71);
}

static void set(uint8_t index, uint8_t value)
{
    fake_board_out8(&board, 0x70, index);
    fake_board_out8(&board, 0x71, value);
}

static void assert_time(uint8_t hour, uint8_t minute, uint8_t second)
{
    assert_int_equal(get(4), hour);
    assert_int_equal(get(2), minute);
    assert_int_equal(get(0), second);
}

static void test_shows_utc(void **state)
{
    (void)state;
    assert_time(0x23, 0x59, 0x59);
    assert_int_equal(get(6), 4);
    assert_int_equal(get(7), 0x13);
    assert_int_equal(get(8), 0x11);
    assert_int_equal(get(9), 0x24);
    assert_int_equal(get(0x32), 0x20);
    fake_board_pass(&board, S);
    assert_time(0x00, 0x00, 0x00);
    assert_int_equal(get(7), 0x14);
    set(11, 0x06); /* binary */
    fake_board_pass(&board, 25 * S);
    assert_time(0, 0, 25);
    assert_int_equal(get(9), 24);
    assert_int_equal(get(0x32), 20);
}

static void test_twelve_hours(void **state)
{
    (void)state;
    set(11, 0x00);
    assert_int_equal(get(4), 0x91); /* 11 pm, BCD: 0x11 and the top bit */
    fake_board_pass(&board, S);
    assert_int_equal(get(4), 0x12); /* midnight is 12 am */
    fake_board_pass(&board, 12 * 3600 * S);
    assert_int_equal(get(4), 0x92);
    set(4, 0x83); /* 3 pm */
    set(11, 0x02);
    assert_int_equal(get(4), 0x15);
}

static void test_stays_set(void **state)
{
    (void)state;
    set(11, 0x82);
    set(0, 0x30);
    set(2, 0x45);
    set(4, 0x06);
    set(7, 0x29);
    set(8, 0x02);
    set(9, 0x28);
    fake_board_pass(&board, 10 * S);
    assert_time(0x06, 0x45, 0x30); /* held while SET */
    set(11, 0x02);
    fake_board_pass(&board, 40 * S);
    assert_time(0x06, 0x46, 0x10);
    assert_int_equal(get(7), 0x29);
    assert_int_equal(get(6), 3); /* 2028-02-29 is a Tuesday */
    set(4, 0x12);                /* without SET it counts at once */
    assert_time(0x12, 0x46, 0x10);
    fake_board_pass(&board, S);
    rtc->cmos[12] = 0x10;
    rtc->device.ops->reset(&rtc->device);
    assert_int_equal(rtc->cmos[12], 0);
    assert_time(0x12, 0x46, 0x11);
}

static void test_nonsense_dates_do_no_harm(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 256; round++) {
        set(11, round & 1 ? 0x86 : 0x80);
        for (uint8_t index = 0; index < 10; index++)
            set(index, (uint8_t)(round * 37 + index * 91));
        set(0x32, (uint8_t)round);
        set(11, round & 1 ? 0x36 : 0x30);
        fake_board_pass(&board, S);
        for (uint8_t index = 0; index < 10; index++)
            get(index);
        get(12);
    }
}

static void test_update_flag_and_interrupt(void **state)
{
    (void)state;
    set(1, 0x59); /* an alarm far from now */
    get(12);
    assert_int_equal(get(12), 0);
    fake_board_pass(&board, S);
    assert_int_equal(get(12), 0x10);
    assert_int_equal(board.raises[RTC_GSI], 0);
    set(11, 0x12);
    fake_board_pass(&board, S);
    assert_true(board.levels[RTC_GSI]);
    assert_int_equal(get(12), 0x90);
    assert_false(board.levels[RTC_GSI]);
    for (int i = 0; i < 5; i++) {
        fake_board_pass(&board, S);
        get(12);
    }
    assert_int_equal(board.raises[RTC_GSI], 6);
}

static void test_update_in_progress(void **state)
{
    (void)state;
    assert_int_equal(get(10) & 0x80, 0);
    fake_board_pass(&board, S - 100000);
    assert_int_equal(get(10) & 0x80, 0x80);
    fake_board_pass(&board, 100000);
    assert_int_equal(get(10) & 0x80, 0);
}

static void test_alarm(void **state)
{
    (void)state;
    set(1, 0x03); /* 00:00:03 */
    set(3, 0x00);
    set(5, 0x00);
    set(11, 0x22);
    for (int i = 0; i < 3; i++)
        fake_board_pass(&board, S);
    assert_false(board.levels[RTC_GSI]);
    fake_board_pass(&board, S);
    assert_true(board.levels[RTC_GSI]);
    assert_int_equal(get(12) & 0xe0, 0xa0);
    set(11, 0x02);
    set(3, 0x01); /* a minute that is not this one */
    set(11, 0x22);
    for (int i = 0; i < 55; i++)
        fake_board_pass(&board, S);
    assert_int_equal(get(12) & 0x20, 0);
    fake_board_pass(&board, 5 * S);
    assert_int_equal(get(12) & 0x20, 0x20);
    set(3, 0xff); /* every minute */
    set(5, 0xc0); /* of every hour */
    unsigned before = board.raises[RTC_GSI];
    for (int i = 0; i < 180; i++) {
        fake_board_pass(&board, S);
        get(12);
    }
    assert_int_equal(board.raises[RTC_GSI] - before, 3);
}

static void test_an_alarm_is_not_missed_by_a_late_host(void **state)
{
    (void)state;
    set(1, 0x10);
    set(3, 0x00);
    set(5, 0x00);
    set(11, 0x22);
    fake_board_pass(&board, 3600 * S);
    assert_int_equal(get(12) & 0xa0, 0xa0);
}

static void test_the_hosts_clock_jumps(void **state)
{
    (void)state;
    set(11, 0x32);
    get(12);
    fake_board_wall_ns -= INT64_C(365) * 86400 * 1000000000;
    fake_board_pass(&board, S);
    assert_int_equal(get(9), 0x23);
    fake_board_wall_ns += INT64_C(10) * 365 * 86400 * 1000000000;
    fake_board_pass(&board, S);
    assert_int_equal(get(9), 0x33);
    assert_true(board.raises[RTC_GSI] <= 2);
    fake_board_wall_ns = -5;
    fake_board_pass(&board, S);
    assert_int_equal(get(9), 0x70);
}

static unsigned periods_in_a_second(uint8_t rate)
{
    set(10, 0x20 | rate);
    set(11, 0x42);
    unsigned before = board.raises[RTC_GSI];
    for (int i = 0; i < 20000; i++) {
        fake_board_pass(&board, S / 20000);
        get(12);
    }
    set(11, 0x02);
    get(12);
    return board.raises[RTC_GSI] - before;
}

static void test_periodic(void **state)
{
    (void)state;
    assert_in_range(periods_in_a_second(6), 1023, 1025);
    assert_in_range(periods_in_a_second(15), 1, 3);
    assert_in_range(periods_in_a_second(1), 255, 257);
    assert_in_range(periods_in_a_second(3), 8100, 8200);
    assert_int_equal(periods_in_a_second(0), 0);
    set(11, 0x42);
    unsigned before = board.raises[RTC_GSI];
    fake_board_pass(&board, 10 * S);
    fake_board_pass(&board, 10 * S); /* not acknowledged: one interrupt stands */
    assert_true(board.raises[RTC_GSI] - before <= 1);
}

static void test_memory(void **state)
{
    (void)state;
    assert_int_equal(get(0x15) | get(0x16) << 8, 640);
    assert_int_equal(get(0x17) | get(0x18) << 8, 0xffff);
    assert_int_equal(get(0x30) | get(0x31) << 8, 0xffff);
    assert_int_equal(get(0x34) | get(0x35) << 8, (3 * 1024 - 16) * 16);
    assert_int_equal(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 5 * 1024 * 16);
    assert_int_equal(get(0x5f), 3);
    assert_int_equal(get(13), 0x80);
    set(13, 0);
    assert_int_equal(get(13), 0x80);
    set(0x60, 0x5a);
    assert_int_equal(get(0xe0), 0x5a); /* bit 7 of the index is not part of it */
    assert_int_equal(fake_board_in8(&board, 0x70), 0xff);
    assert_int_equal(fake_board_in16(&board, 0x70), 0xffff);
}

static void test_save_and_restore(void **state)
{
    (void)state;
    set(4, 0x10);
    set(0x60, 0x77);
    set(11, 0x12);
    fake_board_save_and_restore(&rtc->device);
    assert_time(0x10, 0x59, 0x59);
    assert_int_equal(get(0x60), 0x77);
    fake_board_pass(&board, S);
    assert_true(board.levels[RTC_GSI]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_shows_utc),
        TEST(test_twelve_hours),
        TEST(test_stays_set),
        TEST(test_nonsense_dates_do_no_harm),
        TEST(test_update_flag_and_interrupt),
        TEST(test_update_in_progress),
        TEST(test_alarm),
        TEST(test_an_alarm_is_not_missed_by_a_late_host),
        TEST(test_the_hosts_clock_jumps),
        TEST(test_periodic),
        TEST(test_memory),
        TEST(test_save_and_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
