/* SPDX-License-Identifier: MIT */
/*
 * check: what must hold, and what happens when it does not.
 *
 * CHECK is for our own bugs only: it is always on, prints where and aborts. What a guest, a file, a
 * peer or the host does wrong never reaches a CHECK; those are a status, NEEDS_RESET or -errno.
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include <stddef.h>
#include <sys/param.h> /* MIN, MAX */

#define must_check                      __attribute__((warn_unused_result))
#define printf_like(format_at, args_at) __attribute__((format(printf, format_at, args_at)))
#define unused_result(call)                                                                        \
    do {                                                                                           \
        if (call) {                                                                                \
        }                                                                                          \
    } while (0)

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Prints "file:line: function: message" and aborts. Safe from any thread. */
void check_failed(const char *file, int line, const char *function, const char *what)
    __attribute__((noreturn, cold));

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (unlikely(!(condition)))                                                                \
            check_failed(__FILE__, __LINE__, __func__, #condition);                                \
    } while (0)

#define UNREACHABLE(why) check_failed(__FILE__, __LINE__, __func__, "unreachable: " why)

#endif
