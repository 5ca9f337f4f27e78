/* SPDX-License-Identifier: MIT */
/*
 * commands: what QMP clients may ask for. One table drives dispatch, the check of arguments and
 * query-commands.
 *
 * A handler ends its call once, now or later, with qmp_call_return or qmp_call_fail. The client may
 * be gone by then; the answer is then thrown away.
 */
#ifndef VMM_CONTROL_COMMANDS_H
#define VMM_CONTROL_COMMANDS_H

#include <jansson.h>

#include "base/list.h"
#include "vmm/control/control_private.h"

#define QMP_ARGUMENTS_MAX 24

enum qmp_type {
    QMP_STRING,
    QMP_INT,
    QMP_BOOL,
    QMP_OBJECT,
    QMP_ARRAY,
    QMP_ANY, /* any value: the handler checks it */
};

struct qmp_argument {
    const char *name; /* NULL: no more */
    enum qmp_type type;
    bool is_optional;
};

/* As the last argument: the command takes any others too, and checks them itself. */
#define QMP_ANY_OTHERS                                                                             \
    {                                                                                              \
        "*", QMP_OBJECT, true                                                                      \
    }

/* `value` or `error`, of which one is NULL. */
typedef void commands_done_fn(void *opaque, const json_t *value, const char *error);

struct qmp_call {
    struct control *control;
    struct control_client *client; /* NULL when it is gone */
    const struct qmp_command *command;
    json_t *arguments;         /* an object, checked against the command's table */
    json_t *id;                /* or NULL */
    commands_done_fn *on_done; /* of commands_run, or NULL */
    void *opaque;
    struct list node; /* in control->quits */
};

struct qmp_command {
    const char *name;
    const char *help; /* a sentence for the manual */
    void (*run)(struct qmp_call *call);
    const char *returns; /* a type of qmp_types.h; NULL: nothing */
    struct qmp_argument arguments[QMP_ARGUMENTS_MAX + 1];
};

/* NULL if there is none of that name. */
const struct qmp_command *commands_find(const char *name);
const struct qmp_command *commands_table(unsigned *count);

/* The nearest known name, or NULL. */
const char *commands_suggest(const char *name);

/*
 * NULL if the arguments fit the command, else a sentence of QEMU's; the caller frees it. `where`
 * stands before their names in it: "", or "actions[0].data.".
 */
char *commands_check(const struct qmp_command *command, json_t *arguments, const char *where);
/* The same of an entry of a list of objects, named as "actions[0].". */
char *commands_check_entry(const struct qmp_command *command, json_t *entry, const char *list,
                           size_t index);

/* The arguments fit. */
void commands_start(struct qmp_call *call);
/* Runs a command for somebody who is no client; on_done once, maybe at once. */
void commands_run(struct control *control, const char *name, json_t *arguments,
                  commands_done_fn *on_done, void *opaque);

/* The end of a call; frees it. `value` is taken over; NULL means {}. */
void qmp_call_return(struct qmp_call *call, json_t *value);
void qmp_call_fail(struct qmp_call *call, const char *class, const char *format, ...)
    printf_like(3, 4);

#define QMP_GENERIC   "GenericError"
#define QMP_NOT_FOUND "CommandNotFound"

/* As a machine_done_fn, with the call as opaque: returns {} or fails with the sentence. */
void qmp_call_done(void *opaque, int result, const struct error *err);

/* What a PCI class is called; NULL if it has no name here. */
const char *commands_pci_class_name(uint16_t class);
/* The NAT of the netdev or NIC of that name, or the first one for NULL; NULL if there is none. */
struct net_backend *commands_find_nat(const struct machine *machine, const char *name);

/* Calls of quit are answered after the SHUTDOWN event, or when the control socket closes. */
void commands_answer_quits(struct control *control);

/* qmp.c: the one who answers a call. */
void qmp_send_reply(struct control_client *client, json_t *reply);
void qmp_call_finished(struct control_client *client);

/* {"qemu": {...}, "package": "..."}: the level of QEMU's protocol, and who we really are. */
json_t *qmp_version(void);

/* {"id": "net0", "nic": "nic0", "addresses": [...]}: newest first; "" where the netdev is gone. */
json_t *qmp_nic_addresses(const struct machine *machine, unsigned index);

/* The path by which a CPU is known. */
void qmp_cpu_path(const struct machine_cpu_info *cpu, char *text, size_t size);

/* The groups of handlers. */
typedef void qmp_handler_fn(struct qmp_call *call);
/* commands_query.c */
qmp_handler_fn qmp_query_version, qmp_query_status, qmp_query_name, qmp_query_uuid, qmp_query_kvm,
    qmp_query_target, qmp_query_cpus_fast, qmp_query_chardev, qmp_query_iothreads, qmp_query_stats;
/* commands_guest.c */
qmp_handler_fn qmp_balloon, qmp_query_balloon, qmp_query_memory_devices,
    qmp_query_memory_size_summary, qmp_query_machines, qmp_query_cpu_definitions,
    qmp_query_command_line_options, qmp_query_memdev, qmp_query_current_machine, qmp_system_wakeup;
/* Of all virtio-mem devices together: what the guest has plugged. */
uint64_t commands_plugged_bytes(const struct machine *machine);
/* As query-memdev answers: the memory of -m under QEMU's name for it, where no backend is that,
 * then the backends. */
json_t *commands_memdevs(const struct machine *machine);
/* commands_fd.c */
qmp_handler_fn qmp_getfd, qmp_closefd, qmp_add_fd, qmp_remove_fd, qmp_query_fdsets;
/* commands_pci.c */
qmp_handler_fn qmp_query_pci;
/* commands_chardev.c */
qmp_handler_fn qmp_chardev_add, qmp_chardev_remove, qmp_chardev_resize, qmp_chardev_send_break,
    qmp_ringbuf_read, qmp_ringbuf_write, qmp_query_chardev_backends;
/* commands_qom.c */
qmp_handler_fn qmp_qom_list, qmp_qom_get, qmp_qom_set, qmp_qom_list_types, qmp_qom_list_properties,
    qmp_device_list_properties;
/* commands_block.c */
/* ImageInfo, with the images below it; NULL: a name is not UTF-8. */
json_t *commands_image(const struct disk *disk);
qmp_handler_fn qmp_query_block, qmp_query_blockstats, qmp_query_named_block_nodes, qmp_block_resize;
/* commands_reopen.c */
qmp_handler_fn qmp_blockdev_reopen;
/* commands_hotplug.c */
qmp_handler_fn qmp_device_add, qmp_device_del, qmp_netdev_add, qmp_netdev_del, qmp_blockdev_add,
    qmp_blockdev_del, qmp_object_add, qmp_object_del, qmp_nic_set_netdev,
    qmp_query_hotpluggable_cpus;
struct keyval;
/* All arguments as one list: members of members as "a.b", booleans as "on" and "off". */
int must_check qmp_arguments_to_keyval(const struct qmp_call *call, struct keyval *list,
                                       struct error *err);
/* commands_stats.c */
qmp_handler_fn qmp_query_stats_schemas;
/* commands_jobs.c */
qmp_handler_fn qmp_block, qmp_transaction, qmp_blockdev_create;
/* qmp_schema.c */
qmp_handler_fn qmp_query_qmp_schema;
/* commands_net.c */
qmp_handler_fn qmp_query_nic_addresses, qmp_query_rx_filter, qmp_set_link;
qmp_handler_fn qmp_guestfwd_add, qmp_guestfwd_remove, qmp_hostfwd_add, qmp_hostfwd_remove,
    qmp_query_forwards;
/* commands_run.c */
qmp_handler_fn qmp_inject_nmi, qmp_set_action, qmp_stop, qmp_cont, qmp_system_powerdown,
    qmp_system_reset, qmp_quit, qmp_human_monitor_command;

#endif
