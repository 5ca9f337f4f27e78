/* SPDX-License-Identifier: MIT */
/* The QMP commands of hot-plug: what their arguments become, and the classes of their errors. */
#include <errno.h>
#include <string.h>

#include "tests/control_rig.h"
#include "tests/unit/test.h"

static void expect_asked(struct rig_client *client, const char *request, const char *asked)
{
    rig_expect(client, request, "{\"return\": {}}");
    assert_string_equal(rig.machine.hotplug, asked);
}

static void test_arguments_become_lists(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    expect_asked(&client,
                 "{'execute':'device_add','arguments':{'driver':'virtio-blk-pci','id':'d',"
                 "'drive':'n','bootindex':3,'write-cache':true,'share-rw':false}}",
                 "device_add driver=virtio-blk-pci,id=d,drive=n,bootindex=3,write-cache=on,"
                 "share-rw=off");
    expect_asked(&client,
                 "{'execute':'blockdev-add','arguments':{'driver':'qcow2','node-name':'n',"
                 "'file':{'driver':'file','filename':'/x,y','locking':'off'},"
                 "'cache':{'direct':true}}}",
                 "blockdev-add driver=qcow2,node-name=n,file.driver=file,file.filename=/x,y,"
                 "file.locking=off,cache.direct=on");
    expect_asked(&client,
                 "{'execute':'netdev_add','arguments':{'type':'user','id':'u',"
                 "'hostfwd':[{'str':'tcp::1-:2'},{'str':'udp::3-:4'}],'dnssearch':['a','b']}}",
                 "netdev_add type=user,id=u,hostfwd=tcp::1-:2,hostfwd=udp::3-:4,dnssearch=a,"
                 "dnssearch=b");
    expect_asked(&client,
                 "{'execute':'object-add','arguments':{'qom-type':'rng-random','id':'r'}}",
                 "object-add qom-type=rng-random,id=r");
    expect_asked(&client, "{'execute':'object-del','arguments':{'id':'r'}}", "object-del r");
    expect_asked(&client, "{'execute':'device_del','arguments':{'id':'d'}}", "device_del d");
    expect_asked(&client, "{'execute':'nic-set-netdev','arguments':{'id':'n','netdev':'b'}}",
                 "nic-set-netdev n b");
    expect_asked(&client, "{'execute':'blockdev-del','arguments':{'node-name':'n'}}",
                 "blockdev-del n");
    rig_leave(&client);
}

static void test_what_closes_answers_later(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig.machine.is_held = true;
    rig_say(&client, "{'execute':'netdev_del','arguments':{'id':'u'},'id':7}");
    rig_turns(10);
    assert_string_equal(rig.machine.hotplug, "netdev_del u");
    assert_int_equal(rig.machine.op_count, 1);
    fake_machine_release(&rig.machine);
    assert_string_equal(rig_line(&client), "{\"return\": {}, \"id\": 7}");
    /* One that leaves before the answer. */
    rig.machine.is_held = true;
    rig_say(&client, "{'execute':'blockdev-del','arguments':{'node-name':'n'}}");
    rig_turns(10);
    rig_leave(&client);
    rig_turns(10);
    fake_machine_release(&rig.machine);
    rig_turns(10);
}

static void test_classes_of_errors(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "{'execute':'device_add','arguments':{'driver':'virtio-rng-pci'}}",
        "{'execute':'device_del','arguments':{'id':'d'}}",
        "{'execute':'netdev_add','arguments':{'type':'user','id':'u'}}",
        "{'execute':'netdev_del','arguments':{'id':'u'}}",
        "{'execute':'blockdev-add','arguments':{'driver':'raw'}}",
        "{'execute':'blockdev-del','arguments':{'node-name':'n'}}",
        "{'execute':'nic-set-netdev','arguments':{'id':'n','netdev':'b'}}"};
    struct rig_client client = rig_open(true);
    for (unsigned i = 0; i < ARRAY_SIZE(requests); i++) {
        rig.machine.hotplug_code = ENODEV;
        rig_expect_error(&client, requests[i], "DeviceNotFound", "cannot ");
        rig.machine.hotplug_code = EBUSY;
        rig_expect_error(&client, requests[i], "GenericError", "cannot ");
    }
    rig_expect_error(&client, "{'execute':'device_add'}", "GenericError",
                     "Parameter 'driver' is missing");
    rig_expect_error(&client, "{'execute':'device_add','arguments':{'driver':3}}", "GenericError",
                     "Invalid parameter type for 'driver', expected: string");
    rig_expect_error(&client, "{'execute':'device_del','arguments':{'id':'d','x':1}}",
                     "GenericError", "Parameter 'x' is unexpected");
    rig_leave(&client);
}

/* More members than a list has room for, and names longer than a key may be. */
static void test_arguments_without_end(void **state)
{
    (void)state;
    char request[4096] = "{'execute':'device_add','arguments':{'driver':'x'";
    struct rig_client client = rig_open(true);
    for (unsigned i = 0; i < 70; i++)
        snprintf(request + strlen(request), sizeof(request) - strlen(request), ",'k%u':%u", i, i);
    snprintf(request + strlen(request), sizeof(request) - strlen(request), "}}");
    rig_expect_error(&client, request, "GenericError", "more than 64 parts");
    char name[400];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    snprintf(request, sizeof(request),
             "{'execute':'device_add','arguments':{'driver':'x','%s':{'a':1}}}", name);
    rig_expect_error(&client, request, "GenericError", "is unexpected");
    rig_leave(&client);
}

static void test_cpus_that_may_come(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig.config.cpus = 1;
    rig.config.max_cpus = 2;
    rig_say(&client, "{'execute':'query-hotpluggable-cpus'}");
    const char *line = rig_line(&client);
    const char *first = strstr(line, "\"core-id\": 1"), *second = strstr(line, "\"core-id\": 0");
    assert_true(first && second && first < second);
    assert_non_null(strstr(second, "\"qom-path\": \"/machine/unattached/device[0]\""));
    assert_null(strstr(line, "device[1]"));
    assert_non_null(strstr(line, "\"type\": \"host-x86_64-cpu\""));
    rig_leave(&client);
}

static void test_the_human_monitor(void **state)
{
    (void)state;
    static const char *const lines[][3] = {
        {"device_add virtio-rng-pci,id=r", "device_add driver=virtio-rng-pci,id=r", ""},
        {"device_del r", "device_del r", ""},
        {"netdev_add user,id=u", "netdev_add type=user,id=u", ""},
        {"netdev_del u", "netdev_del u", ""},
        {"drive_add 0 if=none,file=/x,id=d", "drive_add if=none,file=/x,id=d", "OK\\r\\n"},
        {"drive_del d", "drive_del d", ""},
        {"object_add rng-random,id=r", "object-add qom-type=rng-random,id=r", ""},
    };
    struct rig_client client = rig_open(true);
    char request[160], reply[160];
    for (unsigned i = 0; i < ARRAY_SIZE(lines); i++) {
        snprintf(request, sizeof(request),
                 "{'execute':'human-monitor-command','arguments':{'command-line':'%s'}}",
                 lines[i][0]);
        snprintf(reply, sizeof(reply), "{\"return\": \"%s\"}", lines[i][2]);
        rig_expect(&client, request, reply);
        assert_string_equal(rig.machine.hotplug, lines[i][1]);
    }
    rig_leave(&client);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_set_up, rig_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_arguments_become_lists), TEST(test_what_closes_answers_later),
        TEST(test_classes_of_errors),      TEST(test_arguments_without_end),
        TEST(test_cpus_that_may_come),     TEST(test_the_human_monitor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
