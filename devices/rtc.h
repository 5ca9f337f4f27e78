/* SPDX-License-Identifier: MIT */
/*
 * rtc: the MC146818 clock with 128 bytes of CMOS memory, at ports 0x70 and 0x71.
 *
 * (Motorola MC146818 datasheet; ICH9 datasheet, section 13.6.) The time is the host's, in UTC, plus
 * what the guest has set it apart; it goes on while the machine is stopped. Periodic, alarm and
 * update interrupts on ISA interrupt 8.
 */
#ifndef DEVICES_RTC_H
#define DEVICES_RTC_H

#include "devices/bus.h"
#include "devices/device.h"
#include "devices/guest_clock.h"
#include "devices/irq.h"

#define RTC_GSI        8
#define RTC_INDEX_PORT 0x70
#define RTC_CMOS_BYTES 128

struct rtc {
    struct device device;
    /* Private. */
    struct bus *bus;
    struct guest_clock *clock;
    struct irq_line irq;
    struct bus_region region;
    struct guest_timer periodic_timer, second_timer;
    uint8_t cmos[RTC_CMOS_BYTES];
    uint8_t index;
    int64_t offset_s; /* the guest's wall time minus the host's */
    int64_t seen_s;   /* the guest's second up to which flags are true */
};

/* `ram_below_4g_bytes` and `ram_above_4g_bytes` fill the bytes from which firmware takes sizes. */
int must_check rtc_create(struct bus *bus, struct guest_clock *clock, struct irq_hub *hub,
                          uint64_t ram_below_4g_bytes, uint64_t ram_above_4g_bytes, unsigned cpus,
                          struct rtc **out, struct error *err);

/* How many processors firmware finds at its next start. */
void rtc_set_cpus(struct rtc *rtc, unsigned cpus);

#endif
