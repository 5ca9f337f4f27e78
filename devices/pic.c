/* SPDX-License-Identifier: MIT */
/*
 * pic: two 8259As in their 8086 mode.
 *
 * Priorities are counted as distances from the input after `lowest`, round the circle. The second
 * chip's output is input 2 of the first; update() recomputes both and tells the CPU of a change.
 */
#include "devices/pic.h"

#include <errno.h>
#include <stdlib.h>

#define CASCADE_INPUT  2
#define SPURIOUS_INPUT 7

/* Inputs that are edge-triggered by nature: timer, keyboard, cascade; RTC and FPU. */
static const uint8_t elcr_writable[2] = {0xf8, 0xde};
static const uint16_t chip_port[2] = {0x20, 0xa0};
static const uint16_t elcr_port[2] = {0x4d0, 0x4d1};

static bool is_first(const struct pic_chip *chip)
{
    return chip == &chip->pic->chips[0];
}

/* 0 is the highest priority; 8 if no bit is set. */
static unsigned best_rank(const struct pic_chip *chip, uint8_t inputs)
{
    unsigned rank = 0;
    while (rank < 8 && !(inputs >> ((chip->lowest + 1u + rank) & 7) & 1))
        rank++;
    return rank;
}

static unsigned input_at(const struct pic_chip *chip, unsigned rank)
{
    return (chip->lowest + 1u + rank) & 7;
}

/* The input to be served now, or -1. */
static int next_input(const struct pic_chip *chip)
{
    unsigned rank = best_rank(chip, chip->irr & ~chip->imr);
    if (rank == 8 || chip->init_step)
        return -1;
    uint8_t in_service = chip->isr;
    if (chip->special_mask)
        in_service &= ~chip->imr;
    /* The first chip lets a better input of the second through while one is in service. */
    if (chip->special_fully_nested && is_first(chip))
        in_service &= (uint8_t) ~(1u << CASCADE_INPUT);
    return rank < best_rank(chip, in_service) ? (int)input_at(chip, rank) : -1;
}

static void set_level(struct pic_chip *chip, unsigned input, bool level)
{
    uint8_t bit = (uint8_t)(1u << input);
    bool rises = level && !(chip->levels & bit);
    chip->levels = level ? chip->levels | bit : chip->levels & ~bit;
    if (chip->elcr & bit)
        chip->irr = level ? chip->irr | bit : chip->irr & ~bit;
    else if (rises)
        chip->irr |= bit;
}

static void update(struct pic *pic)
{
    const uint8_t cascade = 1u << CASCADE_INPUT;
    struct pic_chip *first = &pic->chips[0];
    first->irr =
        next_input(&pic->chips[1]) >= 0 ? first->irr | cascade : first->irr & (uint8_t)~cascade;
    bool intr = next_input(first) >= 0;
    if (intr == pic->intr)
        return;
    pic->intr = intr;
    pic->on_intr(pic->opaque, intr);
}

void pic_set_input(struct pic *pic, unsigned input, bool level)
{
    CHECK(input < PIC_INPUTS);
    if (input == CASCADE_INPUT)
        return;
    set_level(&pic->chips[input / 8], input % 8, level);
    update(pic);
}

static void rotate(struct pic_chip *chip, unsigned input)
{
    chip->lowest = input & 7;
}

static void take(struct pic_chip *chip, unsigned input)
{
    uint8_t bit = (uint8_t)(1u << input);
    if (!chip->auto_eoi)
        chip->isr |= bit;
    else if (chip->rotates_on_auto_eoi)
        rotate(chip, input);
    if (!(chip->elcr & bit))
        chip->irr &= ~bit;
}

uint8_t pic_acknowledge(struct pic *pic)
{
    struct pic_chip *first = &pic->chips[0], *second = &pic->chips[1];
    uint8_t vector = first->vector_base | SPURIOUS_INPUT;
    int input = next_input(first);
    if (input >= 0) {
        take(first, (unsigned)input);
        vector = first->vector_base | (uint8_t)input;
        if (input == CASCADE_INPUT) {
            int below = next_input(second);
            if (below >= 0)
                take(second, (unsigned)below);
            vector = second->vector_base | (below < 0 ? SPURIOUS_INPUT : (uint8_t)below);
        }
    }
    update(pic);
    return vector;
}

static void write_icw1(struct pic_chip *chip, uint8_t value)
{
    chip->irr = 0;
    chip->imr = 0;
    chip->isr = 0;
    chip->lowest = 7;
    chip->special_mask = 0;
    chip->reads_isr = 0;
    chip->polled = 0;
    chip->auto_eoi = 0;
    chip->rotates_on_auto_eoi = 0;
    chip->special_fully_nested = 0;
    chip->needs_icw4 = value & 0x01;
    chip->is_single = value & 0x02;
    chip->init_step = 2;
    /* Edges are forgotten; what is level-triggered and still there asks again. */
    chip->irr = chip->levels & chip->elcr;
}

static void end_of_interrupt(struct pic_chip *chip, uint8_t value)
{
    unsigned command = value >> 5, input = value & 7;
    bool is_specific = command & 2;
    if (!is_specific) {
        unsigned rank = best_rank(chip, chip->isr);
        if (rank == 8)
            return;
        input = input_at(chip, rank);
    }
    chip->isr &= (uint8_t) ~(1u << input);
    if (command & 4)
        rotate(chip, input);
}

static void write_ocw2(struct pic_chip *chip, uint8_t value)
{
    switch (value >> 5) {
    case 0: /* rotate in automatic EOI: off */
        chip->rotates_on_auto_eoi = 0;
        break;
    case 4: /* and on */
        chip->rotates_on_auto_eoi = 1;
        break;
    case 1: /* EOI; specific; each with rotation */
    case 3:
    case 5:
    case 7:
        end_of_interrupt(chip, value);
        break;
    case 6: /* set priority */
        rotate(chip, value & 7);
        break;
    default:
        break;
    }
}

static void write_ocw3(struct pic_chip *chip, uint8_t value)
{
    if (value & 0x04)
        chip->polled = 1;
    if (value & 0x02)
        chip->reads_isr = value & 1;
    if (value & 0x40)
        chip->special_mask = value >> 5 & 1;
}

static void write_data(struct pic_chip *chip, uint8_t value)
{
    switch (chip->init_step) {
    case 0:
        chip->imr = value;
        break;
    case 2:
        chip->vector_base = value & 0xf8;
        chip->init_step = !chip->is_single ? 3 : chip->needs_icw4 ? 4 : 0;
        break;
    case 3: /* how they are cascaded: fixed here */
        chip->init_step = chip->needs_icw4 ? 4 : 0;
        break;
    default:
        chip->special_fully_nested = value >> 4 & 1;
        chip->auto_eoi = value >> 1 & 1;
        chip->init_step = 0;
        break;
    }
}

static void pic_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pic_chip *chip = device;
    if (size != 1)
        return;
    if (offset == 1)
        write_data(chip, (uint8_t)value);
    else if (value & 0x10)
        write_icw1(chip, (uint8_t)value);
    else if (value & 0x08)
        write_ocw3(chip, (uint8_t)value);
    else
        write_ocw2(chip, (uint8_t)value);
    update(chip->pic);
}

/* A read after the poll command acknowledges, and says what it took. */
static uint8_t poll(struct pic_chip *chip)
{
    int input = next_input(chip);
    chip->polled = 0;
    if (input < 0)
        return 0;
    take(chip, (unsigned)input);
    update(chip->pic);
    return 0x80 | (uint8_t)input;
}

static uint64_t pic_read(void *device, uint64_t offset, unsigned size)
{
    struct pic_chip *chip = device;
    if (size != 1)
        return bus_all_ones(size);
    if (chip->polled)
        return poll(chip);
    if (offset == 1)
        return chip->imr;
    return chip->reads_isr ? chip->isr : chip->irr;
}

static uint64_t elcr_read(void *device, uint64_t offset, unsigned size)
{
    const struct pic_chip *chip = device;
    (void)offset;
    return size == 1 ? chip->elcr : bus_all_ones(size);
}

static void elcr_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pic_chip *chip = device;
    (void)offset;
    if (size != 1)
        return;
    chip->elcr = (uint8_t)value & elcr_writable[is_first(chip) ? 0 : 1];
    chip->irr = (chip->irr & ~chip->elcr) | (chip->levels & chip->elcr);
    update(chip->pic);
}

static const struct bus_region_ops chip_ops = {pic_read, pic_write};
static const struct bus_region_ops elcr_ops = {elcr_read, elcr_write};

static void pic_reset(struct device *device)
{
    struct pic *pic = (struct pic *)device;
    for (unsigned i = 0; i < 2; i++) {
        struct pic_chip *chip = &pic->chips[i];
        chip->elcr = 0;
        write_icw1(chip, 0);
        chip->init_step = 0;
        chip->imr = 0xff;
        chip->vector_base = 0;
    }
    update(pic);
}

static int pic_after_restore(struct device *device, struct error *err)
{
    struct pic *pic = (struct pic *)device;
    (void)err;
    for (unsigned i = 0; i < 2; i++) {
        pic->chips[i].lowest &= 7;
        pic->chips[i].vector_base &= 0xf8;
    }
    pic->on_intr(pic->opaque, pic->intr);
    update(pic);
    return 0;
}

static void unmap(struct pic *pic)
{
    for (unsigned i = 0; i < 2; i++) {
        bus_unmap(pic->bus, &pic->chips[i].region);
        bus_unmap(pic->bus, &pic->chips[i].elcr_region);
    }
}

static void pic_close(struct device *device, void (*on_closed)(void *opaque), void *opaque)
{
    struct pic *pic = (struct pic *)device;
    unmap(pic);
    device_close_later(pic->bus->loop, device, on_closed, opaque);
}

#define CHIP_FIELD(chip, field)                                                                    \
    {                                                                                              \
        "chip" #chip "." #field, offsetof(struct pic, chips[chip].field), 1, 1                     \
    }
#define CHIP_FIELDS(chip)                                                                          \
    CHIP_FIELD(chip, irr), CHIP_FIELD(chip, imr), CHIP_FIELD(chip, isr), CHIP_FIELD(chip, levels), \
        CHIP_FIELD(chip, elcr), CHIP_FIELD(chip, vector_base), CHIP_FIELD(chip, lowest),           \
        CHIP_FIELD(chip, init_step), CHIP_FIELD(chip, needs_icw4), CHIP_FIELD(chip, is_single),    \
        CHIP_FIELD(chip, reads_isr), CHIP_FIELD(chip, polled), CHIP_FIELD(chip, special_mask),     \
        CHIP_FIELD(chip, auto_eoi), CHIP_FIELD(chip, rotates_on_auto_eoi),                         \
        CHIP_FIELD(chip, special_fully_nested)

static const struct state_field fields[] = {
    STATE_FIELD(struct pic, intr),
    CHIP_FIELDS(0),
    CHIP_FIELDS(1),
};

static const struct state_table state = {"pic", 1, fields, ARRAY_SIZE(fields)};

static const struct device_ops device_ops = {
    .kind = "pic",
    .reset = pic_reset,
    .state = &state,
    .after_restore = pic_after_restore,
    .close = pic_close,
};

static int map(struct pic *pic)
{
    int result = 0;
    for (unsigned i = 0; i < 2 && !result; i++) {
        struct pic_chip *chip = &pic->chips[i];
        chip->pic = pic;
        chip->region =
            (struct bus_region){.name = "pic", .ops = &chip_ops, .device = chip, .size = 2};
        chip->elcr_region =
            (struct bus_region){.name = "elcr", .ops = &elcr_ops, .device = chip, .size = 1};
        result = bus_map(pic->bus, BUS_PIO, chip_port[i], &chip->region);
        if (!result)
            result = bus_map(pic->bus, BUS_PIO, elcr_port[i], &chip->elcr_region);
    }
    return result;
}

int pic_create(struct bus *bus, void (*on_intr)(void *opaque, bool level), void *opaque,
               struct pic **out, struct error *err)
{
    struct pic *pic = calloc(1, sizeof(*pic));
    CHECK(pic);
    pic->device.ops = &device_ops;
    pic->bus = bus;
    pic->on_intr = on_intr;
    pic->opaque = opaque;
    int result = map(pic);
    if (result) {
        unmap(pic);
        free(pic);
        return error_set(err, -result, "the interrupt controller finds its ports taken");
    }
    pic_reset(&pic->device);
    *out = pic;
    return 0;
}
