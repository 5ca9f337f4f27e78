/* SPDX-License-Identifier: MIT */
/*
 * model: a machine's description: the members of machine.json, and the command line of evisor that
 * follows from it.
 *
 *   format 1, name, uuid, os, created (Unix seconds), cpus, memory-mib, cpus-max and
 *   memory-max-mib (room to grow while it runs; may be missing),
 *   accel, kernel, initrd, append, bios, boot, user (for ssh), console ("hvc": a virtio one beside
 *   the serial one), reverting (the snapshot that a revert which has not ended goes back to): texts
 *   that may be missing,
 *   disks: [{id, file, format, kind: "disk" or "iso", base, layers}]: a file without '/' lies in
 *     the folder; base is the image of another machine that a linked clone's disk builds on, layers
 *     are the images in the folder that it or, after a flatten, linked clones build on, lowest
 * first; nics: [{id, mode, mac, network, bridge, tap, link ("off": no cable), forwards:
 *     ["tcp:127.0.0.1:2222-:22"]}], mode being
 *     user, network, bridged or tap.
 */
#ifndef TOOLS_EVCTL_MODEL_H
#define TOOLS_EVCTL_MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "tools/evctl/store.h"

#define MODEL_FORMAT 1

/* -EINVAL with a sentence that names the member. */
int must_check model_check(const json_t *config, struct error *err);

struct model_os {
    const char *name;
    const char *user; /* who logs in over ssh */
    const char *title;
};
/* NULL if it is not known; NULL `name` gives the n-th. */
const struct model_os *model_find_os(const char *name);
const struct model_os *model_nth_os(unsigned n);

/* An empty machine with a fresh UUID; belongs to the caller. */
json_t *model_new(const char *name, const char *os);
/* New identity for a copy: UUID, MAC addresses, name, time. */
void model_renew(json_t *config, const char *name);

const char *model_text(const json_t *config, const char *key);
uint64_t model_number(const json_t *config, const char *key);
/* Sets the text, or removes it where the text is empty. */
void model_set_text(json_t *config, const char *key, const char *text);

/* The disk or NIC of that id, or NULL. `list` is "disks" or "nics". */
json_t *model_find(const json_t *config, const char *list, const char *id);
int must_check model_remove(json_t *config, const char *list, const char *id, struct error *err);
/* "disk0", "disk1", ...: the first that is free. */
void model_free_id(const json_t *config, const char *list, const char *prefix, char id[32]);
json_t *model_add_disk(json_t *config, const char *kind, const char *file, const char *format);
/*
 * `text` is user, bridge=NAME, tap=NAME or the name of a network of `evctl net`, then optionally
 * ",mac=ADDRESS" and ",forward=RULE".
 */
int must_check model_add_nic(json_t *config, const char *text, struct error *err);

/*
 * "[tcp|udp:][HOST:]HOSTPORT:GUESTPORT" or evisor's own "tcp:HOST:PORT-GUEST:PORT", put into the
 * latter form. NULL with err set.
 */
char *model_read_forward(const char *text, struct error *err);

/* Words for execv: evisor's arguments; the caller frees it. NULL with err set. */
json_t *model_command(const struct machine *machine, bool is_paused, struct error *err);

#endif
