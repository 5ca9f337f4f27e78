/* SPDX-License-Identifier: MIT */
/*
 * machine_io_threads: a side loop (base/side_loop.h) for each -object iothread, on which the disks
 * and devices live that name it.
 *
 * The machine's thread takes them, for the rest of its turn, before it looks at or changes anything
 * that disks and devices share with it: for a guest's access to PCI, a client's command, a step of
 * its lifecycle. Whatever outlasts the turn (a job, an export, a change that waits for an idle
 * disk, a stopped guest, interrupts by a line) keeps them at home until it is over.
 */
#ifndef VMM_MACHINE_IO_THREADS_H
#define VMM_MACHINE_IO_THREADS_H

#include <sys/types.h>

#include "vmm/machine.h"

struct side_loop;

struct machine_io_thread {
    struct machine *machine;
    unsigned number;        /* 1 + its place, as config_disk.io_thread has it */
    struct side_loop *side; /* NULL: the place is free */
};

/* The loops of all that the config names; `index` below is that of the config's io_threads. */
int must_check machine_make_io_loops(struct machine *machine, struct error *err);
int must_check machine_start_io_threads(struct machine *machine, struct error *err);
/* Both, for one that comes later. */
int must_check machine_add_io_thread(struct machine *machine, unsigned index, struct error *err);
/* Nobody uses it. Its place is free at once; hotplug_when_settled waits for its end. */
void machine_end_io_thread(struct machine *machine, unsigned index);
/*
 * 0 if it is not used: disks without a device, which lived on its loop until now, do not any more.
 * -EBUSY: a device names it, or a disk there is not at rest.
 */
int must_check machine_free_io_thread(struct machine *machine, unsigned index);
/* The disks are closed. */
void machine_close_io_threads(struct machine *machine, void (*on_closed)(struct machine *machine));

/* Where a drive's disk and device live. */
struct loop *machine_drive_loop(const struct machine *machine, unsigned drive);
/* Moves its disk there. -EBUSY: it is not at rest. */
int must_check machine_place_disk(struct machine *machine, unsigned drive, struct error *err);

/* Any thread: it has requests about which only the machine's can decide (virtio_blk_decide). */
void machine_call_home(struct machine *machine, unsigned drive);

/* machine.h has machine_take_io_threads. */

/* As the host knows the thread. The config has an id there. */
pid_t machine_io_thread_id(const struct machine *machine, unsigned index);

#endif
