/* SPDX-License-Identifier: MIT */
#include "devices/serial.h"

#include <string.h>

#include "base/limits.h"
#include "tests/fake_board.h"
#include "tests/unit/test.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH };

#define MS UINT64_C(1000000)

static struct fake_board board;
static struct fake_stream stream;
static struct serial *serial;

static int set_up(void **state)
{
    (void)state;
    fake_board_init(&board);
    fake_stream_init(&stream);
    const struct serial_config config = {
        .bus = &board.bus,
        .clock = &board.clock,
        .hub = &board.hub,
        .backend = &stream.backend,
        .port = SERIAL_COM1_PORT,
        .gsi = SERIAL_COM1_GSI,
    };
    return serial_create(&config, &serial, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    fake_board_close(&board, &serial->device);
    assert_null(stream.backend.user_ops);
    fake_board_fini(&board);
    return 0;
}

static void out(unsigned offset, uint8_t value)
{
    fake_board_out8(&board, (uint16_t)(SERIAL_COM1_PORT + offset), value);
}

static uint8_t in(unsigned offset)
{
    return fake_board_in8(&board, (uint16_t)(SERIAL_COM1_PORT + offset));
}

static bool irq(void)
{
    return board.levels[SERIAL_COM1_GSI];
}

/* Interrupts as a driver has them: FIFOs on, OUT2 on. */
static void start(uint8_t ier, uint8_t fcr)
{
    out(IIR, fcr);
    out(MCR, 0x0b);
    out(IER, ier);
}

static void test_registers(void **state)
{
    (void)state;
    out(SCRATCH, 0x5a);
    assert_int_equal(in(SCRATCH), 0x5a);
    assert_int_equal(in(LSR), 0x60);
    assert_int_equal(in(MSR), 0xb0);
    assert_int_equal(in(IIR), 0x01);
    out(IER, 0xff);
    assert_int_equal(in(IER), 0x0f);
    out(LCR, 0x83);
    out(DATA, 0x01);
    out(IER, 0x02);
    assert_int_equal(in(DATA), 0x01);
    assert_int_equal(in(IER), 0x02);
    out(LCR, 0x03);
    assert_int_equal(in(LCR), 0x03);
    assert_int_equal(in(IER), 0x0f);
    out(IIR, 0x01);
    assert_int_equal(in(IIR)&0xc0, 0xc0);
    out(MCR, 0xff);
    assert_int_equal(in(MCR), 0x1f);
    out(LSR, 0xff);
    out(MSR, 0xff);
    assert_int_equal(fake_board_in16(&board, SERIAL_COM1_PORT), 0xffff);
}

static void test_writes_go_out(void **state)
{
    (void)state;
    for (const char *at = "hello"; *at; at++) {
        assert_int_equal(in(LSR)&0x60, 0x60);
        out(DATA, (uint8_t)*at);
    }
    assert_int_equal(stream.count, 5);
    assert_memory_equal(stream.written, "hello", 5);
}

static void test_transmitter_interrupt(void **state)
{
    (void)state;
    start(0x02, 0x01);
    assert_true(irq());
    assert_int_equal(in(IIR), 0xc2);
    assert_false(irq());
    assert_int_equal(in(IIR), 0xc1);
    out(DATA, 'x');
    assert_true(irq());
    out(IER, 0);
    assert_false(irq());
    out(MCR, 0x03);
    out(IER, 0x02);
    assert_false(irq()); /* OUT2 is off */
}

static void test_receives_with_trigger_and_timeout(void **state)
{
    (void)state;
    start(0x01, 0x81); /* trigger at 8 */
    assert_int_equal(fake_stream_feed(&stream, "abc", 3), 3);
    assert_int_equal(in(LSR), 0x61);
    assert_false(irq());
    fake_board_pass(&board, 20 * MS);
    assert_true(irq());
    assert_int_equal(in(IIR), 0xcc);
    assert_int_equal(in(DATA), 'a');
    assert_false(irq());
    fake_board_pass(&board, 20 * MS);
    assert_true(irq());
    assert_int_equal(in(DATA), 'b');
    assert_int_equal(in(DATA), 'c');
    assert_int_equal(in(LSR), 0x60);
    fake_board_pass(&board, 100 * MS);
    assert_false(irq());
    assert_int_equal(in(DATA), 0);
    fake_stream_feed(&stream, "12345678", 8);
    assert_true(irq());
    assert_int_equal(in(IIR), 0xc4);
}

static void test_input_stops_at_a_full_fifo(void **state)
{
    (void)state;
    assert_int_equal(fake_stream_feed(&stream, "ab", 2), 1); /* no FIFO: one */
    assert_int_equal(fake_stream_feed(&stream, "b", 1), 0);
    unsigned accepts = stream.accepts;
    assert_int_equal(in(DATA), 'a');
    assert_true(stream.accepts > accepts);
    start(0, 0x01);
    assert_int_equal(fake_stream_feed(&stream, "0123456789abcdefXYZ", 19), 16);
    for (const char *at = "0123456789abcdef"; *at; at++)
        assert_int_equal(in(DATA), *at);
    fake_stream_feed(&stream, "zz", 2);
    out(IIR, 0x03); /* clears the receiver */
    assert_int_equal(in(LSR)&1, 0);
}

static void test_loopback(void **state)
{
    (void)state;
    out(MCR, 0x1a); /* as drivers do to find the chip */
    assert_int_equal(in(MSR)&0xf0, 0x90);
    out(MCR, 0x15);
    assert_int_equal(in(MSR)&0xf0, 0x60);
    out(IER, 0x01);
    out(DATA, 'q');
    assert_false(irq());
    assert_int_equal(in(IIR), 0x04);
    assert_int_equal(fake_stream_feed(&stream, "x", 1), 0);
    out(DATA, 'r'); /* overrun: there is no FIFO */
    assert_int_equal(in(LSR)&0x03, 0x03);
    assert_int_equal(in(LSR)&0x03, 0x01);
    assert_int_equal(in(DATA), 'q');
    assert_int_equal(stream.count, 0);
    in(MSR);
    out(MCR, 0x11);
    assert_int_equal(in(MSR), 0x20 | 0x04); /* the ring indicator fell */
}

static void test_break(void **state)
{
    (void)state;
    start(0x05, 0x01);
    stream.backend.user_ops->on_break(stream.backend.user);
    assert_true(irq());
    assert_int_equal(in(IIR), 0xc6);
    assert_int_equal(in(LSR), 0x71);
    assert_int_equal(in(LSR), 0x61);
    assert_int_equal(in(DATA), 0);
}

static void test_a_slow_reader_holds_the_guest_up_but_loses_nothing(void **state)
{
    (void)state;
    start(0x02, 0x01);
    in(IIR);
    stream.room = 3;
    for (int i = 0; i < 10; i++)
        out(DATA, (uint8_t)('0' + i));
    assert_int_equal(stream.count, 3);
    assert_int_equal(in(LSR)&0x60, 0);
    assert_false(irq());
    fake_board_pass(&board, SERIAL_STALL_MS * MS - 1);
    stream.room = 100;
    stream.backend.user_ops->on_writable(stream.backend.user);
    assert_int_equal(in(LSR)&0x60, 0x60);
    assert_true(irq());
    assert_memory_equal(stream.written, "0123456789", 10);
}

static void test_a_reader_that_is_gone_does_not_stall_the_guest(void **state)
{
    (void)state;
    start(0x02, 0x01);
    stream.room = 0;
    out(DATA, 'a');
    assert_int_equal(in(LSR)&0x20, 0);
    fake_board_pass(&board, SERIAL_STALL_MS * MS);
    assert_int_equal(in(LSR)&0x60, 0x60);
    for (int i = 0; i < 1000; i++) {
        out(DATA, 'x');
        assert_int_equal(in(LSR)&0x60, 0x60);
    }
    stream.room = 100;
    stream.backend.user_ops->on_writable(stream.backend.user);
    out(DATA, 'b');
    assert_int_equal(stream.count, 1);
    assert_int_equal(stream.written[0], 'b');
}

static void test_late_writes_in_a_row(void **state)
{
    (void)state;
    /* More than a FIFO in one go, as string instructions write, to a backend that takes little. */
    out(IIR, 0x01);
    stream.room = 1;
    for (int i = 0; i < 40; i++)
        out(DATA, (uint8_t)i);
    stream.room = 100;
    stream.backend.user_ops->on_writable(stream.backend.user);
    assert_int_equal(stream.count, 1 + SERIAL_FIFO_SIZE);
    assert_int_equal(stream.written[SERIAL_FIFO_SIZE], 39);
}

static void test_without_a_backend(void **state)
{
    (void)state;
    struct serial *other;
    const struct serial_config config = {.bus = &board.bus,
                                         .clock = &board.clock,
                                         .hub = &board.hub,
                                         .port = SERIAL_COM2_PORT,
                                         .gsi = SERIAL_COM2_GSI};
    assert_int_equal(serial_create(&config, &other, NULL), 0);
    fake_board_out8(&board, SERIAL_COM2_PORT, 'x');
    assert_int_equal(fake_board_in8(&board, SERIAL_COM2_PORT + LSR), 0x60);
    fake_board_close(&board, &other->device);
}

static void test_save_and_restore(void **state)
{
    (void)state;
    start(0x03, 0xc1);
    fake_stream_feed(&stream, "abc", 3);
    stream.room = 0;
    out(DATA, 'x');
    fake_board_save_and_restore(&serial->device);
    assert_int_equal(in(LSR), 0x01);
    stream.room = 9;
    stream.backend.user_ops->on_writable(stream.backend.user);
    assert_int_equal(stream.written[0], 'x');
    assert_int_equal(in(DATA), 'a');
    assert_int_equal(in(IER), 0x03);
    fake_board_pass(&board, 20 * MS);
    assert_int_equal(in(IIR), 0xcc);
}

static void test_reset_drops_the_line(void **state)
{
    (void)state;
    start(0x03, 0x01);
    fake_stream_feed(&stream, "a", 1);
    assert_true(irq());
    serial->device.ops->reset(&serial->device);
    assert_false(irq());
    assert_int_equal(in(LSR), 0x60);
    fake_board_pass(&board, 1000 * MS);
    assert_false(irq());
}

static void test_enabling_the_transmitters_interrupt_raises_it_again(void **state)
{
    (void)state;
    start(0x02, 0x01);
    in(IIR);
    assert_false(irq());
    out(IER, 0x02); /* no change: nothing new */
    assert_false(irq());
    out(IER, 0x00);
    out(IER, 0x01);
    assert_false(irq());
    out(IER, 0x03);
    assert_true(irq());
    stream.room = 0;
    out(DATA, 'x');
    out(IER, 0x00);
    out(IER, 0x02); /* it is not empty */
    assert_false(irq());
}

static void test_modem_interrupt(void **state)
{
    (void)state;
    start(0x08, 0x01);
    assert_false(irq());
    out(MCR, 0x1b); /* loopback: CTS, DSR and DCD stay, so nothing changes */
    out(MCR, 0x19); /* RTS, hence CTS, falls */
    assert_int_equal(in(IIR), 0xc0);
    assert_int_equal(in(MSR)&0x0f, 0x01);
    assert_int_equal(in(IIR), 0xc1);
    out(MCR, 0x0b); /* back, with CTS risen */
    assert_true(irq());
    in(MSR);
    assert_false(irq());
}

static void test_the_timeout_follows_the_divisor(void **state)
{
    (void)state;
    start(0x01, 0x81);
    out(LCR, 0x80);
    out(DATA, 0x0c);
    out(IER, 0x00);
    out(LCR, 0x03);
    fake_stream_feed(&stream, "a", 1); /* 9600 baud: four characters are 4.2 ms */
    fake_board_pass(&board, 4 * MS);
    assert_false(irq());
    fake_board_pass(&board, MS);
    assert_true(irq());
    out(LCR, 0x80);
    out(IER, 0xff);
    out(LCR, 0x03);
    in(DATA);
    fake_stream_feed(&stream, "a", 1); /* slower than any line: 20 ms at most */
    fake_board_pass(&board, 19 * MS);
    assert_false(irq());
    fake_board_pass(&board, MS);
    assert_true(irq());
}

static void test_without_fifo_there_is_no_timeout(void **state)
{
    (void)state;
    start(0x01, 0x00);
    fake_stream_feed(&stream, "a", 1);
    assert_int_equal(in(IIR), 0x04);
    fake_board_pass(&board, 100 * MS);
    assert_int_equal(in(IIR), 0x04);
}

static void test_fifo_control(void **state)
{
    (void)state;
    start(0x00, 0x01);
    stream.room = 0;
    out(DATA, 'x');
    fake_stream_feed(&stream, "ab", 2);
    out(IIR, 0x01); /* clears nothing */
    assert_int_equal(in(LSR), 0x01);
    unsigned accepts = stream.accepts;
    out(IIR, 0x03);
    assert_int_equal(in(LSR), 0x00);
    assert_true(stream.accepts > accepts);
    out(IIR, 0x05);
    assert_int_equal(in(LSR), 0x60);
    fake_stream_feed(&stream, "ab", 2);
    out(IIR, 0x00); /* switching the FIFOs off clears both */
    assert_int_equal(in(LSR), 0x60);
    stream.room = 9;
    stream.backend.user_ops->on_writable(stream.backend.user);
    assert_int_equal(stream.count, 0);
}

static void test_reset_is_complete(void **state)
{
    (void)state;
    start(0x0f, 0xc1);
    out(LCR, 0x80);
    out(DATA, 0x34);
    out(IER, 0x12);
    out(LCR, 0x03);
    out(SCRATCH, 0x77);
    fake_stream_feed(&stream, "abc", 3);
    stream.backend.user_ops->on_break(stream.backend.user);
    fake_board_pass(&board, 20 * MS);
    unsigned accepts = stream.accepts;
    serial->device.ops->reset(&serial->device);
    assert_true(stream.accepts > accepts);
    assert_int_equal(in(IER), 0);
    assert_int_equal(in(IIR), 0x01);
    assert_int_equal(in(LCR), 0);
    assert_int_equal(in(MCR), 0);
    assert_int_equal(in(LSR), 0x60);
    assert_int_equal(in(MSR), 0xb0);
    assert_int_equal(in(SCRATCH), 0);
    out(LCR, 0x80);
    assert_int_equal(in(DATA), 12);
    assert_int_equal(in(IER), 0);
    out(LCR, 0);
    out(MCR, 0x08);
    serial->ier = 0x0f;
    assert_int_equal(in(IIR), 0x01); /* no cause is left over */
}

static void test_impossible_saved_state_is_refused(void **state)
{
    (void)state;
    uint8_t *const fields[] = {&serial->rx.count, &serial->tx.count, &serial->rx.start,
                               &serial->tx.start};
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        *fields[i] = i < 2 ? SERIAL_FIFO_SIZE + 1 : SERIAL_FIFO_SIZE;
        assert_true(serial->device.ops->after_restore(&serial->device, NULL) < 0);
        *fields[i] = 0;
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_registers),
        TEST(test_writes_go_out),
        TEST(test_transmitter_interrupt),
        TEST(test_receives_with_trigger_and_timeout),
        TEST(test_input_stops_at_a_full_fifo),
        TEST(test_loopback),
        TEST(test_break),
        TEST(test_a_slow_reader_holds_the_guest_up_but_loses_nothing),
        TEST(test_a_reader_that_is_gone_does_not_stall_the_guest),
        TEST(test_late_writes_in_a_row),
        TEST(test_without_a_backend),
        TEST(test_save_and_restore),
        TEST(test_reset_drops_the_line),
        TEST(test_enabling_the_transmitters_interrupt_raises_it_again),
        TEST(test_modem_interrupt),
        TEST(test_the_timeout_follows_the_divisor),
        TEST(test_without_fifo_there_is_no_timeout),
        TEST(test_fifo_control),
        TEST(test_reset_is_complete),
        TEST(test_impossible_saved_state_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
