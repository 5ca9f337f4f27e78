/* SPDX-License-Identifier: MIT */
/*
 * rtc: the time registers are the host's clock seen through an offset.
 *
 * They are computed when read; a write to one of them changes the offset, except while SET holds
 * the clock: then they are plain memory until SET goes. Update and alarm flags are brought up to
 * date when somebody looks, and by a timer each second only while their interrupt is enabled.
 */
#include "devices/rtc.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/bytes.h"

enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    REGISTER_A,
    REGISTER_B,
    REGISTER_C,
    REGISTER_D,
    CENTURY = 0x32,
};

enum {
    A_UPDATE = 0x80,
    A_RATE = 0x0f,
    A_DIVIDER_ON = 0x20,
};

enum {
    B_24_HOURS = 0x02,
    B_BINARY = 0x04,
    B_SQUARE_WAVE = 0x08,
    B_UPDATE_IRQ = 0x10,
    B_ALARM_IRQ = 0x20,
    B_PERIODIC_IRQ = 0x40,
    B_SET = 0x80,
};

enum {
    C_UPDATE = 0x10,
    C_ALARM = 0x20,
    C_PERIODIC = 0x40,
    C_IRQ = 0x80,
};

enum {
    D_VALID = 0x80,
};

enum { /* memory that firmware reads */
       CMOS_EQUIPMENT = 0x14,
       CMOS_BASE_KIB = 0x15,
       CMOS_EXTENDED_KIB = 0x17,
       CMOS_EXTENDED_KIB_2 = 0x30,
       CMOS_ABOVE_16M = 0x34, /* in 64 KiB */
       CMOS_ABOVE_4G = 0x5b,  /* likewise, 3 bytes */
       CMOS_CPUS = 0x5f,
};

#define NS_PER_S    INT64_C(1000000000)
#define DAY_S       86400
#define UPDATE_NS   244000 /* UIP announces the update that long before */
#define ALARM_ANY   0xc0   /* an alarm byte with these bits matches always */
#define YEAR_1_S    INT64_C(-62135596800)
#define YEAR_9999_S INT64_C(253402300799)
#define CRYSTAL_HZ  32768
#define EQUIPMENT   0x02 /* a coprocessor, no floppy, no display */

static int64_t wall_s(const struct rtc *rtc)
{
    int64_t now_ns = rtc->clock->wall_now_ns();
    int64_t now_s = now_ns / NS_PER_S - (now_ns % NS_PER_S < 0);
    return MIN(MAX(now_s + rtc->offset_s, YEAR_1_S), YEAR_9999_S);
}

/* Nanoseconds since the last second began; the guest's seconds begin with the host's. */
static int64_t second_phase_ns(const struct rtc *rtc)
{
    int64_t phase_ns = rtc->clock->wall_now_ns() % NS_PER_S;
    return phase_ns < 0 ? phase_ns + NS_PER_S : phase_ns;
}

static uint8_t encode(const struct rtc *rtc, int value)
{
    if (rtc->cmos[REGISTER_B] & B_BINARY)
        return (uint8_t)value;
    return (uint8_t)(value / 10 % 10 << 4 | value % 10);
}

static int decode(const struct rtc *rtc, uint8_t value)
{
    if (rtc->cmos[REGISTER_B] & B_BINARY)
        return value;
    return (value >> 4) * 10 + (value & 0x0f);
}

static uint8_t encode_hour(const struct rtc *rtc, int hour)
{
    if (rtc->cmos[REGISTER_B] & B_24_HOURS)
        return encode(rtc, hour);
    return encode(rtc, (hour + 11) % 12 + 1) | (hour >= 12 ? 0x80 : 0);
}

static int decode_hour(const struct rtc *rtc, uint8_t value)
{
    if (rtc->cmos[REGISTER_B] & B_24_HOURS)
        return decode(rtc, value);
    return decode(rtc, value & 0x7f) % 12 + (value & 0x80 ? 12 : 0);
}

/* Puts the present time into the time registers. */
static void load_time(struct rtc *rtc)
{
    time_t now = wall_s(rtc);
    struct tm tm;
    CHECK(gmtime_r(&now, &tm));
    rtc->cmos[SECONDS] = encode(rtc, tm.tm_sec);
    rtc->cmos[MINUTES] = encode(rtc, tm.tm_min);
    rtc->cmos[HOURS] = encode_hour(rtc, tm.tm_hour);
    rtc->cmos[WEEKDAY] = encode(rtc, tm.tm_wday + 1);
    rtc->cmos[DAY] = encode(rtc, tm.tm_mday);
    rtc->cmos[MONTH] = encode(rtc, tm.tm_mon + 1);
    rtc->cmos[YEAR] = encode(rtc, (tm.tm_year + 1900) % 100);
    rtc->cmos[CENTURY] = encode(rtc, (tm.tm_year + 1900) / 100);
}

/* Makes the time registers the present time. Impossible dates overflow into possible ones. */
static void store_time(struct rtc *rtc)
{
    struct tm tm = {
        .tm_sec = decode(rtc, rtc->cmos[SECONDS]),
        .tm_min = decode(rtc, rtc->cmos[MINUTES]),
        .tm_hour = decode_hour(rtc, rtc->cmos[HOURS]),
        .tm_mday = decode(rtc, rtc->cmos[DAY]),
        .tm_mon = decode(rtc, rtc->cmos[MONTH]) - 1,
        .tm_year = decode(rtc, rtc->cmos[CENTURY]) * 100 + decode(rtc, rtc->cmos[YEAR]) - 1900,
    };
    int64_t wanted_s = timegm(&tm);
    rtc->offset_s = 0;
    int64_t host_s = wall_s(rtc);
    rtc->offset_s = wanted_s - host_s;
    rtc->seen_s = wall_s(rtc);
}

static bool alarm_byte_matches(uint8_t alarm, int alarm_value, int64_t value)
{
    return (alarm & ALARM_ANY) == ALARM_ANY || alarm_value == value;
}

static bool alarm_matches(const struct rtc *rtc, int64_t second)
{
    const uint8_t *cmos = rtc->cmos;
    int64_t of_day = second % DAY_S;
    if (of_day < 0)
        of_day += DAY_S;
    return alarm_byte_matches(cmos[SECONDS_ALARM], decode(rtc, cmos[SECONDS_ALARM]), of_day % 60) &&
           alarm_byte_matches(cmos[MINUTES_ALARM], decode(rtc, cmos[MINUTES_ALARM]),
                              of_day / 60 % 60) &&
           alarm_byte_matches(cmos[HOURS_ALARM], decode_hour(rtc, cmos[HOURS_ALARM]),
                              of_day / 3600);
}

/* Sets the flags of the seconds that have passed since the last look. */
static void catch_up(struct rtc *rtc)
{
    int64_t now_s = wall_s(rtc);
    if (now_s == rtc->seen_s || (rtc->cmos[REGISTER_B] & B_SET))
        return;
    /* The clock may have jumped, either way; an alarm repeats within a day. */
    if (now_s < rtc->seen_s || now_s - rtc->seen_s > DAY_S)
        rtc->seen_s = now_s - 1;
    rtc->cmos[REGISTER_C] |= C_UPDATE;
    while (rtc->seen_s < now_s)
        if (alarm_matches(rtc, ++rtc->seen_s))
            rtc->cmos[REGISTER_C] |= C_ALARM;
}

static void update_irq(struct rtc *rtc)
{
    uint8_t active =
        rtc->cmos[REGISTER_C] & rtc->cmos[REGISTER_B] & (C_UPDATE | C_ALARM | C_PERIODIC);
    rtc->cmos[REGISTER_C] =
        active ? rtc->cmos[REGISTER_C] | C_IRQ : rtc->cmos[REGISTER_C] & (uint8_t)~C_IRQ;
    irq_line_set(&rtc->irq, active);
}

static void arm_second_timer(struct rtc *rtc)
{
    if ((rtc->cmos[REGISTER_B] & (B_UPDATE_IRQ | B_ALARM_IRQ)) == 0 ||
        (rtc->cmos[REGISTER_B] & B_SET)) {
        guest_timer_disarm(&rtc->second_timer);
        return;
    }
    uint64_t ahead_ns = (uint64_t)(NS_PER_S - second_phase_ns(rtc));
    guest_timer_arm(&rtc->second_timer, guest_clock_now_ns(rtc->clock) + ahead_ns);
}

static void on_second(struct guest_timer *timer)
{
    struct rtc *rtc = container_of(timer, struct rtc, second_timer);
    catch_up(rtc);
    update_irq(rtc);
    arm_second_timer(rtc);
}

/* 0: no periodic interrupt. The shortest is 122 us. */
static uint64_t period_ns(const struct rtc *rtc)
{
    unsigned rate = rtc->cmos[REGISTER_A] & A_RATE;
    if (rate == 0 || !(rtc->cmos[REGISTER_B] & B_PERIODIC_IRQ))
        return 0;
    if (rate <= 2)
        rate += 7;
    return ((uint64_t)NS_PER_S << (rate - 1)) / CRYSTAL_HZ;
}

static void arm_periodic_timer(struct rtc *rtc)
{
    uint64_t period = period_ns(rtc);
    if (period == 0)
        guest_timer_disarm(&rtc->periodic_timer);
    else
        guest_timer_arm(&rtc->periodic_timer,
                        (guest_clock_now_ns(rtc->clock) / period + 1) * period);
}

static void on_period(struct guest_timer *timer)
{
    struct rtc *rtc = container_of(timer, struct rtc, periodic_timer);
    rtc->cmos[REGISTER_C] |= C_PERIODIC;
    update_irq(rtc);
    arm_periodic_timer(rtc);
}

static bool is_time_register(unsigned index)
{
    return index == SECONDS || index == MINUTES || index == HOURS ||
           (index >= WEEKDAY && index <= YEAR) || index == CENTURY;
}

static uint8_t read_register_c(struct rtc *rtc)
{
    catch_up(rtc);
    update_irq(rtc);
    uint8_t value = rtc->cmos[REGISTER_C];
    rtc->cmos[REGISTER_C] = 0;
    update_irq(rtc);
    return value;
}

static uint8_t read_register(struct rtc *rtc, unsigned index)
{
    bool is_set = rtc->cmos[REGISTER_B] & B_SET;
    if (is_time_register(index) && !is_set)
        load_time(rtc);
    if (index == REGISTER_A && !is_set && second_phase_ns(rtc) >= NS_PER_S - UPDATE_NS)
        return rtc->cmos[REGISTER_A] | A_UPDATE;
    if (index == REGISTER_C)
        return read_register_c(rtc);
    return rtc->cmos[index];
}

static void write_register_b(struct rtc *rtc, uint8_t value)
{
    uint8_t old = rtc->cmos[REGISTER_B];
    /* Flags of the time before the interrupt was wanted are not for it. */
    catch_up(rtc);
    if (value & B_SET) {
        if (!(old & B_SET))
            load_time(rtc);
        value &= (uint8_t)~B_UPDATE_IRQ;
    }
    rtc->cmos[REGISTER_B] = value;
    if ((old & B_SET) && !(value & B_SET))
        store_time(rtc);
    update_irq(rtc);
    arm_second_timer(rtc);
    arm_periodic_timer(rtc);
}

static void write_register(struct rtc *rtc, unsigned index, uint8_t value)
{
    if (index == REGISTER_A) {
        rtc->cmos[REGISTER_A] = value & (uint8_t)~A_UPDATE;
        arm_periodic_timer(rtc);
    } else if (index == REGISTER_B) {
        write_register_b(rtc, value);
    } else if (is_time_register(index) && !(rtc->cmos[REGISTER_B] & B_SET)) {
        load_time(rtc);
        rtc->cmos[index] = value;
        store_time(rtc);
    } else if (index != REGISTER_C && index != REGISTER_D) {
        rtc->cmos[index] = value;
    }
}

static uint64_t rtc_read(void *device, uint64_t offset, unsigned size)
{
    struct rtc *rtc = device;
    if (size != 1 || offset == 0)
        return bus_all_ones(size);
    return read_register(rtc, rtc->index);
}

static void rtc_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct rtc *rtc = device;
    if (size != 1)
        return;
    if (offset == 0)
        rtc->index = value & (RTC_CMOS_BYTES - 1); /* bit 7 would gate NMIs */
    else
        write_register(rtc, rtc->index, (uint8_t)value);
}

static const struct bus_region_ops region_ops = {rtc_read, rtc_write};

/* The battery keeps time and memory; only interrupts are off after a reset. */
static void rtc_reset(struct device *device)
{
    struct rtc *rtc = (struct rtc *)device;
    rtc->index = 0;
    rtc->cmos[REGISTER_B] &=
        (uint8_t) ~(B_PERIODIC_IRQ | B_ALARM_IRQ | B_UPDATE_IRQ | B_SQUARE_WAVE);
    rtc->cmos[REGISTER_C] = 0;
    arm_second_timer(rtc);
    arm_periodic_timer(rtc);
    update_irq(rtc);
}

static int rtc_after_restore(struct device *device, struct error *err)
{
    struct rtc *rtc = (struct rtc *)device;
    (void)err;
    rtc->index &= RTC_CMOS_BYTES - 1;
    rtc->offset_s = MIN(MAX(rtc->offset_s, YEAR_1_S), YEAR_9999_S);
    arm_second_timer(rtc);
    arm_periodic_timer(rtc);
    update_irq(rtc);
    return 0;
}

static void rtc_close(struct device *device, void (*on_closed)(void *opaque), void *opaque)
{
    struct rtc *rtc = (struct rtc *)device;
    rtc_reset(device);
    bus_unmap(rtc->bus, &rtc->region);
    device_close_later(rtc->bus->loop, device, on_closed, opaque);
}

static const struct state_field fields[] = {
    STATE_ARRAY(struct rtc, cmos),
    STATE_FIELD(struct rtc, index),
    STATE_FIELD(struct rtc, offset_s),
    STATE_FIELD(struct rtc, seen_s),
};

static const struct state_table state = {"rtc", 1, fields, ARRAY_SIZE(fields)};

static const struct device_ops device_ops = {
    .kind = "rtc",
    .reset = rtc_reset,
    .state = &state,
    .after_restore = rtc_after_restore,
    .close = rtc_close,
};

void rtc_set_cpus(struct rtc *rtc, unsigned cpus)
{
    rtc->cmos[CMOS_CPUS] = (uint8_t)(cpus - 1);
}

static void fill_cmos(struct rtc *rtc, uint64_t below_4g_bytes, uint64_t above_4g_bytes,
                      unsigned cpus)
{
    uint8_t *cmos = rtc->cmos;
    uint64_t extended = below_4g_bytes - MIN(below_4g_bytes, MIB);
    uint64_t above_16m = below_4g_bytes - MIN(below_4g_bytes, 16 * MIB);
    uint64_t above_4g = MIN(above_4g_bytes / (64 * KIB), (UINT64_C(1) << 24) - 1);
    cmos[REGISTER_A] = A_DIVIDER_ON | 6; /* 1024 Hz */
    cmos[REGISTER_B] = B_24_HOURS;
    cmos[REGISTER_D] = D_VALID;
    cmos[CMOS_EQUIPMENT] = EQUIPMENT;
    store_le16(&cmos[CMOS_BASE_KIB], 640);
    store_le16(&cmos[CMOS_EXTENDED_KIB], (uint16_t)MIN(extended / KIB, UINT16_MAX));
    store_le16(&cmos[CMOS_EXTENDED_KIB_2], (uint16_t)MIN(extended / KIB, UINT16_MAX));
    store_le16(&cmos[CMOS_ABOVE_16M], (uint16_t)MIN(above_16m / (64 * KIB), UINT16_MAX));
    store_le16(&cmos[CMOS_ABOVE_4G], (uint16_t)above_4g);
    cmos[CMOS_ABOVE_4G + 2] = (uint8_t)(above_4g >> 16);
    rtc_set_cpus(rtc, cpus);
}

int rtc_create(struct bus *bus, struct guest_clock *clock, struct irq_hub *hub,
               uint64_t ram_below_4g_bytes, uint64_t ram_above_4g_bytes, unsigned cpus,
               struct rtc **out, struct error *err)
{
    struct rtc *rtc = calloc(1, sizeof(*rtc));
    CHECK(rtc);
    rtc->device.ops = &device_ops;
    rtc->bus = bus;
    rtc->clock = clock;
    irq_line_init(&rtc->irq, hub, RTC_GSI);
    guest_timer_init(clock, &rtc->second_timer, on_second);
    guest_timer_init(clock, &rtc->periodic_timer, on_period);
    rtc->region = (struct bus_region){.name = "rtc", .ops = &region_ops, .device = rtc, .size = 2};
    int result = bus_map(bus, BUS_PIO, RTC_INDEX_PORT, &rtc->region);
    if (result) {
        free(rtc);
        return error_set(err, -result, "the clock finds its ports taken");
    }
    fill_cmos(rtc, ram_below_4g_bytes, ram_above_4g_bytes, cpus);
    rtc->seen_s = wall_s(rtc);
    rtc_reset(&rtc->device);
    *out = rtc;
    return 0;
}
