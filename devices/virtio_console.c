/* SPDX-License-Identifier: MIT */
/*
 * virtio_console: moves bytes between ports and backends, and speaks the control protocol.
 *
 * Theory of operation. Nothing stays in flight: a buffer of the guest's that the backend did not
 * take whole goes back to its queue, and the port remembers how far it came. What the device has to
 * say on the control queue is not a queue of messages but a set of flags a port, so it stays small
 * however slow the guest is, and a flag set twice is said once, with the state of that moment.
 */
#include "devices/virtio_console.h"

#include <errno.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"

#define QUEUE_SIZE    128
#define SEGMENTS_MAX  128
#define CHAINS_A_TURN 64
#define INPUT_BYTES   4096
#define CONTROL_IN    2 /* the queue that the guest receives by */
#define CONTROL_OUT   3

/* What the guest must still be told of a port, in this order. */
enum notice {
    NOTICE_REMOVE = 1 << 0,
    NOTICE_ADD = 1 << 1,
    NOTICE_CONSOLE = 1 << 2,
    NOTICE_NAME = 1 << 3,
    NOTICE_OPEN = 1 << 4,
    NOTICE_SIZE = 1 << 5,
    NOTICE_END = 1 << 6,
};

struct port {
    struct virtio_console *console;
    struct char_backend *backend;
    bool is_plugged, is_console;
    char name[VIRTIO_CONSOLE_NAME_MAX + 1];
    uint16_t columns, rows;
    uint8_t input[INPUT_BYTES]; /* from the host, on its way */
    size_t input_at, input_end;
    size_t output_done; /* of the buffer at the head of the guest's queue */
};

struct virtio_console {
    struct virtio_pci pci; /* first */
    struct virtio_console_options options;
    struct virtio_console_config config;
    uint8_t is_ready; /* the driver asked for the ports */
    uint8_t guest_open[VIRTIO_CONSOLE_PORTS_MAX];
    uint8_t notices[VIRTIO_CONSOLE_PORTS_MAX];
    struct port ports[VIRTIO_CONSOLE_PORTS_MAX];
    struct iovec iov[SEGMENTS_MAX];
};

static struct virtio_console *to_console(struct virtio_device *vdev)
{
    return container_of(virtio_pci_of(vdev), struct virtio_console, pci);
}

static struct virtio_console *of_device(const struct device *device)
{
    return container_of((struct device *)device, struct virtio_console, pci.pci.device);
}

static unsigned number_of(const struct port *port)
{
    return (unsigned)(port - port->console->ports);
}

/* The queue by which the guest receives from a port; the next one is for what it sends. */
static unsigned queue_of(unsigned port)
{
    return port ? 2 + 2 * port : 0;
}

static bool has_ports(const struct virtio_console *console)
{
    return virtio_has(&console->pci.virtio, VIRTIO_CONSOLE_F_MULTIPORT);
}

static void kick_control(struct virtio_console *console)
{
    virtio_kick(&console->pci.virtio, CONTROL_IN);
}

static void notify(struct port *port, unsigned notices)
{
    struct virtio_console *console = port->console;
    if (!console->is_ready)
        return;
    console->notices[number_of(port)] |= (uint8_t)notices;
    kick_control(console);
}

static void set_guest_open(struct port *port, bool is_open)
{
    struct virtio_console *console = port->console;
    unsigned number = number_of(port);
    if (console->guest_open[number] == is_open)
        return;
    console->guest_open[number] = is_open;
    if (is_open && port->backend)
        char_accept_input(port->backend);
    virtio_kick(&console->pci.virtio, queue_of(number));
    if (console->options.on_guest_open)
        console->options.on_guest_open(console->options.opaque, number, is_open);
}

/* --- data --- */

static void send_input(struct port *port, struct virtqueue *vq)
{
    struct virtio_console *console = port->console;
    struct virtqueue_chain chain = {.iov = console->iov, .iov_max = SEGMENTS_MAX};
    if (!console->guest_open[number_of(port)] || port->input_end == 0)
        return;
    for (unsigned i = 0; i < CHAINS_A_TURN && port->input_at < port->input_end; i++) {
        if (!virtqueue_pop(vq, &chain))
            return; /* the next buffer comes with a kick */
        size_t sent = iov_write(virtqueue_chain_in(&chain), chain.in_count, 0,
                                port->input + port->input_at, port->input_end - port->input_at);
        port->input_at += sent;
        virtqueue_push(vq, &chain, (uint32_t)sent);
    }
    if (port->input_at < port->input_end) {
        virtio_kick(&console->pci.virtio, vq->index);
        return;
    }
    port->input_at = port->input_end = 0;
    if (port->backend)
        char_accept_input(port->backend);
}

/* True if all of the chain went out. */
static bool write_chain(struct port *port, const struct virtqueue_chain *chain)
{
    size_t skip = port->output_done;
    for (unsigned i = 0; i < chain->out_count; i++) {
        const struct iovec *iov = &chain->iov[i];
        if (skip >= iov->iov_len) {
            skip -= iov->iov_len;
            continue;
        }
        size_t length = iov->iov_len - skip;
        size_t written = port->backend
                             ? char_write(port->backend, (char *)iov->iov_base + skip, length)
                             : length;
        port->output_done += written;
        if (written < length)
            return false;
        skip = 0;
    }
    port->output_done = 0;
    return true;
}

static void take_output(struct port *port, struct virtqueue *vq)
{
    struct virtio_console *console = port->console;
    struct virtqueue_chain chain = {.iov = console->iov, .iov_max = SEGMENTS_MAX};
    for (unsigned i = 0; i < CHAINS_A_TURN; i++) {
        if (!virtqueue_pop(vq, &chain))
            return;
        if (!write_chain(port, &chain)) {
            virtqueue_unpop(vq, &chain); /* on_writable comes back to it */
            return;
        }
        virtqueue_push(vq, &chain, 0);
    }
    virtio_kick(&console->pci.virtio, vq->index);
}

static size_t input_room(void *user)
{
    const struct port *port = user;
    bool takes = port->console->guest_open[number_of(port)] && port->input_end == 0;
    return takes ? sizeof(port->input) : 0;
}

static void on_input(void *user, const uint8_t *bytes, size_t length)
{
    struct port *port = user;
    CHECK(port->input_end == 0 && length <= sizeof(port->input));
    memcpy(port->input, bytes, length);
    port->input_end = length;
    virtio_kick(&port->console->pci.virtio, queue_of(number_of(port)));
}

static void on_writable(void *user)
{
    struct port *port = user;
    virtio_kick(&port->console->pci.virtio, queue_of(number_of(port)) + 1);
}

static void on_open_or_close(void *user)
{
    notify(user, NOTICE_OPEN);
}

static const struct char_user_ops char_user_ops = {
    .input_room = input_room,
    .on_input = on_input,
    .on_writable = on_writable,
    .on_open = on_open_or_close,
    .on_close = on_open_or_close,
};

/* --- control --- */

/* A console is always there; a port is when somebody is at its other end. */
static bool is_host_open(const struct port *port)
{
    return port->is_console || (port->backend && port->backend->is_open);
}

struct message {
    uint8_t bytes[sizeof(struct virtio_console_control) + VIRTIO_CONSOLE_NAME_MAX + 1];
    size_t length;
};

static void put_control(struct message *message, unsigned id, unsigned event, unsigned value)
{
    store_le32(message->bytes, id);
    store_le16(message->bytes + 4, (uint16_t)event);
    store_le16(message->bytes + 6, (uint16_t)value);
    message->length = sizeof(struct virtio_console_control);
}

static void compose(const struct port *port, unsigned notice, struct message *message)
{
    unsigned id = number_of(port);
    switch (notice) {
    case NOTICE_REMOVE:
        put_control(message, id, VIRTIO_CONSOLE_PORT_REMOVE, 1);
        break;
    case NOTICE_ADD:
        put_control(message, id, VIRTIO_CONSOLE_PORT_ADD, 1);
        break;
    case NOTICE_CONSOLE:
        put_control(message, id, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
        break;
    case NOTICE_NAME:
        put_control(message, id, VIRTIO_CONSOLE_PORT_NAME, 1);
        memcpy(message->bytes + message->length, port->name, strlen(port->name));
        message->length += strlen(port->name);
        break;
    case NOTICE_OPEN:
        put_control(message, id, VIRTIO_CONSOLE_PORT_OPEN, is_host_open(port));
        break;
    default: /* as the specification has them; Linux took them the other way around until 2025 */
        put_control(message, id, VIRTIO_CONSOLE_RESIZE, 0);
        store_le16(message->bytes + message->length, port->columns);
        store_le16(message->bytes + message->length + 2, port->rows);
        message->length += 4;
        break;
    }
}

/* False if the guest has no buffer out. */
static bool send_notice(struct virtio_console *console, struct virtqueue *vq, struct port *port,
                        unsigned notice)
{
    struct virtqueue_chain chain = {.iov = console->iov, .iov_max = SEGMENTS_MAX};
    struct message message;
    if (!virtqueue_pop(vq, &chain))
        return false;
    console->notices[number_of(port)] &= (uint8_t)~notice;
    compose(port, notice, &message);
    virtqueue_push(vq, &chain,
                   (uint32_t)iov_write(virtqueue_chain_in(&chain), chain.in_count, 0, message.bytes,
                                       message.length));
    return true;
}

static void drain_notices(struct virtio_console *console, struct virtqueue *vq)
{
    for (unsigned i = 0; i < console->options.port_count; i++)
        for (unsigned notice = 1; notice < NOTICE_END; notice <<= 1)
            if ((console->notices[i] & notice) &&
                !send_notice(console, vq, &console->ports[i], notice))
                return;
}

static void on_device_ready(struct virtio_console *console, bool is_ready)
{
    console->is_ready = is_ready;
    for (unsigned i = 0; i < console->options.port_count; i++)
        if (is_ready && console->ports[i].is_plugged)
            notify(&console->ports[i], NOTICE_ADD);
}

static void on_port_ready(struct port *port, bool is_ready)
{
    unsigned notices = 0;
    if (!is_ready)
        return;
    if (port->is_console)
        notices |= NOTICE_CONSOLE;
    if (*port->name)
        notices |= NOTICE_NAME;
    if (is_host_open(port))
        notices |= NOTICE_OPEN;
    if (port->is_console && port->columns)
        notices |= NOTICE_SIZE;
    notify(port, notices);
}

/* What a driver says that makes no sense is passed over: it hurts nobody but itself. */
static void on_message(struct virtio_console *console, const uint8_t *bytes)
{
    uint32_t id = load_le32(bytes);
    uint16_t event = load_le16(bytes + 4), value = load_le16(bytes + 6);
    if (event == VIRTIO_CONSOLE_DEVICE_READY) {
        on_device_ready(console, value == 1);
        return;
    }
    if (id >= console->options.port_count || !console->ports[id].is_plugged)
        return;
    if (event == VIRTIO_CONSOLE_PORT_READY)
        on_port_ready(&console->ports[id], value == 1);
    else if (event == VIRTIO_CONSOLE_PORT_OPEN)
        set_guest_open(&console->ports[id], value);
}

static void drain_messages(struct virtio_console *console, struct virtqueue *vq)
{
    struct virtqueue_chain chain = {.iov = console->iov, .iov_max = SEGMENTS_MAX};
    for (unsigned i = 0; i < CHAINS_A_TURN; i++) {
        uint8_t bytes[sizeof(struct virtio_console_control)];
        if (!virtqueue_pop(vq, &chain))
            return;
        size_t got = iov_read(chain.iov, chain.out_count, 0, bytes, sizeof(bytes));
        virtqueue_push(vq, &chain, 0);
        if (got == sizeof(bytes))
            on_message(console, bytes);
    }
    virtio_kick(&console->pci.virtio, vq->index);
}

/* --- the device --- */

static uint64_t features(struct virtio_device *vdev)
{
    (void)vdev;
    return VIRTIO_FEATURE(VIRTIO_CONSOLE_F_MULTIPORT) | VIRTIO_FEATURE(VIRTIO_CONSOLE_F_SIZE) |
           VIRTIO_FEATURE(VIRTIO_CONSOLE_F_EMERG_WRITE);
}

/* Without the control queues the only port is the first, and it is open. */
static void started(struct virtio_device *vdev)
{
    struct virtio_console *console = to_console(vdev);
    if (!has_ports(console) && console->ports[0].is_plugged)
        set_guest_open(&console->ports[0], true);
}

static void on_kick(struct virtio_device *vdev, unsigned queue)
{
    struct virtio_console *console = to_console(vdev);
    struct virtqueue *vq = virtio_queue(vdev, queue);
    if (queue == CONTROL_IN) {
        drain_notices(console, vq);
    } else if (queue == CONTROL_OUT) {
        drain_messages(console, vq);
    } else {
        struct port *port = &console->ports[queue < 2 ? 0 : queue / 2 - 1];
        if (queue % 2)
            take_output(port, vq);
        else
            send_input(port, vq);
    }
}

/* The guest's last words, by one byte at a time. */
static void config_written(struct virtio_device *vdev, size_t offset, const void *from,
                           size_t length)
{
    struct virtio_console *console = to_console(vdev);
    struct port *port = &console->ports[0];
    if (offset == offsetof(struct virtio_console_config, emerg_wr) && length && port->is_console &&
        port->backend)
        char_write(port->backend, from, 1);
}

static void on_reset(struct virtio_device *vdev)
{
    struct virtio_console *console = to_console(vdev);
    console->is_ready = false;
    memset(console->notices, 0, sizeof(console->notices));
    for (unsigned i = 0; i < console->options.port_count; i++) {
        struct port *port = &console->ports[i];
        port->input_at = port->input_end = port->output_done = 0;
        set_guest_open(port, false);
    }
}

static void unplug(struct port *port)
{
    if (port->backend)
        char_set_user(port->backend, NULL, NULL);
    port->backend = NULL;
    port->is_plugged = false;
}

static void destroy(struct virtio_device *vdev)
{
    struct virtio_console *console = to_console(vdev);
    for (unsigned i = 0; i < console->options.port_count; i++)
        unplug(&console->ports[i]);
    free(console);
}

static const struct virtio_ops virtio_ops = {
    .name = "virtio-serial",
    .device_id = VIRTIO_ID_CONSOLE,
    .features = features,
    .config_written = config_written,
    .started = started,
    .kick = on_kick,
    .reset = on_reset,
    .destroy = destroy,
};

static const struct state_field state_fields[] = {
    VIRTIO_PCI_STATE_FIELDS(struct virtio_console), STATE_FIELD(struct virtio_console, is_ready),
    STATE_ARRAY(struct virtio_console, guest_open), STATE_ARRAY(struct virtio_console, notices)};

static const struct state_table state = {"virtio-serial-pci", 1, state_fields,
                                         ARRAY_SIZE(state_fields)};

static const struct device_ops device_ops = {
    .kind = "virtio-serial-pci",
    .reset = virtio_pci_reset,
    .state = &state,
    .before_save = virtio_pci_before_save,
    .after_restore = virtio_pci_after_restore,
    .close = virtio_pci_close,
};

int virtio_console_create(const struct virtio_pci_place *place,
                          const struct virtio_console_options *options, struct device **out,
                          struct error *err)
{
    CHECK(options->port_count >= 1 && options->port_count <= VIRTIO_CONSOLE_PORTS_MAX);
    struct virtio_console *console = calloc(1, sizeof(*console));
    if (!console)
        return error_set_errno(err, ENOMEM, "cannot make serial ports");
    console->options = *options;
    store_le32(&console->config.max_nr_ports, options->port_count);
    for (unsigned i = 0; i < options->port_count; i++)
        console->ports[i].console = console;
    const struct virtio_setup setup = {
        .ops = &virtio_ops,
        .config = &console->config,
        .config_size = sizeof(console->config),
        .queue_count = 2 * (options->port_count + 1),
        .queue_size = QUEUE_SIZE,
    };
    int result = virtio_pci_init(&console->pci, place, &device_ops, &setup, err);
    if (result) {
        free(console);
        return result;
    }
    *out = &console->pci.pci.device;
    return 0;
}

int virtio_console_add_port(struct device *device, unsigned number,
                            const struct virtio_console_port_options *options, struct error *err)
{
    struct virtio_console *console = of_device(device);
    if (number >= console->options.port_count)
        return error_set(err, EINVAL, "port %u is out of range: the bus has numbers 0 to %u",
                         number, console->options.port_count - 1);
    struct port *port = &console->ports[number];
    if (port->is_plugged)
        return error_set(err, EEXIST, "port %u is taken", number);
    if (options->name && strlen(options->name) > VIRTIO_CONSOLE_NAME_MAX)
        return error_set(err, EINVAL, "the name of a port has at most %d bytes",
                         VIRTIO_CONSOLE_NAME_MAX);
    port->is_plugged = true;
    port->is_console = options->is_console;
    port->backend = options->backend;
    port->input_at = port->input_end = port->output_done = 0;
    snprintf(port->name, sizeof(port->name), "%s", options->name ? options->name : "");
    if (port->backend)
        char_set_user(port->backend, &char_user_ops, port);
    notify(port, NOTICE_ADD);
    return 0;
}

void virtio_console_remove_port(struct device *device, unsigned number)
{
    struct virtio_console *console = of_device(device);
    struct port *port = &console->ports[number];
    CHECK(number < console->options.port_count && port->is_plugged);
    unplug(port);
    console->notices[number] = 0;
    set_guest_open(port, false);
    notify(port, NOTICE_REMOVE);
}

void virtio_console_resize(struct device *device, unsigned number, unsigned columns, unsigned rows)
{
    struct virtio_console *console = of_device(device);
    struct port *port = &console->ports[number];
    CHECK(number < console->options.port_count && port->is_plugged);
    port->columns = (uint16_t)columns;
    port->rows = (uint16_t)rows;
    notify(port, NOTICE_SIZE);
    if (number)
        return;
    store_le16(&console->config.cols, port->columns);
    store_le16(&console->config.rows, port->rows);
    virtio_config_changed(&console->pci.virtio);
}

bool virtio_console_has_port(const struct device *device, unsigned number)
{
    const struct virtio_console *console = of_device(device);
    return number < console->options.port_count && console->ports[number].is_plugged;
}

bool virtio_console_is_open(const struct device *device, unsigned number)
{
    return of_device(device)->guest_open[number];
}
