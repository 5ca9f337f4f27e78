/* SPDX-License-Identifier: MIT */
/* suggest: the known name nearest to one that is not known, for "did you mean". */
#ifndef BASE_SUGGEST_H
#define BASE_SUGGEST_H

#include <stddef.h>

/* Edits (insert, delete, change, swap neighbours) from one to the other; letters' case ignored. */
unsigned suggest_distance(const char *from, const char *to);

struct suggest {
    const char *wanted;
    const char *best; /* NULL while nothing is near enough to be meant */
    unsigned best_distance;
};

void suggest_init(struct suggest *suggest, const char *wanted);
void suggest_offer(struct suggest *suggest, const char *name);

#endif
