/* SPDX-License-Identifier: MIT */
/*
 * library: a shared library that is loaded when it is first needed.
 *
 * Linking one costs every start of the program, also where nothing of it is used. Who needs it
 * keeps a table of its functions, typed by __typeof__ of the library's own declarations, and fills
 * it by library_load before the first call. What is loaded stays for as long as the process lives.
 * Loading opens files; it belongs before a process gives up the right to do that.
 */
#ifndef BASE_LIBRARY_H
#define BASE_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"
#include "base/error.h"

struct library_function {
    const char *name;
    void *address; /* of the pointer to it */
};

struct library {
    const char *file;    /* with the version of its interface: "libslirp.so.0" */
    const char *package; /* Debian's, which has it */
    const struct library_function *functions;
    size_t function_count;
    bool is_loaded;
};

/* Once is enough, but more do no harm. One thread at a time. */
int must_check library_load(struct library *library, struct error *err);

#endif
