/* SPDX-License-Identifier: MIT */
/* error: builds the one sentence that a failure carries upward. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int set(struct error *err, int code, const char *suffix, const char *format, va_list args)
{
    CHECK(code > 0);
    if (!err || err->code)
        return -code;
    err->code = code;
    int length = vsnprintf(err->text, sizeof(err->text), format, args);
    if (suffix && length >= 0 && (size_t)length < sizeof(err->text))
        snprintf(err->text + length, sizeof(err->text) - (size_t)length, ": %s", suffix);
    return -code;
}

int error_set(struct error *err, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int result = set(err, code, NULL, format, args);
    va_end(args);
    return result;
}

int error_set_errno(struct error *err, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int result = set(err, code, strerror(code), format, args);
    va_end(args);
    return result;
}

void error_prefix(struct error *err, const char *format, ...)
{
    if (!err)
        return;
    char text[sizeof(err->text)];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= sizeof(text))
        return;
    size_t room = sizeof(text) - (size_t)length;
    snprintf(text + length, room, ": %.*s", (int)room, err->text);
    memcpy(err->text, text, sizeof(text));
}
