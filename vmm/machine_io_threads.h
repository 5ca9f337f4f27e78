/* SPDX-License-Identifier: MIT */
/* machine_io_threads: the machine's threads for the I/O of disks, one for each -object iothread. */
#ifndef VMM_MACHINE_IO_THREADS_H
#define VMM_MACHINE_IO_THREADS_H

#include <sys/types.h>

#include "vmm/machine.h"

/* All that the config names; `index` below is that of the config's io_threads. */
int must_check machine_make_io_threads(struct machine *machine, struct error *err);
int must_check machine_start_io_thread(struct machine *machine, unsigned index, struct error *err);
/* Nobody uses it. Its place is free at once; hotplug_when_settled waits for its end. */
void machine_end_io_thread(struct machine *machine, unsigned index);
/* A disk counts on it, be it one that closes. */
bool machine_io_thread_is_used(const struct machine *machine, unsigned index);
/* As its device wants it, or by the loop, where no device has the disk. */
void machine_place_disk_io(struct machine *machine, unsigned drive);
/* The disks are closed. */
void machine_close_io_threads(struct machine *machine, void (*on_closed)(struct machine *machine));

/* As the host knows the thread. The config has an id there. */
pid_t machine_io_thread_id(const struct machine *machine, unsigned index);

#endif
