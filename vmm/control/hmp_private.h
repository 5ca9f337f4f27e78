/* SPDX-License-Identifier: MIT */
/* hmp_private: one command of the human monitor under way, and the tables of commands. */
#ifndef VMM_CONTROL_HMP_PRIVATE_H
#define VMM_CONTROL_HMP_PRIVATE_H

#include <stdio.h>

#include "vmm/control/control_private.h"
#include "vmm/control/hmp.h"

#define HMP_LINE_MAX 4096
#define HMP_WORDS    12

struct hmp_command;

struct hmp_call {
    struct control *control;
    FILE *out; /* lines end with "\r\n" */
    const struct hmp_command *command;
    const char *prefix;         /* "info " or "": what a person types before its name */
    char *words[HMP_WORDS + 1]; /* the command's arguments; NULL-terminated */
    unsigned word_count;
    char *format;     /* what follows '/' in the first word, or the second, or NULL */
    const char *rest; /* of the line after those, as it was typed */
    unsigned cpu;     /* which one the monitor looks at; a command may choose another */
    bool is_pending;  /* the handler will call hmp_finish */
    /* Private. */
    void (*look)(struct hmp_call *call);
    char *line, *typed;
    char *output;
    size_t output_size;
    hmp_done_fn *on_done;
    void *opaque;
    struct loop_task done;
};

struct hmp_command {
    const char *names;     /* "cont|c" */
    const char *arguments; /* one word each; more of them are refused, but after an "expr" */
    const char *help;
    void (*run)(struct hmp_call *call);
};

/* The call is answered; it ends later. */
void hmp_finish(struct hmp_call *call);
/* As a machine_done_fn with the call as opaque. */
void hmp_call_done(void *opaque, int result, const struct error *err);

/* The handlers: hmp_hotplug.c, hmp_network.c. */
typedef void hmp_handler_fn(struct hmp_call *call);
hmp_handler_fn hmp_device_add, hmp_device_del, hmp_netdev_add, hmp_netdev_del, hmp_object_add,
    hmp_object_del, hmp_chardev_add, hmp_chardev_remove, hmp_drive_add, hmp_drive_del,
    hmp_info_hotpluggable_cpus;
hmp_handler_fn hmp_set_link, hmp_hostfwd_add, hmp_hostfwd_remove, hmp_info_network,
    hmp_info_usernet;

/* hmp_memory.c */
hmp_handler_fn hmp_dump, hmp_print, hmp_sum, hmp_gva2gpa, hmp_gpa2hva, hmp_in, hmp_out;

/* hmp_cpu.c, hmp_registers.c, hmp_paging.c, hmp_tree.c */
hmp_handler_fn hmp_cpu, hmp_info_cpus, hmp_info_registers, hmp_info_tlb, hmp_info_mem,
    hmp_info_mtree, hmp_info_qtree;
/* Calls `look` while no CPU runs, and ends the call then. */
void hmp_inspect(struct hmp_call *call, void (*look)(struct hmp_call *call));
struct accel_vcpu;
/* While no CPU runs: the one that the monitor looks at, and an expression in the rest of the line.
 * False: said what is wrong. */
struct accel_vcpu *hmp_current_cpu(struct hmp_call *call);
bool must_check hmp_read_expression(struct hmp_call *call, int64_t *out);
/* The line ends here; false: said that it does not. */
bool must_check hmp_read_end(struct hmp_call *call);
void hmp_print_registers(FILE *out, struct accel_vcpu *cpu);

/* hmp_absent.c: why evisor has no such command of QEMU's; NULL: nor has QEMU. */
const char *hmp_why_absent(const char *name, bool is_info);

/* hmp_qmp.c: commands that QMP has too, by the name in the first word. */
hmp_handler_fn hmp_by_qmp, hmp_nbd_server_start, hmp_ringbuf_read;
/* False: it has been said what is wrong with the word, which may be NULL. */
bool must_check hmp_read_number(struct hmp_call *call, const char *word, int64_t *out);

/* hmp_guest.c */
hmp_handler_fn hmp_balloon, hmp_info_balloon, hmp_info_memory_devices, hmp_info_memory_size_summary,
    hmp_info_memdev, hmp_info_numa, hmp_no_vmstate, hmp_system_wakeup, hmp_getfd, hmp_closefd,
    hmp_qom_list, hmp_qom_get, hmp_qom_set, hmp_info_qom_tree;

/* hmp_block.c, hmp_pci.c */
hmp_handler_fn hmp_info_block, hmp_info_block_jobs, hmp_info_blockstats, hmp_info_snapshots,
    hmp_loadvm, hmp_delvm, hmp_info_pci;

extern const struct hmp_command hmp_commands[], hmp_infos[];
extern const unsigned hmp_command_count, hmp_info_count;

/* Runs what the first word names in the table; says so if there is nothing of that name. */
void hmp_dispatch(struct hmp_call *call, const struct hmp_command *table, unsigned count,
                  const char *what);

#endif
