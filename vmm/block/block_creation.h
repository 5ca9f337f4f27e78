/* SPDX-License-Identifier: MIT */
/*
 * block_creation: the jobs of blockdev-create. Unlike those of disk/jobs they use no disk: each is
 * one piece of work on a thread, with the life cycle and the verbs of QEMU's other jobs. They stay
 * until job-dismiss.
 */
#ifndef VMM_BLOCK_BLOCK_CREATION_H
#define VMM_BLOCK_BLOCK_CREATION_H

#include "vmm/block/block_private.h"

/* What query-jobs calls them. */
#define BLOCK_CREATION_TYPE "create"

struct block_creation;

struct block_creation *block_creation_find(const struct block *block, const char *id);
/* Ends the call. `verb`: "cancel", "pause", "resume", "complete", "finalize", "dismiss". */
void block_creation_verb(struct block_call *call, struct block_creation *creation,
                         const char *verb);
/* Entries of query-jobs. */
void block_creation_list(const struct block *block, json_t *list);
/* They leave block->creations, those at work later. */
void block_creation_end_all(struct block *block);

#endif
