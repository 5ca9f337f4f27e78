/* SPDX-License-Identifier: MIT */
/*
 * log: what goes to standard error, one line each, prefixed with the program's name.
 *
 * Lines that a guest or a peer can provoke go through log_limited, which lets LOG_BURST lines pass
 * a second and then counts what it swallowed. Traces are off unless EVISOR_TRACE lists their
 * subsystem ("EVISOR_TRACE=qcow2,virtio" or "all"). Safe from any thread.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

#include "base/check.h"

/* The name before every line; "evisor" until set. The string must outlive the program. */
void log_set_program(const char *name);

void log_error(const char *format, ...) printf_like(1, 2);
void log_warn(const char *format, ...) printf_like(1, 2);
void log_info(const char *format, ...) printf_like(1, 2);

/* For lines that a guest can cause: bounded in rate over the whole process. */
void log_limited(const char *format, ...) printf_like(1, 2);

bool log_trace_is_on(const char *subsystem);
void log_trace_line(const char *subsystem, const char *format, ...) printf_like(2, 3);

#define log_trace(subsystem, ...)                                                                  \
    do {                                                                                           \
        if (unlikely(log_trace_is_on(subsystem)))                                                  \
            log_trace_line(subsystem, __VA_ARGS__);                                                \
    } while (0)

#endif
