/* SPDX-License-Identifier: MIT */
/* ioapic: redirection entries, and when each of them sends its message. */
#include "devices/ioapic.h"

#include <errno.h>
#include <stdlib.h>

#define IOAPIC_VERSION 0x20

enum {
    REGISTER_SELECT = 0x00,
    REGISTER_WINDOW = 0x10,
    REGISTER_EOI = 0x40,
};

enum {
    INDEX_ID = 0,
    INDEX_VERSION = 1,
    INDEX_ARBITRATION = 2,
    INDEX_ENTRIES = 0x10,
};

#define ENTRY_VECTOR          UINT64_C(0xff)
#define ENTRY_DELIVERY_MODE   (UINT64_C(7) << 8)
#define ENTRY_IS_LOGICAL      (UINT64_C(1) << 11)
#define ENTRY_DELIVERY_STATUS (UINT64_C(1) << 12)
#define ENTRY_REMOTE_IRR      (UINT64_C(1) << 14)
#define ENTRY_IS_LEVEL        (UINT64_C(1) << 15)
#define ENTRY_IS_MASKED       (UINT64_C(1) << 16)
#define ENTRY_READ_ONLY       (ENTRY_DELIVERY_STATUS | ENTRY_REMOTE_IRR)
#define ENTRY_DEFINED         UINT64_C(0xff0000000001ffff)
#define ENTRY_DESTINATION_AT  56
#define DELIVERY_EXTINT       (UINT64_C(7) << 8)

#define MSI_ADDRESS        UINT64_C(0xfee00000)
#define MSI_DESTINATION_AT 12
#define MSI_IS_LOGICAL     (UINT64_C(1) << 2)
#define MSI_LEVEL_ASSERT   (1u << 14)
#define MSI_IS_LEVEL       (1u << 15)

static uint64_t message_address(uint64_t entry)
{
    return MSI_ADDRESS | entry >> ENTRY_DESTINATION_AT << MSI_DESTINATION_AT |
           (entry & ENTRY_IS_LOGICAL ? MSI_IS_LOGICAL : 0);
}

static uint32_t message_data(uint64_t entry)
{
    return (uint32_t)(entry & (ENTRY_VECTOR | ENTRY_DELIVERY_MODE)) |
           (entry & ENTRY_IS_LEVEL ? MSI_IS_LEVEL | MSI_LEVEL_ASSERT : 0);
}

static bool has_route(uint64_t entry)
{
    return !(entry & ENTRY_IS_MASKED) || (entry & ENTRY_REMOTE_IRR);
}

bool ioapic_get_route(const struct ioapic *ioapic, unsigned pin, uint64_t *address, uint32_t *data)
{
    CHECK(pin < GSI_IOAPIC_PINS);
    uint64_t entry = ioapic->entries[pin];
    *address = message_address(entry);
    *data = message_data(entry);
    return has_route(entry);
}

/* Sends a pin's message if it has one to send and may. */
static void service(struct ioapic *ioapic, unsigned pin)
{
    uint64_t entry = ioapic->entries[pin];
    uint32_t bit = 1u << pin;
    if (!(ioapic->pending & bit) || (entry & ENTRY_IS_MASKED))
        return;
    if (entry & ENTRY_IS_LEVEL) {
        if (entry & ENTRY_REMOTE_IRR)
            return;
        ioapic->entries[pin] |= ENTRY_REMOTE_IRR;
    } else {
        ioapic->pending &= ~bit;
    }
    /* The PIC's interrupts reach the boot CPU by its own INTR line, not by way of this chip. */
    if ((entry & ENTRY_DELIVERY_MODE) != DELIVERY_EXTINT)
        ioapic->hub->ops->send_msi(ioapic->hub, message_address(entry), message_data(entry));
}

static void set_entry(struct ioapic *ioapic, unsigned pin, uint64_t entry)
{
    uint64_t old = ioapic->entries[pin];
    uint32_t bit = 1u << pin;
    /* Edge-triggered means that no EOI is waited for: the way to get rid of a stuck one. */
    if (!(entry & ENTRY_IS_LEVEL))
        entry &= ~ENTRY_REMOTE_IRR;
    if ((entry ^ old) & ENTRY_IS_LEVEL)
        ioapic->pending =
            (ioapic->pending & ~bit) | (entry & ENTRY_IS_LEVEL ? ioapic->levels & bit : 0);
    ioapic->entries[pin] = entry;
    if (ioapic->on_routes_changed &&
        (has_route(old) != has_route(entry) ||
         (has_route(entry) && (message_address(old) != message_address(entry) ||
                               message_data(old) != message_data(entry)))))
        ioapic->on_routes_changed(ioapic->opaque);
}

static void write_entry_half(struct ioapic *ioapic, unsigned half, uint32_t value)
{
    unsigned pin = half / 2, shift = half % 2 * 32;
    uint64_t old = ioapic->entries[pin];
    uint64_t writable = UINT64_C(0xffffffff) << shift & ENTRY_DEFINED & ~ENTRY_READ_ONLY;
    set_entry(ioapic, pin, (old & ~writable) | ((uint64_t)value << shift & writable));
    service(ioapic, pin);
}

static uint32_t read_window(const struct ioapic *ioapic)
{
    switch (ioapic->selected) {
    case INDEX_ID:
    case INDEX_ARBITRATION:
        return (uint32_t)ioapic->id << 24;
    case INDEX_VERSION:
        return IOAPIC_VERSION | (GSI_IOAPIC_PINS - 1) << 16;
    }
    unsigned half = ioapic->selected - INDEX_ENTRIES;
    if (ioapic->selected < INDEX_ENTRIES || half >= 2 * GSI_IOAPIC_PINS)
        return 0;
    return (uint32_t)(ioapic->entries[half / 2] >> half % 2 * 32);
}

static void write_window(struct ioapic *ioapic, uint32_t value)
{
    unsigned half = ioapic->selected - INDEX_ENTRIES;
    if (ioapic->selected == INDEX_ID)
        ioapic->id = value >> 24 & 0xf;
    else if (ioapic->selected >= INDEX_ENTRIES && half < 2 * GSI_IOAPIC_PINS)
        write_entry_half(ioapic, half, value);
}

static uint64_t ioapic_read(void *device, uint64_t offset, unsigned size)
{
    const struct ioapic *ioapic = device;
    if (offset == REGISTER_SELECT && size <= 4)
        return ioapic->selected;
    if (offset == REGISTER_WINDOW && size == 4)
        return read_window(ioapic);
    return bus_all_ones(size);
}

static void ioapic_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *ioapic = device;
    if (offset == REGISTER_SELECT && size <= 4)
        ioapic->selected = (uint8_t)value;
    else if (offset == REGISTER_WINDOW && size == 4)
        write_window(ioapic, (uint32_t)value);
    else if (offset == REGISTER_EOI && size <= 4)
        ioapic_eoi(ioapic, (uint8_t)value);
}

void ioapic_set_pin(struct ioapic *ioapic, unsigned pin, bool level)
{
    CHECK(pin < GSI_IOAPIC_PINS);
    uint32_t bit = 1u << pin;
    bool is_level = ioapic->entries[pin] & ENTRY_IS_LEVEL;
    bool rises = level && !(ioapic->levels & bit);
    ioapic->levels = level ? ioapic->levels | bit : ioapic->levels & ~bit;
    if (is_level)
        ioapic->pending = level ? ioapic->pending | bit : ioapic->pending & ~bit;
    else if (rises)
        ioapic->pending |= bit;
    service(ioapic, pin);
}

void ioapic_eoi(struct ioapic *ioapic, uint8_t vector)
{
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++) {
        uint64_t entry = ioapic->entries[pin];
        if (!(entry & ENTRY_REMOTE_IRR) || (entry & ENTRY_VECTOR) != vector)
            continue;
        set_entry(ioapic, pin, entry & ~ENTRY_REMOTE_IRR);
        service(ioapic, pin);
    }
}

static void ioapic_reset(struct device *device)
{
    struct ioapic *ioapic = (struct ioapic *)device;
    ioapic->id = 0;
    ioapic->selected = 0;
    ioapic->pending = 0;
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++)
        set_entry(ioapic, pin, ENTRY_IS_MASKED);
}

static int ioapic_after_restore(struct device *device, struct error *err)
{
    struct ioapic *ioapic = (struct ioapic *)device;
    (void)err;
    for (unsigned pin = 0; pin < GSI_IOAPIC_PINS; pin++)
        ioapic->entries[pin] &= ENTRY_DEFINED;
    ioapic->levels &= (1u << GSI_IOAPIC_PINS) - 1;
    ioapic->pending &= (1u << GSI_IOAPIC_PINS) - 1;
    if (ioapic->on_routes_changed)
        ioapic->on_routes_changed(ioapic->opaque);
    return 0;
}

static void ioapic_close(struct device *device, void (*on_closed)(void *opaque), void *opaque)
{
    struct ioapic *ioapic = (struct ioapic *)device;
    bus_unmap(ioapic->bus, &ioapic->region);
    device_close_later(ioapic->bus->loop, device, on_closed, opaque);
}

static const struct state_field fields[] = {
    STATE_FIELD(struct ioapic, id),      STATE_FIELD(struct ioapic, selected),
    STATE_FIELD(struct ioapic, levels),  STATE_FIELD(struct ioapic, pending),
    STATE_ARRAY(struct ioapic, entries),
};

static const struct state_table state = {"ioapic", 1, fields, ARRAY_SIZE(fields)};

static const struct device_ops device_ops = {
    .kind = "ioapic",
    .reset = ioapic_reset,
    .state = &state,
    .after_restore = ioapic_after_restore,
    .close = ioapic_close,
};

static const struct bus_region_ops region_ops = {ioapic_read, ioapic_write};

int ioapic_create(struct bus *bus, struct irq_hub *hub, void (*on_routes_changed)(void *opaque),
                  void *opaque, struct ioapic **out, struct error *err)
{
    struct ioapic *ioapic = calloc(1, sizeof(*ioapic));
    CHECK(ioapic);
    ioapic->device.ops = &device_ops;
    ioapic->bus = bus;
    ioapic->hub = hub;
    ioapic->region = (struct bus_region){
        .name = "ioapic", .ops = &region_ops, .device = ioapic, .size = IOAPIC_SIZE};
    int result = bus_map(bus, BUS_MMIO, IOAPIC_BASE, &ioapic->region);
    if (result) {
        free(ioapic);
        return error_set(err, -result, "the I/O APIC finds its address 0x%llx taken",
                         (unsigned long long)IOAPIC_BASE);
    }
    ioapic_reset(&ioapic->device);
    ioapic->on_routes_changed = on_routes_changed;
    ioapic->opaque = opaque;
    *out = ioapic;
    return 0;
}
