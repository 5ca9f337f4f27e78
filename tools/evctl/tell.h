/* SPDX-License-Identifier: MIT */
/* tell: what evctl prints: errors, notes, JSON, tables, colours, and progress of what takes long.
 */
#ifndef TOOLS_EVCTL_TELL_H
#define TOOLS_EVCTL_TELL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"

/* --quiet leaves notes and progress out; --json turns texts off and lets tell_json speak. */
void tell_set_mode(bool json, bool quiet);
bool tell_is_json(void);

/* A line on standard error; notes only where neither --quiet nor --json is set. */
void tell_error(const char *format, ...) printf_like(1, 2);
void tell_note(const char *format, ...) printf_like(1, 2);
/* A line on standard output, unless --json. */
void tell_line(const char *format, ...) printf_like(1, 2);
/* Prints it if --json; frees it in any case. */
void tell_json(json_t *value);
/* Always prints it; frees it. */
void tell_json_always(json_t *value);

enum tell_colour { TELL_PLAIN, TELL_GREEN, TELL_YELLOW, TELL_RED, TELL_BOLD };
/* Escape sequences, or "" where standard output is no terminal, NO_COLOR is set or TERM is dumb. */
const char *tell_colour(enum tell_colour colour);

/*
 * Prints rows of a JSON array of objects in columns. `columns` is "key:TITLE key:TITLE ...".
 * Strings as they are, whole numbers in digits, true and false as yes and no, null as "-".
 */
void tell_table(const json_t *rows, const char *columns);
/* "1.5 GiB". Returns `buffer`. */
#define TELL_SIZE_BYTES 32
const char *tell_size(uint64_t bytes, char buffer[TELL_SIZE_BYTES]);

/*
 * Progress: silent in the first second; then, on a terminal, one line that is written over, else
 * one line once. `percent` below 0: not known.
 */
struct tell_progress {
    const char *what;
    uint64_t started_ns;
    bool is_shown;
};
void tell_progress_begin(struct tell_progress *progress, const char *what);
void tell_progress_update(struct tell_progress *progress, double percent);
void tell_progress_end(struct tell_progress *progress);

uint64_t tell_now_ns(void);

#endif
