/* SPDX-License-Identifier: MIT */
/*
 * fake_machine: vmm/machine.h without a machine, for tests of the control plane.
 *
 * stop, cont and reset answer a turn later, after their events; with `is_held` they wait for
 * fake_machine_release. Its disks, NIC and terminal are plain fields.
 */
#ifndef TESTS_FAKE_MACHINE_H
#define TESTS_FAKE_MACHINE_H

#include "devices/char.h"
#include "devices/guest_mem.h"
#include "devices/net_filter.h"
#include "disk/disk.h"
#include "netbackends/address_snoop.h"
#include "netbackends/net.h"
#include "vmm/accel.h"
#include "vmm/machine.h"
#include "vmm/machine_guest.h"
#include "vmm/machine_io_threads.h"
#include "vmm/machine_throttle.h"

#define FAKE_RAM_BYTES 65536

struct fake_op {
    enum { FAKE_STOP, FAKE_CONT, FAKE_RESET, FAKE_QUIT, FAKE_CLOSE, FAKE_INSPECT } kind;
    enum machine_shutdown_cause cause;
    machine_done_fn *on_done;
    void *opaque;
};

struct disk {
    const char *path, *format;
    uint64_t size_bytes;
    bool read_only;
    struct disk *backing;
    int resize_result;    /* what disk_resize will answer */
    int held_error;       /* an errno, or 0 */
    const char *snapshot; /* the name of the one it has, or NULL */
};

/* A terminal; what the monitor writes is kept. */
struct chardev {
    struct char_backend backend;
    char output[65536];
    size_t output_length;
    bool is_full; /* takes no output */
    unsigned breaks;
};

/* A CPU that is a bag of state. Its virtual addresses are FAKE_VIRTUAL above the physical ones. */
#define FAKE_VIRTUAL UINT64_C(0xffffffff80000000)

struct fake_cpu {
    struct accel_vcpu accel;
    struct accel_vcpu_state state;
    struct kvm_guest_debug debug;
};

struct machine {
    struct loop *loop;
    struct vm_config *config;
    enum machine_state state;
    struct machine_listener listener;
    unsigned console_columns, console_rows; /* as a client has set them */
    struct fake_op ops[64];
    unsigned op_count;
    bool is_held;
    struct loop_task step;
    const char *failure; /* the next stop, cont or reset fails with this */
    unsigned powerdowns, resets, quits;
    struct disk disks[2];
    struct net_backend nic;
    struct net_backend *backend; /* &nic unless a test has a better one */
    struct address_snoop addresses;
    struct net_filter filter; /* of the NIC */
    struct chardev terminal;
    struct machine_debugger debugger;
    struct accel_vm vm;
    struct fake_cpu cpus[2];
    uint8_t ram[FAKE_RAM_BYTES];
    struct guest_mem mem;
    char hotplug[1100]; /* the last thing that was asked of hotplug.h, as text */
    int hotplug_code;   /* the errno with which that fails, or 0 */
    unsigned conts;     /* how often it was told to go on */
    bool has_balloon;
    struct machine_balloon balloon;
    struct machine_mem mem_device;
    unsigned port_is_open; /* a bit a port */
    uint64_t message_address; /* of the last message to the LAPICs */
    uint32_t message_data;
    unsigned messages;
    uint64_t port_value;   /* as written to an I/O port */
};

void fake_machine_init(struct machine *machine, struct loop *loop, struct vm_config *config);
void fake_machine_fini(struct machine *machine);
void fake_machine_release(struct machine *machine);
void fake_machine_emit(struct machine *machine, enum machine_event event,
                       enum machine_shutdown_cause cause);
/* The guest meets a breakpoint. */
void fake_machine_trap(struct machine *machine, unsigned cpu, const struct accel_exit *exit);
void fake_terminal_type(struct chardev *terminal, const char *text);

#endif
