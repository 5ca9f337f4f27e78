/* SPDX-License-Identifier: MIT */
/* fake_board: a board of counters. */
#include "tests/fake_board.h"

#include <stdlib.h>
#include <string.h>

#define YEAR_2024_NS (INT64_C(1704067200) * 1000000000)

int64_t fake_board_wall_ns;

static int64_t wall_now_ns(void)
{
    return fake_board_wall_ns;
}

static void set_line(struct irq_hub *hub, unsigned gsi, bool level)
{
    struct fake_board *board = (struct fake_board *)hub;
    CHECK(gsi < ARRAY_SIZE(board->levels) && board->levels[gsi] != level);
    board->levels[gsi] = level;
    board->raises[gsi] += level;
}

static void send_msi(struct irq_hub *hub, uint64_t address, uint32_t data)
{
    struct fake_board *board = (struct fake_board *)hub;
    board->msis++;
    board->msi_address = address;
    board->msi_data = data;
}

static const struct irq_hub_ops hub_ops = {.set_line = set_line, .send_msi = send_msi};

void fake_board_init(struct fake_board *board)
{
    memset(board, 0, sizeof(*board));
    board->hub.ops = &hub_ops;
    CHECK(loop_init(&board->loop) == 0);
    bus_init(&board->bus, &board->loop);
    CHECK(guest_clock_init(&board->clock, &board->loop) == 0);
    board->clock.wall_now_ns = wall_now_ns;
    fake_board_wall_ns = YEAR_2024_NS;
}

static void set_flag(void *opaque)
{
    *(bool *)opaque = true;
}

void fake_board_fini(struct fake_board *board)
{
    bool closed = false;
    for (size_t gsi = 0; gsi < ARRAY_SIZE(board->levels); gsi++)
        CHECK(!board->levels[gsi]);
    guest_clock_close(&board->clock, set_flag, &closed);
    while (!closed)
        loop_run_once(&board->loop, false);
    bus_fini(&board->bus);
    loop_fini(&board->loop);
}

void fake_board_save_and_restore(struct device *device)
{
    struct state_buffer buffer = {0};
    if (device->ops->before_save)
        device->ops->before_save(device);
    state_save(device->ops->state, device, &buffer);
    device->ops->reset(device);
    CHECK(state_restore(device->ops->state, device, &buffer, NULL) == 0);
    if (device->ops->after_restore)
        CHECK(device->ops->after_restore(device, NULL) == 0);
    state_buffer_fini(&buffer);
}

void fake_board_close(struct fake_board *board, struct device *device)
{
    bool closed = false;
    device->ops->close(device, set_flag, &closed);
    CHECK(!closed);
    while (!closed)
        loop_run_once(&board->loop, false);
}

void fake_board_pass(struct fake_board *board, uint64_t ns)
{
    fake_board_wall_ns += (int64_t)ns;
    guest_clock_advance(&board->clock, ns);
}

static uint64_t in(struct fake_board *board, uint16_t port, unsigned size)
{
    uint64_t value;
    bus_read(&board->bus, BUS_PIO, port, size, &value);
    return value;
}

uint8_t fake_board_in8(struct fake_board *board, uint16_t port)
{
    return (uint8_t)in(board, port, 1);
}

uint16_t fake_board_in16(struct fake_board *board, uint16_t port)
{
    return (uint16_t)in(board, port, 2);
}

uint32_t fake_board_in32(struct fake_board *board, uint16_t port)
{
    return (uint32_t)in(board, port, 4);
}

void fake_board_out8(struct fake_board *board, uint16_t port, uint8_t value)
{
    bus_write(&board->bus, BUS_PIO, port, 1, value);
}

void fake_board_out16(struct fake_board *board, uint16_t port, uint16_t value)
{
    bus_write(&board->bus, BUS_PIO, port, 2, value);
}

void fake_board_out32(struct fake_board *board, uint16_t port, uint32_t value)
{
    bus_write(&board->bus, BUS_PIO, port, 4, value);
}

static size_t stream_write(struct char_backend *backend, const void *bytes, size_t length)
{
    struct fake_stream *stream = (struct fake_stream *)backend;
    length = MIN(length, stream->room);
    stream->room -= length;
    for (size_t i = 0; i < length; i++)
        stream->written[stream->count++ % sizeof(stream->written)] = ((const char *)bytes)[i];
    return length;
}

static void stream_accept_input(struct char_backend *backend)
{
    ((struct fake_stream *)backend)->accepts++;
}

static const struct char_backend_ops stream_ops = {stream_write, stream_accept_input};

void fake_stream_init(struct fake_stream *stream)
{
    memset(stream, 0, sizeof(*stream));
    stream->backend.ops = &stream_ops;
    stream->room = SIZE_MAX;
}

size_t fake_stream_feed(struct fake_stream *stream, const char *bytes, size_t length)
{
    const struct char_user_ops *ops = stream->backend.user_ops;
    length = MIN(length, ops->input_room(stream->backend.user));
    if (length > 0)
        ops->on_input(stream->backend.user, (const uint8_t *)bytes, length);
    return length;
}
