/* SPDX-License-Identifier: MIT */
/* Clients that come, leave, stop reading or send halves; sockets that cannot be. */
#include "vmm/control/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/limits.h"
#include "tests/control_rig.h"
#include "tests/unit/test.h"

static void test_quit_is_answered_at_the_latest_when_all_ends(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig.machine.is_held = true;
    rig_say(&client, "{'execute':'quit'}");
    rig_turns(10);
    assert_int_equal(rig.machine.quits, 1);
    rig_close_control();
    assert_string_equal(rig_line(&client), "{\"return\": {}}");
    assert_null(rig_line(&client));
    rig_leave(&client);
}

static void test_several_clients(void **state)
{
    (void)state;
    struct rig_client clients[CONTROL_CLIENTS_MAX];
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
        clients[i] = rig_open(true);
    struct rig_client late = rig_connect();
    assert_null(rig_line(&late)); /* turned away */
    rig_leave(&late);
    rig_say(&clients[3], "{'execute':'stop'}");
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
        rig_expect_event(&clients[i], "STOP", "");
    assert_string_equal(rig_line(&clients[3]), "{\"return\": {}}");
    rig_leave(&clients[0]);
    rig_turns(10);
    clients[0] = rig_open(true);
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
        rig_leave(&clients[i]);
}

static void test_half_a_request_waits_and_disturbs_nobody(void **state)
{
    (void)state;
    struct rig_client slow = rig_open(true), other = rig_open(true);
    rig_say(&slow, "{'execute':'query-na");
    rig_turns(10);
    rig_expect(&other, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    rig_expect(&slow, "me'}", "{\"return\": {\"name\": \"box\"}}");
    rig_say(&slow, "{'execute':");
    rig_leave(&slow);
    rig_expect(&other, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    rig_leave(&other);
}

static void test_a_client_that_leaves_while_its_command_runs(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true), other = rig_open(true);
    rig.machine.is_held = true;
    rig_say(&client, "{'execute':'stop'}");
    rig_turns(10);
    assert_int_equal(rig.machine.op_count, 1);
    rig_leave(&client);
    rig_turns(10);
    fake_machine_release(&rig.machine);
    rig_expect_event(&other, "STOP", "");
    rig_expect(&other, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    rig_leave(&other);
}

static void test_a_client_that_shuts_its_sending_side_gets_its_replies(void **state)
{
    (void)state;
    struct rig_client client = rig_open(true);
    rig_say(&client, "{'execute':'query-target'}{'execute':'query-name'}");
    shutdown(client.fd, SHUT_WR);
    assert_string_equal(rig_line(&client), "{\"return\": {\"arch\": \"x86_64\"}}");
    assert_string_equal(rig_line(&client), "{\"return\": {\"name\": \"box\"}}");
    assert_null(rig_line(&client));
    rig_leave(&client);
}

static void test_a_client_that_never_reads_is_dropped(void **state)
{
    (void)state;
    struct rig_client greedy = rig_open(true), other = rig_open(true);
    static const char request[] = "{'execute':'query-commands'}";
    bool is_dropped = false;
    for (int i = 0; i < 20000 && !is_dropped; i++) {
        ssize_t sent = send(greedy.fd, request, strlen(request), MSG_NOSIGNAL);
        is_dropped = sent < 0 && errno != EAGAIN;
        rig_turn();
    }
    assert_true(is_dropped);
    rig_expect(&other, "{'execute':'query-target'}", "{\"return\": {\"arch\": \"x86_64\"}}");
    rig_leave(&greedy);
    rig_leave(&other);
}

static void test_events_alone_drop_a_client_that_never_reads(void **state)
{
    (void)state;
    struct rig_client deaf = rig_open(true);
    for (int i = 0; i < 40000; i++) {
        fake_machine_emit(&rig.machine, MACHINE_EVENT_RESET, SHUTDOWN_GUEST_RESET);
        if (i % 1000 == 0)
            rig_turn();
    }
    rig_turn();
    while (!deaf.has_ended)
        rig_receive(&deaf);
    assert_true(deaf.length < 3 * CONTROL_OUTPUT_MAX_BYTES);
    rig_leave(&deaf);
}

static void test_socket_files(void **state)
{
    (void)state;
    struct stat status;
    struct control *other = NULL;
    struct error err = {0};
    assert_int_equal(stat(rig.path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    /* A live socket is refused; so are a plain file and a rig.path that is too long. */
    assert_int_equal(control_create(&rig.loop, &rig.machine, &other, &err), -EADDRINUSE);
    assert_non_null(strstr(err.text, "in use"));
    char long_path[300], file[80];
    memset(long_path, 'x', sizeof(long_path) - 1);
    long_path[sizeof(long_path) - 1] = 0;
    rig.config.chardevs[0].path = long_path;
    err.code = 0;
    assert_int_equal(control_create(&rig.loop, &rig.machine, &other, &err), -ENAMETOOLONG);
    assert_non_null(strstr(err.text, "shorter"));
    snprintf(file, sizeof(file), "%s/file", rig.folder);
    close(open(file, O_CREAT | O_RDWR, 0600));
    rig.config.chardevs[0].path = file;
    err.code = 0;
    assert_int_equal(control_create(&rig.loop, &rig.machine, &other, &err), -EEXIST);
    unlink(file);
    rig.config.chardevs[0].path = rig.path;
}

static void test_a_stale_socket_is_replaced(void **state)
{
    (void)state;
    rig_close_control();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", rig.path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    struct error err = {0};
    assert_int_equal(control_create(&rig.loop, &rig.machine, &rig.control, &err), 0);
    struct rig_client client = rig_open(true);
    rig_leave(&client);
}

/* In a process of its own: comes as "nobody" and reports whether it was let in. */
static void visit_as_nobody(void)
{
    char byte;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", rig.path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bool came =
        setuid(65534) == 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    _exit(!came ? 2 : recv(fd, &byte, 1, 0) > 0 ? 1 : 0);
}

static void test_another_user_is_turned_away(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    /* Even where someone has opened the socket's file to all. */
    assert_int_equal(chmod(rig.folder, 0755), 0);
    assert_int_equal(chmod(rig.path, 0666), 0);
    pid_t visitor = fork();
    if (!visitor)
        visit_as_nobody();
    int status = -1;
    for (int turns = 0; turns < 60000 && waitpid(visitor, &status, WNOHANG) == 0; turns++) {
        rig_turn();
        usleep(1000);
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    struct rig_client client = rig_open(true);
    rig_leave(&client);
}

static void count_ready(void *opaque)
{
    ++*(int *)opaque;
}

static void test_waiting_for_the_first_client(void **state)
{
    (void)state;
    int ready = 0;
    control_when_ready(rig.control, count_ready, &ready);
    assert_int_equal(ready, 0);
    rig_turn();
    assert_int_equal(ready, 1);
    rig_close_control();
    rig.config.chardevs[0].wait = true;
    assert_int_equal(control_create(&rig.loop, &rig.machine, &rig.control, NULL), 0);
    control_when_ready(rig.control, count_ready, &ready);
    rig_turns(10);
    assert_int_equal(ready, 1);
    struct rig_client client = rig_open(false);
    rig_turn();
    assert_int_equal(ready, 2);
    rig_leave(&client);
}

static void test_tcp_and_pretty(void **state)
{
    (void)state;
    rig_close_control();
    rig.config.chardevs[0].kind = CHARDEV_TCP;
    rig.config.chardevs[0].host = "0.0.0.0";
    rig.config.chardevs[0].port = 45999;
    struct error err = {0};
    assert_int_equal(control_create(&rig.loop, &rig.machine, &rig.control, &err), -EACCES);
    rig.config.chardevs[0].kind = CHARDEV_UNIX;
    rig.config.monitors[0].pretty = true;
    assert_int_equal(control_create(&rig.loop, &rig.machine, &rig.control, &err), 0);
    struct rig_client client = rig_connect();
    assert_non_null(strstr(rig_line(&client), "{\n    \"QMP\": {\n"));
    rig_leave(&client);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_set_up, rig_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_quit_is_answered_at_the_latest_when_all_ends),
        TEST(test_several_clients),
        TEST(test_half_a_request_waits_and_disturbs_nobody),
        TEST(test_a_client_that_leaves_while_its_command_runs),
        TEST(test_a_client_that_shuts_its_sending_side_gets_its_replies),
        TEST(test_a_client_that_never_reads_is_dropped),
        TEST(test_events_alone_drop_a_client_that_never_reads),
        TEST(test_socket_files),
        TEST(test_another_user_is_turned_away),
        TEST(test_a_stale_socket_is_replaced),
        TEST(test_waiting_for_the_first_client),
        TEST(test_tcp_and_pretty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
