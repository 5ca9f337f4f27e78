/* SPDX-License-Identifier: MIT */
/* check: reports a broken invariant of ours and aborts. */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

void check_failed(const char *file, int line, const char *function, const char *what)
{
    fprintf(stderr, "evisor: internal error at %s:%d in %s: %s\n", file, line, function, what);
    abort();
}
