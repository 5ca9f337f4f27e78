/* SPDX-License-Identifier: MIT */
/* machine_block: the room of live disk work (vmm/block) as a part of the machine. */
#ifndef VMM_MACHINE_BLOCK_H
#define VMM_MACHINE_BLOCK_H

#include <jansson.h>

#include "vmm/machine.h"

/* As block_done_fn: `class` is NULL where it went well; `value` is taken over, NULL is {}. */
typedef void machine_block_fn(void *opaque, json_t *value, const char *class, const char *text);

/* Runs a QMP command about images; `arguments` fit the command's table. */
void machine_block_command(struct machine *machine, const char *name, const json_t *arguments,
                           machine_block_fn *done, void *opaque);
/* -EBUSY: a job or an export uses the disk. */
int must_check machine_block_check_unused(struct machine *machine, struct disk *disk,
                                          struct error *err);

/* A job, an export or a command is under way. */
bool machine_block_is_busy(const struct machine *machine);
bool machine_block_exports(const struct machine *machine, const struct disk *disk);
/* A node of any image in use has that name. */
bool machine_block_has_node(struct machine *machine, const char *name);
/* The words for the states and kinds of jobs; NULL after the last. */
const char *machine_job_status(unsigned index);
const char *machine_job_type(unsigned index);

/* For machine.c and machine_close.c. */
int must_check machine_make_block(struct machine *machine, struct error *err);
void machine_close_block(struct machine *machine, void (*on_closed)(struct machine *machine));
/* Requests that a limit holds back go on: the machine stops or ends. */
void machine_release_delayed(struct machine *machine);

#endif
