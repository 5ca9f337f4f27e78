/* SPDX-License-Identifier: MIT */
/* QMP over real sockets, with a fake machine behind it. */
#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/limits.h"
#include "tests/fake_machine.h"
#include "tests/unit/test.h"

#define TURNS_MAX 20000

struct client {
    int fd;
    char *text;
    size_t length, capacity, read_at;
    bool has_ended;
};

static struct loop loop;
static struct machine machine;
static struct control *control;
static struct vm_config config;
static struct config_disk disk_configs[2];
static struct config_nic nic_config;
static char folder[] = "/tmp/test_control.XXXXXX";
static char path[64];
static bool is_closed;

static int connect_to(const char *socket_path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, socket_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void receive(struct client *client)
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

static void turn(void)
{
    loop_run_once(&loop, false);
}

/* The next line, without its "\r\n"; NULL if the connection ends before. */
static char *next_line(struct client *client)
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
        turn();
        receive(client);
    }
    fail_msg("no line came");
    return NULL;
}

static json_t *next(struct client *client)
{
    char *line = next_line(client);
    assert_non_null(line);
    json_t *message = json_loads(line, 0, NULL);
    assert_non_null(message);
    return message;
}

static void say(struct client *client, const char *text)
{
    assert_int_equal(send(client->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* A QMP client that has been greeted; negotiated too, if asked. */
static struct client open_client(bool negotiate)
{
    struct client client = {.fd = connect_to(path)};
    char *greeting = next_line(&client);
    assert_memory_equal(greeting, "{\"QMP\": {\"version\": {\"qemu\": {", 30);
    assert_non_null(strstr(greeting, "\"capabilities\": []"));
    if (negotiate) {
        say(&client, "{'execute':'qmp_capabilities','arguments':{}}");
        assert_string_equal(next_line(&client), "{\"return\": {}}");
    }
    return client;
}

static void close_client(struct client *client)
{
    close(client->fd);
    free(client->text);
    memset(client, 0, sizeof(*client));
}

static void expect(struct client *client, const char *request, const char *reply)
{
    say(client, request);
    assert_string_equal(next_line(client), reply);
}

static void expect_error(struct client *client, const char *request, const char *class,
                         const char *part)
{
    say(client, request);
    json_t *reply = next(client);
    json_t *error = json_object_get(reply, "error");
    assert_non_null(error);
    assert_string_equal(json_string_value(json_object_get(error, "class")), class);
    if (!strstr(json_string_value(json_object_get(error, "desc")), part))
        fail_msg("'%s' lacks '%s'", json_string_value(json_object_get(error, "desc")), part);
    json_decref(reply);
}

/* The return of a command, which must succeed. The caller frees it. */
static json_t *ask(struct client *client, const char *command)
{
    char request[256];
    snprintf(request, sizeof(request), "{\"execute\":\"%s\"}", command);
    say(client, request);
    json_t *reply = next(client);
    json_t *value = json_incref(json_object_get(reply, "return"));
    assert_non_null(value);
    json_decref(reply);
    return value;
}

static void on_closed(void *opaque)
{
    (void)opaque;
    is_closed = true;
}

static void close_control(void)
{
    is_closed = false;
    control_close(control, on_closed, NULL);
    assert_false(is_closed);
    for (int turns = 0; turns < 2000 && !is_closed; turns++)
        loop_run_once(&loop, true);
    assert_true(is_closed);
    control = NULL;
}

static void fill_config(void)
{
    memset(&config, 0, sizeof(config));
    memset(&nic_config, 0, sizeof(nic_config));
    config.name = "box";
    config.cpus = 2;
    config.serial_chardev = -1;
    config.chardevs[0] = (struct config_chardev){
        .kind = CHARDEV_UNIX, .id = "compat_monitor0", .path = path, .is_server = true};
    config.chardev_count = 1;
    config.monitors[0] = (struct config_monitor){.kind = MONITOR_QMP};
    config.monitor_count = 1;
    disk_configs[0] = (struct config_disk){.id = "virtio0", .is_attached = true};
    disk_configs[1] = (struct config_disk){.id = "none0", .qdev_id = "d1"};
    disk_configs[0].options.cache.writeback = true;
    config.disks = disk_configs;
    config.disk_count = 2;
    nic_config.netdev_id = "net0";
    config.nics = &nic_config;
    config.nic_count = 1;
}

static int set_up(void **state)
{
    (void)state;
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/qmp", folder);
    fill_config();
    assert_int_equal(loop_init(&loop), 0);
    fake_machine_init(&machine, &loop, &config);
    struct error err = {0};
    assert_int_equal(control_create(&loop, &machine, &control, &err), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (control)
        close_control();
    fake_machine_fini(&machine);
    loop_run(&loop);
    loop_fini(&loop);
    struct stat status;
    assert_int_equal(stat(path, &status), -1); /* the socket is gone */
    rmdir(folder);
    return 0;
}

static void test_negotiation(void **state)
{
    (void)state;
    struct client client = open_client(false);
    expect_error(&client, "{'execute':'query-status'}", "CommandNotFound",
                 "Expecting capabilities negotiation with 'qmp_capabilities'");
    expect_error(&client, "{'execute':'qmp_capabilities','arguments':{'enable':['oob']}}",
                 "GenericError", "'oob' not available");
    expect_error(&client, "{'execute':'qmp_capabilities','arguments':{'x':1}}", "GenericError",
                 "Parameter 'x' is unexpected");
    expect(&client, "{'execute':'qmp_capabilities','arguments':{'enable':[]},'id':1}",
           "{\"return\": {}, \"id\": 1}");
    expect_error(&client, "{'execute':'qmp_capabilities'}", "CommandNotFound", "already complete");
    close_client(&client);
}

static void test_ids_come_back_as_they_were(void **state)
{
    (void)state;
    struct client client = open_client(true);
    expect(&client, "{'execute':'query-target','id':{'a':[1,null,'x\\u00e9']}}",
           "{\"return\": {\"arch\": \"x86_64\"}, \"id\": {\"a\": [1, null, \"x\\u00E9\"]}}");
    expect(&client, "{'execute':'nonsense-xyzzy','id':'__qmp#00001'}",
           "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command nonsense-xyzzy "
           "has not been found\"}, \"id\": \"__qmp#00001\"}");
    close_client(&client);
}

static void test_bad_requests(void **state)
{
    (void)state;
    struct client client = open_client(true);
    expect_error(&client, "[1]", "GenericError", "QMP input must be a JSON object");
    expect_error(&client, "{}", "GenericError", "QMP input lacks member 'execute'");
    expect_error(&client, "{'execute':1}", "GenericError", "'execute' must be a string");
    expect_error(&client, "{'execute':'stop','arguments':[]}", "GenericError",
                 "'arguments' must be an object");
    expect_error(&client, "{'execute':'stop','foo':1}", "GenericError",
                 "QMP input member 'foo' is unexpected");
    expect_error(&client, "{'execute':'stop','arguments':{'x':1}}", "GenericError",
                 "Parameter 'x' is unexpected");
    expect_error(&client, "{'execute':'human-monitor-command'}", "GenericError",
                 "Parameter 'command-line' is missing");
    expect_error(&client, "{'execute':'human-monitor-command','arguments':{'command-line':1}}",
                 "GenericError", "Invalid parameter type for 'command-line', expected: string");
    expect_error(&client, "{'execute':'sotp'}", "CommandNotFound", "did you mean 'stop'?");
    expect_error(&client, "{'execute':'stop' 'x'}", "GenericError", "JSON parse error");
    expect_error(&client, "{'execute':'a','execute':'b'}", "GenericError", "duplicate key");
    expect_error(&client, "{'execute':'a\xff'}", "GenericError", "UTF-8");
    expect_error(&client, "{'execute':'a\\u0000'}", "GenericError", "NUL");
    expect_error(&client, "{'execute':'stop','id':99999999999999999999}", "GenericError", "number");
    expect_error(&client, "garbage\n", "GenericError", "JSON parse error");
    expect(&client, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    assert_int_equal(machine.op_count, 0);
    close_client(&client);
}

static void test_a_raw_nul_byte(void **state)
{
    (void)state;
    struct client client = open_client(true);
    assert_int_equal(send(client.fd, "{'execute':'st\0op'}", 19, 0), 19);
    expect_error(&client, "\n", "GenericError", "JSON parse error");
    close_client(&client);
}

static void test_deep_nesting(void **state)
{
    (void)state;
    struct client client = open_client(true);
    char deep[10001];
    memset(deep, '[', 10000);
    deep[10000] = 0;
    expect_error(&client, deep, "GenericError", "nested deeper than 32");
    expect(&client, "\n{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    close_client(&client);
}

static void expect_event(struct client *client, const char *name, const char *data)
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

static void test_events_precede_replies(void **state)
{
    (void)state;
    struct client client = open_client(true);
    say(&client, "{'execute':'stop','id':1}{'execute':'cont','id':2}{'execute':'cont','id':3}"
                 "{'execute':'system_reset','id':4}{'execute':'system_powerdown','id':5}");
    expect_event(&client, "STOP", "");
    assert_string_equal(next_line(&client), "{\"return\": {}, \"id\": 1}");
    expect_event(&client, "RESUME", "");
    assert_string_equal(next_line(&client), "{\"return\": {}, \"id\": 2}");
    assert_string_equal(next_line(&client), "{\"return\": {}, \"id\": 3}");
    expect_event(&client, "RESET", "{\"guest\": false, \"reason\": \"host-qmp-system-reset\"}");
    assert_string_equal(next_line(&client), "{\"return\": {}, \"id\": 4}");
    expect_event(&client, "POWERDOWN", "");
    assert_string_equal(next_line(&client), "{\"return\": {}, \"id\": 5}");
    assert_int_equal(machine.powerdowns, 1);
    assert_int_equal(machine.resets, 1);
    close_client(&client);
}

static void test_quit_tells_the_shutdown_first(void **state)
{
    (void)state;
    struct client client = open_client(true);
    say(&client, "{'execute':'quit'}");
    expect_event(&client, "SHUTDOWN", "{\"guest\": false, \"reason\": \"host-qmp-quit\"}");
    assert_string_equal(next_line(&client), "{\"return\": {}}");
    close_client(&client);
}

static void test_quit_is_answered_at_the_latest_when_all_ends(void **state)
{
    (void)state;
    struct client client = open_client(true);
    machine.is_held = true;
    say(&client, "{'execute':'quit'}");
    for (int i = 0; i < 10; i++)
        turn();
    assert_int_equal(machine.quits, 1);
    close_control();
    assert_string_equal(next_line(&client), "{\"return\": {}}");
    assert_null(next_line(&client));
    close_client(&client);
}

static void test_guest_events(void **state)
{
    (void)state;
    struct client client = open_client(true), silent = open_client(false);
    fake_machine_emit(&machine, MACHINE_EVENT_SHUTDOWN, SHUTDOWN_GUEST_SHUTDOWN);
    fake_machine_emit(&machine, MACHINE_EVENT_RESET, SHUTDOWN_GUEST_TRIPLE_FAULT);
    fake_machine_emit(&machine, MACHINE_EVENT_GUEST_PANICKED, SHUTDOWN_GUEST_PANIC);
    expect_event(&client, "SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
    expect_event(&client, "RESET",
                 "{\"guest\": true, \"reason\": \"guest-reset\", \"detail\": \"triple-fault\"}");
    expect_event(&client, "GUEST_PANICKED", "{\"action\": \"poweroff\"}");
    expect(&silent, "{'execute':'qmp_capabilities'}", "{\"return\": {}}"); /* no event before */
    close_client(&client);
    close_client(&silent);
}

static void test_failures_of_the_machine(void **state)
{
    (void)state;
    struct client client = open_client(true);
    machine.failure = "Resetting the Virtual Machine is required";
    expect_error(&client, "{'execute':'cont'}", "GenericError",
                 "Resetting the Virtual Machine is required");
    close_client(&client);
}

static void test_queries(void **state)
{
    (void)state;
    struct client client = open_client(true);
    expect(&client, "{'execute':'query-status'}",
           "{\"return\": {\"running\": true, \"singlestep\": false, \"status\": \"running\"}}");
    expect(&client, "{'execute':'query-name'}", "{\"return\": {\"name\": \"box\"}}");
    expect(&client, "{'execute':'query-uuid'}",
           "{\"return\": {\"UUID\": \"00000000-0000-0000-0000-000000000000\"}}");
    expect(&client, "{'execute':'query-kvm'}",
           "{\"return\": {\"enabled\": true, \"present\": true}}");
    expect(&client, "{'execute':'query-cpus-fast'}",
           "{\"return\": [{\"thread-id\": 100, \"props\": {\"core-id\": 0, \"thread-id\": 0, "
           "\"socket-id\": 0}, \"qom-path\": \"/machine/unattached/device[0]\", \"cpu-index\": 0, "
           "\"target\": \"x86_64\"}, {\"thread-id\": 101, \"props\": {\"core-id\": 1, "
           "\"thread-id\": 0, \"socket-id\": 0}, \"qom-path\": \"/machine/unattached/device[1]\", "
           "\"cpu-index\": 1, \"target\": \"x86_64\"}]}");
    expect_error(&client, "{'execute':'query-balloon'}", "DeviceNotActive", "No balloon");
    expect(&client, "{'execute':'query-iothreads'}", "{\"return\": []}");
    json_t *version = ask(&client, "query-version");
    assert_non_null(strstr(json_string_value(json_object_get(version, "package")), "evisor"));
    json_decref(version);
    char chardev[256];
    snprintf(chardev, sizeof(chardev),
             "{\"return\": [{\"filename\": \"unix:%s,server=on\", \"frontend-open\": true, "
             "\"label\": \"compat_monitor0\"}]}",
             path);
    expect(&client, "{'execute':'query-chardev'}", chardev);
    close_client(&client);
}

static void test_query_commands_lists_what_works(void **state)
{
    (void)state;
    static const char *const wanted[] = {"qmp_capabilities",
                                         "query-version",
                                         "query-status",
                                         "query-commands",
                                         "query-name",
                                         "query-uuid",
                                         "query-kvm",
                                         "query-block",
                                         "query-blockstats",
                                         "query-cpus-fast",
                                         "query-chardev",
                                         "query-stats",
                                         "stop",
                                         "cont",
                                         "system_powerdown",
                                         "system_reset",
                                         "quit"};
    struct client client = open_client(true);
    json_t *list = ask(&client, "query-commands");
    for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++) {
        bool found = false;
        for (size_t j = 0; j < json_array_size(list); j++)
            found |=
                strcmp(wanted[i],
                       json_string_value(json_object_get(json_array_get(list, j), "name"))) == 0;
        if (!found)
            fail_msg("query-commands lacks %s", wanted[i]);
    }
    json_decref(list);
    close_client(&client);
}

static json_t *at(json_t *value, const char *key)
{
    json_t *member = json_object_get(value, key);
    if (!member)
        fail_msg("no member %s", key);
    return member;
}

static void test_query_block(void **state)
{
    (void)state;
    struct client client = open_client(true);
    json_t *list = ask(&client, "query-block");
    assert_int_equal(json_array_size(list), 2);
    json_t *first = json_array_get(list, 0), *inserted = at(first, "inserted");
    assert_string_equal(json_string_value(at(first, "device")), "virtio0");
    assert_string_equal(json_string_value(at(first, "qdev")),
                        "/machine/peripheral-anon/device[0]/virtio-backend");
    assert_string_equal(json_string_value(at(inserted, "file")), "/tmp/top.qcow2");
    assert_string_equal(json_string_value(at(inserted, "drv")), "qcow2");
    assert_string_equal(json_string_value(at(inserted, "backing_file")), "/tmp/base.raw");
    assert_int_equal(json_integer_value(at(inserted, "backing_file_depth")), 1);
    assert_true(json_is_false(at(inserted, "ro")));
    assert_true(json_is_true(at(at(inserted, "cache"), "writeback")));
    json_t *image = at(inserted, "image");
    assert_int_equal(json_integer_value(at(image, "virtual-size")), 1 << 30);
    assert_int_equal(json_integer_value(at(at(image, "backing-image"), "virtual-size")), 1 << 20);
    assert_true(json_is_true(at(at(json_array_get(list, 1), "inserted"), "ro")));
    json_decref(list);
    list = ask(&client, "query-named-block-nodes");
    assert_int_equal(json_array_size(list), 2);
    json_decref(list);
    list = ask(&client, "query-blockstats");
    json_t *stats = at(json_array_get(list, 0), "stats");
    assert_int_equal(json_integer_value(at(stats, "rd_operations")), 3);
    assert_int_equal(json_integer_value(at(stats, "rd_bytes")), 4096);
    assert_int_equal(json_integer_value(at(stats, "flush_operations")), 2);
    json_decref(list);
    close_client(&client);
}

static void test_query_stats(void **state)
{
    (void)state;
    struct client client = open_client(true);
    expect(&client, "{'execute':'query-stats','arguments':{'target':'vcpu'}}",
           "{\"return\": [{\"provider\": \"evisor\", \"qom-path\": \"vcpu0\", \"stats\": "
           "[{\"name\": \"exits.pio\", \"value\": 7}, {\"name\": \"exits.mmio\", \"value\": "
           "8}]}]}");
    expect(&client, "{'execute':'query-stats','arguments':{'target':'vm'}}",
           "{\"return\": [{\"provider\": \"evisor\", \"qom-path\": \"loop\", \"stats\": "
           "[{\"name\": \"turns\", \"value\": 9223372036854775807}]}]}");
    expect_error(&client, "{'execute':'query-stats','arguments':{'target':'x'}}", "GenericError",
                 "Invalid parameter 'x'");
    close_client(&client);
}

static void test_resize_and_link(void **state)
{
    (void)state;
    struct client client = open_client(true);
    expect(&client, "{'execute':'block_resize','arguments':{'device':'virtio0','size':2048}}",
           "{\"return\": {}}");
    assert_int_equal(machine.disks[0].size_bytes, 2048);
    machine.disks[0].resize_result = -ENOSPC;
    expect_error(&client,
                 "{'execute':'block_resize','arguments':{'node-name':'virtio0','size':4096}}",
                 "GenericError", "No space");
    expect_error(&client, "{'execute':'block_resize','arguments':{'device':'no','size':512}}",
                 "GenericError", "Cannot find device");
    expect_error(&client, "{'execute':'block_resize','arguments':{'device':'virtio0','size':-1}}",
                 "GenericError", "size");
    expect_error(&client, "{'execute':'block_resize','arguments':{'device':'virtio0','size':100}}",
                 "GenericError", "512");
    expect_error(&client, "{'execute':'block_resize','arguments':{'size':512}}", "GenericError",
                 "exactly one");
    expect(&client, "{'execute':'set_link','arguments':{'name':'net0','up':false}}",
           "{\"return\": {}}");
    assert_false(machine.nic.link_up);
    expect_error(&client, "{'execute':'set_link','arguments':{'name':'net1','up':false}}",
                 "DeviceNotFound", "Device 'net1' not found");
    close_client(&client);
}

static void test_human_monitor_command(void **state)
{
    (void)state;
    struct client client = open_client(true);
    expect(&client,
           "{'execute':'human-monitor-command','arguments':{'command-line':'info status'}}",
           "{\"return\": \"VM status: running\\r\\n\"}");
    say(&client, "{'execute':'human-monitor-command','arguments':{'command-line':'stop'}}");
    expect_event(&client, "STOP", "");
    assert_string_equal(next_line(&client), "{\"return\": \"\"}");
    close_client(&client);
}

static void test_several_clients(void **state)
{
    (void)state;
    struct client clients[CONTROL_CLIENTS_MAX];
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
        clients[i] = open_client(true);
    struct client late = {.fd = connect_to(path)};
    assert_null(next_line(&late)); /* turned away */
    close_client(&late);
    say(&clients[3], "{'execute':'stop'}");
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
        expect_event(&clients[i], "STOP", "");
    assert_string_equal(next_line(&clients[3]), "{\"return\": {}}");
    close_client(&clients[0]);
    for (int i = 0; i < 10; i++)
        turn();
    clients[0] = open_client(true);
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
        close_client(&clients[i]);
}

static void test_half_a_request_waits_and_disturbs_nobody(void **state)
{
    (void)state;
    struct client slow = open_client(true), other = open_client(true);
    say(&slow, "{'execute':'query-na");
    for (int i = 0; i < 10; i++)
        turn();
    expect(&other, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    expect(&slow, "me'}", "{\"return\": {\"name\": \"box\"}}");
    say(&slow, "{'execute':");
    close_client(&slow);
    expect(&other, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    close_client(&other);
}

static void test_a_client_that_leaves_while_its_command_runs(void **state)
{
    (void)state;
    struct client client = open_client(true), other = open_client(true);
    machine.is_held = true;
    say(&client, "{'execute':'stop'}");
    for (int i = 0; i < 10; i++)
        turn();
    assert_int_equal(machine.op_count, 1);
    close_client(&client);
    for (int i = 0; i < 10; i++)
        turn();
    fake_machine_release(&machine);
    expect_event(&other, "STOP", "");
    expect(&other, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    close_client(&other);
}

static void test_a_client_that_shuts_its_sending_side_gets_its_replies(void **state)
{
    (void)state;
    struct client client = open_client(true);
    say(&client, "{'execute':'query-target'}{'execute':'query-name'}");
    shutdown(client.fd, SHUT_WR);
    assert_string_equal(next_line(&client), "{\"return\": {\"arch\": \"x86_64\"}}");
    assert_string_equal(next_line(&client), "{\"return\": {\"name\": \"box\"}}");
    assert_null(next_line(&client));
    close_client(&client);
}

static void test_a_client_that_never_reads_is_dropped(void **state)
{
    (void)state;
    struct client greedy = open_client(true), other = open_client(true);
    static const char request[] = "{'execute':'query-commands'}";
    bool is_dropped = false;
    for (int i = 0; i < 20000 && !is_dropped; i++) {
        ssize_t sent = send(greedy.fd, request, strlen(request), MSG_NOSIGNAL);
        is_dropped = sent < 0 && errno != EAGAIN;
        turn();
    }
    assert_true(is_dropped);
    expect(&other, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    close_client(&greedy);
    close_client(&other);
}

static void test_events_alone_drop_a_client_that_never_reads(void **state)
{
    (void)state;
    struct client deaf = open_client(true);
    for (int i = 0; i < 40000; i++) {
        fake_machine_emit(&machine, MACHINE_EVENT_RESET, SHUTDOWN_GUEST_RESET);
        if (i % 1000 == 0)
            turn();
    }
    turn();
    while (!deaf.has_ended)
        receive(&deaf);
    assert_true(deaf.length < 3 * CONTROL_OUTPUT_MAX_BYTES);
    close_client(&deaf);
}

static void test_random_input(void **state)
{
    (void)state;
    static const char *const pieces[] = {"{",
                                         "}",
                                         "[",
                                         "]",
                                         "'execute'",
                                         ":",
                                         ",",
                                         "'stop'",
                                         "'id'",
                                         "1",
                                         "\"",
                                         "'",
                                         "\\",
                                         "\n",
                                         "null",
                                         "'arguments'",
                                         "{'execute':'query-name'}",
                                         "\xff",
                                         "\x01",
                                         "tru",
                                         "-",
                                         "1e999"};
    srand(7);
    for (int round = 0; round < 30; round++) {
        struct client client = open_client(true);
        for (int i = 0; i < 400; i++) {
            const char *piece = pieces[(unsigned)rand() % ARRAY_SIZE(pieces)];
            if (send(client.fd, piece, strlen(piece), MSG_NOSIGNAL) < 0)
                break;
            if (i % 16 == 0)
                turn();
        }
        for (int i = 0; i < 40; i++) {
            turn();
            receive(&client);
        }
        close_client(&client);
    }
    struct client client = open_client(true);
    expect(&client, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    close_client(&client);
}

static void test_socket_files(void **state)
{
    (void)state;
    struct stat status;
    struct control *other = NULL;
    struct error err = {0};
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    /* A live socket is refused; so are a plain file and a path that is too long. */
    assert_int_equal(control_create(&loop, &machine, &other, &err), -EADDRINUSE);
    assert_non_null(strstr(err.text, "in use"));
    char long_path[300], file[80];
    memset(long_path, 'x', sizeof(long_path) - 1);
    long_path[sizeof(long_path) - 1] = 0;
    config.chardevs[0].path = long_path;
    err.code = 0;
    assert_int_equal(control_create(&loop, &machine, &other, &err), -ENAMETOOLONG);
    assert_non_null(strstr(err.text, "shorter"));
    snprintf(file, sizeof(file), "%s/file", folder);
    close(open(file, O_CREAT | O_RDWR, 0600));
    config.chardevs[0].path = file;
    err.code = 0;
    assert_int_equal(control_create(&loop, &machine, &other, &err), -EEXIST);
    unlink(file);
    config.chardevs[0].path = path;
}

static void test_a_stale_socket_is_replaced(void **state)
{
    (void)state;
    close_control();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    struct error err = {0};
    assert_int_equal(control_create(&loop, &machine, &control, &err), 0);
    struct client client = open_client(true);
    close_client(&client);
}

static void count_ready(void *opaque)
{
    ++*(int *)opaque;
}

static void test_waiting_for_the_first_client(void **state)
{
    (void)state;
    int ready = 0;
    control_when_ready(control, count_ready, &ready);
    assert_int_equal(ready, 0);
    turn();
    assert_int_equal(ready, 1);
    close_control();
    config.chardevs[0].wait = true;
    assert_int_equal(control_create(&loop, &machine, &control, NULL), 0);
    control_when_ready(control, count_ready, &ready);
    for (int i = 0; i < 10; i++)
        turn();
    assert_int_equal(ready, 1);
    struct client client = open_client(false);
    turn();
    assert_int_equal(ready, 2);
    close_client(&client);
}

static void test_tcp_and_pretty(void **state)
{
    (void)state;
    close_control();
    config.chardevs[0].kind = CHARDEV_TCP;
    config.chardevs[0].host = "0.0.0.0";
    config.chardevs[0].port = 45999;
    struct error err = {0};
    assert_int_equal(control_create(&loop, &machine, &control, &err), -EACCES);
    config.chardevs[0].kind = CHARDEV_UNIX;
    config.monitors[0].pretty = true;
    assert_int_equal(control_create(&loop, &machine, &control, &err), 0);
    struct client client = {.fd = connect_to(path)};
    assert_non_null(strstr(next_line(&client), "{\n    \"QMP\": {\n"));
    close_client(&client);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_negotiation),
        TEST(test_ids_come_back_as_they_were),
        TEST(test_bad_requests),
        TEST(test_a_raw_nul_byte),
        TEST(test_deep_nesting),
        TEST(test_events_precede_replies),
        TEST(test_quit_tells_the_shutdown_first),
        TEST(test_quit_is_answered_at_the_latest_when_all_ends),
        TEST(test_guest_events),
        TEST(test_failures_of_the_machine),
        TEST(test_queries),
        TEST(test_query_commands_lists_what_works),
        TEST(test_query_block),
        TEST(test_query_stats),
        TEST(test_resize_and_link),
        TEST(test_human_monitor_command),
        TEST(test_several_clients),
        TEST(test_half_a_request_waits_and_disturbs_nobody),
        TEST(test_a_client_that_leaves_while_its_command_runs),
        TEST(test_a_client_that_shuts_its_sending_side_gets_its_replies),
        TEST(test_a_client_that_never_reads_is_dropped),
        TEST(test_events_alone_drop_a_client_that_never_reads),
        TEST(test_random_input),
        TEST(test_socket_files),
        TEST(test_a_stale_socket_is_replaced),
        TEST(test_waiting_for_the_first_client),
        TEST(test_tcp_and_pretty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
