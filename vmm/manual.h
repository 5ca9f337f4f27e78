/* SPDX-License-Identifier: MIT */
/*
 * manual: the parts of docs/evisor.1 that come from tables: options, monitor commands, QMP
 * commands. tools/update-man puts them into the file; a test sees that they are what is there.
 */
#ifndef VMM_MANUAL_H
#define VMM_MANUAL_H

#include <stdio.h>

/*
 * Copies a manual; what stands between the lines `.\" begin PART` and `.\" end PART` is written
 * anew, PART being options, monitor or qmp. 0, or -EINVAL if it meets a part of another name.
 */
int manual_update(FILE *from, FILE *to);

#endif
