/* SPDX-License-Identifier: MIT */
/*
 * machine: one virtual machine: its devices in one table, its run state, and what a person or a
 * client may do to it. Everything here runs on the loop's thread.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/error.h"
#include "base/loop.h"
#include "vmm/config.h"

struct machine;
struct disk;
struct net_backend;
struct address_snoop;
struct net_filter;
struct chardev;

/* As QEMU's RunState, the part that evisor has. */
enum machine_state {
    MACHINE_PRELAUNCH, /* built, never started (-S) */
    MACHINE_RUNNING,
    MACHINE_PAUSED,
    MACHINE_SHUTDOWN, /* the guest is off, the process stays (-no-shutdown) */
    MACHINE_IO_ERROR, /* stopped by werror/rerror */
    MACHINE_INTERNAL_ERROR,
    MACHINE_GUEST_PANICKED,
};

/* QAPI's ShutdownCause, as far as it occurs. */
enum machine_shutdown_cause {
    SHUTDOWN_HOST_QMP_QUIT,
    SHUTDOWN_HOST_QMP_SYSTEM_RESET,
    SHUTDOWN_HOST_SIGNAL,
    SHUTDOWN_HOST_UI,
    SHUTDOWN_HOST_ERROR,
    SHUTDOWN_GUEST_SHUTDOWN,
    SHUTDOWN_GUEST_RESET,
    SHUTDOWN_GUEST_PANIC,
    SHUTDOWN_GUEST_TRIPLE_FAULT, /* QAPI knows it as guest-reset only; see _detail */
};

const char *machine_state_name(enum machine_state state);                   /* "running" */
const char *machine_shutdown_cause_name(enum machine_shutdown_cause cause); /* "guest-shutdown" */
/* What QAPI's names do not tell apart ("triple-fault"), or NULL. */
const char *machine_shutdown_cause_detail(enum machine_shutdown_cause cause);
/* True for what the guest did, as in the events' "guest" member. */
bool machine_shutdown_cause_is_guest(enum machine_shutdown_cause cause);

enum machine_event {
    MACHINE_EVENT_STOP,
    MACHINE_EVENT_RESUME,
    MACHINE_EVENT_POWERDOWN,
    MACHINE_EVENT_RESET,
    MACHINE_EVENT_SHUTDOWN,
    MACHINE_EVENT_GUEST_PANICKED,
};

/* A request of the guest's that the host could not do, and what became of it. */
struct machine_block_error {
    unsigned disk; /* index into the config's disks */
    bool is_read;
    const char *action; /* "report", "ignore" or "stop" */
    int code;           /* a positive errno */
};

/* For the control socket: told on the loop, in order. `cause` counts for RESET and SHUTDOWN. */
struct machine_listener {
    void (*on_event)(void *opaque, enum machine_event event, enum machine_shutdown_cause cause);
    void (*on_block_error)(void *opaque, const struct machine_block_error *error);
    /* What machine_nic_addresses tells of this NIC has changed. */
    void (*on_nic_addresses)(void *opaque, unsigned nic);
    /* Any other event, by its name in QMP. `data` is the caller's; NULL: none. */
    void (*on_named_event)(void *opaque, const char *name, json_t *data);
    void *opaque;
};

/*
 * Opens everything the config names, builds the machine, starts the vCPU threads parked. Blocks:
 * start-up. `config` must outlive the machine, whose hot-plug changes
 * its tables.
 */
int must_check machine_create(struct loop *loop, struct vm_config *config, struct machine **out,
                              struct error *err);

/*
 * The disks and devices of I/O threads belong to the caller for the rest of the loop's turn: before
 * anything of them is looked at or changed.
 */
void machine_take_io_threads(struct machine *machine);

void machine_set_listener(struct machine *machine, const struct machine_listener *listener);

/* Tells clients of an event by its name in QMP, which qmp_schema.c knows. Takes `data` over. */
void machine_emit_event(const struct machine *machine, const char *name, json_t *data);

struct accel_vcpu;
struct accel_exit;
struct guest_mem;

/* For vmm/gdb. */
struct machine_debugger {
    /*
     * The machine ran and now stands still, all vCPUs parked. `exit` is the breakpoint or step of
     * `cpu` that stopped it, or NULL for any other reason.
     */
    void (*on_stopped)(void *opaque, unsigned cpu, const struct accel_exit *exit);
    void *opaque;
};

void machine_set_debugger(struct machine *machine, const struct machine_debugger *debugger);
/* To be touched only while the machine is not running. */
struct accel_vcpu *machine_accel_vcpu(const struct machine *machine, unsigned index);
const struct guest_mem *machine_guest_mem(const struct machine *machine);

typedef void machine_done_fn(void *opaque, int result, const struct error *err);

/*
 * Each answers through on_done, later, on the loop, after the events that it caused; on_done may be
 * NULL. Stopping what is stopped and continuing what runs succeed and do nothing.
 */
void machine_stop(struct machine *machine, machine_done_fn *on_done, void *opaque);
void machine_cont(struct machine *machine, machine_done_fn *on_done, void *opaque);
void machine_reset(struct machine *machine, enum machine_shutdown_cause cause,
                   machine_done_fn *on_done, void *opaque);
/* As -no-reboot and -no-shutdown, from now on. */
void machine_set_actions(struct machine *machine, bool no_reboot, bool no_shutdown);
/* A little after the start: what was put off for the guest's first instruction. */
void machine_settle(struct machine *machine);
/* Presses the ACPI power button. */
void machine_powerdown(struct machine *machine);
/* Ends the machine: SHUTDOWN event, then machine_on_exit's callback. */
void machine_quit(struct machine *machine, enum machine_shutdown_cause cause);
/* Called once when the process should go on to machine_close and leave. */
void machine_on_exit(struct machine *machine, void (*on_exit)(void *opaque, int status),
                     void *opaque);
/* Stops vCPUs, closes devices backwards, then disks and backends, frees. */
void machine_close(struct machine *machine, void (*on_closed)(void *opaque), void *opaque);

enum machine_state machine_get_state(const struct machine *machine);
const struct vm_config *machine_config(const struct machine *machine);
const char *machine_accel_name(const struct machine *machine);
/* All that it can offer on this host, whatever -cpu took of it. */
int must_check machine_offered_cpuid(const struct machine *machine, struct accel_cpuid *out);
/* Why that is not the first accelerator of the config's list, in one line; "" if it is. */
const char *machine_accel_why(const struct machine *machine);
/* Disks and NICs by their places in the config's tables; NULL: the place is free at present. */
struct disk *machine_disk(const struct machine *machine, unsigned index);
/* The errno for which the guest's requests wait until the machine continues, or 0. */
int machine_disk_error(const struct machine *machine, unsigned index);
struct net_backend *machine_net_backend(const struct machine *machine, unsigned index);
/* The IP addresses that the guest has been seen to use there. */
const struct address_snoop *machine_nic_addresses(const struct machine *machine, unsigned index);
/* Which frames the guest wants there; NULL: there is no NIC. See virtio_net_read_filter. */
const struct net_filter *machine_read_filter(const struct machine *machine, unsigned index);
/* The chardev of config->chardevs[index]; NULL for those the control socket owns. */
struct chardev *machine_chardev(const struct machine *machine, unsigned index);

struct machine_cpu_info {
    unsigned index;
    unsigned socket, core, thread;
    int thread_id;   /* of the vCPU thread on the host */
    bool is_present; /* else device_add may plug it in */
    const char *id;  /* that device_add gave it, or "" */
};

/* `index` is below vm_config_max_cpus. */
void machine_get_cpu(const struct machine *machine, unsigned index, struct machine_cpu_info *out);
/* Is there a CPU of that number, whatever the number? */
bool machine_has_cpu(const struct machine *machine, int64_t index);

/* Counters for query-stats: names are stable. Calls `emit` for each. */
void machine_for_each_stat(const struct machine *machine,
                           void (*emit)(void *opaque, const char *group, const char *name,
                                        uint64_t value),
                           void *opaque);

#endif
