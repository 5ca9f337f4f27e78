/* SPDX-License-Identifier: MIT */
/*
 * serial: the registers of a 16550A between the guest and a char backend.
 *
 * The transmitter is a FIFO that empties into the backend at once. When the backend is full the
 * bytes stay, THRE stays clear and the guest waits, until on_writable or until the stall timer
 * decides that nobody reads. Writes that arrive late and in a row behave like a very fast guest.
 */
#include "devices/serial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

enum { /* offsets; the first two become the divisor while LCR_DLAB is set */
       DATA,
       IER,
       IIR_FCR,
       LCR,
       MCR,
       LSR,
       MSR,
       SCRATCH,
};

enum {
    IER_RX = 0x01,
    IER_THRE = 0x02,
    IER_LINE = 0x04,
    IER_MODEM = 0x08,
};

enum {
    IIR_NONE = 0x01,
    IIR_MODEM = 0x00,
    IIR_THRE = 0x02,
    IIR_RX = 0x04,
    IIR_LINE = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFOS = 0xc0,
};

enum {
    FCR_ENABLE = 0x01,
    FCR_CLEAR_RX = 0x02,
    FCR_CLEAR_TX = 0x04,
    FCR_KEPT = 0xc9,
};

enum {
    LCR_DLAB = 0x80,
};

enum {
    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08, /* lets the interrupt out to the bus */
    MCR_LOOP = 0x10,
};

enum {
    LSR_DATA = 0x01,
    LSR_OVERRUN = 0x02,
    LSR_BREAK = 0x10,
    LSR_ERRORS = 0x1e,
    LSR_THRE = 0x20,
    LSR_EMPTY = 0x40,
};

enum {
    MSR_DELTAS = 0x0f,
    MSR_RI_FELL = 0x04,
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RI = 0x40,
    MSR_DCD = 0x80,
};

#define STALL_NS (SERIAL_STALL_MS * UINT64_C(1000000))

static bool has_fifo(const struct serial *serial)
{
    return serial->fcr & FCR_ENABLE;
}

static unsigned fifo_depth(const struct serial *serial)
{
    return has_fifo(serial) ? SERIAL_FIFO_SIZE : 1;
}

static void fifo_put(struct serial_fifo *fifo, uint8_t byte)
{
    fifo->bytes[(fifo->start + fifo->count) % SERIAL_FIFO_SIZE] = byte;
    fifo->count++;
}

static uint8_t fifo_get(struct serial_fifo *fifo)
{
    uint8_t byte = fifo->bytes[fifo->start];
    fifo->start = (fifo->start + 1u) % SERIAL_FIFO_SIZE;
    fifo->count--;
    return byte;
}

static void fifo_clear(struct serial_fifo *fifo)
{
    fifo->start = 0;
    fifo->count = 0;
}

static unsigned rx_trigger(const struct serial *serial)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};
    return has_fifo(serial) ? levels[serial->fcr >> 6] : 1;
}

/* The cause of highest priority, as IIR shows it. */
static uint8_t interrupt_cause(const struct serial *serial)
{
    if ((serial->ier & IER_LINE) && (serial->lsr & LSR_ERRORS))
        return IIR_LINE;
    if ((serial->ier & IER_RX) && serial->rx.count >= rx_trigger(serial))
        return IIR_RX;
    if ((serial->ier & IER_RX) && serial->timeout_pending)
        return IIR_TIMEOUT;
    if ((serial->ier & IER_THRE) && serial->thre_pending)
        return IIR_THRE;
    if ((serial->ier & IER_MODEM) && (serial->msr & MSR_DELTAS))
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(struct serial *serial)
{
    /* In loopback OUT2 is cut off from the pin. */
    bool is_enabled = (serial->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    irq_line_set(&serial->irq, is_enabled && interrupt_cause(serial) != IIR_NONE);
}

/* Four characters' time at the divisor's speed, within reason. */
static uint64_t rx_timeout_ns(const struct serial *serial)
{
    uint64_t divisor = (uint64_t)(serial->divisor_high << 8 | serial->divisor_low);
    uint64_t ns = MAX(divisor, 1u) * 4 * 10 * UINT64_C(1000000000) / 115200;
    return MIN(ns, UINT64_C(20000000));
}

static void restart_rx_timeout(struct serial *serial)
{
    serial->timeout_pending = 0;
    if (has_fifo(serial) && serial->rx.count > 0)
        guest_timer_arm(&serial->rx_timer,
                        guest_clock_now_ns(serial->clock) + rx_timeout_ns(serial));
    else
        guest_timer_disarm(&serial->rx_timer);
}

static void on_rx_timeout(struct guest_timer *timer)
{
    struct serial *serial = container_of(timer, struct serial, rx_timer);
    serial->timeout_pending = serial->rx.count > 0;
    update_irq(serial);
}

static void receive(struct serial *serial, uint8_t byte)
{
    if (serial->rx.count >= fifo_depth(serial)) {
        serial->lsr |= LSR_OVERRUN;
        return;
    }
    fifo_put(&serial->rx, byte);
    serial->lsr |= LSR_DATA;
}

static void transmitter_is_empty(struct serial *serial)
{
    serial->lsr |= LSR_THRE | LSR_EMPTY;
    serial->thre_pending = 1;
    guest_timer_disarm(&serial->stall_timer);
}

static size_t backend_write(struct serial *serial, const uint8_t *bytes, size_t length)
{
    return serial->backend ? char_write(serial->backend, bytes, length) : length;
}

/* Gives the backend what it takes. */
static void transmit(struct serial *serial)
{
    while (serial->tx.count > 0) {
        size_t run = MIN((size_t)serial->tx.count, (size_t)SERIAL_FIFO_SIZE - serial->tx.start);
        size_t taken = backend_write(serial, &serial->tx.bytes[serial->tx.start], run);
        if (taken > 0)
            serial->is_dropping = 0;
        else if (serial->is_dropping)
            taken = run;
        else
            break;
        serial->tx.start = (uint8_t)((serial->tx.start + taken) % SERIAL_FIFO_SIZE);
        serial->tx.count -= (uint8_t)taken;
    }
    if (serial->tx.count == 0)
        transmitter_is_empty(serial);
    else if (!guest_timer_is_armed(&serial->stall_timer))
        guest_timer_arm(&serial->stall_timer, guest_clock_now_ns(serial->clock) + STALL_NS);
}

static void on_stall(struct guest_timer *timer)
{
    struct serial *serial = container_of(timer, struct serial, stall_timer);
    serial->is_dropping = 1;
    transmit(serial);
    update_irq(serial);
}

static void on_writable(void *user)
{
    struct serial *serial = user;
    serial->is_dropping = 0;
    if (serial->tx.count > 0)
        transmit(serial);
    update_irq(serial);
}

static void write_data(struct serial *serial, uint8_t byte)
{
    serial->thre_pending = 0;
    if (serial->mcr & MCR_LOOP) {
        receive(serial, byte);
        restart_rx_timeout(serial);
        transmitter_is_empty(serial);
        return;
    }
    /* A guest that does not look at THRE overwrites what it wrote last. */
    if (serial->tx.count >= fifo_depth(serial))
        serial->tx.count--;
    fifo_put(&serial->tx, byte);
    serial->lsr &= (uint8_t) ~(LSR_THRE | LSR_EMPTY);
    transmit(serial);
}

static size_t input_room(void *user)
{
    const struct serial *serial = user;
    if (serial->mcr & MCR_LOOP)
        return 0;
    return fifo_depth(serial) - MIN((unsigned)serial->rx.count, fifo_depth(serial));
}

static void on_input(void *user, const uint8_t *bytes, size_t length)
{
    struct serial *serial = user;
    for (size_t i = 0; i < length; i++)
        receive(serial, bytes[i]);
    restart_rx_timeout(serial);
    update_irq(serial);
}

static void on_break(void *user)
{
    struct serial *serial = user;
    if (input_room(serial) == 0)
        return;
    receive(serial, 0);
    serial->lsr |= LSR_BREAK;
    restart_rx_timeout(serial);
    update_irq(serial);
}

static const struct char_user_ops user_ops = {
    .input_room = input_room,
    .on_input = on_input,
    .on_writable = on_writable,
    .on_break = on_break,
};

static void accept_input(struct serial *serial)
{
    if (serial->backend)
        char_accept_input(serial->backend);
}

static uint8_t read_data(struct serial *serial)
{
    uint8_t byte = 0;
    if (serial->rx.count > 0)
        byte = fifo_get(&serial->rx);
    if (serial->rx.count == 0)
        serial->lsr &= (uint8_t)~LSR_DATA;
    restart_rx_timeout(serial);
    accept_input(serial);
    return byte;
}

static uint8_t read_iir(struct serial *serial)
{
    uint8_t cause = interrupt_cause(serial);
    /* Looking at it is what acknowledges the transmitter's interrupt. */
    if (cause == IIR_THRE)
        serial->thre_pending = 0;
    return cause | (has_fifo(serial) ? IIR_FIFOS : 0);
}

static uint8_t read_lsr(struct serial *serial)
{
    uint8_t value = serial->lsr;
    serial->lsr &= (uint8_t)~LSR_ERRORS;
    return value;
}

/* In loopback the modem inputs are the outputs: CTS=RTS, DSR=DTR, RI=OUT1, DCD=OUT2. */
static uint8_t modem_inputs(const struct serial *serial)
{
    uint8_t mcr = serial->mcr;
    if (!(mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (uint8_t)((mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) |
                     (mcr & MCR_OUT1 ? MSR_RI : 0) | (mcr & MCR_OUT2 ? MSR_DCD : 0));
}

static void update_msr(struct serial *serial)
{
    uint8_t inputs = modem_inputs(serial);
    uint8_t deltas = (serial->msr ^ inputs) >> 4;
    /* Of the ring indicator only its end counts. */
    if (inputs & MSR_RI)
        deltas &= (uint8_t)~MSR_RI_FELL;
    serial->msr = inputs | (serial->msr & MSR_DELTAS) | deltas;
}

static uint8_t read_msr(struct serial *serial)
{
    uint8_t value = serial->msr;
    serial->msr &= (uint8_t)~MSR_DELTAS;
    return value;
}

static uint8_t read_register(struct serial *serial, unsigned offset)
{
    bool dlab = serial->lcr & LCR_DLAB;
    switch (offset) {
    case DATA:
        return dlab ? serial->divisor_low : read_data(serial);
    case IER:
        return dlab ? serial->divisor_high : serial->ier;
    case IIR_FCR:
        return read_iir(serial);
    case LCR:
        return serial->lcr;
    case MCR:
        return serial->mcr;
    case LSR:
        return read_lsr(serial);
    case MSR:
        return read_msr(serial);
    default:
        return serial->scratch;
    }
}

static void write_ier(struct serial *serial, uint8_t value)
{
    /* Enabling the transmitter's interrupt while it is empty raises it. */
    if ((value & IER_THRE) && !(serial->ier & IER_THRE) && (serial->lsr & LSR_THRE))
        serial->thre_pending = 1;
    serial->ier = value & 0x0f;
}

static void write_fcr(struct serial *serial, uint8_t value)
{
    bool toggles = (value ^ serial->fcr) & FCR_ENABLE;
    if (toggles || (value & FCR_CLEAR_RX)) {
        fifo_clear(&serial->rx);
        serial->lsr &= (uint8_t) ~(LSR_DATA | LSR_BREAK);
    }
    if (toggles || (value & FCR_CLEAR_TX)) {
        fifo_clear(&serial->tx);
        transmitter_is_empty(serial);
    }
    serial->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
    restart_rx_timeout(serial);
    accept_input(serial);
}

static void write_mcr(struct serial *serial, uint8_t value)
{
    serial->mcr = value & 0x1f;
    update_msr(serial);
    if (!(serial->mcr & MCR_LOOP))
        accept_input(serial);
}

static void write_register(struct serial *serial, unsigned offset, uint8_t value)
{
    bool dlab = serial->lcr & LCR_DLAB;
    switch (offset) {
    case DATA:
        if (dlab)
            serial->divisor_low = value;
        else
            write_data(serial, value);
        break;
    case IER:
        if (dlab)
            serial->divisor_high = value;
        else
            write_ier(serial, value);
        break;
    case IIR_FCR:
        write_fcr(serial, value);
        break;
    case LCR:
        serial->lcr = value;
        break;
    case MCR:
        write_mcr(serial, value);
        break;
    case SCRATCH:
        serial->scratch = value;
        break;
    default:
        break;
    }
}

static uint64_t serial_read(void *device, uint64_t offset, unsigned size)
{
    struct serial *serial = device;
    if (size != 1)
        return bus_all_ones(size);
    uint8_t value = read_register(serial, (unsigned)offset);
    update_irq(serial);
    return value;
}

static void serial_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct serial *serial = device;
    if (size != 1)
        return;
    write_register(serial, (unsigned)offset, (uint8_t)value);
    update_irq(serial);
}

static const struct bus_region_ops region_ops = {serial_read, serial_write};

static void serial_reset(struct device *device)
{
    struct serial *serial = (struct serial *)device;
    fifo_clear(&serial->rx);
    fifo_clear(&serial->tx);
    guest_timer_disarm(&serial->rx_timer);
    guest_timer_disarm(&serial->stall_timer);
    serial->ier = 0;
    serial->fcr = 0;
    serial->lcr = 0;
    serial->mcr = 0;
    serial->lsr = LSR_THRE | LSR_EMPTY;
    serial->msr = modem_inputs(serial);
    serial->scratch = 0;
    serial->divisor_low = 12; /* 9600 baud */
    serial->divisor_high = 0;
    serial->thre_pending = 0;
    serial->timeout_pending = 0;
    update_irq(serial);
    accept_input(serial);
}

static int serial_after_restore(struct device *device, struct error *err)
{
    struct serial *serial = (struct serial *)device;
    if (serial->rx.count > SERIAL_FIFO_SIZE || serial->tx.count > SERIAL_FIFO_SIZE ||
        serial->rx.start >= SERIAL_FIFO_SIZE || serial->tx.start >= SERIAL_FIFO_SIZE)
        return error_set(err, EINVAL, "saved state of device 'serial' has an impossible FIFO");
    if (serial->tx.count > 0)
        transmit(serial);
    if (!serial->timeout_pending)
        restart_rx_timeout(serial);
    update_irq(serial);
    accept_input(serial);
    return 0;
}

static void serial_close(struct device *device, void (*on_closed)(void *opaque), void *opaque)
{
    struct serial *serial = (struct serial *)device;
    serial->mcr = 0;
    update_irq(serial);
    guest_timer_disarm(&serial->rx_timer);
    guest_timer_disarm(&serial->stall_timer);
    if (serial->backend)
        char_set_user(serial->backend, NULL, NULL);
    bus_unmap(serial->bus, &serial->region);
    device_close_later(serial->bus->loop, device, on_closed, opaque);
}

#define FIFO_FIELDS(fifo)                                                                          \
    {#fifo ".bytes", offsetof(struct serial, fifo.bytes), 1, SERIAL_FIFO_SIZE},                    \
        {#fifo ".start", offsetof(struct serial, fifo.start), 1, 1},                               \
    {                                                                                              \
#fifo ".count", offsetof(struct serial, fifo.count), 1, 1                                  \
    }

static const struct state_field fields[] = {
    FIFO_FIELDS(rx),
    FIFO_FIELDS(tx),
    STATE_FIELD(struct serial, ier),
    STATE_FIELD(struct serial, fcr),
    STATE_FIELD(struct serial, lcr),
    STATE_FIELD(struct serial, mcr),
    STATE_FIELD(struct serial, lsr),
    STATE_FIELD(struct serial, msr),
    STATE_FIELD(struct serial, scratch),
    STATE_FIELD(struct serial, divisor_low),
    STATE_FIELD(struct serial, divisor_high),
    STATE_FIELD(struct serial, thre_pending),
    STATE_FIELD(struct serial, timeout_pending),
};

static const struct state_table state = {"serial", 1, fields, ARRAY_SIZE(fields)};

static const struct device_ops device_ops = {
    .kind = "serial",
    .reset = serial_reset,
    .state = &state,
    .after_restore = serial_after_restore,
    .close = serial_close,
};

int serial_create(const struct serial_config *config, struct serial **out, struct error *err)
{
    struct serial *serial = calloc(1, sizeof(*serial));
    CHECK(serial);
    serial->device.ops = &device_ops;
    serial->bus = config->bus;
    serial->clock = config->clock;
    irq_line_init(&serial->irq, config->hub, config->gsi);
    guest_timer_init(config->clock, &serial->rx_timer, on_rx_timeout);
    guest_timer_init(config->clock, &serial->stall_timer, on_stall);
    serial->region =
        (struct bus_region){.name = "serial", .ops = &region_ops, .device = serial, .size = 8};
    int result = bus_map(config->bus, BUS_PIO, config->port, &serial->region);
    if (result) {
        free(serial);
        return error_set(err, -result, "the serial port finds its ports at 0x%x taken",
                         config->port);
    }
    serial_reset(&serial->device);
    serial->backend = config->backend;
    if (serial->backend)
        char_set_user(serial->backend, &user_ops, serial);
    *out = serial;
    return 0;
}
