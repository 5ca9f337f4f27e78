/* SPDX-License-Identifier: MIT */
#include "devices/pic.h"

#include "tests/fake_board.h"
#include "tests/unit/test.h"

static struct fake_board board;
static struct pic *pic;
static bool intr;
static unsigned intr_changes;

static void on_intr(void *opaque, bool level)
{
    assert_ptr_equal(opaque, &board);
    intr = level;
    intr_changes++;
}

static void out8(uint16_t port, uint8_t value)
{
    fake_board_out8(&board, port, value);
}

static uint8_t in8(uint16_t port)
{
    return fake_board_in8(&board, port);
}

/* As Linux does: vectors 0x30 and 0x38, all unmasked. */
static void init_chips(uint8_t icw4)
{
    out8(0x20, 0x11);
    out8(0x21, 0x30);
    out8(0x21, 0x04);
    out8(0x21, icw4);
    out8(0xa0, 0x11);
    out8(0xa1, 0x38);
    out8(0xa1, 0x02);
    out8(0xa1, icw4);
    out8(0x21, 0);
    out8(0xa1, 0);
}

static int set_up(void **state)
{
    (void)state;
    fake_board_init(&board);
    intr = false;
    intr_changes = 0;
    if (pic_create(&board.bus, on_intr, &board, &pic, NULL))
        return -1;
    init_chips(0x01);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fake_board_close(&board, &pic->device);
    fake_board_fini(&board);
    return 0;
}

static void pulse(unsigned input)
{
    pic_set_input(pic, input, true);
    pic_set_input(pic, input, false);
}

static void test_masked_after_power_on(void **state)
{
    (void)state;
    pic->device.ops->reset(&pic->device);
    pulse(0);
    pulse(8);
    assert_false(intr);
    assert_int_equal(in8(0x21), 0xff);
    assert_int_equal(in8(0xa1), 0xff);
}

static void test_acknowledge_and_eoi(void **state)
{
    (void)state;
    pulse(4);
    assert_true(intr);
    assert_int_equal(in8(0x20), 0x10);
    assert_int_equal(pic_acknowledge(pic), 0x34);
    assert_false(intr);
    pulse(4);
    assert_false(intr);
    out8(0x20, 0x0b);
    assert_int_equal(in8(0x20), 0x10);
    out8(0x20, 0x20);
    assert_true(intr);
    assert_int_equal(in8(0x20), 0);
    assert_int_equal(pic_acknowledge(pic), 0x34);
    out8(0x20, 0x60 | 4);
    assert_false(intr);
}

static void test_the_second_chip(void **state)
{
    (void)state;
    pulse(12);
    assert_true(intr);
    assert_int_equal(pic_acknowledge(pic), 0x3c);
    assert_false(intr);
    pulse(9); /* better than 12, but the first chip holds the cascade in service */
    assert_false(intr);
    out8(0x20, 0x62);
    assert_true(intr);
    assert_int_equal(pic_acknowledge(pic), 0x39);
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
    assert_false(intr);
    out8(0xa0, 0x20);
    assert_false(intr);
}

static void test_priorities(void **state)
{
    (void)state;
    pulse(7);
    pulse(1);
    assert_int_equal(pic_acknowledge(pic), 0x31);
    pulse(0);
    assert_true(intr);
    assert_int_equal(pic_acknowledge(pic), 0x30);
    out8(0x20, 0x20);
    assert_false(intr);
    out8(0x20, 0x20);
    assert_int_equal(pic_acknowledge(pic), 0x37);
    out8(0x20, 0x20);
    out8(0x20, 0xc0 | 3); /* 3 is now lowest, 4 highest */
    pulse(3);
    pulse(4);
    assert_int_equal(pic_acknowledge(pic), 0x34);
    out8(0x20, 0xa0); /* and rotates itself to the end */
    pulse(4);
    assert_int_equal(pic_acknowledge(pic), 0x33);
}

static void test_masks(void **state)
{
    (void)state;
    out8(0x21, 0x10);
    pulse(4);
    assert_false(intr);
    out8(0x21, 0);
    assert_true(intr);
    out8(0x21, 0x10);
    assert_false(intr);
    assert_int_equal(pic_acknowledge(pic), 0x37);
    assert_int_equal(intr_changes, 2);
}

static void test_spurious(void **state)
{
    (void)state;
    assert_int_equal(pic_acknowledge(pic), 0x37);
    out8(0x20, 0x0b);
    assert_int_equal(in8(0x20), 0);
}

static void test_level_triggered(void **state)
{
    (void)state;
    out8(0x4d0, 0xff);
    out8(0x4d1, 0xff);
    assert_int_equal(in8(0x4d0), 0xf8);
    assert_int_equal(in8(0x4d1), 0xde);
    pic_set_input(pic, 10, true);
    assert_int_equal(pic_acknowledge(pic), 0x3a);
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
    assert_true(intr);
    pic_set_input(pic, 10, false);
    assert_false(intr);
}

static void test_automatic_eoi(void **state)
{
    (void)state;
    init_chips(0x03);
    pulse(5);
    assert_int_equal(pic_acknowledge(pic), 0x35);
    pulse(5);
    assert_true(intr);
    assert_int_equal(pic_acknowledge(pic), 0x35);
}

static void test_special_mask(void **state)
{
    (void)state;
    pulse(3);
    assert_int_equal(pic_acknowledge(pic), 0x33);
    out8(0x21, 0x08);
    out8(0x20, 0x68);
    pulse(6);
    assert_true(intr);
    out8(0x20, 0x48);
    assert_false(intr);
}

static void test_poll(void **state)
{
    (void)state;
    pulse(6);
    out8(0x20, 0x0c);
    assert_int_equal(in8(0x20), 0x86);
    assert_false(intr);
    out8(0x20, 0x0c);
    assert_int_equal(in8(0x20), 0);
}

static void test_save_and_restore(void **state)
{
    (void)state;
    pulse(4);
    pulse(14);
    fake_board_save_and_restore(&pic->device);
    assert_true(intr);
    assert_int_equal(pic_acknowledge(pic), 0x3e);
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
    assert_int_equal(pic_acknowledge(pic), 0x34);
}

static void test_odd_accesses(void **state)
{
    (void)state;
    fake_board_out16(&board, 0x20, 0xffff);
    assert_int_equal(fake_board_in16(&board, 0x20), 0xffff);
    assert_int_equal(fake_board_in16(&board, 0x4d0), 0xffff);
    assert_int_equal(in8(0x21), 0);
    pic_set_input(pic, 2, true);
    assert_false(intr);
}

static void test_every_input_has_its_vector(void **state)
{
    (void)state;
    for (unsigned input = 0; input < PIC_INPUTS; input++) {
        if (input == 2)
            continue;
        pic_set_input(pic, input, true); /* and stays: an edge counts once */
        assert_true(intr);
        assert_int_equal(pic_acknowledge(pic), 0x30 + input);
        out8(0xa0, 0x20);
        out8(0x20, 0x20);
        assert_false(intr);
    }
}

static void test_spurious_on_the_second_chip(void **state)
{
    (void)state;
    pulse(12);
    pic->chips[1].irr = 0; /* gone between the two acknowledge cycles */
    assert_int_equal(pic_acknowledge(pic), 0x3f);
}

static void test_initialisation_forgets(void **state)
{
    (void)state;
    init_chips(0x03);
    out8(0x20, 0x80); /* rotates on automatic EOI */
    out8(0x20, 0x68); /* special mask */
    out8(0x20, 0x0b); /* reads ISR */
    pulse(5);
    init_chips(0x01);
    assert_false(intr);
    assert_int_equal(in8(0x20), 0);
    pulse(4);
    assert_int_equal(pic_acknowledge(pic), 0x34);
    pulse(6);
    assert_false(intr); /* no automatic EOI any more */
    init_chips(0x01);
    assert_int_equal(in8(0x20), 0);
    pulse(6);
    assert_true(intr); /* nothing is in service */
}

static void test_a_single_chip_takes_no_icw3(void **state)
{
    (void)state;
    out8(0x20, 0x13);
    out8(0x21, 0x50);
    out8(0x21, 0x01);
    out8(0x21, 0x00);
    pulse(3);
    assert_int_equal(pic_acknowledge(pic), 0x53);
    out8(0x20, 0x12); /* and without ICW4 */
    out8(0x21, 0x60);
    out8(0x21, 0xf7);
    assert_int_equal(in8(0x21), 0xf7);
}

static void test_rotation_on_automatic_eoi(void **state)
{
    (void)state;
    init_chips(0x03);
    out8(0x20, 0x80);
    pulse(0);
    assert_int_equal(pic_acknowledge(pic), 0x30);
    pulse(0);
    pulse(1);
    assert_int_equal(pic_acknowledge(pic), 0x31);
    out8(0x20, 0x00);
    pulse(5);
    assert_int_equal(pic_acknowledge(pic), 0x35);
    assert_int_equal(pic_acknowledge(pic), 0x30);
}

static void test_a_line_that_stands_when_it_becomes_level_triggered(void **state)
{
    (void)state;
    pic_set_input(pic, 10, true);
    pic_acknowledge(pic);
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
    assert_false(intr);
    out8(0x4d1, 0x04);
    assert_true(intr);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_masked_after_power_on),
        TEST(test_acknowledge_and_eoi),
        TEST(test_the_second_chip),
        TEST(test_priorities),
        TEST(test_masks),
        TEST(test_spurious),
        TEST(test_level_triggered),
        TEST(test_automatic_eoi),
        TEST(test_special_mask),
        TEST(test_poll),
        TEST(test_save_and_restore),
        TEST(test_odd_accesses),
        TEST(test_every_input_has_its_vector),
        TEST(test_spurious_on_the_second_chip),
        TEST(test_initialisation_forgets),
        TEST(test_a_single_chip_takes_no_icw3),
        TEST(test_rotation_on_automatic_eoi),
        TEST(test_a_line_that_stands_when_it_becomes_level_triggered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
