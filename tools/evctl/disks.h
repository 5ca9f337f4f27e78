/* SPDX-License-Identifier: MIT */
/* disks: the images of machines, made and changed by evisor-img. Machines are locked and stopped.
 */
#ifndef TOOLS_EVCTL_DISKS_H
#define TOOLS_EVCTL_DISKS_H

#include "tools/evctl/evctl.h"
#include "tools/evctl/store.h"

/* `text` is a size, for a new qcow2 image in the folder, or a file, used where it is. */
int must_check disks_add(struct machine *machine, const char *kind, const char *text,
                         struct error *err);
#define DISKS_FILE_BYTES 64
/* "disk0.qcow2", "disk0-1.qcow2", ...: the first that is not there, in use or not. */
void disks_free_file(const struct machine *machine, const char *id, char file[DISKS_FILE_BYTES]);
/* The first disk from an image: a copy or, linked, an overlay; grown to `size` (may be NULL). */
int must_check disks_add_copy(struct machine *machine, const char *image, bool is_linked,
                              const char *size, struct error *err);
/* Gives `to` a disk of its own in place of the one of `from` that `disk`, its description, names.
 */
int must_check disks_clone(const struct machine *from, struct machine *to, json_t *disk,
                           bool is_linked, struct error *err);
/* No other machine (`but` left out; or NULL) is unreadable: what such a one builds on nobody knows,
 * so that images must not be removed. */
int must_check disks_check_known(const struct machine *but, struct error *err);
/*
 * -EBUSY if disks of other machines build on images of this one that `what` would ruin: those that
 * its guest writes to, or with `is_any` any of them.
 */
int must_check disks_check_unlinked(const struct machine *machine, const char *what, bool is_any,
                                    struct error *err);
/* The names of the machines whose disks build on any image in this folder. NULL with err set. */
json_t *disks_clones_of(const char *folder, struct error *err);
/* Whether the path lies in the folder. */
bool disks_is_inside(const char *path, const char *folder);
/* The disks that snapshots are of: writable and qcow2. -ENOTSUP if one is not qcow2. */
int must_check disks_check_snapshots(const struct machine *machine, struct error *err);
/*
 * What evisor-img tells of the snapshots, each once, with the member "disks": the ids of the disks
 * that have it, and "missing": those that have not. NULL with err set.
 */
json_t *disks_snapshots(const struct machine *machine, struct error *err);
/* evisor-img info of one disk. NULL with err set. */
json_t *disks_info(const struct machine *machine, const json_t *disk, struct error *err);
/* The format of an image file, as evisor-img finds it; the caller frees it. NULL with err set. */
char *disks_probe(const char *path, struct error *err);

/* create.c: the options that create, set and up share; and a whole new machine. */
int must_check create_apply(const struct evctl_call *call, json_t *config, struct error *err);
/*
 * A forwarded port of the first NIC, as --forward says it. Where that end at the host is forwarded
 * already: with `replaces` elsewhere from now on, else -EINVAL.
 */
int must_check create_forward(json_t *config, const char *text, bool replaces, struct error *err);
int must_check create_fill(const struct evctl_call *call, struct machine *machine,
                           struct error *err);

#endif
