/* SPDX-License-Identifier: MIT */
/*
 * evctl: what its commands share: the command table, a parsed call, and how commands end.
 *
 * A command returns 0, or -errno with one sentence in `err`; evctl.c turns the code into the exit
 * status and prints the sentence. The table drives parsing, help, completion and the manual alike.
 */
#ifndef TOOLS_EVCTL_EVCTL_H
#define TOOLS_EVCTL_EVCTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/* Exit statuses; docs/evctl.1 lists them. evctl.c has the codes that stand for them. */
enum evctl_status {
    EVCTL_OK = 0,
    EVCTL_FAILED = 1,
    EVCTL_USAGE = 2,       /* EINVAL: the command line is wrong */
    EVCTL_NOT_FOUND = 3,   /* ENODEV: no machine, disk, NIC, network or snapshot of that name */
    EVCTL_WRONG_STATE = 4, /* ENOTCONN, EISCONN: it runs and should not, or the reverse */
    EVCTL_BUSY = 5,        /* EBUSY: another command works on the machine */
    EVCTL_TIMEOUT = 6,     /* ETIMEDOUT */
    EVCTL_UNSUPPORTED = 7, /* ENOTSUP */
};

/* What a word on the command line is, for completion. */
enum evctl_word {
    WORD_TEXT,
    WORD_MACHINE,
    WORD_FILE,
    WORD_FOLDER,
    WORD_NETWORK,
    WORD_COMMAND,
    WORD_SNAPSHOT, /* of the machine before it, as are disks and devices */
    WORD_DISK,
    WORD_DEVICE,
    WORD_KIND, /* of what attach adds */
    WORD_OS,
    WORD_SHELL,
    WORD_FORWARD, /* of the machine before it */
    WORD_CONSOLE,
    WORD_ACCEL,
    WORD_BOOT,
    WORD_FORMAT,
    WORD_MODE,
};

struct evctl_option {
    const char *name;     /* without "--" */
    char letter;          /* 0: none */
    const char *argument; /* NULL: a switch */
    enum evctl_word word;
    const char *help;
};

#define EVCTL_ARGUMENTS_MAX 64

struct evctl_call;

struct evctl_command {
    const char *name; /* one word, or two: "disk create" */
    const char *arguments;
    const char *summary; /* begins in lower case, no full stop */
    const char *help;    /* more sentences, or NULL */
    const char *example;
    const char *same_as; /* VBoxManage|virsh|vmrun, for the manual's table; NULL: left out */
    const struct evctl_option *options; /* ends with a NULL name; may be NULL */
    unsigned min_arguments, max_arguments;
    enum evctl_word words[3]; /* of the first arguments */
    int (*run)(struct evctl_call *call, struct error *err);
};

struct evctl_value {
    const struct evctl_option *option;
    const char *text; /* NULL for a switch */
};

struct evctl_call {
    const struct evctl_command *command;
    const char *arguments[EVCTL_ARGUMENTS_MAX];
    unsigned argument_count;
    struct evctl_value values[EVCTL_ARGUMENTS_MAX];
    unsigned value_count;
    bool json, quiet, help;
};

extern const struct evctl_command evctl_commands[];
extern const unsigned evctl_command_count;
/* --json, --quiet, --help: taken by every command. */
extern const struct evctl_option evctl_common_options[];

/* --- parse.c --- */

/* `argv` without the program's name. -EINVAL with "did you mean". */
int must_check parse_call(int argc, char **argv, struct evctl_call *call, struct error *err);
bool call_has(const struct evctl_call *call, const char *option);
/* The last value given, or NULL. */
const char *call_get(const struct evctl_call *call, const char *option);
/* The n-th value given, or NULL after the last. */
const char *call_nth(const struct evctl_call *call, const char *option, unsigned n);
/* Leave *out alone where the option is missing. */
int must_check call_uint(const struct evctl_call *call, const char *option, uint64_t min,
                         uint64_t max, uint64_t *out, struct error *err);
/* A size with suffix; a plain number counts MiB. */
int must_check call_size(const struct evctl_call *call, const char *option, uint64_t *out_bytes,
                         struct error *err);
bool must_check parse_size(const char *text, uint64_t unit, uint64_t *out_bytes);

/* --- help.c --- */

void help_print_all(FILE *to);
/* Those of the program itself, which help does not show. */
bool help_is_hidden(const struct evctl_command *command);
void help_print_command(FILE *to, const struct evctl_command *command);

/* --- the commands, by file --- */

int cmd_create(struct evctl_call *call, struct error *err);
int cmd_clone(struct evctl_call *call, struct error *err);
int cmd_delete(struct evctl_call *call, struct error *err);
int cmd_list(struct evctl_call *call, struct error *err);
int cmd_info(struct evctl_call *call, struct error *err);
int cmd_start(struct evctl_call *call, struct error *err);
int cmd_stop(struct evctl_call *call, struct error *err);
int cmd_rename(struct evctl_call *call, struct error *err);
int cmd_reset(struct evctl_call *call, struct error *err);
int cmd_pause(struct evctl_call *call, struct error *err);
int cmd_resume(struct evctl_call *call, struct error *err);
int cmd_console(struct evctl_call *call, struct error *err);
int cmd_logs(struct evctl_call *call, struct error *err);
int cmd_set(struct evctl_call *call, struct error *err);
int cmd_attach(struct evctl_call *call, struct error *err);
int cmd_detach(struct evctl_call *call, struct error *err);
int cmd_disk_create(struct evctl_call *call, struct error *err);
int cmd_disk_resize(struct evctl_call *call, struct error *err);
int cmd_disk_flatten(struct evctl_call *call, struct error *err);
int cmd_disk_info(struct evctl_call *call, struct error *err);
int cmd_forward_add(struct evctl_call *call, struct error *err);
int cmd_forward_del(struct evctl_call *call, struct error *err);
int cmd_forward_list(struct evctl_call *call, struct error *err);
int cmd_ip(struct evctl_call *call, struct error *err);
int cmd_net_create(struct evctl_call *call, struct error *err);
int cmd_net_list(struct evctl_call *call, struct error *err);
int cmd_net_start(struct evctl_call *call, struct error *err);
int cmd_net_stop(struct evctl_call *call, struct error *err);
int cmd_net_delete(struct evctl_call *call, struct error *err);
int cmd_snapshot_create(struct evctl_call *call, struct error *err);
int cmd_snapshot_list(struct evctl_call *call, struct error *err);
int cmd_snapshot_revert(struct evctl_call *call, struct error *err);
int cmd_snapshot_delete(struct evctl_call *call, struct error *err);
int cmd_stats(struct evctl_call *call, struct error *err);
int cmd_top(struct evctl_call *call, struct error *err);
int cmd_qmp(struct evctl_call *call, struct error *err);
int cmd_ssh(struct evctl_call *call, struct error *err);
int cmd_export(struct evctl_call *call, struct error *err);
int cmd_import(struct evctl_call *call, struct error *err);
int cmd_up(struct evctl_call *call, struct error *err);
int cmd_doctor(struct evctl_call *call, struct error *err);
int cmd_completion(struct evctl_call *call, struct error *err);
int cmd_words(struct evctl_call *call, struct error *err);
int cmd_manual(struct evctl_call *call, struct error *err);
int cmd_help(struct evctl_call *call, struct error *err);

#endif
