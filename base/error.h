/* SPDX-License-Identifier: MIT */
/*
 * error: one sentence that names the thing, says what is wrong and what to do.
 *
 * A function that can fail for the host's or the user's reasons returns 0 or -errno and takes a
 * `struct error *` last. The sentence is written where the failure is understood and reported once,
 * at the top. `err` may be NULL where the caller does not want the sentence.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "base/check.h"

struct error {
    int code;        /* a positive errno; 0 while nothing failed */
    char text[1024]; /* one line without a trailing newline */
};

/* Writes the sentence and returns -code. An error already set is kept: the first cause counts. */
int error_set(struct error *err, int code, const char *format, ...) printf_like(3, 4);

/* As error_set, then appends ": " and strerror(code). */
int error_set_errno(struct error *err, int code, const char *format, ...) printf_like(3, 4);

/* Puts "prefix: " before the sentence; for context that only the caller knows. */
void error_prefix(struct error *err, const char *format, ...) printf_like(2, 3);

#endif
