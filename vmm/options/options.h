/* SPDX-License-Identifier: MIT */
/*
 * options: the command line in QEMU's words, to a struct vm_config.
 *
 * A pure function of argv: it opens no file and asks the host nothing, so whether a file exists is
 * found out by machine_create. Arguments may come in any order: what refers to an id is resolved
 * when all of them have been read. What evisor does not know is refused by name, with the nearest
 * name that it knows or with what to use instead.
 */
#ifndef VMM_OPTIONS_OPTIONS_H
#define VMM_OPTIONS_OPTIONS_H

#include <stdio.h>

#include "base/error.h"
#include "vmm/config.h"

/*
 * argv[0] is skipped. 0 with *text NULL: `config` is filled and is the caller's to vm_config_fini.
 * 0 with *text set: -help, -version or a "help" value asked for a text; print it to standard
 * output, free it and exit with 0; there is no config then. -errno: err says which option is wrong
 * and what to write instead.
 */
int must_check options_parse(int argc, char *const argv[], struct vm_config *config, char **text,
                             struct error *err);

/* The options part of docs/evisor.1, in man(7); for tools/evisor_man. */
void options_write_man(FILE *to);

#endif
