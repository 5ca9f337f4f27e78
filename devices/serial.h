/* SPDX-License-Identifier: MIT */
/*
 * serial: a 16550A UART.
 *
 * (National Semiconductor PC16550D datasheet.) Bytes go out as fast as the backend takes them, the
 * divisor only times the receive timeout. A backend that takes nothing for SERIAL_STALL_MS loses
 * output until it takes some again: the guest is held up that long, not longer.
 */
#ifndef DEVICES_SERIAL_H
#define DEVICES_SERIAL_H

#include "devices/bus.h"
#include "devices/char.h"
#include "devices/device.h"
#include "devices/guest_clock.h"
#include "devices/irq.h"

#define SERIAL_FIFO_SIZE 16
#define SERIAL_COM1_PORT 0x3f8
#define SERIAL_COM1_GSI  4
#define SERIAL_COM2_PORT 0x2f8
#define SERIAL_COM2_GSI  3

struct serial_fifo {
    uint8_t bytes[SERIAL_FIFO_SIZE];
    uint8_t start, count;
};

struct serial {
    struct device device;
    /* Private. */
    struct bus *bus;
    struct guest_clock *clock;
    struct irq_line irq;
    struct bus_region region;
    struct char_backend *backend;
    struct serial_fifo rx, tx;
    struct guest_timer rx_timer, stall_timer;
    uint8_t ier, fcr, lcr, mcr, lsr, msr, scratch;
    uint8_t divisor_low, divisor_high;
    uint8_t thre_pending;    /* the transmitter's interrupt is due */
    uint8_t timeout_pending; /* the receiver's too: bytes lie there unread */
    uint8_t is_dropping;     /* the backend has stalled */
};

struct serial_config {
    struct bus *bus;
    struct guest_clock *clock;
    struct irq_hub *hub;
    struct char_backend *backend; /* NULL: nobody at the other end */
    uint16_t port;
    unsigned gsi;
};

int must_check serial_create(const struct serial_config *config, struct serial **out,
                             struct error *err);

#endif
