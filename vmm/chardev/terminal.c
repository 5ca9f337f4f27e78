/* SPDX-License-Identifier: MIT */
/*
 * terminal: what must be undone lies in static memory, where a signal handler finds it.
 *
 * That is the one place where evisor keeps state outside of a machine: a process has one
 * controlling terminal, and whoever kills us does not say which machine was meant.
 */
#include "vmm/chardev/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#define SHARED_MAX 2

static struct {
    volatile sig_atomic_t is_raw;
    int fd;
    struct termios saved, raw;
    volatile sig_atomic_t shared_count;
    int shared_fds[SHARED_MAX]; /* made non-blocking though others use them too */
    int shared_flags[SHARED_MAX];
    bool has_handlers;
} terminal;

static const int killers[] = {SIGHUP, SIGINT,  SIGQUIT, SIGILL,  SIGTRAP, SIGABRT, SIGBUS,
                              SIGFPE, SIGSEGV, SIGALRM, SIGTERM, SIGXCPU, SIGXFSZ, SIGSYS};

/* In the background the terminal is another's: touching it would stop us. */
static bool is_ours(void)
{
    return tcgetpgrp(terminal.fd) == getpgrp();
}

void terminal_restore(void)
{
    int saved_errno = errno;
    if (terminal.is_raw && is_ours())
        tcsetattr(terminal.fd, TCSANOW, &terminal.saved);
    terminal.is_raw = 0;
    for (int i = 0; i < terminal.shared_count; i++)
        fcntl(terminal.shared_fds[i], F_SETFL, terminal.shared_flags[i]);
    terminal.shared_count = 0;
    errno = saved_errno;
}

static void on_killer(int signal)
{
    terminal_restore();
    raise(signal); /* the handler was for once: now it kills */
}

static void on_continue(int signal)
{
    int saved_errno = errno;
    (void)signal;
    if (terminal.is_raw && is_ours())
        tcsetattr(terminal.fd, TCSANOW, &terminal.raw);
    errno = saved_errno;
}

static void handle_if_default(int signal, const struct sigaction *action)
{
    struct sigaction present;
    if (sigaction(signal, NULL, &present) == 0 && present.sa_handler == SIG_DFL)
        sigaction(signal, action, NULL);
}

static void install_handlers(void)
{
    struct sigaction killer = {.sa_handler = on_killer, .sa_flags = SA_RESETHAND | SA_NODEFER};
    struct sigaction continued = {.sa_handler = on_continue, .sa_flags = SA_RESTART};
    if (terminal.has_handlers)
        return;
    terminal.has_handlers = true;
    atexit(terminal_restore);
    for (size_t i = 0; i < ARRAY_SIZE(killers); i++)
        handle_if_default(killers[i], &killer);
    handle_if_default(SIGCONT, &continued);
}

/* Output processing stays on, so that our own messages begin at the left. */
static struct termios make_raw(const struct termios *saved, bool has_signals)
{
    struct termios raw = *saved;
    raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
    if (!has_signals)
        raw.c_lflag &= ~(tcflag_t)ISIG;
    raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    return raw;
}

int terminal_set_raw(int fd, bool has_signals, struct error *err)
{
    if (!isatty(fd))
        return 0;
    struct termios saved;
    if (tcgetattr(fd, &saved) < 0)
        return error_set_errno(err, errno, "cannot read the terminal's settings");
    terminal.fd = fd;
    terminal.saved = saved;
    terminal.raw = make_raw(&saved, has_signals);
    install_handlers();
    terminal.is_raw = 1;
    if (tcsetattr(fd, TCSANOW, &terminal.raw) < 0) {
        terminal.is_raw = 0;
        return error_set_errno(err, errno, "cannot make the terminal raw");
    }
    return 0;
}

static int share(int fd, int flags)
{
    if (terminal.shared_count == SHARED_MAX)
        return -EMFILE;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return -errno;
    install_handlers();
    terminal.shared_fds[terminal.shared_count] = fd;
    terminal.shared_flags[terminal.shared_count] = flags;
    terminal.shared_count++;
    if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        close(copy);
        return -errno;
    }
    return copy;
}

int terminal_open_nonblocking(int fd)
{
    struct stat status;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &status) < 0)
        return -errno;
    /* A regular file never blocks long, and opened again it would lose its position. */
    if (S_ISREG(status.st_mode)) {
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return copy < 0 ? -errno : copy;
    }
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int opened = open(path, (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return opened >= 0 ? opened : share(fd, flags);
}
