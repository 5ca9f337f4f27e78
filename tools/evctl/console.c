/* SPDX-License-Identifier: MIT */
/*
 * console: the serial line of a machine, and its logs.
 *
 * evisor keeps the last 64 KiB and sends them to whoever attaches (the chardev's history=on), so
 * nothing is lost or doubled in between. One console at a time: a lock says who is there. A virtio
 * console is told the size of the window, at first and whenever it changes; a serial line has none.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "tools/evctl/evctl.h"
#include "tools/evctl/interrupt.h"
#include "tools/evctl/model.h"
#include "tools/evctl/qmp.h"
#include "tools/evctl/tell.h"

#define LEAVE_KEY 0x1d /* Ctrl-] */

static struct termios saved;
static bool is_raw;
static volatile sig_atomic_t has_new_size;

static void restore(void)
{
    if (is_raw)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
    is_raw = false;
}

static void make_raw(void)
{
    struct termios raw;
    if (tcgetattr(STDIN_FILENO, &saved) < 0)
        return;
    raw = saved;
    cfmakeraw(&raw);
    is_raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
    atexit(restore);
}

static bool write_all(int fd, const char *bytes, size_t length)
{
    while (length) {
        ssize_t done = write(fd, bytes, length);
        if (done < 0 && (errno == EAGAIN || errno == EINTR)) {
            struct pollfd ready = {.fd = fd, .events = POLLOUT};
            unused_result(poll(&ready, 1, 1000));
            continue;
        }
        if (done <= 0)
            return false;
        bytes += done;
        length -= (size_t)done;
    }
    return true;
}

/* The person leaves (true), or input has ended, or goes to the guest. */
static bool pass_input(int socket, bool *has_input)
{
    char bytes[1024];
    ssize_t got = read(STDIN_FILENO, bytes, sizeof(bytes));
    if (got <= 0) {
        *has_input = got < 0 && errno == EINTR;
        return false;
    }
    const char *leave = is_raw ? memchr(bytes, LEAVE_KEY, (size_t)got) : NULL;
    size_t length = leave ? (size_t)(leave - bytes) : (size_t)got;
    return !write_all(socket, bytes, length) || leave;
}

static void on_window_change(int number)
{
    (void)number;
    has_new_size = 1;
}

/* Elsewhere the signal waits, so that none comes just before this. */
static void watch_window(void)
{
    struct sigaction action = {.sa_handler = on_window_change};
    sigset_t window;
    sigemptyset(&window);
    sigaddset(&window, SIGWINCH);
    sigprocmask(SIG_BLOCK, &window, NULL);
    sigaction(SIGWINCH, &action, NULL);
    has_new_size = 1;
}

static int wait_for_either(struct pollfd ready[2], bool has_input)
{
    const struct timespec moment = {.tv_nsec = 500000000};
    sigset_t none;
    sigemptyset(&none);
    return ppoll(ready, 2, has_input ? NULL : &moment, &none);
}

static void tell_size_of_window(const struct machine *machine)
{
    struct winsize size;
    struct qmp qmp;
    has_new_size = 0;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col || !size.ws_row ||
        qmp_open(machine, &qmp, NULL))
        return;
    unused_result(qmp_execute(
        &qmp, "chardev-resize",
        json_pack("{s:s, s:i, s:i}", "id", "hvc", "cols", size.ws_col, "rows", size.ws_row), NULL,
        NULL));
    qmp_close(&qmp);
}

/* Until the person leaves or the machine ends. Without input: until it has been quiet for a
 * moment, so that a pipe gets what there is. */
static void pass(const struct machine *machine, int socket, bool has_input)
{
    char bytes[4096];
    for (;;) {
        struct pollfd ready[2] = {{.fd = socket, .events = POLLIN},
                                  {.fd = has_input ? STDIN_FILENO : -1, .events = POLLIN}};
        if (has_new_size)
            tell_size_of_window(machine);
        int count = wait_for_either(ready, has_input);
        if (count == 0 || interrupt_is_pending() || (count < 0 && errno != EINTR))
            return;
        if (count > 0 && ready[1].revents && pass_input(socket, &has_input))
            return;
        if (count <= 0 || !ready[0].revents)
            continue;
        ssize_t got = read(socket, bytes, sizeof(bytes));
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            return;
        if (got > 0 && !write_all(STDOUT_FILENO, bytes, (size_t)got))
            return;
    }
}

static int attach(const struct machine *machine, const char *name, struct error *err)
{
    int lock = openat(machine->folder_fd, "console.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0)
        return error_set_errno(err, errno, "%s/console.lock", machine->folder);
    if (flock(lock, LOCK_EX | LOCK_NB) < 0) {
        close(lock);
        return error_set(err, EBUSY,
                         "the console of '%s' is open in another terminal; leave it there with "
                         "Ctrl-]",
                         machine->name);
    }
    int socket = qmp_connect(machine->folder_fd, name);
    int result = 0;
    if (socket < 0) {
        result = error_set_errno(err, -socket, "cannot open the console of '%s'", machine->name);
    } else {
        tell_note("connected to '%s'; Ctrl-] leaves", machine->name);
        make_raw();
        pass(machine, socket, true);
        restore();
        close(socket);
        tell_note("%s", "");
        result = interrupt_check(err);
    }
    close(lock);
    return result;
}

int cmd_console(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    if (call->json)
        return error_set(err, EINVAL, "console has no JSON form; use logs --json");
    int result = machine_open(call->arguments[0], MACHINE_RUNNING, &machine, err);
    if (result)
        return result;
    bool is_hvc =
        !call_has(call, "serial") && strcmp(model_text(machine.config, "console"), "hvc") == 0;
    /* A machine that was started before it was given one has none yet. */
    is_hvc = is_hvc && faccessat(machine.folder_fd, "hvc", F_OK, 0) == 0;
    if (is_hvc)
        watch_window();
    result = attach(&machine, is_hvc ? "hvc" : "console", err);
    machine_close(&machine);
    return result;
}

/* --- logs --- */

/* The last `lines` lines of a file, as a text that the caller frees; NULL if it is not there. */
static char *read_tail(const struct machine *machine, const char *name, uint64_t lines)
{
    struct stat status;
    int fd = openat(machine->folder_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &status) < 0) {
        unused_result(fd >= 0 && close(fd));
        return NULL;
    }
    off_t size = MIN(status.st_size, (off_t)4 << 20);
    char *text = calloc(1, (size_t)size + 1);
    ssize_t length = text ? pread(fd, text, (size_t)size, status.st_size - size) : 0;
    close(fd);
    char *start = text + MAX(length, 0);
    *start = '\0';
    /* Zeros that a guest has sent end no text. */
    for (char *zero = text; zero < start; zero++)
        *zero = *zero ? *zero : ' ';
    for (uint64_t seen = 0; start > text; start--)
        if (start[-1] == '\n' && start[0] && ++seen == lines)
            break;
    memmove(text, start, strlen(start) + 1);
    return text;
}

/* A log on a terminal: control characters of the guest but line ends and tabs are left out. */
static void print_log(const char *title, const char *text)
{
    bool is_terminal = isatty(STDOUT_FILENO);
    printf("%s== %s%s\n", tell_colour(TELL_BOLD), title, tell_colour(TELL_PLAIN));
    char last = '\n';
    for (; *text; last = *text++)
        if (!is_terminal || *text == '\n' || *text == '\t' || (unsigned char)*text >= 0x20)
            putchar(*text);
    if (last != '\n')
        putchar('\n');
}

/* What is no UTF-8 cannot stand in JSON. */
static json_t *as_json(char *text)
{
    json_t *value = json_string(text);
    for (char *at = text; !value && *at; at++)
        *at = *at & 0x80 ? '?' : *at;
    return value ? value : json_string(text);
}

int cmd_logs(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    uint64_t lines = 100;
    const char *suffix = call_has(call, "previous") ? ".1" : "";
    static const char *const kinds[] = {"console", "evisor"};
    int result = call_uint(call, "lines", 1, 1000000, &lines, err);
    if (!result)
        result = machine_open(call->arguments[0], MACHINE_BROKEN_OK, &machine, err);
    if (result)
        return result;
    json_t *logs = json_object();
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        char name[32];
        snprintf(name, sizeof(name), "%s.log%s", kinds[i], suffix);
        char *text = read_tail(&machine, name, lines);
        if (text && *text && !call->json)
            print_log(name, text);
        if (text)
            json_object_set_new(logs, kinds[i], as_json(text));
        free(text);
    }
    if (json_object_size(logs) == 0)
        tell_note("'%s' has not run %s", machine.name, *suffix ? "before" : "yet");
    tell_json(logs);
    machine_close(&machine);
    return 0;
}
