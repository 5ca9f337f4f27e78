/* SPDX-License-Identifier: MIT */
#include "base/daemonize.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/test.h"

static char folder[64];
static char path[80];

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/test_daemonize.XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/pid", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static long read_pid(void)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    return strtol(text, NULL, 10);
}

static void test_pidfile(void **state)
{
    (void)state;
    struct pidfile pidfile, second;
    struct error err = {0};
    assert_int_equal(pidfile_create(&pidfile, path, &err), 0);
    assert_int_equal(read_pid(), getpid());
    assert_int_equal(pidfile_create(&second, path, &err), -EBUSY);
    assert_non_null(strstr(err.text, "held by a running process"));
    pidfile_remove(&second);
    assert_int_equal(read_pid(), getpid());
    pidfile_remove(&pidfile);
    assert_int_equal(access(path, F_OK), -1);
    pidfile_remove(&pidfile);
}

static void test_a_pidfile_left_behind_is_taken_over(void **state)
{
    (void)state;
    int fd = open(path, O_CREAT | O_RDWR, 0644);
    assert_int_equal(write(fd, "4194304000\n", 11), 11);
    close(fd);
    struct pidfile pidfile;
    assert_int_equal(pidfile_create(&pidfile, path, NULL), 0);
    assert_int_equal(read_pid(), getpid());
    pidfile_remove(&pidfile);
}

static void test_a_pidfile_that_cannot_be(void **state)
{
    (void)state;
    struct pidfile pidfile;
    struct error err = {0};
    assert_int_equal(pidfile_create(&pidfile, "/nonexistent/pid", &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/pid"));
    assert_int_equal(symlink("/tmp/elsewhere", path), 0);
    assert_int_equal(pidfile_create(&pidfile, path, NULL), -ELOOP);
}

/* Runs as a starter would: a process that daemonizes; returns its exit status. */
static int start(void (*daemon)(void))
{
    pid_t starter = fork();
    assert_true(starter >= 0);
    if (!starter) {
        if (daemonize_begin(NULL))
            _exit(99);
        daemon();
        _exit(98);
    }
    int status;
    assert_int_equal(waitpid(starter, &status, 0), starter);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void live_on(void)
{
    struct pidfile pidfile;
    usleep(50000);
    if (pidfile_create(&pidfile, path, NULL) || daemonize_ready(NULL))
        _exit(97);
    for (;;)
        pause();
}

static void test_the_starter_leaves_when_the_daemon_is_ready(void **state)
{
    (void)state;
    assert_int_equal(start(live_on), 0);
    pid_t daemon = (pid_t)read_pid(); /* the file is there as soon as the starter is gone */
    char link[64], target[64] = "";
    snprintf(link, sizeof(link), "/proc/%d/fd/1", daemon);
    assert_true(readlink(link, target, sizeof(target) - 1) > 0);
    assert_string_equal(target, "/dev/null");
    assert_int_equal(getsid(daemon), daemon);
    assert_int_equal(kill(daemon, SIGKILL), 0);
}

static void fail_early(void)
{
    _exit(3);
}

static void die_early(void)
{
    raise(SIGKILL);
}

static void test_the_starter_tells_that_the_daemon_failed(void **state)
{
    (void)state;
    assert_int_equal(start(fail_early), 3);
    assert_int_equal(start(die_early), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_pidfile),
        TEST(test_a_pidfile_left_behind_is_taken_over),
        TEST(test_a_pidfile_that_cannot_be),
        TEST(test_the_starter_leaves_when_the_daemon_is_ready),
        TEST(test_the_starter_tells_that_the_daemon_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
