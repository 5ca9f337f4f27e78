/* SPDX-License-Identifier: MIT */
/*
 * pic: the pair of 8259A interrupt controllers, the second cascaded on input 2 of the first, with
 * the registers that choose edge or level per input (ELCR).
 *
 * (Intel 8259A datasheet; ICH9 datasheet, section 13.4 and ELCR at 13.4.10.)
 */
#ifndef DEVICES_PIC_H
#define DEVICES_PIC_H

#include "devices/bus.h"
#include "devices/device.h"

#define PIC_INPUTS 16

struct pic_chip {
    struct bus_region region, elcr_region;
    struct pic *pic;
    uint8_t irr, imr, isr; /* requested, masked, in service */
    uint8_t levels;        /* inputs as they are now */
    uint8_t elcr;          /* 1: level-triggered */
    uint8_t vector_base;
    uint8_t lowest;    /* the input of lowest priority */
    uint8_t init_step; /* ICW2 to ICW4 to come; 0: initialised */
    uint8_t needs_icw4;
    uint8_t is_single;
    uint8_t reads_isr;
    uint8_t polled;
    uint8_t special_mask;
    uint8_t auto_eoi;
    uint8_t rotates_on_auto_eoi;
    uint8_t special_fully_nested;
};

struct pic {
    struct device device;
    /* Private. */
    struct bus *bus;
    void (*on_intr)(void *opaque, bool level);
    void *opaque;
    uint8_t intr;
    struct pic_chip chips[2];
};

/* on_intr: the INTR output to the boot CPU has changed (accel's set_extint). */
int must_check pic_create(struct bus *bus, void (*on_intr)(void *opaque, bool level), void *opaque,
                          struct pic **out, struct error *err);

/* `input` is the ISA interrupt, 0 to 15; 2 is the cascade and ignored. */
void pic_set_input(struct pic *pic, unsigned input, bool level);

/* The CPU's acknowledge cycle: the vector to take; the spurious one if nothing is pending. */
uint8_t pic_acknowledge(struct pic *pic);

#endif
