/* SPDX-License-Identifier: MIT */
/*
 * pit: the 8254 interval timer, and port 0x61 (NMI status and control: speaker, refresh toggle).
 *
 * (Intel 8254 datasheet; ICH9 datasheet, sections 13.3 and 13.7.1.) Counts are computed from the
 * guest's clock, so nothing ticks but channel 0's interrupt. Its period has a lower bound
 * (PIT_PERIOD_MIN_US), and ticks that the host was too late for are left out, never made up for.
 */
#ifndef DEVICES_PIT_H
#define DEVICES_PIT_H

#include "devices/bus.h"
#include "devices/device.h"
#include "devices/guest_clock.h"
#include "devices/irq.h"

#define PIT_HZ       1193182
#define PIT_CHANNELS 3

struct pit_channel {
    uint64_t started_ns;   /* counting: guest time of tick 0 */
    uint64_t frozen_ticks; /* not counting: how far it had come */
    uint32_t count;        /* 1 to 65536 */
    uint16_t latched_count;
    uint8_t latched_bytes; /* of latched_count still to be read */
    uint8_t latched_status;
    uint8_t has_status; /* latched_status is still to be read */
    uint8_t access;     /* 1 low byte, 2 high byte, 3 low then high */
    uint8_t mode;       /* 0 to 5 */
    uint8_t is_bcd;
    uint8_t gate;
    uint8_t is_loaded; /* a count was written since the mode */
    uint8_t is_counting;
    uint8_t reads_high; /* which byte is next under access 3 */
    uint8_t writes_high;
    uint8_t low_byte;
};

struct pit {
    struct device device;
    /* Private. */
    struct bus *bus;
    struct guest_clock *clock;
    struct irq_line irq;
    struct bus_region region, port61_region;
    struct guest_timer timer; /* the next rising edge of channel 0 */
    struct pit_channel channels[PIT_CHANNELS];
    uint8_t speaker; /* what was written to port 0x61 */
    uint8_t refresh;
};

/* `irq` is line 0 of the hub: ISA interrupt 0. */
int must_check pit_create(struct bus *bus, struct guest_clock *clock, struct irq_hub *hub,
                          struct pit **out, struct error *err);

#endif
