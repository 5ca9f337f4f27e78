/* SPDX-License-Identifier: MIT */
/* i8042: the controller's own commands; whatever is sent to keyboard or mouse meets nobody. */
#include "devices/i8042.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DATA_PORT    0x60
#define COMMAND_PORT 0x64
#define PORT92       0x92

enum {
    STATUS_OUTPUT_FULL = 0x01,
    STATUS_SYSTEM = 0x04, /* the self-test has passed */
    STATUS_COMMAND = 0x08,
    STATUS_UNLOCKED = 0x10,
    STATUS_TIMEOUT = 0x40,
};

enum {
    CONFIG_KEYBOARD_IRQ = 0x01,
    CONFIG_SYSTEM = 0x04,
    CONFIG_KEYBOARD_OFF = 0x10,
    CONFIG_MOUSE_OFF = 0x20,
};

enum {
    OUTPUT_NOT_RESET = 0x01,
    OUTPUT_A20 = 0x02,
};

enum {
    COMMAND_READ_RAM = 0x20, /* to 0x3f; byte 0 is the configuration */
    COMMAND_WRITE_RAM = 0x60,
    COMMAND_MOUSE_OFF = 0xa7,
    COMMAND_MOUSE_ON = 0xa8,
    COMMAND_TEST_MOUSE = 0xa9,
    COMMAND_SELF_TEST = 0xaa,
    COMMAND_TEST_KEYBOARD = 0xab,
    COMMAND_KEYBOARD_OFF = 0xad,
    COMMAND_KEYBOARD_ON = 0xae,
    COMMAND_READ_INPUT_PORT = 0xc0,
    COMMAND_READ_OUTPUT_PORT = 0xd0,
    COMMAND_WRITE_OUTPUT_PORT = 0xd1,
    COMMAND_LOOP_KEYBOARD = 0xd2,
    COMMAND_LOOP_MOUSE = 0xd3,
    COMMAND_TO_MOUSE = 0xd4,
    COMMAND_PULSE = 0xf0, /* to 0xff: the low bits that are clear are pulsed */
};

static void update_irq(struct i8042 *i8042)
{
    irq_line_set(&i8042->keyboard_irq,
                 i8042->output_count > 0 && (i8042->config & CONFIG_KEYBOARD_IRQ));
}

static void answer(struct i8042 *i8042, uint8_t byte)
{
    if (i8042->output_count == I8042_OUTPUT_MAX)
        return;
    i8042->output[(i8042->output_start + i8042->output_count) % I8042_OUTPUT_MAX] = byte;
    i8042->output_count++;
}

static void set_output_port(struct i8042 *i8042, uint8_t value)
{
    /* A20 is always open: nothing that evisor boots wants its addresses to wrap. */
    i8042->output_port = value | OUTPUT_A20 | OUTPUT_NOT_RESET;
    if (!(value & OUTPUT_NOT_RESET))
        i8042->on_reset(i8042->opaque);
}

static void command(struct i8042 *i8042, uint8_t value)
{
    i8042->pending_command = 0;
    i8042->last_write_was_command = 1;
    switch (value) {
    case COMMAND_READ_RAM ... COMMAND_READ_RAM + 0x1f:
        answer(i8042, value == COMMAND_READ_RAM ? i8042->config : i8042->ram[value & 0x1f]);
        break;
    case COMMAND_WRITE_RAM ... COMMAND_WRITE_RAM + 0x1f:
    case COMMAND_WRITE_OUTPUT_PORT:
    case COMMAND_LOOP_KEYBOARD:
    case COMMAND_LOOP_MOUSE:
    case COMMAND_TO_MOUSE:
        i8042->pending_command = value;
        break;
    case COMMAND_MOUSE_OFF:
        i8042->config |= CONFIG_MOUSE_OFF;
        break;
    case COMMAND_MOUSE_ON:
        i8042->config &= (uint8_t)~CONFIG_MOUSE_OFF;
        break;
    case COMMAND_KEYBOARD_OFF:
        i8042->config |= CONFIG_KEYBOARD_OFF;
        break;
    case COMMAND_KEYBOARD_ON:
        i8042->config &= (uint8_t)~CONFIG_KEYBOARD_OFF;
        break;
    case COMMAND_SELF_TEST:
        i8042->config |= CONFIG_SYSTEM;
        answer(i8042, 0x55);
        break;
    case COMMAND_TEST_KEYBOARD:
    case COMMAND_TEST_MOUSE:
        answer(i8042, 0x00);
        break;
    case COMMAND_READ_INPUT_PORT:
        answer(i8042, 0x80);
        break;
    case COMMAND_READ_OUTPUT_PORT:
        answer(i8042, i8042->output_port);
        break;
    case COMMAND_PULSE ... COMMAND_PULSE + 0x0f:
        if (!(value & OUTPUT_NOT_RESET))
            i8042->on_reset(i8042->opaque);
        break;
    default:
        break;
    }
}

static void command_data(struct i8042 *i8042, uint8_t value)
{
    uint8_t pending = i8042->pending_command;
    i8042->pending_command = 0;
    i8042->last_write_was_command = 0;
    switch (pending) {
    case COMMAND_WRITE_RAM:
        i8042->config = value;
        break;
    case COMMAND_WRITE_RAM + 1 ... COMMAND_WRITE_RAM + 0x1f:
        i8042->ram[pending & 0x1f] = value;
        break;
    case COMMAND_WRITE_OUTPUT_PORT:
        set_output_port(i8042, value);
        break;
    case COMMAND_LOOP_KEYBOARD:
    case COMMAND_LOOP_MOUSE:
        answer(i8042, value);
        break;
    default:
        /* To the keyboard or the mouse: the line stays silent and the controller says so. */
        answer(i8042, 0xfe);
        break;
    }
}

static uint8_t status(const struct i8042 *i8042)
{
    return (uint8_t)((i8042->output_count > 0 ? STATUS_OUTPUT_FULL : 0) | STATUS_UNLOCKED |
                     (i8042->config & CONFIG_SYSTEM ? STATUS_SYSTEM : 0) |
                     (i8042->last_write_was_command ? STATUS_COMMAND : 0));
}

static uint64_t data_read(void *device, uint64_t offset, unsigned size)
{
    struct i8042 *i8042 = device;
    (void)offset;
    if (size != 1)
        return bus_all_ones(size);
    uint8_t value = i8042->output[i8042->output_start];
    if (i8042->output_count > 0) {
        i8042->output_start = (i8042->output_start + 1u) % I8042_OUTPUT_MAX;
        i8042->output_count--;
        /* The next byte is an edge of its own. */
        irq_line_set(&i8042->keyboard_irq, false);
        update_irq(i8042);
    }
    return value;
}

static void data_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *i8042 = device;
    (void)offset;
    if (size != 1)
        return;
    command_data(i8042, (uint8_t)value);
    update_irq(i8042);
}

static uint64_t command_read(void *device, uint64_t offset, unsigned size)
{
    (void)offset;
    return size == 1 ? status(device) : bus_all_ones(size);
}

static void command_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *i8042 = device;
    (void)offset;
    if (size != 1)
        return;
    command(i8042, (uint8_t)value);
    update_irq(i8042);
}

static uint64_t port92_read(void *device, uint64_t offset, unsigned size)
{
    (void)device, (void)offset;
    return size == 1 ? OUTPUT_A20 : bus_all_ones(size);
}

static void port92_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *i8042 = device;
    (void)offset;
    if (size == 1 && (value & 1))
        i8042->on_reset(i8042->opaque);
}

static const struct bus_region_ops data_ops = {data_read, data_write};
static const struct bus_region_ops command_ops = {command_read, command_write};
static const struct bus_region_ops port92_ops = {port92_read, port92_write};

static void i8042_reset(struct device *device)
{
    struct i8042 *i8042 = (struct i8042 *)device;
    i8042->output_start = 0;
    i8042->output_count = 0;
    i8042->config = CONFIG_SYSTEM | CONFIG_KEYBOARD_OFF | CONFIG_MOUSE_OFF;
    i8042->pending_command = 0;
    i8042->last_write_was_command = 0;
    i8042->output_port = OUTPUT_A20 | OUTPUT_NOT_RESET;
    memset(i8042->output, 0, sizeof(i8042->output));
    memset(i8042->ram, 0, sizeof(i8042->ram));
    update_irq(i8042);
}

static int i8042_after_restore(struct device *device, struct error *err)
{
    struct i8042 *i8042 = (struct i8042 *)device;
    if (i8042->output_start >= I8042_OUTPUT_MAX || i8042->output_count > I8042_OUTPUT_MAX)
        return error_set(err, EINVAL, "saved state of device 'i8042' has an impossible buffer");
    update_irq(i8042);
    return 0;
}

static void unmap(struct i8042 *i8042)
{
    bus_unmap(i8042->bus, &i8042->data_region);
    bus_unmap(i8042->bus, &i8042->command_region);
    bus_unmap(i8042->bus, &i8042->port92_region);
}

static void i8042_close(struct device *device, void (*on_closed)(void *opaque), void *opaque)
{
    struct i8042 *i8042 = (struct i8042 *)device;
    irq_line_set(&i8042->keyboard_irq, false);
    unmap(i8042);
    device_close_later(i8042->bus->loop, device, on_closed, opaque);
}

static const struct state_field fields[] = {
    STATE_ARRAY(struct i8042, output),       STATE_FIELD(struct i8042, output_start),
    STATE_FIELD(struct i8042, output_count), STATE_FIELD(struct i8042, config),
    STATE_FIELD(struct i8042, output_port),  STATE_FIELD(struct i8042, pending_command),
    STATE_ARRAY(struct i8042, ram),          STATE_FIELD(struct i8042, last_write_was_command),
};

static const struct state_table state = {"i8042", 1, fields, ARRAY_SIZE(fields)};

static const struct device_ops device_ops = {
    .kind = "i8042",
    .reset = i8042_reset,
    .state = &state,
    .after_restore = i8042_after_restore,
    .close = i8042_close,
};

static struct bus_region one_port(struct i8042 *i8042, const struct bus_region_ops *ops)
{
    return (struct bus_region){.name = "i8042", .ops = ops, .device = i8042, .size = 1};
}

int i8042_create(struct bus *bus, struct irq_hub *hub, void (*on_reset)(void *opaque), void *opaque,
                 struct i8042 **out, struct error *err)
{
    struct i8042 *i8042 = calloc(1, sizeof(*i8042));
    CHECK(i8042);
    i8042->device.ops = &device_ops;
    i8042->bus = bus;
    i8042->on_reset = on_reset;
    i8042->opaque = opaque;
    irq_line_init(&i8042->keyboard_irq, hub, 1);
    i8042->data_region = one_port(i8042, &data_ops);
    i8042->command_region = one_port(i8042, &command_ops);
    i8042->port92_region = one_port(i8042, &port92_ops);
    i8042_reset(&i8042->device);
    int result = bus_map(bus, BUS_PIO, DATA_PORT, &i8042->data_region);
    if (!result)
        result = bus_map(bus, BUS_PIO, COMMAND_PORT, &i8042->command_region);
    if (!result)
        result = bus_map(bus, BUS_PIO, PORT92, &i8042->port92_region);
    if (result) {
        unmap(i8042);
        free(i8042);
        return error_set(err, -result, "the keyboard controller finds its ports taken");
    }
    *out = i8042;
    return 0;
}
