/* SPDX-License-Identifier: MIT */
/* log: one formatted line, written with a single call so that threads do not mix lines. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/limits.h"

static const char *program = "evisor";

void log_set_program(const char *name)
{
    program = name;
}

static void line(const char *severity, const char *format, va_list args)
{
    char text[1280];
    int length = vsnprintf(text, sizeof(text), format, args);
    if (length < 0)
        return;
    fprintf(stderr, "%s: %s%s\n", program, severity, text);
}

#define LOG_LEVEL(name, severity)                                                                  \
    void name(const char *format, ...)                                                             \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        line(severity, format, args);                                                              \
        va_end(args);                                                                              \
    }

LOG_LEVEL(log_error, "")
LOG_LEVEL(log_warn, "warning: ")
LOG_LEVEL(log_info, "")

/* Returns whether a line may pass now; *swallowed is what was dropped since the last one. */
static bool limit_pass(unsigned *swallowed)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static time_t window;
    static unsigned passed, dropped;
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    pthread_mutex_lock(&lock);
    if (now.tv_sec != window) {
        window = now.tv_sec;
        passed = 0;
    }
    bool pass = passed < LOG_BURST;
    if (pass) {
        passed++;
        *swallowed = dropped;
        dropped = 0;
    } else {
        dropped++;
    }
    pthread_mutex_unlock(&lock);
    return pass;
}

void log_limited(const char *format, ...)
{
    unsigned swallowed = 0;
    if (!limit_pass(&swallowed))
        return;
    if (swallowed)
        log_warn("%u similar lines were left out", swallowed);
    va_list args;
    va_start(args, format);
    line("", format, args);
    va_end(args);
}

bool log_trace_is_on(const char *subsystem)
{
    static atomic_bool is_off; /* any thread may be the first to ask */
    const char *wanted = likely(is_off) ? NULL : getenv("EVISOR_TRACE");
    if (likely(!wanted)) {
        is_off = true;
        return false;
    }
    size_t length = strlen(subsystem);
    for (const char *at = wanted; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        size_t word = strcspn(at, ",");
        if ((word == length && !strncmp(at, subsystem, length)) ||
            (word == 3 && !strncmp(at, "all", 3)))
            return true;
    }
    return false;
}

void log_trace_line(const char *subsystem, const char *format, ...)
{
    char prefix[64];
    snprintf(prefix, sizeof(prefix), "[%s] ", subsystem);
    va_list args;
    va_start(args, format);
    line(prefix, format, args);
    va_end(args);
}
