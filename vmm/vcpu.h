/* SPDX-License-Identifier: MIT */
/*
 * vcpu: one vCPU and its thread, as the loop sees them.
 *
 * The thread does nothing but run the guest. Each exit that needs the machine crosses to the loop
 * through the vCPU's own mailbox; the loop's answer lets the thread go on. A vCPU is running or
 * parked; a parked one waits in its mailbox, so the loop may touch its state. All functions are
 * called on the loop's thread.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/spinner.h"
#include "vmm/accel.h"
#include "vmm/posted.h"

struct vcpu;

struct vcpu_handler {
    /* PIO, MMIO, IOAPIC_EOI: act and fill in the data; the vCPU goes on when this returns. */
    void (*on_exit)(void *opaque, struct vcpu *vcpu, const struct accel_exit *exit);
    /* EXTINT: the vector to inject. */
    uint8_t (*on_extint)(void *opaque, struct vcpu *vcpu);
    /*
     * The vCPU is parked: exit->reason is INTR after vcpu_park, or SHUTDOWN, ERROR or DEBUG.
     */
    void (*on_parked)(void *opaque, struct vcpu *vcpu, const struct accel_exit *exit);
};

struct vcpu_exit_stats {
    _Atomic uint64_t count;
    _Atomic uint64_t total_ns; /* from publishing the exit to taking up its answer */
};

/*
 * All vCPUs of a machine. Where exits follow each other quickly the loop waits a little for the
 * next one before it sleeps; not where vCPUs would have to share host CPUs with that wait.
 */
struct vcpu_group {
    struct loop *loop;
    /* Private. */
    struct spinner spinner;
    struct list vcpus;
    struct posted posted;
    unsigned count;
};

void vcpu_group_init(struct vcpu_group *group, struct loop *loop);
void vcpu_group_fini(struct vcpu_group *group);

struct vcpu {
    struct accel_vcpu *accel;
    unsigned index;
    /* Private. */
    struct vcpu_group *group;
    struct list node;
    const struct vcpu_handler *handler;
    void *opaque;
    struct loop_event exit_event;
    pthread_t thread;
    bool has_thread;
    bool is_parked;
    atomic_int thread_id; /* the host's, for people's tools */
    atomic_int owner;     /* of `exit`: enum vcpu_owner */
    atomic_bool park_wanted;
    bool end_wanted; /* read by the thread when it is given back its mailbox */
    struct accel_exit exit;
    unsigned answer_spins; /* the thread's own */
    uint8_t extint_vector;
    struct vcpu_exit_stats stats[ACCEL_EXIT_REASON_COUNT];
};

int must_check vcpu_init(struct vcpu *vcpu, struct vcpu_group *group, struct accel_vm *vm,
                         unsigned index, const struct vcpu_handler *handler, void *opaque,
                         struct error *err);
/* Starts the thread, which parks at once (on_parked with INTR follows). */
int must_check vcpu_start(struct vcpu *vcpu, struct error *err);
/* Ends the thread, which must be parked or never started; then on_closed, later. */
void vcpu_close(struct vcpu *vcpu, void (*on_closed)(struct loop_event *exit_event));
/* After on_closed: frees what is left. */
void vcpu_fini(struct vcpu *vcpu);

/* Asks it to park; on_parked follows. Nothing happens if it is parked already. */
void vcpu_park(struct vcpu *vcpu);
/* Lets a parked vCPU go on. */
void vcpu_resume(struct vcpu *vcpu);
bool vcpu_is_parked(const struct vcpu *vcpu);

/* "pio", "mmio", ...: the names under which query-stats shows the exits. */
const char *vcpu_exit_name(enum accel_exit_reason reason);

#endif
