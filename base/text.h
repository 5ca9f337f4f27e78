/* SPDX-License-Identifier: MIT */
/* text: a copy of a text, whose lack of memory is fatal. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <string.h>

#include "base/check.h"

/* The caller frees it; NULL stays NULL. */
static inline char *text_copy(const char *text)
{
    char *copy = text ? strdup(text) : NULL;
    CHECK(!text || copy);
    return copy;
}

#endif
