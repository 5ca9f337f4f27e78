/* SPDX-License-Identifier: MIT */
/* Standard input and output as a chardev, in a process with a terminal of its own. */
#include "vmm/chardev/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "tests/unit/test.h"
#include "vmm/chardev/chardev.h"

enum ending { END_CLOSE, END_EXIT, END_ABORT, END_TERM, END_SEGV, END_COUNT };

/* What was typed first. */
struct typed {
    char bytes[16];
    size_t count;
};

static size_t input_room(void *user)
{
    return sizeof(((struct typed *)user)->bytes) - ((struct typed *)user)->count;
}

static void on_input(void *user, const uint8_t *bytes, size_t length)
{
    struct typed *typed = user;
    memcpy(typed->bytes + typed->count, bytes, length);
    typed->count += length;
}

static void on_closed(void *opaque)
{
    *(bool *)opaque = true;
}

/* This program, run as a child: echoes what is typed first, then ends in the way asked for. */
static int child_main(enum ending ending)
{
    static const int signals[END_COUNT] = {
        [END_ABORT] = SIGABRT, [END_TERM] = SIGTERM, [END_SEGV] = SIGSEGV};
    static const struct config_chardev config = {.kind = CHARDEV_STDIO, .id = "c"};
    static const struct char_user_ops ops = {.input_room = input_room, .on_input = on_input};
    static struct typed typed;
    static struct loop loop;
    struct chardev *chardev;
    struct char_backend *backend;
    struct rlimit none = {0, 0};
    bool is_closed = ending != END_CLOSE;
    setrlimit(RLIMIT_CORE, &none);
    signal(signals[END_SEGV], SIG_DFL);
    if (loop_init(&loop) || chardev_create(&loop, &config, &chardev, NULL) ||
        chardev_attach(chardev, &backend, NULL))
        return 9;
    char_set_user(backend, &ops, &typed);
    while (!typed.count)
        loop_run_once(&loop, true);
    char_write(backend, typed.bytes, typed.count);
    loop_run_once(&loop, false);
    if (ending == END_CLOSE)
        chardev_close(chardev, on_closed, &is_closed);
    while (!is_closed)
        loop_run_once(&loop, true);
    if (signals[ending])
        raise(signals[ending]);
    return 0;
}

static pid_t start_child(const char *terminal, enum ending ending)
{
    char argument[2] = {(char)('0' + ending), '\0'};
    char *const arguments[] = {(char *)"test_terminal", argument, NULL};
    char *const environment[] = {(char *)"ASAN_OPTIONS=detect_leaks=0", NULL};
    pid_t child = fork();
    if (child)
        return child;
    setsid();
    int fd = open(terminal, O_RDWR);
    for (int i = 0; i < 3; i++)
        dup2(fd, i);
    close(fd);
    execve("/proc/self/exe", arguments, environment);
    _exit(9);
}

static void wait_until_raw(int fd)
{
    struct termios settings;
    for (int i = 0; i < 30000; i++) {
        assert_int_equal(tcgetattr(fd, &settings), 0);
        if (!(settings.c_lflag & ICANON))
            return;
        usleep(1000);
    }
    fail_msg("the terminal did not become raw");
}

static void test_the_terminal_is_restored_on_every_way_out(void **state)
{
    (void)state;
    for (enum ending ending = END_CLOSE; ending < END_COUNT; ending++) {
        struct termios before, after;
        memset(&before, 0, sizeof(before)); /* its padding is compared too */
        memset(&after, 0, sizeof(after));
        char name[64], buffer[16] = "";
        int master = posix_openpt(O_RDWR | O_NOCTTY), status;
        assert_int_equal(grantpt(master) | unlockpt(master), 0);
        assert_int_equal(ptsname_r(master, name, sizeof(name)), 0);
        int slave = open(name, O_RDWR | O_NOCTTY);
        assert_int_equal(tcgetattr(slave, &before), 0);
        assert_true(before.c_lflag & ICANON);
        pid_t child = start_child(name, ending);
        wait_until_raw(slave);
        assert_int_equal(write(master, "\003", 1), 1); /* Ctrl-C goes through */
        struct pollfd ready = {.fd = master, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 30000), 1);
        assert_int_equal(read(master, buffer, sizeof(buffer)), 1);
        assert_int_equal(buffer[0], 3);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (ending <= END_EXIT)
            assert_int_equal(status, 0);
        else
            assert_true(WIFSIGNALED(status));
        assert_int_equal(tcgetattr(slave, &after), 0);
        assert_memory_equal(&before, &after, sizeof(before));
        assert_int_equal(fcntl(slave, F_GETFL) & O_NONBLOCK, 0);
        close(slave);
        close(master);
    }
}

int main(int count, char **arguments)
{
    if (count == 2)
        return child_main((enum ending)(arguments[1][0] - '0'));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_terminal_is_restored_on_every_way_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
