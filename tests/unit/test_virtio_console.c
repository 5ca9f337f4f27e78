/* SPDX-License-Identifier: MIT */
/* Ports and consoles with an honest driver, and with one that sends whatever it likes. */
#include "devices/virtio_console.h"

#include <errno.h>
#include <linux/virtio_console.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/bench/fake_guest.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

#define PORTS 3

/* The host's end of a port: what comes is kept, as far as there is room. */
struct host {
    struct char_backend backend;
    char text[1024];
    size_t length, room;
};

struct fixture {
    struct fake_guest guest;
    struct device *device;
    struct fake_device fd;
    struct fake_queue queues[2 + 2 * PORTS];
    struct host hosts[PORTS];
    unsigned opens, closes, last_port;
    uint64_t page;
};

static size_t host_write(struct char_backend *backend, const void *bytes, size_t length)
{
    struct host *host = container_of(backend, struct host, backend);
    length = MIN(length, host->room);
    if (host->length + length > sizeof(host->text))
        host->length = 0;
    memcpy(host->text + host->length, bytes, length);
    host->length += length;
    host->room -= length;
    return length;
}

static void host_accept(struct char_backend *backend)
{
    (void)backend;
}

static const struct char_backend_ops host_ops = {host_write, host_accept};

static void on_guest_open(void *opaque, unsigned port, bool is_open)
{
    struct fixture *f = opaque;
    f->opens += is_open;
    f->closes += !is_open;
    f->last_port = port;
}

static void add_port(struct fixture *f, unsigned number, bool is_console, const char *name)
{
    struct host *host = &f->hosts[number];
    *host = (struct host){.backend.ops = &host_ops, .room = sizeof(host->text)};
    const struct virtio_console_port_options options = {&host->backend, is_console, name};
    assert_int_equal(virtio_console_add_port(f->device, number, &options, NULL), 0);
}

static void start(struct fixture *f, uint64_t features)
{
    memset(f, 0, sizeof(*f));
    fake_guest_init(&f->guest);
    const struct virtio_console_options options = {
        .port_count = PORTS, .on_guest_open = on_guest_open, .opaque = f};
    struct virtio_pci_place place = fake_guest_place(&f->guest, "serial0");
    assert_int_equal(virtio_console_create(&place, &options, &f->device, NULL), 0);
    add_port(f, 0, true, NULL);
    add_port(f, 1, false, "org.qemu.guest_agent.0");
    fake_device_probe(&f->fd, &f->guest, f->device);
    assert_true(fake_device_negotiate(&f->fd, features | VIRTIO_FEATURE(VIRTIO_F_VERSION_1)));
    for (unsigned i = 0; i < ARRAY_SIZE(f->queues); i++)
        fake_queue_init(&f->queues[i], &f->fd, i, 64);
    fake_device_driver_ok(&f->fd);
    f->page = fake_guest_alloc(&f->guest, 64 * 1024);
}

static void stop(struct fixture *f)
{
    fake_guest_close(&f->guest, f->device);
    fake_guest_fini(&f->guest);
}

static void tell(struct fixture *f, uint32_t id, uint16_t event, uint16_t value)
{
    uint8_t *message = fake_guest_at(&f->guest, f->page, 8);
    store_le32(message, id);
    store_le16(message + 4, event);
    store_le16(message + 6, value);
    const struct fake_buffer buffer = {f->page, 8, false};
    fake_queue_add(&f->queues[3], &buffer, 1);
    fake_queue_kick(&f->queues[3]);
    fake_queue_wait(&f->queues[3], NULL);
}

/* The next message of the device's, as text; it must come. */
static const char *hear(struct fixture *f)
{
    static char text[200];
    uint64_t gpa = f->page + 4096;
    uint32_t bytes;
    const struct fake_buffer buffer = {gpa, 128, true};
    memset(fake_guest_at(&f->guest, gpa, 128), 0, 128);
    fake_queue_add(&f->queues[2], &buffer, 1);
    fake_queue_kick(&f->queues[2]);
    fake_queue_wait(&f->queues[2], &bytes);
    const uint8_t *message = fake_guest_at(&f->guest, gpa, 128);
    snprintf(text, sizeof(text), "port %u event %u value %u '%s'", load_le32(message),
             load_le16(message + 4), load_le16(message + 6), message + 8);
    assert_int_equal(bytes, 8 + strlen((const char *)message + 8));
    return text;
}

static void open_port(struct fixture *f, unsigned port)
{
    tell(f, port, VIRTIO_CONSOLE_PORT_READY, 1);
    tell(f, port, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

static void test_ports_are_announced(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, VIRTIO_FEATURE(VIRTIO_CONSOLE_F_MULTIPORT));
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config + 4, 4), PORTS);
    tell(&f, UINT32_MAX, VIRTIO_CONSOLE_DEVICE_READY, 1);
    assert_string_equal(hear(&f), "port 0 event 1 value 1 ''");
    assert_string_equal(hear(&f), "port 1 event 1 value 1 ''");
    tell(&f, 0, VIRTIO_CONSOLE_PORT_READY, 1);
    assert_string_equal(hear(&f), "port 0 event 4 value 1 ''");
    assert_string_equal(hear(&f), "port 0 event 6 value 1 ''");
    tell(&f, 1, VIRTIO_CONSOLE_PORT_READY, 1);
    assert_string_equal(hear(&f), "port 1 event 7 value 1 'org.qemu.guest_agent.0'");
    /* Somebody comes to the host's end, and goes. */
    f.hosts[1].backend.is_open = true;
    f.hosts[1].backend.user_ops->on_open(f.hosts[1].backend.user);
    assert_string_equal(hear(&f), "port 1 event 6 value 1 ''");
    f.hosts[1].backend.is_open = false;
    f.hosts[1].backend.user_ops->on_close(f.hosts[1].backend.user);
    assert_string_equal(hear(&f), "port 1 event 6 value 0 ''");
    /* A port that comes and goes while the guest runs. */
    add_port(&f, 2, false, NULL);
    assert_string_equal(hear(&f), "port 2 event 1 value 1 ''");
    virtio_console_remove_port(f.device, 2);
    assert_string_equal(hear(&f), "port 2 event 2 value 1 ''");
    assert_null(f.hosts[2].backend.user_ops);
    stop(&f);
}

static void test_opening_and_closing_is_told(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, VIRTIO_FEATURE(VIRTIO_CONSOLE_F_MULTIPORT));
    const struct char_user_ops *ops = f.hosts[1].backend.user_ops;
    void *user = f.hosts[1].backend.user;
    assert_int_equal(ops->input_room(user), 0); /* it waits at its source */
    open_port(&f, 1);
    tell(&f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    assert_int_equal(f.opens, 1);
    assert_true(virtio_console_is_open(f.device, 1));
    assert_true(ops->input_room(user) > 0);
    tell(&f, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
    assert_int_equal(f.closes, 1);
    tell(&f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    fake_device_reset(&f.fd);
    assert_int_equal(f.closes, 2);
    assert_false(virtio_console_is_open(f.device, 1));
    stop(&f);
}

static void test_data_to_the_guest(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, VIRTIO_FEATURE(VIRTIO_CONSOLE_F_MULTIPORT));
    open_port(&f, 1);
    const struct char_user_ops *ops = f.hosts[1].backend.user_ops;
    void *user = f.hosts[1].backend.user;
    ops->on_input(user, (const uint8_t *)"hello agent", 11);
    fake_guest_run(&f.guest, 3);
    assert_int_equal(ops->input_room(user), 0);
    /* Two small buffers take it in pieces. */
    uint32_t bytes;
    const struct fake_buffer small = {f.page + 512, 6, true}, large = {f.page + 600, 100, true};
    fake_queue_add(&f.queues[4], &small, 1);
    fake_queue_add(&f.queues[4], &large, 1);
    fake_queue_kick(&f.queues[4]);
    fake_queue_wait(&f.queues[4], &bytes);
    assert_int_equal(bytes, 6);
    fake_queue_wait(&f.queues[4], &bytes);
    assert_int_equal(bytes, 5);
    assert_memory_equal(fake_guest_at(&f.guest, f.page + 512, 6), "hello ", 6);
    assert_memory_equal(fake_guest_at(&f.guest, f.page + 600, 5), "agent", 5);
    assert_true(ops->input_room(user) > 0);
    stop(&f);
}

/* What the host does not take stays in the guest's buffers, and nothing is in flight meanwhile. */
static void test_a_slow_reader_holds_only_its_port(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, VIRTIO_FEATURE(VIRTIO_CONSOLE_F_MULTIPORT));
    open_port(&f, 0);
    open_port(&f, 1);
    memcpy(fake_guest_at(&f.guest, f.page + 512, 16), "0123456789abcdef", 16);
    const struct fake_buffer buffers[] = {{f.page + 512, 10, false}, {f.page + 522, 6, false}};
    f.hosts[1].room = 12;
    fake_queue_add(&f.queues[5], buffers, 2);
    fake_queue_add(&f.queues[5], buffers, 1);
    fake_queue_kick(&f.queues[5]);
    fake_guest_run(&f.guest, 4);
    assert_false(fake_queue_used(&f.queues[5], NULL, NULL));
    assert_true(virtio_pci_is_idle(f.device));
    fake_queue_add(&f.queues[1], buffers, 1);
    fake_queue_kick(&f.queues[1]);
    fake_queue_wait(&f.queues[1], NULL);
    f.hosts[1].room = 100;
    f.hosts[1].backend.user_ops->on_writable(f.hosts[1].backend.user);
    fake_queue_wait(&f.queues[5], NULL);
    fake_queue_wait(&f.queues[5], NULL);
    assert_int_equal(f.hosts[1].length, 26);
    assert_memory_equal(f.hosts[1].text, "0123456789abcdef0123456789", 26);
    stop(&f);
}

static void test_a_driver_without_ports(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 0);
    assert_true(virtio_console_is_open(f.device, 0));
    memcpy(fake_guest_at(&f.guest, f.page, 5), "tty!\n", 5);
    const struct fake_buffer buffer = {f.page, 5, false};
    fake_queue_add(&f.queues[1], &buffer, 1);
    fake_queue_kick(&f.queues[1]);
    fake_queue_wait(&f.queues[1], NULL);
    assert_memory_equal(f.hosts[0].text, "tty!\n", 5);
    /* Its last words need no queue. */
    fake_guest_write(&f.guest, f.fd.config + 8, 4, 'X');
    assert_int_equal(f.hosts[0].text[5], 'X');
    stop(&f);
}

static void test_size_of_a_console(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, VIRTIO_FEATURE(VIRTIO_CONSOLE_F_MULTIPORT) | VIRTIO_FEATURE(VIRTIO_CONSOLE_F_SIZE));
    tell(&f, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    hear(&f);
    hear(&f);
    virtio_console_resize(f.device, 0, 80, 25);
    uint32_t bytes;
    const struct fake_buffer buffer = {f.page + 4096, 64, true};
    fake_queue_add(&f.queues[2], &buffer, 1);
    fake_queue_kick(&f.queues[2]);
    fake_queue_wait(&f.queues[2], &bytes);
    const uint8_t *message = fake_guest_at(&f.guest, f.page + 4096, 12);
    assert_int_equal(bytes, 12);
    assert_int_equal(load_le16(message + 4), VIRTIO_CONSOLE_RESIZE);
    assert_int_equal(load_le16(message + 8), 80);
    assert_int_equal(load_le16(message + 10), 25);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config, 2), 80);
    assert_int_equal(fake_guest_read(&f.guest, f.fd.config + 2, 2), 25);
    stop(&f);
}

static void test_ports_that_cannot_be(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, VIRTIO_FEATURE(VIRTIO_CONSOLE_F_MULTIPORT));
    const struct virtio_console_port_options options = {0};
    char name[VIRTIO_CONSOLE_NAME_MAX + 2];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    const struct virtio_console_port_options long_name = {.name = name};
    struct error err;
    assert_int_equal(virtio_console_add_port(f.device, 1, &options, &err), -EEXIST);
    assert_int_equal(virtio_console_add_port(f.device, PORTS, &options, &err), -EINVAL);
    assert_int_equal(virtio_console_add_port(f.device, 2, &long_name, &err), -EINVAL);
    assert_false(virtio_console_has_port(f.device, 2));
    assert_false(virtio_console_has_port(f.device, PORTS));
    stop(&f);
}

static void one_piece_of_rubbish(struct fixture *f, struct random *random)
{
    struct fake_queue *queue = &f->queues[random_below(random, ARRAY_SIZE(f->queues))];
    uint16_t head = (uint16_t)random_below(random, queue->size);
    uint64_t gpa =
        random_below(random, 8) ? f->page + random_below(random, 60000) : random_next(random);
    if (random_below(random, 3) == 0)
        tell(f, random_below(random, PORTS + 2), (uint16_t)random_below(random, 9),
             (uint16_t)random_below(random, 3));
    fake_queue_set_descriptor(
        queue, head, gpa, random_below(random, 5000),
        (uint16_t)(random_below(random, 8) ? random_below(random, 2) * 2 : random_below(random, 8)),
        (uint16_t)random_below(random, queue->size));
    fake_queue_offer(queue, head);
    fake_queue_kick(queue);
    f->hosts[random_below(random, 2)].room = random_below(random, 1000);
}

static void feed_hosts(struct fixture *f, struct random *random)
{
    struct host *host = &f->hosts[random_below(random, 2)];
    static const uint8_t bytes[4096];
    size_t room = host->backend.user_ops->input_room(host->backend.user);
    if (room)
        host->backend.user_ops->on_input(host->backend.user, bytes,
                                         1 + random_below(random, (unsigned)room));
    host->backend.user_ops->on_writable(host->backend.user);
}

static void test_rubbish(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct fixture f;
        struct random random = {seed};
        start(&f, VIRTIO_FEATURE(VIRTIO_CONSOLE_F_MULTIPORT));
        for (unsigned i = 0; i < 400; i++) {
            if (fake_device_status(&f.fd) & VIRTIO_CONFIG_S_NEEDS_RESET)
                break;
            one_piece_of_rubbish(&f, &random);
            feed_hosts(&f, &random);
            fake_guest_run(&f.guest, 1);
        }
        fake_device_reset(&f.fd);
        assert_false(virtio_console_is_open(f.device, 1));
        stop(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ports_are_announced),
        cmocka_unit_test(test_opening_and_closing_is_told),
        cmocka_unit_test(test_data_to_the_guest),
        cmocka_unit_test(test_a_slow_reader_holds_only_its_port),
        cmocka_unit_test(test_a_driver_without_ports),
        cmocka_unit_test(test_size_of_a_console),
        cmocka_unit_test(test_ports_that_cannot_be),
        cmocka_unit_test(test_rubbish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
