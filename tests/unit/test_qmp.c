/* SPDX-License-Identifier: MIT */
/* QMP: requests good and bad, replies, events, the shapes of queries. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/control_rig.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"
#include "vmm/manual.h"

static void test_negotiation(void **state)
{
    (void)state;
    struct rig_client client = rig_open(false);
    rig_expect_error(&client, "{'execute':'query-status'}", "CommandNotFound",
                     "Expecting capabilities negotiation with 'qmp_capabilities'");
    rig_expect_error(&client, "{'execute':'qmp_capabilities','arguments':{'enable':['x']}}",
                     "GenericError", "'x' not available");
    rig_expect_error(&client, "{'exec-oob':'stop'}", "GenericError", "'exec-oob' is unexpected");
    rig_expect_error(&client, "{'execute':'qmp_capabilities','arguments':{'x':1}}", "GenericError",
                     "Parameter 'x' is unexpected");
    rig_expect(&client, "{'execute':'qmp_capabilities','arguments':{'enable':[]},'id':1}",
               "{\"return\": {}, \"id\": 1}");
    rig_expect_error(&client, "{'execute':'qmp_capabilities'}", "CommandNotFound",
                     "already complete");
    rig_leave(&client);
}

static void test_ids_come_back_as_they_were(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig_expect(&client, "{'execute':'query-target','id':{'a':[1,null,'x\\u00e9']}}",
               "{\"return\": {\"arch\": \"x86_64\"}, \"id\": {\"a\": [1, null, \"x\\u00E9\"]}}");
    rig_expect(
        &client, "{'execute':'nonsense-xyzzy','id':'__qmp#00001'}",
        "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command nonsense-xyzzy "
        "has not been found\"}, \"id\": \"__qmp#00001\"}");
    rig_leave(&client);
}

static void test_bad_requests(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig_expect_error(&client, "[1]", "GenericError", "QMP input must be a JSON object");
    rig_expect_error(&client, "{}", "GenericError", "QMP input lacks member 'execute'");
    rig_expect_error(&client, "{'execute':1}", "GenericError", "'execute' must be a string");
    rig_expect_error(&client, "{'execute':'stop','arguments':[]}", "GenericError",
                     "'arguments' must be an object");
    rig_expect_error(&client, "{'execute':'stop','foo':1}", "GenericError",
                     "QMP input member 'foo' is unexpected");
    rig_expect_error(&client, "{'execute':'stop','arguments':{'x':1}}", "GenericError",
                     "Parameter 'x' is unexpected");
    rig_expect_error(&client, "{'execute':'human-monitor-command'}", "GenericError",
                     "Parameter 'command-line' is missing");
    rig_expect_error(&client, "{'execute':'human-monitor-command','arguments':{'command-line':1}}",
                     "GenericError", "Invalid parameter type for 'command-line', expected: string");
    rig_expect_error(&client, "{'execute':'sotp'}", "CommandNotFound", "did you mean 'stop'?");
    rig_expect_error(&client, "{'execute':'stop' 'x'}", "GenericError", "JSON parse error");
    rig_expect_error(&client, "{'execute':'a','execute':'b'}", "GenericError", "duplicate key");
    rig_expect_error(&client, "{'execute':'a\xff'}", "GenericError", "UTF-8");
    rig_expect_error(&client, "{'execute':'a\\u0000'}", "GenericError", "NUL");
    rig_expect_error(&client, "{'execute':'stop','id':99999999999999999999}", "GenericError",
                     "number");
    rig_expect_error(&client, "garbage\n", "GenericError", "JSON parse error");
    rig_expect(&client, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    assert_int_equal(rig.machine.op_count, 0);
    rig_leave(&client);
}

static void test_a_raw_nul_byte(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    assert_int_equal(send(client.fd, "{'execute':'st\0op'}", 19, 0), 19);
    rig_expect_error(&client, "\n", "GenericError", "JSON parse error");
    rig_leave(&client);
}

static void test_deep_nesting(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    char deep[10001];
    memset(deep, '[', 10000);
    deep[10000] = 0;
    rig_expect_error(&client, deep, "GenericError", "nested deeper than 32");
    rig_expect(&client, "\n{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    rig_leave(&client);
}

static void test_events_precede_replies(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig_say(&client, "{'execute':'stop','id':1}{'execute':'cont','id':2}{'execute':'cont','id':3}"
                     "{'execute':'system_reset','id':4}{'execute':'system_powerdown','id':5}");
    rig_expect_event(&client, "STOP", "");
    assert_string_equal(rig_line(&client), "{\"return\": {}, \"id\": 1}");
    rig_expect_event(&client, "RESUME", "");
    assert_string_equal(rig_line(&client), "{\"return\": {}, \"id\": 2}");
    assert_string_equal(rig_line(&client), "{\"return\": {}, \"id\": 3}");
    rig_expect_event(&client, "RESET", "{\"guest\": false, \"reason\": \"host-qmp-system-reset\"}");
    assert_string_equal(rig_line(&client), "{\"return\": {}, \"id\": 4}");
    rig_expect_event(&client, "POWERDOWN", "");
    assert_string_equal(rig_line(&client), "{\"return\": {}, \"id\": 5}");
    assert_int_equal(rig.machine.powerdowns, 1);
    assert_int_equal(rig.machine.resets, 1);
    rig_leave(&client);
}

static void test_quit_tells_the_shutdown_first(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig_say(&client, "{'execute':'quit'}");
    rig_expect_event(&client, "SHUTDOWN", "{\"guest\": false, \"reason\": \"host-qmp-quit\"}");
    assert_string_equal(rig_line(&client), "{\"return\": {}}");
    rig_leave(&client);
}

static void test_guest_events(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true), silent = rig_open(false);
    fake_machine_emit(&rig.machine, MACHINE_EVENT_SHUTDOWN, SHUTDOWN_GUEST_SHUTDOWN);
    fake_machine_emit(&rig.machine, MACHINE_EVENT_RESET, SHUTDOWN_GUEST_TRIPLE_FAULT);
    fake_machine_emit(&rig.machine, MACHINE_EVENT_GUEST_PANICKED, SHUTDOWN_GUEST_PANIC);
    rig_expect_event(&client, "SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
    rig_expect_event(
        &client, "RESET",
        "{\"guest\": true, \"reason\": \"guest-reset\", \"detail\": \"triple-fault\"}");
    rig_expect_event(&client, "GUEST_PANICKED", "{\"action\": \"poweroff\"}");
    rig_expect(&silent, "{'execute':'qmp_capabilities'}", "{\"return\": {}}"); /* no event before */
    rig_leave(&client);
    rig_leave(&silent);
}

static void test_block_errors(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    const struct machine_block_error full = {.disk = 0, .action = "stop", .code = ENOSPC},
                                     bad = {1, true, "report", EIO};
    rig.machine.listener.on_block_error(rig.machine.listener.opaque, &full);
    rig.machine.listener.on_block_error(rig.machine.listener.opaque, &bad);
    rig_expect_event(&client, "BLOCK_IO_ERROR",
                     "{\"device\": \"virtio0\", \"node-name\": \"virtio0\", \"operation\": "
                     "\"write\", \"action\": \"stop\", \"nospace\": true, \"reason\": \"No space "
                     "left on device\"}");
    rig_expect_event(&client, "BLOCK_IO_ERROR",
                     "{\"device\": \"none0\", \"node-name\": \"none0\", \"operation\": \"read\", "
                     "\"action\": \"report\", \"nospace\": false, \"reason\": \"Input/output "
                     "error\"}");
    rig_leave(&client);
}

static void learn_addresses(void)
{
    rig.machine.addresses = (struct address_snoop){
        .count = 2,
        .entries = {{.mac = {2}, .address = {10, 0, 2, 9}, .first_seen_s = 5, .last_seen_s = 6},
                    {.mac = {2, [5] = 1},
                     .is_ipv6 = true,
                     .address = {0xfd, [15] = 1},
                     .source = ADDRESS_FROM_DHCP,
                     .first_seen_s = 4,
                     .last_seen_s = 8,
                     .expires_s = 99}}};
}

#define ADDRESSES                                                                                  \
    "{\"id\": \"net0\", \"nic\": \"virtio-net-pci.0\", \"addresses\": [{\"mac\": "                 \
    "\"02:00:00:00:00:01\", \"ip-address\": "                                                      \
    "\"fd00::1\", \"ip-address-type\": \"ipv6\", \"source\": \"dhcp\", \"first-seen\": 4, "        \
    "\"last-seen\": 8, \"expires\": 99}, {\"mac\": \"02:00:00:00:00:00\", \"ip-address\": "        \
    "\"10.0.2.9\", \"ip-address-type\": \"ipv4\", \"source\": \"arp\", \"first-seen\": 5, "        \
    "\"last-seen\": 6}]}"

static void test_addresses_of_nics(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true), silent = rig_open(false);
    learn_addresses();
    rig.machine.listener.on_nic_addresses(rig.machine.listener.opaque, 0);
    rig_expect_event(&client, "NIC_IP_CHANGED", ADDRESSES);
    rig_expect(&client, "{'execute':'query-nic-addresses'}", "{\"return\": [" ADDRESSES "]}");
    rig_expect(&silent, "{'execute':'qmp_capabilities'}", "{\"return\": {}}"); /* no event before */
    rig_leave(&client);
    rig_leave(&silent);
}

/* Its network is gone, and with it what the guest had there. */
static void test_a_nic_without_a_network_is_listed(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig.machine.backend = NULL;
    rig.nic.netdev_id = NULL;
    rig.nic.qdev_id = "nic0";
    rig_expect(&client, "{'execute':'query-nic-addresses'}",
               "{\"return\": [{\"id\": \"\", \"nic\": \"nic0\", \"addresses\": []}]}");
    rig.nic.has_device = false;
    rig_expect(&client, "{'execute':'query-nic-addresses'}", "{\"return\": []}");
    rig_expect(&client, "{'execute':'query-rx-filter'}", "{\"return\": []}");
    rig_leave(&client);
}

static void test_filters_of_nics(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    struct net_filter *filter = &rig.machine.filter;
    *filter = (struct net_filter){.mac = {2, [5] = 7},
                                  .no_unicast = 1,
                                  .all_multicast = 1,
                                  .no_broadcast = 1,
                                  .checks_vlan = 1,
                                  .unicast = {.overflowed = 1},
                                  .multicast = {2, 0, {1, [5] = 1, [6] = 1, [11] = 2}}};
#define FILTER(vlan, vlans)                                                                        \
    "{\"return\": [{\"name\": \"virtio-net-pci.0\", \"promiscuous\": false, \"multicast\": "       \
    "\"all\", \"unicast\": \"none\", \"vlan\": \"" vlan "\", \"broadcast-allowed\": false, "       \
    "\"multicast-overflow\": false, \"unicast-overflow\": true, \"main-mac\": "                    \
    "\"02:00:00:00:00:07\", \"vlan-table\": [" vlans "], \"unicast-table\": [], "                  \
    "\"multicast-table\": [\"01:00:00:00:00:01\", \"01:00:00:00:00:02\"]}]}"
    rig_expect(&client, "{'execute':'query-rx-filter'}", FILTER("none", ""));
    filter->vlans[0] = 0x22;
    filter->vlans[511] = 0x80;
    rig_expect(&client, "{'execute':'query-rx-filter','arguments':{'name':'virtio-net-pci.0'}}",
               FILTER("normal", "4095, 5, 1"));
    rig_expect_error(&client, "{'execute':'query-rx-filter','arguments':{'name':'net0'}}",
                     "GenericError", "net client(net0) isn't a NIC");
    rig_expect_error(&client, "{'execute':'query-rx-filter','arguments':{'name':'zz'}}",
                     "GenericError", "invalid net client name: zz");
    rig_leave(&client);
}

static json_t *find_named(json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *entry = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(entry, "name")), name) == 0)
            return entry;
    }
    return NULL;
}

static void check_members(json_t *schema, json_t *object)
{
    assert_non_null(object);
    const char *kind = json_string_value(json_object_get(object, "meta-type"));
    assert_true(strcmp(kind, "object") == 0 || strcmp(kind, "alternate") == 0);
    json_t *members = json_object_get(object, "members");
    for (size_t i = 0; i < json_array_size(members); i++) {
        json_t *type = json_object_get(json_array_get(members, i), "type");
        assert_non_null(find_named(schema, json_string_value(type)));
    }
}

/* The type that an answer or a list's element has is there, and those of its members. */
static void check_type(json_t *schema, const char *name)
{
    const json_t *entry = find_named(schema, name), *variant;
    size_t i;
    assert_non_null(entry);
    if (json_object_get(entry, "members") && !json_object_get(entry, "values"))
        check_members(schema, (json_t *)entry);
    json_array_foreach(json_object_get(entry, "variants"), i, variant) check_members(
        schema, find_named(schema, json_string_value(json_object_get(variant, "type"))));
}

/* What a client may send is told, and every type that is named is there. */
static void test_schema(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    json_t *schema = rig_ask(&client, "query-qmp-schema");
    json_t *commands = rig_ask(&client, "query-commands");
    size_t i;
    json_t *command, *entry;
    json_array_foreach(commands, i, command)
    {
        const char *name = json_string_value(json_object_get(command, "name"));
        json_t *found = find_named(schema, name);
        assert_non_null(found);
        assert_string_equal(json_string_value(json_object_get(found, "meta-type")), "command");
    }
    json_array_foreach(schema, i, entry)
    {
        json_t *arguments = json_object_get(entry, "arg-type");
        if (arguments)
            check_members(schema, find_named(schema, json_string_value(arguments)));
        check_type(schema, json_string_value(json_object_get(entry, "name")));
        const char *const named[] = {"ret-type", "element-type"};
        for (unsigned k = 0; k < ARRAY_SIZE(named); k++)
            if (json_object_get(entry, named[k]))
                check_type(schema, json_string_value(json_object_get(entry, named[k])));
    }
    json_t *resize = find_named(schema, "block_resize-arg");
    assert_int_equal(json_array_size(json_object_get(resize, "members")), 3);
    json_t *device = json_array_get(json_object_get(resize, "members"), 0);
    assert_true(json_is_null(json_object_get(device, "default")));
    assert_non_null(find_named(schema, "NIC_IP_CHANGED"));
    json_decref(schema);
    json_decref(commands);
    rig_leave(&client);
}

static void test_failures_of_the_machine(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig.machine.failure = "Resetting the Virtual Machine is required";
    rig_expect_error(&client, "{'execute':'cont'}", "GenericError",
                     "Resetting the Virtual Machine is required");
    rig_leave(&client);
}

static void test_queries(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig_expect(&client, "{'execute':'query-status'}",
               "{\"return\": {\"running\": true, \"singlestep\": false, \"status\": \"running\"}}");
    rig_expect(&client, "{'execute':'query-name'}", "{\"return\": {\"name\": \"box\"}}");
    rig_expect(&client, "{'execute':'query-uuid'}",
               "{\"return\": {\"UUID\": \"00000000-0000-0000-0000-000000000000\"}}");
    rig_expect(&client, "{'execute':'query-kvm'}",
               "{\"return\": {\"enabled\": true, \"present\": true}}");
    rig_expect(
        &client, "{'execute':'query-cpus-fast'}",
        "{\"return\": [{\"thread-id\": 100, \"props\": {\"core-id\": 0, \"thread-id\": 0, "
        "\"socket-id\": 0}, \"qom-path\": \"/machine/unattached/device[0]\", \"cpu-index\": 0, "
        "\"target\": \"x86_64\"}, {\"thread-id\": 101, \"props\": {\"core-id\": 1, "
        "\"thread-id\": 0, \"socket-id\": 0}, \"qom-path\": \"/machine/unattached/device[1]\", "
        "\"cpu-index\": 1, \"target\": \"x86_64\"}]}");
    rig_expect_error(&client, "{'execute':'query-balloon'}", "DeviceNotActive", "No balloon");
    rig_expect(&client, "{'execute':'query-iothreads'}", "{\"return\": []}");
    rig.config.guest.io_threads[1] = (char[]){"io1"};
    rig_expect(&client, "{'execute':'query-iothreads'}",
               "{\"return\": [{\"id\": \"io1\", \"thread-id\": 201, \"poll-max-ns\": 0, "
               "\"poll-grow\": 0, \"poll-shrink\": 0, \"aio-max-batch\": 0}]}");
    rig.config.guest.io_threads[1] = NULL;
    json_t *version = rig_ask(&client, "query-version");
    assert_non_null(strstr(json_string_value(json_object_get(version, "package")), "evisor"));
    json_decref(version);
    char chardev[256];
    snprintf(chardev, sizeof(chardev),
             "{\"return\": [{\"filename\": \"unix:%s,server=on\", \"frontend-open\": true, "
             "\"label\": \"compat_monitor0\"}]}",
             rig.path);
    rig_expect(&client, "{'execute':'query-chardev'}", chardev);
    rig_leave(&client);
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
    struct rig_client client = rig_open(true);
    json_t *list = rig_ask(&client, "query-commands");
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
    rig_leave(&client);
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
    struct rig_client client = rig_open(true);
    json_t *list = rig_ask(&client, "query-block");
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
    list = rig_ask(&client, "query-named-block-nodes");
    assert_int_equal(json_array_size(list), 2);
    json_decref(list);
    list = rig_ask(&client, "query-blockstats");
    json_t *stats = at(json_array_get(list, 0), "stats");
    assert_int_equal(json_integer_value(at(stats, "rd_operations")), 3);
    assert_int_equal(json_integer_value(at(stats, "rd_bytes")), 4096);
    assert_int_equal(json_integer_value(at(stats, "flush_operations")), 2);
    json_decref(list);
    rig_leave(&client);
}

static void test_query_stats(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig_expect(&client, "{'execute':'query-stats','arguments':{'target':'vcpu'}}",
               "{\"return\": [{\"provider\": \"evisor\", \"qom-path\": \"vcpu0\", \"stats\": "
               "[{\"name\": \"exits.pio\", \"value\": 7}, {\"name\": \"exits.mmio\", \"value\": "
               "8}]}]}");
    rig_expect(&client, "{'execute':'query-stats','arguments':{'target':'vm'}}",
               "{\"return\": [{\"provider\": \"evisor\", \"qom-path\": \"loop\", \"stats\": "
               "[{\"name\": \"turns\", \"value\": 9223372036854775807}]}]}");
    rig_expect_error(&client, "{'execute':'query-stats','arguments':{'target':'x'}}",
                     "GenericError", "Parameter 'target' does not accept value 'x'");
    rig_leave(&client);
}

static void test_resize_and_link(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig_expect(&client, "{'execute':'block_resize','arguments':{'device':'virtio0','size':2048}}",
               "{\"return\": {}}");
    assert_int_equal(rig.machine.disks[0].size_bytes, 2048);
    rig.machine.disks[0].resize_result = -ENOSPC;
    rig_expect_error(&client,
                     "{'execute':'block_resize','arguments':{'node-name':'virtio0','size':4096}}",
                     "GenericError", "No space");
    rig_expect_error(&client, "{'execute':'block_resize','arguments':{'device':'no','size':512}}",
                     "GenericError", "Cannot find device");
    rig_expect_error(&client,
                     "{'execute':'block_resize','arguments':{'device':'virtio0','size':-1}}",
                     "GenericError", "size");
    rig_expect_error(&client,
                     "{'execute':'block_resize','arguments':{'device':'virtio0','size':100}}",
                     "GenericError", "512");
    rig_expect_error(&client, "{'execute':'block_resize','arguments':{'size':512}}", "GenericError",
                     "Cannot find device='' nor node-name=''");
    rig_expect(&client, "{'execute':'set_link','arguments':{'name':'net0','up':false}}",
               "{\"return\": {}}");
    assert_false(rig.machine.nic.link_up);
    rig_expect_error(&client, "{'execute':'set_link','arguments':{'name':'net1','up':false}}",
                     "DeviceNotFound", "Device 'net1' not found");
    rig_leave(&client);
}

static void test_human_monitor_command(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig_expect(&client,
               "{'execute':'human-monitor-command','arguments':{'command-line':'info status'}}",
               "{\"return\": \"VM status: running\\r\\n\"}");
    rig_say(&client, "{'execute':'human-monitor-command','arguments':{'command-line':'stop'}}");
    rig_expect_event(&client, "STOP", "");
    assert_string_equal(rig_line(&client), "{\"return\": \"\"}");
    rig_leave(&client);
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
    struct random random = {7};
    for (int round = 0; round < 30; round++) {
        struct rig_client client = rig_open(true);
        for (int i = 0; i < 400; i++) {
            const char *piece = pieces[random_below(&random, ARRAY_SIZE(pieces))];
            if (send(client.fd, piece, strlen(piece), MSG_NOSIGNAL) < 0)
                break;
            if (i % 16 == 0)
                rig_turn();
        }
        for (int i = 0; i < 40; i++) {
            rig_turn();
            rig_receive(&client);
        }
        rig_leave(&client);
    }
    struct rig_client client = rig_open(true);
    rig_expect(&client, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    rig_leave(&client);
}

static void test_the_manual_is_current(void **state)
{
    (void)state;
    char *is = NULL, *should_be = NULL;
    size_t length;
    FILE *manual = fopen("docs/evisor.1", "r");
    assert_non_null(manual);
    assert_true(getdelim(&is, &length, 0, manual) > 0);
    rewind(manual);
    FILE *to = open_memstream(&should_be, &length);
    assert_int_equal(manual_update(manual, to), 0);
    fclose(to);
    fclose(manual);
    if (strcmp(is, should_be) != 0)
        fail_msg("docs/evisor.1 is out of date: run tools/update-man");
    assert_non_null(strstr(is, "query"));
    free(is);
    free(should_be);
}

/* Clients that pass descriptors ask for it; no command here overtakes another. */
static void test_out_of_band(void **state)
{
    (void)state;
    struct rig_client client = rig_open(false);
    rig_expect(&client, "{'execute':'qmp_capabilities','arguments':{'enable':['oob']}}",
               "{\"return\": {}}");
    rig_expect_error(&client, "{'exec-oob':'stop'}", "GenericError", "stop does not support OOB");
    rig_expect_error(&client, "{'exec-oob':'stop','execute':'stop'}", "GenericError", "clashes");
    rig_expect_error(&client, "{'exec-oob':1}", "GenericError", "lacks member 'execute'");
    rig_expect(&client, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    rig_leave(&client);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_set_up, rig_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_out_of_band),
        TEST(test_negotiation),
        TEST(test_ids_come_back_as_they_were),
        TEST(test_bad_requests),
        TEST(test_a_raw_nul_byte),
        TEST(test_deep_nesting),
        TEST(test_events_precede_replies),
        TEST(test_quit_tells_the_shutdown_first),
        TEST(test_guest_events),
        TEST(test_block_errors),
        TEST(test_schema),
        TEST(test_addresses_of_nics),
        TEST(test_a_nic_without_a_network_is_listed),
        TEST(test_filters_of_nics),
        TEST(test_failures_of_the_machine),
        TEST(test_queries),
        TEST(test_query_commands_lists_what_works),
        TEST(test_query_block),
        TEST(test_query_stats),
        TEST(test_resize_and_link),
        TEST(test_human_monitor_command),
        TEST(test_random_input),
        TEST(test_the_manual_is_current),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
