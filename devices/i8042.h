/* SPDX-License-Identifier: MIT */
/*
 * i8042: a keyboard controller without keyboard or mouse, at ports 0x60 and 0x64, and port 0x92.
 *
 * (IBM PC AT Technical Reference, section 1; ICH9 datasheet, section 13.7.) It answers its own
 * commands and self-tests, finds nothing attached, and resets the machine as every AT did.
 */
#ifndef DEVICES_I8042_H
#define DEVICES_I8042_H

#include "devices/bus.h"
#include "devices/device.h"
#include "devices/irq.h"

#define I8042_OUTPUT_MAX 16

struct i8042 {
    struct device device;
    /* Private. */
    struct bus *bus;
    struct irq_line keyboard_irq;
    void (*on_reset)(void *opaque);
    void *opaque;
    struct bus_region data_region, command_region, port92_region;
    uint8_t output[I8042_OUTPUT_MAX]; /* what the guest has still to read */
    uint8_t output_start, output_count;
    uint8_t config;          /* the command byte */
    uint8_t pending_command; /* waits for its data byte; 0: none */
    uint8_t output_port;
    uint8_t last_write_was_command;
    uint8_t ram[32];
};

/* on_reset: command 0xfe or bit 0 of port 0x92. Called from inside the guest's write. */
int must_check i8042_create(struct bus *bus, struct irq_hub *hub, void (*on_reset)(void *opaque),
                            void *opaque, struct i8042 **out, struct error *err);

#endif
