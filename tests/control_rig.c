/* SPDX-License-Identifier: MIT */
/* control_rig: turns the loop by hand until what a client waits for has come. */
#include "tests/control_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/test.h"

#define TURNS_MAX 20000

struct rig rig;

struct rig_client rig_connect(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", rig.path);
    struct rig_client client = {.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0)};
    assert_int_equal(connect(client.fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return client;
}

void rig_receive(struct rig_client *client)
{
    if (client->capacity - client->length < 65536)
        client->text = realloc(client->text, client->capacity += 131072);
    ssize_t got =
        recv(client->fd, client->text + client->length, client->capacity - client->length - 1, 0);
    if (got > 0)
        client->length += (size_t)got;
    else if (got == 0 || errno != EAGAIN)
        client->has_ended = true;
    client->text[client->length] = 0;
}

void rig_turn(void)
{
    loop_run_once(&rig.loop, false);
}

void rig_turns(unsigned count)
{
    while (count--)
        rig_turn();
}

char *rig_line(struct rig_client *client)
{
    for (int turns = 0; turns < TURNS_MAX; turns++) {
        char *from = client->text ? client->text + client->read_at : NULL;
        char *end = from ? strstr(from, "\r\n") : NULL;
        if (end) {
            *end = 0;
            client->read_at = (size_t)(end + 2 - client->text);
            return from;
        }
        if (client->has_ended)
            return NULL;
        rig_turn();
        rig_receive(client);
    }
    fail_msg("no line came");
    return NULL;
}

static json_t *next(struct rig_client *client)
{
    char *line = rig_line(client);
    assert_non_null(line);
    json_t *message = json_loads(line, 0, NULL);
    assert_non_null(message);
    return message;
}

void rig_say(struct rig_client *client, const char *text)
{
    assert_int_equal(send(client->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

struct rig_client rig_open(bool negotiate)
{
    struct rig_client client = rig_connect();
    char *greeting = rig_line(&client);
    assert_memory_equal(greeting, "{\"QMP\": {\"version\": {\"qemu\": {", 30);
    assert_non_null(strstr(greeting, "\"capabilities\": [\"oob\"]"));
    if (negotiate) {
        rig_say(&client, "{'execute':'qmp_capabilities','arguments':{}}");
        assert_string_equal(rig_line(&client), "{\"return\": {}}");
    }
    return client;
}

void rig_leave(struct rig_client *client)
{
    close(client->fd);
    free(client->text);
    memset(client, 0, sizeof(*client));
}

void rig_expect(struct rig_client *client, const char *request, const char *reply)
{
    rig_say(client, request);
    assert_string_equal(rig_line(client), reply);
}

void rig_expect_error(struct rig_client *client, const char *request, const char *class,
                      const char *part)
{
    rig_say(client, request);
    json_t *reply = next(client);
    json_t *error = json_object_get(reply, "error");
    assert_non_null(error);
    assert_string_equal(json_string_value(json_object_get(error, "class")), class);
    if (!strstr(json_string_value(json_object_get(error, "desc")), part))
        fail_msg("'%s' lacks '%s'", json_string_value(json_object_get(error, "desc")), part);
    json_decref(reply);
}

json_t *rig_ask(struct rig_client *client, const char *command)
{
    char request[256];
    snprintf(request, sizeof(request), "{\"execute\":\"%s\"}", command);
    rig_say(client, request);
    json_t *reply = next(client);
    json_t *value = json_incref(json_object_get(reply, "return"));
    assert_non_null(value);
    json_decref(reply);
    return value;
}

static void on_closed(void *opaque)
{
    (void)opaque;
    rig.is_closed = true;
}

void rig_close_control(void)
{
    rig.is_closed = false;
    control_close(rig.control, on_closed, NULL);
    assert_false(rig.is_closed);
    for (int turns = 0; turns < 2000 && !rig.is_closed; turns++)
        loop_run_once(&rig.loop, true);
    assert_true(rig.is_closed);
    rig.control = NULL;
}

static void fill_config(void)
{
    memset(&rig.config, 0, sizeof(rig.config));
    memset(&rig.nic, 0, sizeof(rig.nic));
    rig.config.name = "box";
    rig.config.cpus = 2;
    rig.config.serial_chardev = -1;
    rig.config.chardevs[0] = (struct config_chardev){
        .kind = CHARDEV_UNIX, .id = "compat_monitor0", .path = rig.path, .is_server = true};
    rig.config.chardev_count = 1;
    rig.config.monitors[0] = (struct config_monitor){.kind = MONITOR_QMP};
    rig.config.monitor_count = 1;
    rig.disks[0] = (struct config_disk){.id = "virtio0", .is_attached = true};
    rig.disks[1] = (struct config_disk){.id = "none0", .qdev_id = "d1"};
    rig.disks[0].options.cache.writeback = true;
    rig.config.disks = rig.disks;
    rig.config.disk_count = 2;
    rig.nic.netdev_id = "net0";
    rig.nic.has_device = true;
    rig.config.nics = &rig.nic;
    rig.config.nic_count = 1;
}

int rig_set_up(void **state)
{
    (void)state;
    snprintf(rig.folder, sizeof(rig.folder), "/tmp/test_control.XXXXXX");
    assert_non_null(mkdtemp(rig.folder));
    snprintf(rig.path, sizeof(rig.path), "%s/qmp", rig.folder);
    fill_config();
    assert_int_equal(loop_init(&rig.loop), 0);
    fake_machine_init(&rig.machine, &rig.loop, &rig.config);
    struct error err = {0};
    assert_int_equal(control_create(&rig.loop, &rig.machine, &rig.control, &err), 0);
    return 0;
}

int rig_tear_down(void **state)
{
    (void)state;
    if (rig.control)
        rig_close_control();
    fake_machine_fini(&rig.machine);
    loop_run(&rig.loop);
    loop_fini(&rig.loop);
    struct stat status;
    assert_int_equal(stat(rig.path, &status), -1); /* the socket is gone */
    rmdir(rig.folder);
    return 0;
}

void rig_expect_event(struct rig_client *client, const char *name, const char *data)
{
    json_t *event = next(client);
    assert_string_equal(json_string_value(json_object_get(event, "event")), name);
    json_t *stamp = json_object_get(event, "timestamp");
    assert_true(json_integer_value(json_object_get(stamp, "seconds")) > 1000000000);
    assert_true(json_is_integer(json_object_get(stamp, "microseconds")));
    json_t *value = json_object_get(event, "data");
    char *text = value ? json_dumps(value, 0) : NULL;
    assert_string_equal(text ? text : "", data);
    free(text);
    json_decref(event);
}
