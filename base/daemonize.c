/* SPDX-License-Identifier: MIT */
/*
 * daemonize: parent and child are joined by a pipe; a byte in it means "ready", its end without one
 * means that the child is gone.
 */
#include "base/daemonize.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int ready_fd = -1;

static void wait_for_child(pid_t child, int fd) __attribute__((noreturn));

static void wait_for_child(pid_t child, int fd)
{
    char byte;
    ssize_t got;
    do
        got = read(fd, &byte, 1);
    while (got < 0 && errno == EINTR);
    if (got == 1)
        _exit(0);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    _exit(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
}

int daemonize_begin(struct error *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "cannot go to the background");
    pid_t child = fork();
    if (child < 0) {
        int result = error_set_errno(err, errno, "cannot go to the background");
        close(ends[0]);
        close(ends[1]);
        return result;
    }
    if (child > 0) {
        close(ends[1]);
        wait_for_child(child, ends[0]);
    }
    close(ends[0]);
    ready_fd = ends[1];
    setsid();
    signal(SIGHUP, SIG_IGN);
    return 0;
}

int daemonize_ready(struct error *err)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return error_set_errno(err, errno, "cannot go to the background: /dev/null");
    if (chdir("/") < 0)
        return error_set_errno(err, errno, "cannot go to the background: /");
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        unused_result(dup2(null, fd) < 0);
    if (null > STDERR_FILENO)
        close(null);
    unused_result(write(ready_fd, "", 1) < 0);
    close(ready_fd);
    ready_fd = -1;
    return 0;
}

/* The file may be replaced between open and lock; then the lock is on a file without a name. */
static bool is_still_there(int fd, const char *path)
{
    struct stat opened, named;
    return fstat(fd, &opened) == 0 && stat(path, &named) == 0 && opened.st_ino == named.st_ino &&
           opened.st_dev == named.st_dev;
}

static int lock_pidfile(const char *path, struct error *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0)
            return error_set_errno(err, errno, "pidfile %s", path);
        if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
            int result =
                errno == EAGAIN || errno == EACCES
                    ? error_set(err, EBUSY,
                                "pidfile %s is held by a running process; end it or choose "
                                "another file",
                                path)
                    : error_set_errno(err, errno, "pidfile %s", path);
            close(fd);
            return result;
        }
        if (is_still_there(fd, path))
            return fd;
        close(fd);
    }
}

int pidfile_create(struct pidfile *pidfile, const char *path, struct error *err)
{
    *pidfile = (struct pidfile){.fd = -1};
    int fd = lock_pidfile(path, err);
    if (fd < 0)
        return fd;
    char text[32];
    int length = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)length, 0) != length) {
        int result = error_set_errno(err, errno ? errno : EIO, "pidfile %s", path);
        close(fd);
        return result;
    }
    pidfile->path = realpath(path, NULL);
    pidfile->fd = fd;
    return 0;
}

void pidfile_remove(struct pidfile *pidfile)
{
    if (!pidfile->path)
        return;
    unlink(pidfile->path);
    free(pidfile->path);
    close(pidfile->fd);
    *pidfile = (struct pidfile){.fd = -1};
}
