/* SPDX-License-Identifier: MIT */
/*
 * store: machines as folders: where they are, their locks, their state, machine.json.
 *
 * All machines lie in $XDG_DATA_HOME/evisor (default ~/.local/share/evisor). A machine's folder
 * holds machine.json, its disks, `lock` (held by the command that changes the machine), and while
 * it runs `pid` (locked by evisor, which is how its running is known), the sockets `qmp` and
 * `console`, and the logs. evisor runs inside the folder, so that no path is too long for a socket.
 */
#ifndef TOOLS_EVCTL_STORE_H
#define TOOLS_EVCTL_STORE_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

#define STORE_NAME_MAX    64
#define STORE_CONFIG_FILE "machine.json"

struct machine {
    char *name;
    char *folder; /* absolute */
    int folder_fd;
    int lock_fd;          /* -1: not locked */
    json_t *config;       /* checked by machine_check */
    struct error problem; /* why there is none: MACHINE_BROKEN_OK */
    bool is_new;          /* made, and not published yet */
};

/* The folder of all machines, made if need be; the caller frees it. NULL with err set. */
char *store_root(struct error *err);
/* "ROOT/NAME", or with NULL "ROOT"; the caller frees it. */
char *store_path(const char *name, struct error *err);

/* What may be a name: 1 to 64 bytes of UTF-8 without '/', control characters, '.' or '-' first. */
int must_check store_check_name(const char *name, struct error *err);
/* The names of all machines, sorted, as a JSON array, also of those that cannot be opened. NULL
 * with err set. */
json_t *store_names(struct error *err);
/* The one of these names that may have been meant, or NULL. */
const char *store_nearest(const json_t *names, const char *wanted);

enum machine_open_flags {
    MACHINE_LOCK = 1 << 0,      /* for a change: waits a little for other commands, then EBUSY */
    MACHINE_STOPPED = 1 << 1,   /* EISCONN if it runs */
    MACHINE_RUNNING = 1 << 2,   /* ENOTCONN if it does not */
    MACHINE_BROKEN_OK = 1 << 3, /* without config, but a problem, if machine.json cannot be read */
};
int must_check machine_open(const char *name, unsigned flags, struct machine *machine,
                            struct error *err);
/*
 * Makes the folder and locks it; fails if there is such a machine. config is an empty object.
 * Nobody sees the machine before it is published: it lies in ROOT/.NAME.new until then.
 */
int must_check machine_make(const char *name, struct machine *machine, struct error *err);
/* Writes machine.json, and gives the folder its name. */
int must_check machine_publish(struct machine *machine, struct error *err);
void machine_unlock(struct machine *machine);
void machine_close(struct machine *machine);
/* Removes the folder with all that is in it. The machine is locked and stopped. */
int must_check machine_remove(struct machine *machine, struct error *err);

/* The process that runs it, or 0. Told by the lock on its pid file, never by what is in it alone.
 */
pid_t machine_pid(int folder_fd);

/* Writes machine.json: whole or not at all. */
int must_check machine_save(struct machine *machine, struct error *err);
/* A small file as a text that the caller frees; NULL with err set, also above `max_bytes`. */
char *store_read_file(const char *path, size_t max_bytes, size_t *length, struct error *err);
/* A path inside the folder; the caller frees it. */
char *machine_path(const struct machine *machine, const char *file);

#endif
