/* SPDX-License-Identifier: MIT */
/*
 * network_steps: changes to the host's network that can be taken back: each step that succeeded
 * leaves in `undo` (a JSON array that is kept with the network) what reverses it.
 */
#ifndef TOOLS_EVCTL_NETWORK_STEPS_H
#define TOOLS_EVCTL_NETWORK_STEPS_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

/* Words up to NULL, as steps_run takes them. */
json_t *steps_words(const char *first, ...) __attribute__((sentinel));

/* Where a program of the host's is, also beside the usual path; the error names its package. */
char *steps_find(const char *program, struct error *err);

/*
 * Runs words[0] with the rest (taken). `reverse`, words in the same form, is kept if it succeeds;
 * NULL: nothing is to be reversed. Taken in any case.
 */
int must_check steps_run(json_t *undo, json_t *words, json_t *reverse, struct error *err);
/* Writes a file of /proc/sys; what was in it is kept, where `undo` is not NULL. */
int must_check steps_write(json_t *undo, const char *path, const char *value, struct error *err);
/* From now on the process that the file names, a `program`, is to be ended by steps_undo. */
void steps_end_process(json_t *undo, const char *program, const char *pid_file);
/* Whether that process is there; and its end, now. */
bool steps_is_alive(const char *program, const char *pid_file);
void steps_stop_process(const char *program, const char *pid_file);
/* What `path` says now is written there when all is undone, whatever happened to it meanwhile. */
void steps_keep(json_t *undo, const char *path);
/* Which start of the host this is: what it had before is gone. */
void steps_boot_id(char out[64]);
/* What a program prints, as JSON; NULL with err set. Takes words. */
json_t *steps_ask(json_t *words, struct error *err);

/* Reverses all, the last first, and empties the array. What is gone already is no error. */
void steps_undo(json_t *undo);

/* While the host's network is half-way, a lost terminal or an impatient person must not stop us. */
void steps_shield(void);

bool steps_interface_exists(const char *name);

#endif
