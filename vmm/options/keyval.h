/* SPDX-License-Identifier: MIT */
/*
 * keyval: the `value,key=value,flag,noflag` lists that options take.
 *
 * A comma inside a value is written twice. The first element may be a bare value, for the implied
 * key. A later element without "=" is a switch: "wait" is wait=on, "nowait" is wait=off. Every list
 * is checked against a table of the keys that its option knows.
 */
#ifndef VMM_OPTIONS_KEYVAL_H
#define VMM_OPTIONS_KEYVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define KEYVAL_MAX 64

struct keyval_pair {
    char *key;
    char *value; /* NULL for a switch, until keyval_check has seen it */
};

struct keyval {
    char *option; /* "-drive file=x": for errors */
    struct keyval_pair pairs[KEYVAL_MAX];
    unsigned count;
};

/* One key that an option knows. Tables end with a NULL key. */
struct keyval_known {
    const char *key;
    /*
     * NULL for a key that evisor acts on. Otherwise the values, separated by "|", that change
     * nothing here and are accepted ("*": all); any other is refused with `instead`.
     */
    const char *only;
    const char *instead; /* a sentence: what is not there, what to use */
};

/* `option` is the option as typed, without its argument. `implied` may be NULL. */
int must_check keyval_parse(struct keyval *list, const char *option, const char *text,
                            const char *implied, struct error *err);
void keyval_fini(struct keyval *list);

/* Refuses keys that are not in the table, with the nearest one, and refused values of the others.
 */
int must_check keyval_check(struct keyval *list, const struct keyval_known *known,
                            struct error *err);
/* The same with two tables, of which a key may be in either. */
int must_check keyval_check_both(struct keyval *list, const struct keyval_known *known,
                                 const struct keyval_known *also, struct error *err);

/* The last value of the key, or NULL. */
const char *keyval_get(const struct keyval *list, const char *key);

/*
 * These leave *out alone where the key is missing, and fail with a sentence that names option, key
 * and value where the value is not of the kind.
 */
int must_check keyval_bool(const struct keyval *list, const char *key, bool *out,
                           struct error *err);
int must_check keyval_uint(const struct keyval *list, const char *key, uint64_t min, uint64_t max,
                           uint64_t *out, struct error *err);
/* A size with an optional suffix b, k, M, G, T; without one it counts `unit` bytes. */
int must_check keyval_size(const struct keyval *list, const char *key, uint64_t unit, uint64_t *out,
                           struct error *err);
/* An index into `names`, separated by "|". */
int must_check keyval_choice(const struct keyval *list, const char *key, const char *names,
                             unsigned *out, struct error *err);
/* A copy of the value replaces what *out owned. */
void keyval_string(const struct keyval *list, const char *key, char **out);

/* The number or size that the whole text spells; false if it spells none or it does not fit. */
bool must_check keyval_text_to_uint(const char *text, uint64_t *out);
bool must_check keyval_text_to_size(const char *text, uint64_t unit, uint64_t *out);

/* What QEMU takes for an id: letters, digits, "-._", a letter first. */
bool keyval_is_id(const char *text);

/* The place of `name` in "a|b|c", or -1. */
int keyval_name_index(const char *names, const char *name);

#endif
