/* SPDX-License-Identifier: MIT */
/*
 * daemonize: going to the background, and files that hold the process id.
 *
 * The parent leaves only when the child says that it is ready, so that whoever started us finds the
 * sockets there; if the child fails before, the parent leaves with its exit status, and what the
 * child wrote to standard error has been seen. daemonize_begin forks: call it before the loop and
 * any thread exist.
 */
#ifndef BASE_DAEMONIZE_H
#define BASE_DAEMONIZE_H

#include "base/error.h"

/* In the child: 0, or -errno if there was no fork. The parent does not return. */
int must_check daemonize_begin(struct error *err);

/* The child is ready: leaves the terminal and the working directory, and lets the parent go. */
int must_check daemonize_ready(struct error *err);

struct pidfile {
    char *path; /* absolute; NULL: none */
    int fd;     /* holds the lock */
};

/* Locks the file, or fails if a living process holds it, and writes our process id. */
int must_check pidfile_create(struct pidfile *pidfile, const char *path, struct error *err);

/* Unlinks it and lets the lock go. Does nothing if it was never created. */
void pidfile_remove(struct pidfile *pidfile);

#endif
