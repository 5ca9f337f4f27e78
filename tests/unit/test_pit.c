/* SPDX-License-Identifier: MIT */
#include "devices/pit.h"

#include "base/limits.h"
#include "tests/fake_board.h"
#include "tests/unit/test.h"

#define MS UINT64_C(1000000)

static struct fake_board board;
static struct pit *pit;

static int set_up(void **state)
{
    (void)state;
    fake_board_init(&board);
    return pit_create(&board.bus, &board.clock, &board.hub, &pit, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    fake_board_close(&board, &pit->device);
    fake_board_fini(&board);
    return 0;
}

static void out8(uint16_t port, uint8_t value)
{
    fake_board_out8(&board, port, value);
}

static uint8_t in8(uint16_t port)
{
    return fake_board_in8(&board, port);
}

/* Access: low then high byte. */
static void program(unsigned channel, unsigned mode, uint16_t count)
{
    out8(0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    out8((uint16_t)(0x40 + channel), (uint8_t)count);
    out8((uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static uint16_t read_both(unsigned channel)
{
    uint8_t low = in8((uint16_t)(0x40 + channel));
    return (uint16_t)(low | in8((uint16_t)(0x40 + channel)) << 8);
}

static uint16_t latched(unsigned channel)
{
    out8(0x43, (uint8_t)(channel << 6));
    return read_both(channel);
}

static uint64_t ticks_ns(uint64_t ticks)
{
    return (ticks * 1000000000 + PIT_HZ - 1) / PIT_HZ;
}

static unsigned interrupts_during(uint64_t ns, uint64_t step_ns)
{
    unsigned before = board.raises[0];
    for (uint64_t done = 0; done < ns; done += step_ns)
        fake_board_pass(&board, step_ns);
    return board.raises[0] - before;
}

static void test_rate_generator(void **state)
{
    (void)state;
    program(0, 2, 11932); /* 100 Hz */
    assert_in_range(interrupts_during(1000 * MS, MS / 2), 99, 101);
    assert_int_equal(interrupts_during(100 * MS, 100 * MS), 1); /* late: no storm afterwards */
    assert_in_range(interrupts_during(100 * MS, MS / 2), 9, 11);
}

static void test_square_wave(void **state)
{
    (void)state;
    program(0, 3, 0); /* 18.2 Hz */
    assert_in_range(interrupts_during(1000 * MS, MS), 18, 19);
    assert_true(board.levels[0]);
}

static void test_one_shots_fire_once(void **state)
{
    (void)state;
    program(0, 0, 1193);
    assert_false(board.levels[0]);
    assert_int_equal(interrupts_during(10 * MS, MS / 4), 1);
    assert_true(board.levels[0]);
    program(0, 4, 1193);
    assert_int_equal(interrupts_during(10 * MS, MS / 4), 1);
    out8(0x40, 0xa9); /* a new count strobes again */
    out8(0x40, 0x04);
    assert_int_equal(interrupts_during(10 * MS, MS / 4), 1);
    program(0, 1, 1193); /* needs a gate that channel 0 does not have */
    assert_int_equal(interrupts_during(10 * MS, MS / 4), 0);
}

static void test_the_shortest_period_is_bounded(void **state)
{
    (void)state;
    for (uint16_t count = 1; count < 100; count *= 3) {
        program(0, 2, count);
        unsigned most = (unsigned)(10 * 1000 / PIT_PERIOD_MIN_US);
        assert_in_range(interrupts_during(10 * MS, 1000), most - 5, most);
    }
}

static void test_stopping(void **state)
{
    (void)state;
    program(0, 2, 11932);
    out8(0x43, 0x30); /* a mode without a count: nothing runs */
    assert_int_equal(interrupts_during(1000 * MS, MS), 0);
}

static void test_counts_down(void **state)
{
    (void)state;
    program(0, 2, 10000);
    assert_int_equal(latched(0), 10000);
    fake_board_pass(&board, ticks_ns(1000));
    assert_int_equal(latched(0), 9000);
    out8(0x43, 0x00);
    fake_board_pass(&board, ticks_ns(500));
    assert_int_equal(read_both(0), 9000);
    assert_in_range(read_both(0), 8499, 8500);
    program(0, 0, 100);
    fake_board_pass(&board, ticks_ns(101));
    assert_int_equal(latched(0), 0xffff);
}

static void test_bcd(void **state)
{
    (void)state;
    out8(0x43, 0x35); /* channel 0, mode 2, BCD */
    out8(0x40, 0x00);
    out8(0x40, 0x10);
    assert_int_equal(latched(0), 0x1000);
    fake_board_pass(&board, ticks_ns(1));
    assert_int_equal(latched(0), 0x0999);
    out8(0x43, 0x31); /* mode 0: wraps at 10000 */
    out8(0x40, 0x00);
    out8(0x40, 0x00);
    fake_board_pass(&board, ticks_ns(1));
    assert_int_equal(latched(0), 0x9999);
    out8(0x43, 0x35);
    out8(0x40, 0xff); /* no BCD digits: some count, no crash */
    out8(0x40, 0xff);
    fake_board_pass(&board, MS);
}

static void test_access_by_one_byte(void **state)
{
    (void)state;
    out8(0x43, 0x14); /* channel 0, low byte, mode 2 */
    out8(0x40, 200);
    out8(0x43, 0x00);
    assert_int_equal(in8(0x40), 200);
    out8(0x43, 0x24); /* high byte */
    out8(0x40, 2);
    fake_board_pass(&board, ticks_ns(0x80));
    assert_int_equal(in8(0x40), 1);
}

static void test_read_back(void **state)
{
    (void)state;
    program(0, 2, 5000);
    out8(0x43, 0xb6);
    out8(0x43, 0xc0 | 0x02 | 0x08); /* count and status of channels 0 and 2 */
    assert_int_equal(in8(0x40), 0x80 | 0x34);
    assert_int_equal(read_both(0), 5000);
    assert_int_equal(in8(0x42) & 0x7f, 0x40 | 0x36); /* no count yet */
}

static void test_channel_2_calibrates(void **state)
{
    (void)state;
    out8(0x61, 0x00);
    program(2, 0, 11932); /* 10 ms, but its gate is closed */
    fake_board_pass(&board, 20 * MS);
    assert_int_equal(in8(0x61) & 0x20, 0);
    out8(0x61, 0x01);
    program(2, 0, 11932);
    fake_board_pass(&board, 9 * MS);
    assert_int_equal(in8(0x61) & 0x20, 0);
    fake_board_pass(&board, 2 * MS);
    assert_int_equal(in8(0x61) & 0x20, 0x20);
    assert_int_equal(board.raises[0], 0);
}

static void test_the_gate_holds_and_restarts(void **state)
{
    (void)state;
    out8(0x61, 0x01);
    program(2, 0, 20000);
    fake_board_pass(&board, ticks_ns(5000));
    out8(0x61, 0x00);
    fake_board_pass(&board, ticks_ns(30000));
    assert_in_range(latched(2), 14999, 15000);
    out8(0x61, 0x01);
    fake_board_pass(&board, ticks_ns(1000));
    assert_in_range(latched(2), 13998, 14000);
    program(2, 1, 20000); /* one shot: starts when the gate rises */
    assert_int_equal(in8(0x61) & 0x20, 0x20);
    out8(0x61, 0x00);
    out8(0x61, 0x01);
    assert_int_equal(in8(0x61) & 0x20, 0);
    fake_board_pass(&board, ticks_ns(20000));
    assert_int_equal(in8(0x61) & 0x20, 0x20);
}

static void test_port_61(void **state)
{
    (void)state;
    out8(0x61, 0xff);
    assert_int_equal(in8(0x61) & 0x0f, 0x0f);
    assert_true((in8(0x61) ^ in8(0x61)) & 0x10);
    assert_int_equal(fake_board_in16(&board, 0x60), 0xffff);
}

static void test_save_and_restore(void **state)
{
    (void)state;
    program(0, 2, 11932);
    fake_board_pass(&board, 5 * MS);
    uint16_t before = latched(0);
    fake_board_save_and_restore(&pit->device);
    assert_int_equal(latched(0), before);
    assert_in_range(interrupts_during(1000 * MS, MS / 2), 99, 101);
}

static bool out2(void)
{
    return in8(0x61) & 0x20;
}

static void test_strobes_are_one_tick_long(void **state)
{
    (void)state;
    out8(0x61, 0x01);
    program(2, 4, 100);
    assert_true(out2());
    fake_board_pass(&board, ticks_ns(100));
    assert_false(out2());
    fake_board_pass(&board, ticks_ns(1));
    assert_true(out2());
    program(0, 4, 100);
    fake_board_pass(&board, ticks_ns(101) - 1);
    assert_int_equal(board.raises[0], 1); /* OUT went high with the mode */
    fake_board_pass(&board, 1);
    assert_int_equal(board.raises[0], 2);
}

static void test_the_shape_of_a_square_wave(void **state)
{
    (void)state;
    out8(0x61, 0x01);
    program(2, 3, 5); /* odd: high for three ticks, low for two */
    static const bool shape[] = {1, 1, 1, 0, 0, 1, 1, 1, 0, 0};
    for (size_t i = 0; i < ARRAY_SIZE(shape); i++) {
        assert_int_equal(out2(), shape[i]);
        board.clock.elapsed_ns = ticks_ns(i + 1);
    }
    program(2, 3, 1000);
    assert_int_equal(latched(2), 1000);
    fake_board_pass(&board, ticks_ns(100));
    assert_int_equal(latched(2), 800);
    fake_board_pass(&board, ticks_ns(500));
    assert_in_range(latched(2), 798, 802);
}

static void test_a_new_mode_drops_what_was_latched(void **state)
{
    (void)state;
    program(0, 2, 5000);
    out8(0x43, 0x00);
    out8(0x43, 0xe2); /* its status too */
    program(0, 2, 7000);
    assert_int_equal(read_both(0), 7000);
}

static void test_impossible_saved_state_is_refused(void **state)
{
    (void)state;
    struct error err = {0};
    for (unsigned i = 0; i < PIT_CHANNELS; i++) {
        struct pit_channel good = pit->channels[i];
        pit->channels[i].count = 0;
        assert_true(pit->device.ops->after_restore(&pit->device, &err) < 0);
        pit->channels[i].count = 0x10001;
        assert_true(pit->device.ops->after_restore(&pit->device, &err) < 0);
        pit->channels[i] = good;
        pit->channels[i].mode = 6;
        assert_true(pit->device.ops->after_restore(&pit->device, &err) < 0);
        pit->channels[i] = good;
        pit->channels[i].started_ns = UINT64_MAX;
        assert_true(pit->device.ops->after_restore(&pit->device, &err) < 0);
        pit->channels[i] = good;
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_rate_generator),
        TEST(test_square_wave),
        TEST(test_one_shots_fire_once),
        TEST(test_the_shortest_period_is_bounded),
        TEST(test_stopping),
        TEST(test_counts_down),
        TEST(test_bcd),
        TEST(test_access_by_one_byte),
        TEST(test_read_back),
        TEST(test_channel_2_calibrates),
        TEST(test_the_gate_holds_and_restarts),
        TEST(test_port_61),
        TEST(test_save_and_restore),
        TEST(test_strobes_are_one_tick_long),
        TEST(test_the_shape_of_a_square_wave),
        TEST(test_a_new_mode_drops_what_was_latched),
        TEST(test_impossible_saved_state_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
