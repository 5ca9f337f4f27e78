/* SPDX-License-Identifier: MIT */
/*
 * keyval_json: JSON objects as the lists that options take: members of members become
 * "key.member", numbers and booleans their text, null an empty value.
 */
#ifndef VMM_OPTIONS_KEYVAL_JSON_H
#define VMM_OPTIONS_KEYVAL_JSON_H

#include <jansson.h>

#include "vmm/options/keyval.h"

/* `option` is what errors call it. On failure nothing is left to free. */
int must_check keyval_from_json(struct keyval *list, const char *option, json_t *object,
                                struct error *err);
/* As keyval_parse, and `text` may be a JSON object: for options that take both. */
int must_check keyval_parse_either(struct keyval *list, const char *option, const char *text,
                                   const char *implied, struct error *err);

#endif
