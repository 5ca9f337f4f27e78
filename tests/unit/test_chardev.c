/* SPDX-License-Identifier: MIT */
#include "vmm/chardev/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/telnet.h"
#include "tests/unit/test.h"

static struct loop loop;
static char folder[64];
static char path[100];

/* A user of a stream: keeps what comes, has as much room as the test says. */
struct listener {
    struct char_backend *backend;
    uint8_t bytes[64 * 1024];
    size_t count, room;
    unsigned writable, breaks, opens, closes, focuses, unfocuses;
};

static size_t input_room(void *user)
{
    const struct listener *listener = user;
    return listener->room;
}

static void on_input(void *user, const uint8_t *bytes, size_t length)
{
    struct listener *listener = user;
    assert_true(length <= listener->room);
    assert_true(listener->count + length <= sizeof(listener->bytes));
    memcpy(listener->bytes + listener->count, bytes, length);
    listener->count += length;
    listener->room -= length;
}

static void on_writable(void *user)
{
    ((struct listener *)user)->writable++;
}

static void on_break(void *user)
{
    ((struct listener *)user)->breaks++;
}

static void on_open(void *user)
{
    ((struct listener *)user)->opens++;
}

static void on_close(void *user)
{
    ((struct listener *)user)->closes++;
}

static void on_focus(void *user, bool has_focus)
{
    struct listener *listener = user;
    if (has_focus)
        listener->focuses++;
    else
        listener->unfocuses++;
}

static const struct char_user_ops user_ops = {
    .input_room = input_room,
    .on_input = on_input,
    .on_writable = on_writable,
    .on_break = on_break,
    .on_open = on_open,
    .on_close = on_close,
    .on_focus = on_focus,
};

static struct listener first, second;

static int set_up(void **state)
{
    (void)state;
    memset(&first, 0, sizeof(first));
    memset(&second, 0, sizeof(second));
    first.room = second.room = sizeof(first.bytes);
    snprintf(folder, sizeof(folder), "/tmp/evisor-chardev-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/file", folder);
    return loop_init(&loop);
}

static int tear_down(void **state)
{
    (void)state;
    loop_fini(&loop);
    unlink(path);
    rmdir(folder);
    return 0;
}

static void turn(unsigned times)
{
    while (times--) {
        loop_run_once(&loop, false);
        usleep(1000);
    }
}

static struct chardev *make(const struct config_chardev *config)
{
    struct chardev *chardev = NULL;
    struct error err = {0};
    if (chardev_create(&loop, config, &chardev, &err))
        fail_msg("%s", err.text);
    return chardev;
}

static void attach(struct chardev *chardev, struct listener *listener)
{
    struct error err = {0};
    assert_int_equal(chardev_attach(chardev, &listener->backend, &err), 0);
    char_set_user(listener->backend, &user_ops, listener);
}

static void on_closed(void *opaque)
{
    *(bool *)opaque = true;
}

static void close_and_wait(struct chardev *chardev)
{
    bool closed = false;
    chardev_close(chardev, on_closed, &closed);
    assert_false(closed);
    for (int i = 0; i < 20000 && !closed; i++)
        turn(1);
    assert_true(closed);
}

static int connect_client(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static struct config_chardev unix_server = {.kind = CHARDEV_UNIX, .id = "c", .is_server = true};

static void test_null_takes_all_and_says_nothing(void **state)
{
    (void)state;
    const struct config_chardev config = {.kind = CHARDEV_NULL, .id = "c"};
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    assert_int_equal(char_write(first.backend, "abc", 3), 3);
    turn(3);
    assert_int_equal(first.count, 0);
    assert_string_equal(chardev_filename(chardev), "null");
    close_and_wait(chardev);
}

static void test_one_user_unless_multiplexed(void **state)
{
    (void)state;
    struct config_chardev config = {.kind = CHARDEV_NULL, .id = "c"};
    struct error err = {0};
    struct char_backend *backend;
    struct chardev *chardev = make(&config);
    assert_int_equal(chardev_attach(chardev, &backend, &err), 0);
    assert_int_equal(chardev_attach(chardev, &backend, &err), -EBUSY);
    chardev_detach(backend);
    assert_int_equal(chardev_attach(chardev, &backend, &err), 0);
    assert_non_null(strstr(err.text, "mux=on"));
    close_and_wait(chardev);
    config.is_mux = true;
    chardev = make(&config);
    for (int i = 0; i < CHARDEV_USERS_MAX; i++)
        assert_int_equal(chardev_attach(chardev, &backend, NULL), 0);
    assert_int_equal(chardev_attach(chardev, &backend, NULL), -ENOSPC);
    close_and_wait(chardev);
}

static void test_a_file_gets_everything_even_at_the_end(void **state)
{
    (void)state;
    struct config_chardev config = {.kind = CHARDEV_FILE, .id = "c", .path = path};
    char block[4096];
    struct stat status;
    for (int round = 0; round < 2; round++) {
        struct chardev *chardev = make(&config);
        attach(chardev, &first);
        size_t sent = 0;
        memset(block, 'a', sizeof(block));
        for (int i = 0; i < 64 || sent < 200000; i++) {
            sent += char_write(first.backend, block, sizeof(block));
            if (i % 8 == 0)
                turn(1);
        }
        close_and_wait(chardev);
        assert_int_equal(stat(path, &status), 0);
        assert_true((size_t)status.st_size == sent);
    }
    off_t before = status.st_size;
    config.append = true;
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    assert_int_equal(char_write(first.backend, "tail", 4), 4);
    close_and_wait(chardev);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, before + 4);
}

static void test_a_fifo_whose_reader_leaves(void **state)
{
    (void)state;
    const struct config_chardev config = {.kind = CHARDEV_FILE, .id = "c", .path = path};
    char buffer[16];
    assert_int_equal(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    assert_int_equal(char_write(first.backend, "ab", 2), 2);
    turn(3);
    assert_int_equal(read(reader, buffer, sizeof(buffer)), 2);
    close(reader);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(char_write(first.backend, "lost", 4), 4);
        turn(1);
    }
    close_and_wait(chardev);
}

static void test_a_full_disk_loses_output_only(void **state)
{
    (void)state;
    const struct config_chardev config = {
        .kind = CHARDEV_FILE, .id = "c", .path = (char *)"/dev/full"};
    static char block[CHARDEV_OUTPUT_BYTES];
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    for (int i = 0; i < 5; i++) {
        size_t taken = 0;
        for (int tries = 0; tries < 20000 && taken < sizeof(block); tries++) {
            taken += char_write(first.backend, block, sizeof(block) - taken);
            turn(1);
        }
        assert_int_equal(taken, sizeof(block));
    }
    close_and_wait(chardev);
}

static void test_what_cannot_be_opened_is_named(void **state)
{
    (void)state;
    struct config_chardev config = {.kind = CHARDEV_FILE, .id = "c", .path = folder};
    struct chardev *chardev;
    struct error err = {0};
    assert_int_equal(chardev_create(&loop, &config, &chardev, &err), -EISDIR);
    assert_non_null(strstr(err.text, folder));
    assert_int_equal(mkfifo(path, 0600), 0);
    config.path = path;
    err = (struct error){0};
    assert_int_equal(chardev_create(&loop, &config, &chardev, &err), -ENXIO);
    assert_non_null(strstr(err.text, "reader"));
    config.kind = CHARDEV_UNIX;
    err = (struct error){0};
    assert_int_equal(chardev_create(&loop, &config, &chardev, &err), -ECONNREFUSED);
    assert_non_null(strstr(err.text, path));
    char longer[200];
    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    config.path = longer;
    assert_int_equal(chardev_create(&loop, &config, &chardev, NULL), -ENAMETOOLONG);
    config.kind = CHARDEV_TCP;
    config.host = (char *)"192.0.2.1";
    err = (struct error){0};
    assert_int_equal(chardev_create(&loop, &config, &chardev, &err), -EACCES);
    config.is_server = true;
    assert_int_equal(chardev_create(&loop, &config, &chardev, NULL), -EACCES);
    turn(3);
}

static void test_clients_come_and_go(void **state)
{
    (void)state;
    struct config_chardev config = unix_server;
    char buffer[16] = "";
    config.path = path;
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    assert_int_equal(char_write(first.backend, "lost", 4), 4);
    for (unsigned i = 1; i <= 3; i++) {
        int client = connect_client();
        turn(5);
        assert_int_equal(first.opens, i);
        assert_true(first.backend->is_open);
        assert_int_equal(write(client, "in", 2), 2);
        assert_int_equal(char_write(first.backend, "out", 3), 3);
        turn(5);
        assert_int_equal(first.count, 2 * i);
        assert_int_equal(read(client, buffer, sizeof(buffer)), 3);
        assert_memory_equal(buffer, "out", 3);
        close(client);
        turn(5);
        assert_int_equal(first.closes, i);
    }
    assert_memory_equal(first.bytes, "ininin", 6);
    close_and_wait(chardev);
    assert_int_equal(access(path, F_OK), -1);
}

static int listen_at(const char *at)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    memcpy(address.sun_path, at, strlen(at));
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static int await_connection(int listener)
{
    int fd = -1;
    uint64_t deadline_ns = loop_now_ns() + UINT64_C(20000000000);
    while ((fd = accept(listener, NULL, NULL)) < 0) {
        assert_true(loop_now_ns() < deadline_ns);
        turn(1);
    }
    turn(3);
    return fd;
}

/* Nobody is there at first; then somebody comes, leaves, and comes again. */
static void test_a_client_tries_until_somebody_is_there(void **state)
{
    (void)state;
    struct config_chardev config = {.kind = CHARDEV_UNIX, .id = "c", .reconnect_ms = 20};
    char buffer[16] = "";
    config.path = path;
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    turn(5);
    assert_false(first.backend->is_open);
    int listener = listen_at(path);
    for (unsigned i = 1; i <= 3; i++) {
        int peer = await_connection(listener);
        assert_int_equal(first.opens, i);
        assert_int_equal(write(peer, "in", 2), 2);
        assert_int_equal(char_write(first.backend, "out", 3), 3);
        turn(5);
        assert_int_equal(first.count, 2 * i);
        assert_int_equal(read(peer, buffer, sizeof(buffer)), 3);
        close(peer);
        turn(5);
        assert_int_equal(first.closes, i);
    }
    close(listener);
    close_and_wait(chardev);
    assert_int_equal(access(path, F_OK), 0); /* the file is the server's */
}

static void test_a_tcp_client_tries_until_somebody_is_there(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    const struct config_chardev config = {
        .kind = CHARDEV_TCP, .id = "c", .port = ntohs(address.sin_port), .reconnect_ms = 20};
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    turn(5);
    assert_false(first.backend->is_open);
    assert_int_equal(listen(listener, 1), 0);
    int peer = await_connection(listener);
    uint64_t deadline_ns = loop_now_ns() + UINT64_C(20000000000);
    while (!first.opens && loop_now_ns() < deadline_ns)
        turn(1);
    assert_int_equal(first.opens, 1);
    close(peer);
    close(listener);
    close_and_wait(chardev);
}

static void test_a_pair_of_fifos(void **state)
{
    (void)state;
    char in[120], out[120], buffer[16] = "";
    snprintf(in, sizeof(in), "%s.in", path);
    snprintf(out, sizeof(out), "%s.out", path);
    assert_int_equal(mkfifo(in, 0600), 0);
    assert_int_equal(mkfifo(out, 0600), 0);
    struct config_chardev config = {.kind = CHARDEV_PIPE, .id = "c"};
    config.path = path;
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    int to = open(in, O_WRONLY | O_NONBLOCK), from = open(out, O_RDONLY | O_NONBLOCK);
    assert_int_equal(write(to, "hello", 5), 5);
    assert_int_equal(char_write(first.backend, "answer", 6), 6);
    turn(5);
    assert_int_equal(first.count, 5);
    assert_int_equal(read(from, buffer, sizeof(buffer)), 6);
    close(to);
    close(from);
    close_and_wait(chardev);
    unlink(in);
    unlink(out);
    struct error err;
    assert_int_equal(chardev_create(&loop, &config, &chardev, &err), -ENOENT);
    assert_non_null(strstr(err.text, path));
    turn(3);
}

static void test_a_ringbuf_keeps_the_newest(void **state)
{
    (void)state;
    const struct config_chardev config = {.kind = CHARDEV_RINGBUF, .id = "c", .ring_bytes = 8};
    char buffer[16] = "";
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    assert_true(chardev_is_ringbuf(chardev) && first.backend->is_open);
    assert_int_equal(char_write(first.backend, "0123456789abcdef", 16), 16);
    assert_int_equal(chardev_ringbuf_read(chardev, buffer, 3), 3);
    assert_memory_equal(buffer, "89a", 3);
    chardev_ringbuf_write(chardev, "XYZ", 3);
    assert_int_equal(chardev_ringbuf_read(chardev, buffer, sizeof(buffer)), 8);
    assert_memory_equal(buffer, "bcdefXYZ", 8);
    assert_int_equal(chardev_ringbuf_read(chardev, buffer, sizeof(buffer)), 0);
    close_and_wait(chardev);
}

/* The history holds the last bytes, in order, and exactly as many as fit. */
static void test_a_client_gets_the_history_first(void **state)
{
    (void)state;
    static char block[CHARDEV_OUTPUT_BYTES], got[CHARDEV_OUTPUT_BYTES + 16];
    struct config_chardev config = unix_server;
    config.path = path;
    config.history = true;
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    memset(block, 'x', sizeof(block));
    assert_int_equal(char_write(first.backend, "forgotten", 9), 9);
    assert_int_equal(char_write(first.backend, block, sizeof(block)), sizeof(block));
    assert_int_equal(char_write(first.backend, "end", 3), 3);
    for (int round = 0; round < 2; round++) {
        int client = connect_client();
        size_t length = 0;
        assert_int_equal(fcntl(client, F_SETFL, O_NONBLOCK), 0);
        for (int i = 0; i < 100; i++) {
            turn(2);
            ssize_t more = read(client, got + length, sizeof(got) - length);
            length += more > 0 ? (size_t)more : 0;
        }
        assert_int_equal(length, CHARDEV_OUTPUT_BYTES);
        assert_memory_equal(got, block, CHARDEV_OUTPUT_BYTES - 3);
        assert_memory_equal(got + CHARDEV_OUTPUT_BYTES - 3, "end", 3);
        close(client);
        turn(5);
    }
    close_and_wait(chardev);
}

/* With and without a client, all of it by the time of on_closed, only its end in blocks. */
static void test_a_logfile_has_what_was_said(void **state)
{
    (void)state;
    char log[sizeof(folder) + 8], *got = calloc(1, 1 << 20);
    struct config_chardev config = {.kind = CHARDEV_NULL, .id = "c", .logfile = log};
    static char block[32768];
    struct stat status;
    snprintf(log, sizeof(log), "%s/log", folder);
    config.log_bytes = 64 * 1024;
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    for (int i = 0; i < 16; i++) {
        memset(block, 'a' + i, sizeof(block));
        assert_int_equal(char_write(first.backend, block, sizeof(block)), sizeof(block));
        /* The log has room for what the host has not taken yet, but not for all. */
        for (int tries = 0; tries < 20000 && (stat(log, &status) || status.st_size <= i * 32768l);
             tries++)
            turn(1);
    }
    close_and_wait(chardev);
    int fd = open(log, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, got, 1 << 20, 0), 16 * sizeof(block));
    assert_memory_equal(got + 15 * sizeof(block), block, sizeof(block));
    assert_int_equal(got[14 * sizeof(block)], 'a' + 14);
    assert_int_equal(fstat(fd, &status), 0);
    assert_true(status.st_blocks * 512 <= 64 * 1024 + 64 * 1024 + 4096);
    close(fd);
    config.logfile = "/nowhere/log";
    struct error err = {0};
    assert_int_equal(chardev_create(&loop, &config, &chardev, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere/log"));
    turn(3);
    unlink(log);
    free(got);
}

static void test_the_second_client_waits_for_the_first(void **state)
{
    (void)state;
    struct config_chardev config = unix_server;
    config.path = path;
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    int one = connect_client(), two = connect_client();
    assert_int_equal(write(two, "2", 1), 1);
    turn(5);
    assert_int_equal(first.count, 0);
    assert_int_equal(write(one, "1", 1), 1);
    turn(5);
    assert_int_equal(first.count, 1);
    close(one);
    turn(5);
    assert_int_equal(first.count, 2);
    close(two);
    close_and_wait(chardev);
}

static void test_a_reader_that_never_reads_holds_nobody_up(void **state)
{
    (void)state;
    struct config_chardev config = unix_server;
    static char block[8192], drained[1 << 16];
    config.path = path;
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    int client = connect_client();
    turn(5);
    size_t taken = 0;
    for (int i = 0; i < 200; i++) {
        taken += char_write(first.backend, block, sizeof(block));
        loop_run_once(&loop, false);
    }
    assert_true(taken < 200 * sizeof(block));
    assert_int_equal(char_write(first.backend, block, 1), 0);
    first.writable = 0;
    size_t got = 0;
    while (got < taken) {
        ssize_t result = recv(client, drained, sizeof(drained), MSG_DONTWAIT);
        if (result > 0)
            got += (size_t)result;
        turn(1);
    }
    assert_int_equal(got, taken);
    assert_true(first.writable > 0);
    assert_int_equal(char_write(first.backend, block, 1), 1);
    close(client);
    close_and_wait(chardev);
}

static void test_input_waits_for_room_and_nothing_is_lost(void **state)
{
    (void)state;
    struct config_chardev config = unix_server;
    static uint8_t sent[40000];
    config.path = path;
    for (size_t i = 0; i < sizeof(sent); i++)
        sent[i] = (uint8_t)(i * 7 + i / 256);
    struct chardev *chardev = make(&config);
    first.room = 0;
    attach(chardev, &first);
    int client = connect_client();
    assert_int_equal(write(client, sent, sizeof(sent)), sizeof(sent));
    turn(5);
    assert_int_equal(first.count, 0);
    while (first.count < sizeof(sent)) {
        first.room = (size_t)(1 + random() % 999);
        char_accept_input(first.backend);
        turn(1);
    }
    assert_memory_equal(first.bytes, sent, sizeof(sent));
    close(client);
    close_and_wait(chardev);
}

static unsigned quits;

static void on_quit(void *opaque)
{
    (void)opaque;
    quits++;
}

static void test_ctrl_a(void **state)
{
    (void)state;
    struct config_chardev config = unix_server;
    char buffer[1024];
    config.path = path;
    config.is_mux = true;
    quits = 0;
    struct chardev *chardev = make(&config);
    chardev_on_quit(chardev, on_quit, NULL);
    attach(chardev, &first);
    attach(chardev, &second);
    int client = connect_client();
    assert_int_equal(write(client, "a\001\001b\001zc\001b", 9), 9);
    turn(5);
    assert_int_equal(first.count, 4);
    assert_memory_equal(first.bytes, "a\001bc", 4);
    assert_int_equal(first.breaks, 1);
    assert_int_equal(write(client, "\001", 1), 1);
    turn(3);
    assert_int_equal(write(client, "cmon\001cser", 9), 9);
    turn(5);
    assert_int_equal(second.count, 3);
    assert_int_equal(first.count, 7);
    assert_int_equal(second.focuses, 1);
    assert_int_equal(second.unfocuses, 1);
    assert_int_equal(quits, 0);
    assert_int_equal(write(client, "\001x\001h", 4), 4);
    turn(5);
    assert_int_equal(quits, 1);
    ssize_t length = recv(client, buffer, sizeof(buffer) - 1, MSG_DONTWAIT);
    assert_true(length > 0);
    buffer[length] = '\0';
    assert_non_null(strstr(buffer, "Ctrl-a x"));
    close(client);
    close_and_wait(chardev);
}

static void test_a_pty_can_be_opened_again_and_again(void **state)
{
    (void)state;
    const struct config_chardev config = {.kind = CHARDEV_PTY, .id = "serial0"};
    char buffer[64];
    fflush(stdout);
    int saved = dup(STDOUT_FILENO), said[2];
    assert_int_equal(pipe(said), 0);
    dup2(said[1], STDOUT_FILENO);
    struct chardev *chardev = make(&config);
    dup2(saved, STDOUT_FILENO);
    ssize_t length = read(said[0], buffer, sizeof(buffer) - 1);
    assert_true(length > 0);
    buffer[length] = '\0';
    char name[32] = "", label[16] = "";
    assert_int_equal(
        sscanf(buffer, "char device redirected to %31s (label %15[a-z0-9])", name, label), 2);
    assert_string_equal(label, "serial0");
    attach(chardev, &first);
    for (unsigned i = 1; i <= 2; i++) {
        assert_int_equal(char_write(first.backend, "nobody", 6), 6);
        turn(5);
        int fd = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
        assert_true(fd >= 0);
        for (int wait = 0; wait < 20000 && first.opens < i; wait++)
            turn(1);
        assert_int_equal(first.opens, i);
        assert_int_equal(write(fd, "x\r", 2), 2);
        assert_int_equal(char_write(first.backend, "hi\n", 3), 3);
        turn(10);
        assert_int_equal(read(fd, buffer, sizeof(buffer)), 3);
        assert_memory_equal(buffer, "hi\n", 3);
        assert_memory_equal(first.bytes + 2 * (i - 1), "x\r", 2);
        close(fd);
        turn(10);
        assert_int_equal(first.closes, i);
    }
    close(saved);
    close(said[0]);
    close(said[1]);
    close_and_wait(chardev);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* Commands fall out of the data, however they are cut into pieces. */
static void test_telnet_commands_in_pieces(void **state)
{
    (void)state;
    static const uint8_t wire[] = {'a', 255, 253, 1, 'b', 255, 255, 255, 243, 'c', 255, 250, 24,
                                   255, 255, 240, 0, 255, 240, 'd', 13,  0,   'e', 13,  10,  255,
                                   251, 0,   13,  0, 'f', 255, 241, 'g', 255, 252, 0,   13,  0};
    static const uint8_t data[] = {'a', 'b', 255, 'c', 'd', 13, 'e', 13, 10, 13, 0, 'f', 'g', 13};
    for (size_t piece = 1; piece <= sizeof(wire); piece++) {
        struct telnet telnet;
        uint8_t bytes[sizeof(wire)], got[sizeof(wire)];
        unsigned breaks = 0;
        size_t count = 0;
        telnet_init(&telnet);
        for (size_t at = 0; at < sizeof(wire); at += piece) {
            size_t length = MIN(piece, sizeof(wire) - at);
            memcpy(bytes, wire + at, length);
            length = telnet_take(&telnet, bytes, length, &breaks);
            memcpy(got + count, bytes, length);
            count += length;
        }
        assert_int_equal(count, sizeof(data));
        assert_memory_equal(got, data, sizeof(data));
        assert_int_equal(breaks, 1);
    }
}

/* The byte that begins commands is doubled, and never cut in two. */
static void test_telnet_output(void **state)
{
    (void)state;
    static const uint8_t data[] = {1, 255, 2, 255, 255};
    static const uint8_t wire[] = {1, 255, 255, 2, 255, 255, 255, 255};
    for (size_t room = 2; room < 12; room++) {
        uint8_t made[sizeof(wire)];
        size_t count = 0, done = 0, taken;
        for (; done < sizeof(data); done += taken) {
            count += telnet_escape(data + done, sizeof(data) - done, made + count,
                                   MIN(room, sizeof(made) - count), &taken);
            assert_true(taken > 0);
        }
        assert_int_equal(count, sizeof(wire));
        assert_memory_equal(made, wire, sizeof(wire));
    }
    size_t taken;
    uint8_t one;
    assert_int_equal(telnet_escape(data + 1, 1, &one, 1, &taken), 0);
    assert_int_equal(taken, 0);
}

static void test_a_telnet_client_has_bytes_and_breaks(void **state)
{
    (void)state;
    struct config_chardev config = unix_server;
    uint8_t got[64];
    config.path = path;
    config.is_telnet = config.history = true;
    struct chardev *chardev = make(&config);
    attach(chardev, &first);
    assert_int_equal(char_write(first.backend,
                                "\xff"
                                "old",
                                4),
                     4);
    int client = connect_client();
    turn(5);
    assert_int_equal(char_write(first.backend, "\xff", 1), 1);
    turn(5);
    assert_int_equal(read(client, got, sizeof(got)), sizeof(telnet_greeting) + 5 + 2);
    assert_memory_equal(got, telnet_greeting, sizeof(telnet_greeting));
    assert_memory_equal(got + sizeof(telnet_greeting),
                        "\xff\xff"
                        "old"
                        "\xff\xff",
                        7);
    assert_int_equal(write(client,
                           "a\xff\xf3"
                           "b\xff\xff\xff\xfd\x01",
                           9),
                     9);
    turn(5);
    assert_int_equal(first.count, 3);
    assert_memory_equal(first.bytes, "ab\xff", 3);
    assert_int_equal(first.breaks, 1);
    close(client);
    close_and_wait(chardev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_null_takes_all_and_says_nothing),
        TEST(test_one_user_unless_multiplexed),
        TEST(test_a_file_gets_everything_even_at_the_end),
        TEST(test_a_fifo_whose_reader_leaves),
        TEST(test_a_full_disk_loses_output_only),
        TEST(test_what_cannot_be_opened_is_named),
        TEST(test_clients_come_and_go),
        TEST(test_a_client_tries_until_somebody_is_there),
        TEST(test_a_tcp_client_tries_until_somebody_is_there),
        TEST(test_a_pair_of_fifos),
        TEST(test_a_ringbuf_keeps_the_newest),
        TEST(test_a_client_gets_the_history_first),
        TEST(test_a_logfile_has_what_was_said),
        TEST(test_the_second_client_waits_for_the_first),
        TEST(test_a_reader_that_never_reads_holds_nobody_up),
        TEST(test_input_waits_for_room_and_nothing_is_lost),
        TEST(test_ctrl_a),
        TEST(test_telnet_commands_in_pieces),
        TEST(test_telnet_output),
        TEST(test_a_telnet_client_has_bytes_and_breaks),
        TEST(test_a_pty_can_be_opened_again_and_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
