/* SPDX-License-Identifier: MIT */
/*
 * suggest: Damerau-Levenshtein distance (optimal string alignment) over short names.
 *
 * Names longer than NAME_MAX_LENGTH are compared by their beginning only.
 */
#include "base/suggest.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "base/check.h"

#define NAME_MAX_LENGTH 48

static bool is_same_letter(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

unsigned suggest_distance(const char *from, const char *to)
{
    unsigned table[NAME_MAX_LENGTH + 1][NAME_MAX_LENGTH + 1];
    size_t rows = strnlen(from, NAME_MAX_LENGTH), columns = strnlen(to, NAME_MAX_LENGTH);
    for (unsigned i = 0; i <= rows; i++)
        table[i][0] = i;
    for (unsigned j = 0; j <= columns; j++)
        table[0][j] = j;
    for (size_t i = 1; i <= rows; i++) {
        for (size_t j = 1; j <= columns; j++) {
            unsigned change = is_same_letter(from[i - 1], to[j - 1]) ? 0 : 1;
            unsigned best = table[i - 1][j - 1] + change;
            best = MIN(best, MIN(table[i - 1][j], table[i][j - 1]) + 1);
            if (i > 1 && j > 1 && is_same_letter(from[i - 1], to[j - 2]) &&
                is_same_letter(from[i - 2], to[j - 1]))
                best = MIN(best, table[i - 2][j - 2] + 1);
            table[i][j] = best;
        }
    }
    return table[rows][columns];
}

void suggest_init(struct suggest *suggest, const char *wanted)
{
    suggest->wanted = wanted;
    suggest->best = NULL;
    /* More than a third of the letters wrong is another word, not a slip. */
    suggest->best_distance = (unsigned)MIN(strlen(wanted), NAME_MAX_LENGTH) / 3 + 1;
    if (strlen(wanted) > 1)
        suggest->best_distance++;
}

void suggest_offer(struct suggest *suggest, const char *name)
{
    unsigned distance = suggest_distance(suggest->wanted, name);
    if (distance >= suggest->best_distance)
        return;
    suggest->best = name;
    suggest->best_distance = distance;
}
