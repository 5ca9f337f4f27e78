/* SPDX-License-Identifier: MIT */
/* rules: the engine's ordering rules (disk/qcow2/qcow2_rule.h) by name, to break one of them. */
#ifndef TESTS_CRASH_SIM_RULES_H
#define TESTS_CRASH_SIM_RULES_H

#include <stdbool.h>

/* 0 in a build whose engine keeps all of them. */
unsigned rules_count(void);
const char *rules_name(unsigned index);
/* False: there is none of this name, or it cannot be broken in this build. */
bool rules_break(const char *name);

#endif
