/* SPDX-License-Identifier: MIT */
/* machine_io_threads: starts and ends the threads for disk I/O, and gives disks to them. */
#include "vmm/machine_io_threads.h"

#include "disk/disk.h"
#include "disk/io_thread.h"
#include "vmm/machine_private.h"

int machine_start_io_thread(struct machine *machine, unsigned index, struct error *err)
{
    return io_thread_create(machine->loop, machine->config->guest.io_threads[index],
                            &machine->io_threads[index], err);
}

int machine_make_io_threads(struct machine *machine, struct error *err)
{
    int result = 0;
    for (unsigned i = 0; i < CONFIG_IO_THREAD_MAX && !result; i++)
        if (machine->config->guest.io_threads[i])
            result = machine_start_io_thread(machine, i, err);
    return result;
}

static void on_ended(void *opaque)
{
    hotplug_close_ends(opaque);
}

void machine_end_io_thread(struct machine *machine, unsigned index)
{
    struct io_thread *thread = machine->io_threads[index];
    machine->io_threads[index] = NULL;
    hotplug_close_begins(machine);
    io_thread_close(thread, on_ended, machine);
}

bool machine_io_thread_is_used(const struct machine *machine, unsigned index)
{
    for (unsigned i = 0; i < machine->config->disk_count; i++)
        if (machine->config->disks[i].io_thread == index + 1)
            return true;
    return io_thread_users(machine->io_threads[index]);
}

void machine_place_disk_io(struct machine *machine, unsigned drive)
{
    unsigned number = machine->config->disks[drive].io_thread;
    disk_set_io_thread(machine->disks[drive], number ? machine->io_threads[number - 1] : NULL);
}

static void close_next(void *opaque)
{
    struct machine *machine = opaque;
    for (unsigned i = 0; i < CONFIG_IO_THREAD_MAX; i++) {
        struct io_thread *thread = machine->io_threads[i];
        if (!thread)
            continue;
        machine->io_threads[i] = NULL;
        io_thread_close(thread, close_next, machine);
        return;
    }
    machine->on_io_threads_closed(machine);
}

void machine_close_io_threads(struct machine *machine, void (*on_closed)(struct machine *machine))
{
    machine->on_io_threads_closed = on_closed;
    close_next(machine);
}

pid_t machine_io_thread_id(const struct machine *machine, unsigned index)
{
    CHECK(machine->io_threads[index]);
    return io_thread_id(machine->io_threads[index]);
}
