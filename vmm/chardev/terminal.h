/* SPDX-License-Identifier: MIT */
/*
 * terminal: raw mode of the one terminal that a process has, and its way back.
 *
 * The terminal is put back by terminal_restore, at exit, and before a signal kills the process (a
 * handler that somebody else has set for it is left alone). After a stop and continue in the
 * foreground it is raw again.
 */
#ifndef VMM_CHARDEV_TERMINAL_H
#define VMM_CHARDEV_TERMINAL_H

#include <stdbool.h>

#include "base/error.h"

/* Does nothing if `fd` is no terminal. `has_signals`: Ctrl-C and Ctrl-\ still make signals. */
int must_check terminal_set_raw(int fd, bool has_signals, struct error *err);

/*
 * A descriptor of our own for the file behind `fd`, non-blocking. Where only the shared one can be
 * made so, it is made blocking again together with the terminal's restoration. -errno on failure.
 */
int must_check terminal_open_nonblocking(int fd);

/* Safe at any time, in a signal handler too. */
void terminal_restore(void);

#endif
