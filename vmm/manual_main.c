/* SPDX-License-Identifier: MIT */
/* manual_main: evisor_man: copies a manual from standard input with its table-made parts written anew. */
#include <stdlib.h>

#include "base/log.h"
#include "vmm/manual.h"

int main(void)
{
    log_set_program("evisor_man");
    if (manual_update(stdin, stdout) == 0)
        return EXIT_SUCCESS;
    log_error("the manual has a part that no table stands for");
    return EXIT_FAILURE;
}
