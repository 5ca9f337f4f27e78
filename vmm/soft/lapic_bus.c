/* SPDX-License-Identifier: MIT */
/*
 * lapic_bus: messages to LAPICs: who is meant, and what arriving does. Runs on the sender's thread
 * and touches only the receiver's atomics.
 */
#include "vmm/soft/lapic_bus.h"

#include <stddef.h>

#define ICR_LEVEL         (1u << 14)
#define ICR_TRIGGER_LEVEL (1u << 15)
#define XAPIC_BROADCAST   0xffu
#define X2APIC_BROADCAST  0xffffffffu

struct message {
    uint32_t destination;
    bool is_broadcast;
    bool is_logical;
    bool lowest_priority;
    bool is_level; /* trigger mode */
    unsigned mode; /* enum delivery_mode */
    uint8_t vector;
};

/* --- Errors and acceptance --- */

void lapic_bus_accept(struct lapic *lapic, uint8_t vector, bool is_level)
{
    _Atomic uint32_t *tmr = lapic_vector_word(lapic, REG_TMR, vector);

    if (is_level)
        atomic_fetch_or(tmr, lapic_vector_bit(vector));
    else
        atomic_fetch_and(tmr, ~lapic_vector_bit(vector));
    atomic_fetch_or(lapic_vector_word(lapic, REG_IRR, vector), lapic_vector_bit(vector));
    lapic->ops->on_attention(lapic);
}

void lapic_bus_error(struct lapic *lapic, uint32_t error)
{
    uint32_t lvt = lapic_get(lapic, REG_LVT_ERROR);

    if (atomic_fetch_or(&lapic->errors, error) & error)
        return;
    if (!(lvt & LVT_MASKED) && (lvt & 0xff) >= VECTOR_LOWEST && lapic_is_software_enabled(lapic))
        lapic_bus_accept(lapic, (uint8_t)lvt, false);
}

static void raise_event(struct lapic *lapic, unsigned event)
{
    atomic_fetch_or(&lapic->events, event);
    lapic->ops->on_attention(lapic);
}

static void accept_message(struct lapic *lapic, const struct message *message)
{
    switch (message->mode) {
    case DELIVERY_FIXED:
    case DELIVERY_LOWEST:
        if (!lapic_is_software_enabled(lapic))
            return;
        if (message->vector < VECTOR_LOWEST)
            lapic_bus_error(lapic, ERROR_RECV_VECTOR);
        else
            lapic_bus_accept(lapic, message->vector, message->is_level);
        return;
    case DELIVERY_SMI:
        raise_event(lapic, LAPIC_EVENT_SMI);
        return;
    case DELIVERY_NMI:
        raise_event(lapic, LAPIC_EVENT_NMI);
        return;
    case DELIVERY_INIT:
        raise_event(lapic, LAPIC_EVENT_INIT);
        return;
    case DELIVERY_SIPI:
        atomic_store(&lapic->sipi_vector, message->vector);
        raise_event(lapic, LAPIC_EVENT_SIPI);
        return;
    default:
        /* ExtINT as a message has no PIC behind it here. */
        return;
    }
}

/* --- Destinations --- */

uint32_t lapic_bus_logical_id(const struct lapic *lapic)
{
    if (lapic_is_x2apic(lapic))
        return (lapic->id >> 4) << 16 | 1u << (lapic->id & 15);
    return lapic_get(lapic, REG_LDR) >> 24;
}

static bool matches_logical(const struct lapic *lapic, uint32_t destination)
{
    uint32_t own = lapic_bus_logical_id(lapic);

    if (lapic_is_x2apic(lapic))
        return own >> 16 == destination >> 16 && own & destination & 0xffff;
    if (lapic_get(lapic, REG_DFR) >> 28 == 0xf)
        return own & destination & 0xff;
    return own >> 4 == (destination >> 4 & 0xf) && own & destination & 0xf;
}

static bool matches(const struct lapic *lapic, const struct message *message)
{
    if (!lapic_is_on(lapic))
        return false;
    if (message->is_broadcast)
        return true;
    if (message->is_logical)
        return matches_logical(lapic, message->destination);
    return lapic->id == message->destination;
}

/* Of those that match, the one of lowest priority; among equals the turn goes round. */
static struct lapic *lowest_priority(struct lapic_hub *hub, const struct message *message)
{
    unsigned first = atomic_fetch_add(&hub->rotation, 1);
    struct lapic *best = NULL;
    uint32_t best_priority = 0;

    for (unsigned i = 0; i < hub->count; i++) {
        struct lapic *lapic = hub->lapics[(first + i) % hub->count];

        if (!lapic_is_software_enabled(lapic) || !matches(lapic, message))
            continue;
        uint32_t priority = lapic_priority(lapic);

        if (!best || priority < best_priority) {
            best = lapic;
            best_priority = priority;
        }
    }
    return best;
}

static void deliver(struct lapic_hub *hub, const struct message *message)
{
    if (message->lowest_priority) {
        struct lapic *lapic = lowest_priority(hub, message);

        if (lapic)
            accept_message(lapic, message);
        return;
    }
    for (unsigned i = 0; i < hub->count; i++)
        if (matches(hub->lapics[i], message))
            accept_message(hub->lapics[i], message);
}

void lapic_msi(struct lapic_hub *hub, uint64_t address, uint32_t data)
{
    struct message message = {
        .destination = (uint32_t)(address >> 12) & 0xff,
        .is_logical = address & (1u << 2),
        .is_level = data & (1u << 15),
        .mode = (data >> 8) & 7,
        .vector = (uint8_t)data,
    };

    if (address >> 20 != 0xfee)
        return;
    message.is_broadcast = message.destination == XAPIC_BROADCAST;
    message.lowest_priority = message.mode == DELIVERY_LOWEST || address & (1u << 3);
    deliver(hub, &message);
}

/* --- Inter-processor interrupts --- */

static void send_to_others(struct lapic *lapic, const struct message *message, bool and_self)
{
    for (unsigned i = 0; i < lapic->hub->count; i++) {
        struct lapic *other = lapic->hub->lapics[i];

        if ((other != lapic || and_self) && lapic_is_on(other))
            accept_message(other, message);
    }
}

void lapic_bus_send(struct lapic *lapic, uint32_t icr, uint32_t icr2)
{
    struct message message = {
        .destination = lapic_is_x2apic(lapic) ? icr2 : icr2 >> 24,
        .is_logical = icr & (1u << 11),
        .mode = (icr >> 8) & 7,
        .vector = (uint8_t)icr,
    };

    /* The de-assert message of INIT means nothing to these CPUs. */
    if (message.mode == DELIVERY_INIT && icr & ICR_TRIGGER_LEVEL && !(icr & ICR_LEVEL))
        return;
    message.is_broadcast =
        message.destination == (lapic_is_x2apic(lapic) ? X2APIC_BROADCAST : XAPIC_BROADCAST);
    message.lowest_priority = message.mode == DELIVERY_LOWEST;
    if (message.mode <= DELIVERY_LOWEST && message.vector < VECTOR_LOWEST) {
        lapic_bus_error(lapic, ERROR_SEND_VECTOR);
        return;
    }
    switch (icr >> 18 & 3) {
    case 0:
        deliver(lapic->hub, &message);
        break;
    case 1:
        accept_message(lapic, &message);
        break;
    default:
        send_to_others(lapic, &message, (icr >> 18 & 3) == 2);
        break;
    }
}
