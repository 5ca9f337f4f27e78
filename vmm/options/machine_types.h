/* SPDX-License-Identifier: MIT */
/* machine_types: the names of the machine there is. */
#ifndef VMM_OPTIONS_MACHINE_TYPES_H
#define VMM_OPTIONS_MACHINE_TYPES_H

#include <stdbool.h>

#define MACHINE_TYPES 2

/* The default first. */
struct machine_type {
    const char *name, *alias;
};
extern const struct machine_type machine_types[MACHINE_TYPES];

/* By another version of a name, too: what is typed, or put together, from habit. */
bool machine_types_has(const char *name);

#endif
