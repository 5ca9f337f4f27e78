/* SPDX-License-Identifier: MIT */
/* machine_types: QEMU's names that -machine takes; all mean the same machine. */
#include "vmm/options/machine_types.h"

#include <string.h>

const struct machine_type machine_types[MACHINE_TYPES] = {
    {"pc-q35-7.2", "q35"},
    {"pc-i440fx-7.2", "pc"},
};

bool machine_types_has(const char *name)
{
    for (unsigned i = 0; i < MACHINE_TYPES; i++)
        if (strcmp(name, machine_types[i].alias) == 0)
            return true;
    return strncmp(name, "pc-q35-", 7) == 0 || strncmp(name, "pc-i440fx-", 10) == 0;
}
