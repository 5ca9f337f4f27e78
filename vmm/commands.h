/* SPDX-License-Identifier: MIT */
/*
 * commands: what QMP clients may ask for. One table drives dispatch, the check of arguments and
 * query-commands.
 *
 * A handler ends its call once, now or later, with qmp_call_return or qmp_call_fail. The client may
 * be gone by then; the answer is then thrown away.
 */
#ifndef VMM_COMMANDS_H
#define VMM_COMMANDS_H

#include <jansson.h>

#include "base/list.h"
#include "vmm/control_private.h"

#define QMP_ARGUMENTS_MAX 24

enum qmp_type {
    QMP_STRING,
    QMP_INT,
    QMP_BOOL,
    QMP_OBJECT,
    QMP_ARRAY,
};

struct qmp_argument {
    const char *name; /* NULL: no more */
    enum qmp_type type;
    bool is_optional;
};

struct qmp_call {
    struct control *control;
    struct control_client *client; /* NULL when it is gone */
    const struct qmp_command *command;
    json_t *arguments; /* an object, checked against the command's table */
    json_t *id;        /* or NULL */
    struct list node;  /* in control->quits */
};

struct qmp_command {
    const char *name;
    const char *help; /* a sentence for the manual */
    void (*run)(struct qmp_call *call);
    struct qmp_argument arguments[QMP_ARGUMENTS_MAX + 1];
};

/* NULL if there is none of that name. */
const struct qmp_command *commands_find(const char *name);
const struct qmp_command *commands_table(unsigned *count);

/* The nearest known name, or NULL. */
const char *commands_suggest(const char *name);

/* NULL if the arguments fit the command, else a sentence of QEMU's; the caller frees it. */
char *commands_check(const struct qmp_command *command, json_t *arguments);

/* The end of a call; frees it. `value` is taken over; NULL means {}. */
void qmp_call_return(struct qmp_call *call, json_t *value);
void qmp_call_fail(struct qmp_call *call, const char *class, const char *format, ...)
    printf_like(3, 4);

#define QMP_GENERIC   "GenericError"
#define QMP_NOT_FOUND "CommandNotFound"

/* As a machine_done_fn, with the call as opaque: returns {} or fails with the sentence. */
void qmp_call_done(void *opaque, int result, const struct error *err);

/* Calls of quit are answered after the SHUTDOWN event, or when the control socket closes. */
void commands_answer_quits(struct control *control);

/* qmp.c: the one who answers a call. */
void qmp_send_reply(struct control_client *client, json_t *reply);
void qmp_call_finished(struct control_client *client);

/* {"qemu": {...}, "package": "..."}: the level of QEMU's protocol, and who we really are. */
json_t *qmp_version(void);

/* {"id": "net0", "addresses": [...]}: newest first. */
json_t *qmp_nic_addresses(const struct machine *machine, unsigned index);

/* The groups of handlers. */
typedef void qmp_handler_fn(struct qmp_call *call);
/* commands_query.c */
qmp_handler_fn qmp_query_version, qmp_query_status, qmp_query_name, qmp_query_uuid, qmp_query_kvm,
    qmp_query_target, qmp_query_cpus_fast, qmp_query_chardev, qmp_query_iothreads,
    qmp_query_balloon, qmp_query_stats;
/* commands_block.c */
qmp_handler_fn qmp_query_block, qmp_query_blockstats, qmp_query_named_block_nodes, qmp_block_resize;
/* qmp_schema.c */
qmp_handler_fn qmp_query_qmp_schema;
/* commands_net.c */
qmp_handler_fn qmp_query_nic_addresses, qmp_set_link;
/* commands_run.c */
qmp_handler_fn qmp_stop, qmp_cont, qmp_system_powerdown, qmp_system_reset, qmp_quit,
    qmp_human_monitor_command;

#endif
