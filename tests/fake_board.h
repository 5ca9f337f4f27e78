/* SPDX-License-Identifier: MIT */
/*
 * fake_board: what a platform device is soldered to: a bus, a clock that a test moves by hand, and
 * an interrupt hub that counts.
 */
#ifndef TESTS_FAKE_BOARD_H
#define TESTS_FAKE_BOARD_H

#include "devices/bus.h"
#include "devices/char.h"
#include "devices/device.h"
#include "devices/guest_clock.h"
#include "devices/irq.h"

struct fake_board {
    struct irq_hub hub; /* first */
    struct loop loop;
    struct bus bus;
    struct guest_clock clock;
    bool levels[64];
    unsigned raises[64];
    unsigned msis;
    uint64_t msi_address;
    uint32_t msi_data;
};

/* UTC that the clock's wall shows; starts in 2024. */
extern int64_t fake_board_wall_ns;

void fake_board_init(struct fake_board *board);
void fake_board_fini(struct fake_board *board);
/* Saves `device`, resets it, restores it. */
void fake_board_save_and_restore(struct device *device);
void fake_board_close(struct fake_board *board, struct device *device);
/* Guest and wall time go on together. */
void fake_board_pass(struct fake_board *board, uint64_t ns);

uint8_t fake_board_in8(struct fake_board *board, uint16_t port);
uint16_t fake_board_in16(struct fake_board *board, uint16_t port);
uint32_t fake_board_in32(struct fake_board *board, uint16_t port);
void fake_board_out8(struct fake_board *board, uint16_t port, uint8_t value);
void fake_board_out16(struct fake_board *board, uint16_t port, uint16_t value);
void fake_board_out32(struct fake_board *board, uint16_t port, uint32_t value);

/* A char backend that keeps what is written and takes as much as the test says. */
struct fake_stream {
    struct char_backend backend; /* first */
    char written[4096];
    size_t count, room;
    unsigned accepts;
};

void fake_stream_init(struct fake_stream *stream);
/* As a source would: as much as the user has room for. Returns how much that was. */
size_t fake_stream_feed(struct fake_stream *stream, const char *bytes, size_t length);

#endif
