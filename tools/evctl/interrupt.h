/* SPDX-License-Identifier: MIT */
/* interrupt: Ctrl-C and its like end a command where it can tidy up: no half machine stays. */
#ifndef TOOLS_EVCTL_INTERRUPT_H
#define TOOLS_EVCTL_INTERRUPT_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

/* From here on SIGINT, SIGTERM and SIGHUP are only noted; system calls that wait return. */
void interrupt_catch(void);
bool interrupt_is_pending(void);
/* -EINTR with err set if one has come. */
int must_check interrupt_check(struct error *err);
/* Hands a signal on to a child that has not got it from the terminal itself; once. */
void interrupt_pass_on(pid_t child);
/* Ends the process by the signal that came, so that a shell sees how it ended. */
void interrupt_end(void);

#endif
