/* SPDX-License-Identifier: MIT */
/*
 * pit: three counters as functions of time.
 *
 * A counter is a mode, a count and the guest time at which it began; its value and its output are
 * computed when somebody looks. Only channel 0 needs a timer: for the next rising edge of OUT.
 */
#include "devices/pit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/limits.h"

#define PIT_PORT    0x40
#define PORT61      0x61
#define NS_PER_S    UINT64_C(1000000000)
#define NEVER_TICKS UINT64_MAX

/* A count shorter than this interrupts at this rate instead. */
#define PERIOD_MIN_TICKS (PIT_HZ * PIT_PERIOD_MIN_US / 1000000 + 1)

enum pit_mode {
    MODE_TERMINAL_COUNT,
    MODE_ONE_SHOT,
    MODE_RATE,
    MODE_SQUARE,
    MODE_SOFTWARE_STROBE,
    MODE_HARDWARE_STROBE,
};

static bool is_periodic(const struct pit_channel *channel)
{
    return channel->mode == MODE_RATE || channel->mode == MODE_SQUARE;
}

static bool starts_by_gate(const struct pit_channel *channel)
{
    return channel->mode == MODE_ONE_SHOT || channel->mode == MODE_HARDWARE_STROBE;
}

static uint64_t ticks_at(const struct pit_channel *channel, uint64_t now_ns)
{
    if (!channel->is_counting)
        return channel->frozen_ticks;
    uint64_t elapsed_ns = now_ns - channel->started_ns;
    return (uint64_t)((unsigned __int128)elapsed_ns * PIT_HZ / NS_PER_S);
}

/* The first guest time at which `ticks` have passed. */
static uint64_t time_of(const struct pit_channel *channel, uint64_t ticks)
{
    unsigned __int128 ns = ((unsigned __int128)ticks * NS_PER_S + PIT_HZ - 1) / PIT_HZ;
    return channel->started_ns + (uint64_t)ns;
}

static bool output_at(const struct pit_channel *channel, uint64_t now_ns)
{
    uint64_t ticks = ticks_at(channel, now_ns), count = channel->count;
    switch (channel->mode) {
    case MODE_TERMINAL_COUNT:
        return channel->is_loaded && ticks >= count;
    case MODE_ONE_SHOT:
        return !channel->is_counting || ticks >= count;
    case MODE_RATE:
        return !channel->is_counting || ticks % count != count - 1;
    case MODE_SQUARE:
        return !channel->is_counting || ticks % count < (count + 1) / 2;
    default:
        return !channel->is_counting || ticks != count;
    }
}

static uint16_t to_bcd(uint32_t value)
{
    return (uint16_t)(value % 10 | value / 10 % 10 << 4 | value / 100 % 10 << 8 |
                      value / 1000 % 10 << 12);
}

static uint32_t from_bcd(uint16_t value)
{
    return (value & 0xfu) + (value >> 4 & 0xfu) * 10 + (value >> 8 & 0xfu) * 100 +
           (value >> 12 & 0xfu) * 1000;
}

static uint16_t value_at(const struct pit_channel *channel, uint64_t now_ns)
{
    uint64_t ticks = ticks_at(channel, now_ns), count = channel->count;
    uint64_t modulus = channel->is_bcd ? 10000 : 0x10000, value;
    if (channel->mode == MODE_RATE)
        value = count - ticks % count;
    else if (channel->mode == MODE_SQUARE)
        value = count - ticks * 2 % count;
    else
        value = (count + modulus - ticks % modulus) % modulus;
    return channel->is_bcd ? to_bcd((uint32_t)value) : (uint16_t)value;
}

static uint64_t next_rising_edge(const struct pit_channel *channel, uint64_t ticks)
{
    uint64_t edge = channel->count;
    if (!channel->is_counting || !channel->is_loaded)
        return NEVER_TICKS;
    if (is_periodic(channel)) {
        uint64_t period = MAX(channel->count, (uint32_t)PERIOD_MIN_TICKS);
        return (ticks / period + 1) * period;
    }
    if (channel->mode == MODE_SOFTWARE_STROBE || channel->mode == MODE_HARDWARE_STROBE)
        edge++;
    return ticks < edge ? edge : NEVER_TICKS;
}

static void arm_timer(struct pit *pit)
{
    const struct pit_channel *channel = &pit->channels[0];
    uint64_t now_ns = guest_clock_now_ns(pit->clock);
    uint64_t edge = next_rising_edge(channel, ticks_at(channel, now_ns));
    if (edge == NEVER_TICKS)
        guest_timer_disarm(&pit->timer);
    else
        guest_timer_arm(&pit->timer, time_of(channel, edge));
}

static void on_edge(struct guest_timer *timer)
{
    struct pit *pit = container_of(timer, struct pit, timer);
    irq_line_set(&pit->irq, false);
    irq_line_set(&pit->irq, true);
    arm_timer(pit);
}

static void channel_changed(struct pit *pit, const struct pit_channel *channel)
{
    if (channel != &pit->channels[0])
        return;
    irq_line_set(&pit->irq, output_at(channel, guest_clock_now_ns(pit->clock)));
    arm_timer(pit);
}

static void restart(struct pit *pit, struct pit_channel *channel)
{
    channel->started_ns = guest_clock_now_ns(pit->clock);
    channel->frozen_ticks = 0;
    channel->is_counting = 1;
}

static void load(struct pit *pit, struct pit_channel *channel, uint16_t value)
{
    uint32_t count = channel->is_bcd ? from_bcd(value) : value;
    if (count == 0)
        count = channel->is_bcd ? 10000 : 0x10000;
    /* A period of one does not exist: OUT would never be low, then high. */
    channel->count = is_periodic(channel) ? MAX(count, 2u) : count;
    channel->is_loaded = 1;
    channel->frozen_ticks = 0;
    if (!starts_by_gate(channel)) {
        channel->is_counting = 0;
        if (channel->gate)
            restart(pit, channel);
    }
    channel_changed(pit, channel);
}

static void write_count(struct pit *pit, struct pit_channel *channel, uint8_t value)
{
    if (channel->access == 1) {
        load(pit, channel, value);
    } else if (channel->access == 2) {
        load(pit, channel, (uint16_t)(value << 8));
    } else if (!channel->writes_high) {
        channel->low_byte = value;
        channel->writes_high = 1;
    } else {
        channel->writes_high = 0;
        load(pit, channel, (uint16_t)(value << 8 | channel->low_byte));
    }
}

static void set_gate(struct pit *pit, struct pit_channel *channel, bool gate)
{
    uint64_t now_ns = guest_clock_now_ns(pit->clock);
    if (channel->gate == gate)
        return;
    channel->gate = gate;
    if (gate && channel->is_loaded) {
        if (starts_by_gate(channel) || is_periodic(channel)) {
            restart(pit, channel);
        } else {
            uint64_t done_ns = time_of(channel, channel->frozen_ticks) - channel->started_ns;
            channel->started_ns = now_ns - MIN(done_ns, now_ns);
            channel->is_counting = 1;
        }
    } else if (!gate && !starts_by_gate(channel)) {
        channel->frozen_ticks = is_periodic(channel) ? 0 : ticks_at(channel, now_ns);
        channel->is_counting = 0;
    }
    channel_changed(pit, channel);
}

static void latch_count(struct pit *pit, struct pit_channel *channel)
{
    if (channel->latched_bytes)
        return;
    channel->latched_count = value_at(channel, guest_clock_now_ns(pit->clock));
    channel->latched_bytes = channel->access == 3 ? 2 : 1;
}

static void latch_status(struct pit *pit, struct pit_channel *channel)
{
    if (channel->has_status)
        return;
    bool output = output_at(channel, guest_clock_now_ns(pit->clock));
    channel->latched_status =
        (uint8_t)(output << 7 | !channel->is_loaded << 6 | channel->access << 4 |
                  channel->mode << 1 | channel->is_bcd);
    channel->has_status = 1;
}

static void read_back(struct pit *pit, uint8_t command)
{
    for (unsigned i = 0; i < PIT_CHANNELS; i++) {
        if (!(command >> (i + 1) & 1))
            continue;
        if (!(command & 0x20))
            latch_count(pit, &pit->channels[i]);
        if (!(command & 0x10))
            latch_status(pit, &pit->channels[i]);
    }
}

static void set_mode(struct pit *pit, struct pit_channel *channel, uint8_t command)
{
    uint8_t mode = command >> 1 & 7;
    channel->mode = mode > 5 ? mode - 4 : mode;
    channel->is_bcd = command & 1;
    channel->access = command >> 4 & 3;
    channel->is_loaded = 0;
    channel->is_counting = 0;
    channel->frozen_ticks = 0;
    channel->latched_bytes = 0;
    channel->has_status = 0;
    channel->reads_high = 0;
    channel->writes_high = 0;
    channel_changed(pit, channel);
}

static void write_command(struct pit *pit, uint8_t command)
{
    unsigned index = command >> 6;
    if (index == PIT_CHANNELS)
        read_back(pit, command);
    else if ((command >> 4 & 3) == 0)
        latch_count(pit, &pit->channels[index]);
    else
        set_mode(pit, &pit->channels[index], command);
}

static uint8_t read_latched(struct pit_channel *channel)
{
    bool high = channel->access == 2 || (channel->access == 3 && channel->latched_bytes == 1);
    channel->latched_bytes--;
    return (uint8_t)(high ? channel->latched_count >> 8 : channel->latched_count);
}

static uint8_t read_count(struct pit *pit, struct pit_channel *channel)
{
    if (channel->has_status) {
        channel->has_status = 0;
        return channel->latched_status;
    }
    if (channel->latched_bytes)
        return read_latched(channel);
    uint16_t value = value_at(channel, guest_clock_now_ns(pit->clock));
    bool high = channel->access == 2;
    if (channel->access == 3) {
        high = channel->reads_high;
        channel->reads_high = !high;
    }
    return (uint8_t)(high ? value >> 8 : value);
}

static uint64_t pit_read(void *device, uint64_t offset, unsigned size)
{
    struct pit *pit = device;
    if (size != 1 || offset >= PIT_CHANNELS)
        return bus_all_ones(size);
    return read_count(pit, &pit->channels[offset]);
}

static void pit_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *pit = device;
    if (size != 1)
        return;
    if (offset < PIT_CHANNELS)
        write_count(pit, &pit->channels[offset], (uint8_t)value);
    else
        write_command(pit, (uint8_t)value);
}

static uint64_t port61_read(void *device, uint64_t offset, unsigned size)
{
    struct pit *pit = device;
    (void)offset;
    if (size != 1)
        return bus_all_ones(size);
    bool output = output_at(&pit->channels[2], guest_clock_now_ns(pit->clock));
    pit->refresh = !pit->refresh;
    return (uint64_t)(pit->speaker | pit->refresh << 4 | output << 5);
}

static void port61_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *pit = device;
    (void)offset;
    if (size != 1)
        return;
    pit->speaker = value & 0x0f;
    set_gate(pit, &pit->channels[2], value & 1);
}

static const struct bus_region_ops pit_ops = {pit_read, pit_write};
static const struct bus_region_ops port61_ops = {port61_read, port61_write};

static void pit_reset(struct device *device)
{
    struct pit *pit = (struct pit *)device;
    for (unsigned i = 0; i < PIT_CHANNELS; i++)
        pit->channels[i] = (struct pit_channel){
            .count = 0x10000, .access = 3, .mode = MODE_SQUARE, .gate = i != 2};
    pit->speaker = 0;
    pit->refresh = 0;
    guest_timer_disarm(&pit->timer);
    irq_line_set(&pit->irq, false);
}

static int pit_after_restore(struct device *device, struct error *err)
{
    struct pit *pit = (struct pit *)device;
    uint64_t now_ns = guest_clock_now_ns(pit->clock);
    for (unsigned i = 0; i < PIT_CHANNELS; i++) {
        const struct pit_channel *channel = &pit->channels[i];
        if (channel->count == 0 || channel->count > 0x10000 || channel->mode > 5 ||
            channel->started_ns > now_ns)
            return error_set(err, EINVAL, "saved state of device 'pit' has an impossible channel");
    }
    channel_changed(pit, &pit->channels[0]);
    return 0;
}

static void pit_close(struct device *device, void (*on_closed)(void *opaque), void *opaque)
{
    struct pit *pit = (struct pit *)device;
    pit_reset(device);
    bus_unmap(pit->bus, &pit->region);
    bus_unmap(pit->bus, &pit->port61_region);
    device_close_later(pit->bus->loop, device, on_closed, opaque);
}

#define CHANNEL_FIELD(i, field)                                                                    \
    {                                                                                              \
        "channel" #i "." #field, offsetof(struct pit, channels[i].field),                          \
            sizeof(((struct pit *)0)->channels[i].field), 1                                        \
    }
#define CHANNEL_FIELDS(i)                                                                          \
    CHANNEL_FIELD(i, started_ns), CHANNEL_FIELD(i, frozen_ticks), CHANNEL_FIELD(i, count),         \
        CHANNEL_FIELD(i, latched_count), CHANNEL_FIELD(i, latched_bytes),                          \
        CHANNEL_FIELD(i, latched_status), CHANNEL_FIELD(i, has_status), CHANNEL_FIELD(i, access),  \
        CHANNEL_FIELD(i, mode), CHANNEL_FIELD(i, is_bcd), CHANNEL_FIELD(i, gate),                  \
        CHANNEL_FIELD(i, is_loaded), CHANNEL_FIELD(i, is_counting), CHANNEL_FIELD(i, reads_high),  \
        CHANNEL_FIELD(i, writes_high), CHANNEL_FIELD(i, low_byte)

static const struct state_field fields[] = {
    CHANNEL_FIELDS(0),
    CHANNEL_FIELDS(1),
    CHANNEL_FIELDS(2),
    STATE_FIELD(struct pit, speaker),
    STATE_FIELD(struct pit, refresh),
};

static const struct state_table state = {"pit", 1, fields, ARRAY_SIZE(fields)};

static const struct device_ops device_ops = {
    .kind = "pit",
    .reset = pit_reset,
    .state = &state,
    .after_restore = pit_after_restore,
    .close = pit_close,
};

int pit_create(struct bus *bus, struct guest_clock *clock, struct irq_hub *hub, struct pit **out,
               struct error *err)
{
    struct pit *pit = calloc(1, sizeof(*pit));
    CHECK(pit);
    pit->device.ops = &device_ops;
    pit->bus = bus;
    pit->clock = clock;
    irq_line_init(&pit->irq, hub, 0);
    guest_timer_init(clock, &pit->timer, on_edge);
    pit->region = (struct bus_region){.name = "pit", .ops = &pit_ops, .device = pit, .size = 4};
    pit->port61_region =
        (struct bus_region){.name = "port61", .ops = &port61_ops, .device = pit, .size = 1};
    pit_reset(&pit->device);
    int result = bus_map(bus, BUS_PIO, PIT_PORT, &pit->region);
    if (!result)
        result = bus_map(bus, BUS_PIO, PORT61, &pit->port61_region);
    if (result) {
        bus_unmap(bus, &pit->region);
        free(pit);
        return error_set(err, -result, "the interval timer finds its ports taken");
    }
    *out = pit;
    return 0;
}
