/* SPDX-License-Identifier: MIT */
/* rules: see the header. */
#include "tests/crash_sim/rules.h"

#include <string.h>

#include "base/check.h"
#include "disk/qcow2/qcow2_rule.h"

#ifdef QCOW2_RULES_CAN_BREAK

enum qcow2_rule qcow2_broken_rule = QCOW2_RULE_NONE;

#define NAME(rule, text) text,
static const char *const names[] = {QCOW2_RULES(NAME)};

unsigned rules_count(void)
{
    return ARRAY_SIZE(names);
}

const char *rules_name(unsigned index)
{
    return names[index];
}

bool rules_break(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        if (!strcmp(names[i], name)) {
            qcow2_broken_rule = (enum qcow2_rule)(i + 1);
            return true;
        }
    return false;
}

#else

unsigned rules_count(void)
{
    return 0;
}

const char *rules_name(unsigned index)
{
    (void)index;
    return NULL;
}

bool rules_break(const char *name)
{
    (void)name;
    return false;
}

#endif
