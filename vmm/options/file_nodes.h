/* SPDX-License-Identifier: MIT */
/*
 * file_nodes: nodes of -blockdev and blockdev-add for plain files, to which a format's node or a
 * device refers later. Such a node is a name for a file and what was said about it; whoever uses it
 * opens it, so that the image's locks are taken once.
 */
#ifndef VMM_OPTIONS_FILE_NODES_H
#define VMM_OPTIONS_FILE_NODES_H

#include "vmm/config.h"
#include "vmm/options/keyval.h"

bool file_nodes_has(const struct vm_config *config, const char *name);
/* Takes the list's words over. */
int must_check file_nodes_add(struct vm_config *config, const char *name, struct keyval *list,
                              struct error *err);
/* There is one of that name; -EBUSY where a disk has it. */
int must_check file_nodes_del(struct vm_config *config, const char *name, struct error *err);
/* Adds the words of the file to those of the node `user`, which is going to open it. */
int must_check file_nodes_use(struct vm_config *config, const char *name, const char *user,
                              struct keyval *list, struct error *err);
/* Adds its words to those of the node that has opened it: there is one of that name. */
int must_check file_nodes_words(const struct vm_config *config, const char *name,
                                struct keyval *list, struct error *err);
/* As file_nodes_use, and the file's node is no more: there is one of that name. */
int must_check file_nodes_take(struct vm_config *config, const char *name, struct keyval *list,
                               struct error *err);
/* Somebody writes to the file itself until file_nodes_release: nobody else uses it. */
int must_check file_nodes_hold(struct vm_config *config, const char *name, const char **path,
                               struct error *err);
void file_nodes_release(struct vm_config *config, const char *name);
/* Where the file lies, or NULL: there is no such node. */
const char *file_nodes_path(const struct vm_config *config, const char *name);
/* Can all of them be read? Blocks: start-up. */
int must_check file_nodes_check(const struct vm_config *config, struct error *err);
void file_nodes_fini(struct vm_config *config);

#endif
