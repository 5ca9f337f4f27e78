/* SPDX-License-Identifier: MIT */
/*
 * irq: how a device interrupts: by a line (GSI, to PIC and IOAPIC) or by a message (MSI, MSI-X).
 *
 * The machine implements this (vmm/irq) over the accelerator; tests implement it with counters.
 * Devices know lines and messages only, never vectors' owners. Loop's thread.
 */
#ifndef DEVICES_IRQ_H
#define DEVICES_IRQ_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"

struct irq_hub;

/* A message that can be sent again and again: an irqfd where the accelerator has them. */
struct irq_route;

struct irq_hub_ops {
    void (*set_line)(struct irq_hub *hub, unsigned gsi, bool level);
    /* Sends one message now. */
    void (*send_msi)(struct irq_hub *hub, uint64_t address, uint32_t data);
    /* -ENOSPC when the accelerator has no more routes. */
    int (*route_create)(struct irq_hub *hub, struct irq_route **out);
    void (*route_set)(struct irq_route *route, uint64_t address, uint32_t data);
    void (*route_fire)(struct irq_route *route);
    void (*route_destroy)(struct irq_route *route);
};

/* Embedded as the first member of each implementation. */
struct irq_hub {
    const struct irq_hub_ops *ops;
};

/* Embedded as the first member of each implementation's route. */
struct irq_route {
    struct irq_hub *hub;
};

/* A device's end of one line. Lines are level-triggered in meaning; set() is idempotent. */
struct irq_line {
    struct irq_hub *hub;
    unsigned gsi;
    bool level;
};

static inline void irq_line_init(struct irq_line *line, struct irq_hub *hub, unsigned gsi)
{
    line->hub = hub;
    line->gsi = gsi;
    line->level = false;
}

static inline void irq_line_set(struct irq_line *line, bool level)
{
    if (line->level == level)
        return;
    line->level = level;
    line->hub->ops->set_line(line->hub, line->gsi, level);
}

static inline void irq_line_pulse(struct irq_line *line)
{
    irq_line_set(line, true);
    irq_line_set(line, false);
}

#endif
