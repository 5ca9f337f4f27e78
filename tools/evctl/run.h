/* SPDX-License-Identifier: MIT */
/* run: evisor, evisor-img and other programs as children. */
#ifndef TOOLS_EVCTL_RUN_H
#define TOOLS_EVCTL_RUN_H

#include <jansson.h>
#include <sys/types.h>

#include "base/error.h"

/*
 * "evisor" or "evisor-img": what the environment variable names (EVISOR, EVISOR_IMG), else the one
 * beside evctl, else the one on the path. The caller frees it. NULL with err set.
 */
char *run_find(const char *program, struct error *err);

/*
 * Runs a program to its end. `words` are its arguments without its name (taken). What it prints on
 * standard output goes to *output (may be NULL); "(12.34/100%)" in it moves the progress that
 * `what` names (NULL: none). A failure is its last line on standard error, with EIO.
 */
int must_check run_program(const char *program, json_t *words, const char *what, char **output,
                           struct error *err);
/* evisor-img with these words, given by a format as for json_pack: an array. */
int must_check run_img(json_t *words, const char *what, char **output, struct error *err);

/*
 * Starts a program of its own: new session, in `folder_fd`, standard input from /dev/null, output
 * and errors to `log_fd`. The process id or -errno.
 */
pid_t run_detached(const char *program, json_t *words, int folder_fd, int log_fd,
                   struct error *err);

#endif
