/* SPDX-License-Identifier: MIT */
/* machine_io_threads: their loops, who lives there, and what keeps them at home. */
#include "vmm/machine_io_threads.h"

#include <errno.h>
#include <stdio.h>

#include "base/side_loop.h"
#include "base/spinner.h"
#include "disk/disk.h"
#include "vmm/machine_block.h"
#include "vmm/machine_private.h"

static bool is_still(const struct machine *machine)
{
    const struct lifecycle *lifecycle = &machine->lifecycle;
    return lifecycle->state == MACHINE_RUNNING && list_is_empty(&lifecycle->ops) &&
           !machine->hotplug.closing && irq_is_settled(&machine->irq) &&
           !machine_block_is_busy(machine);
}

static bool is_on_its_own(const struct machine *machine, unsigned drive)
{
    const struct device *device = machine->disk_policies[drive].device;
    return disk_is_alone(machine->disks[drive]) && (!device || virtio_pci_is_on_its_own(device));
}

/* While images that a job left on other loops cannot follow their disk, all loops are needed. */
static bool are_whole(const struct machine *machine)
{
    for (unsigned i = 0; i < machine->config->disk_count; i++)
        if (machine->disks[i] && !disk_gather(machine->disks[i]))
            return false;
    return true;
}

static bool stays(void *opaque)
{
    const struct machine_io_thread *thread = opaque;
    const struct machine *machine = thread->machine;
    bool is_ending = !thread->side;
    if (is_ending || !is_still(machine) || !are_whole(machine))
        return true;
    const struct loop *loop = side_loop_of(thread->side);
    for (unsigned i = 0; i < machine->config->disk_count; i++)
        if (machine->disks[i] && disk_loop(machine->disks[i]) == loop && !is_on_its_own(machine, i))
            return true;
    return false;
}

static void on_called(void *opaque)
{
    const struct machine_io_thread *thread = opaque;
    const struct machine *machine = thread->machine;
    for (unsigned i = 0; i < machine->config->disk_count; i++)
        if (machine->config->disks[i].io_thread == thread->number &&
            machine->disk_policies[i].device)
            virtio_blk_decide(machine->disk_policies[i].device);
}

void machine_call_home(struct machine *machine, unsigned drive)
{
    side_loop_call_home(machine->io_threads[machine->config->disks[drive].io_thread - 1].side);
}

static int make(struct machine *machine, unsigned index, struct error *err)
{
    const char *id = machine->config->guest.io_threads[index];
    struct machine_io_thread *thread = &machine->io_threads[index];
    char name[16];
    snprintf(name, sizeof(name), "IO %s", id);
    *thread = (struct machine_io_thread){.machine = machine, .number = index + 1};
    const struct side_loop_options options = {name, stays, on_called, thread};
    int result = side_loop_create(machine->loop, &options, &thread->side);
    return result ? error_set_errno(err, -result, "cannot make the loop of I/O thread '%s'", id)
                  : 0;
}

/* What a thread spins for, vCPUs and other threads want a CPU for; the machine's rests. */
static void set_companions(struct machine *machine)
{
    unsigned count = machine->vcpu_group.count;
    for (unsigned i = 0; i < CONFIG_IO_THREAD_MAX; i++)
        count += machine->io_threads[i].side != NULL;
    for (unsigned i = 0; i < CONFIG_IO_THREAD_MAX; i++)
        if (machine->io_threads[i].side)
            spinner_set_companions(side_loop_of(machine->io_threads[i].side), count - 1);
}

static int start(struct machine *machine, unsigned index, struct error *err)
{
    int result = side_loop_start(machine->io_threads[index].side);
    set_companions(machine);
    return result ? error_set_errno(err, -result, "cannot start I/O thread '%s'",
                                    machine->config->guest.io_threads[index])
                  : 0;
}

static int for_each(struct machine *machine,
                    int (*act)(struct machine *machine, unsigned index, struct error *err),
                    struct error *err)
{
    int result = 0;
    for (unsigned i = 0; i < CONFIG_IO_THREAD_MAX && !result; i++)
        if (machine->config->guest.io_threads[i])
            result = act(machine, i, err);
    return result;
}

int machine_make_io_loops(struct machine *machine, struct error *err)
{
    return for_each(machine, make, err);
}

int machine_start_io_threads(struct machine *machine, struct error *err)
{
    return for_each(machine, start, err);
}

static void on_ended(void *opaque)
{
    hotplug_close_ends(opaque);
}

void machine_end_io_thread(struct machine *machine, unsigned index)
{
    struct side_loop *side = machine->io_threads[index].side;
    machine->io_threads[index].side = NULL;
    hotplug_close_begins(machine);
    side_loop_close(side, on_ended, machine);
}

int machine_add_io_thread(struct machine *machine, unsigned index, struct error *err)
{
    int result = make(machine, index, err);
    if (!result && (result = start(machine, index, err)))
        machine_end_io_thread(machine, index);
    return result;
}

struct loop *machine_drive_loop(const struct machine *machine, unsigned drive)
{
    unsigned number = machine->config->disks[drive].io_thread;
    return number ? side_loop_of(machine->io_threads[number - 1].side) : machine->loop;
}

int machine_place_disk(struct machine *machine, unsigned drive, struct error *err)
{
    struct disk *disk = machine->disks[drive];
    struct loop *loop = machine_drive_loop(machine, drive);
    if (disk_loop(disk) == loop || !disk_move(disk, loop))
        return 0;
    return error_set(err, EBUSY, "image '%s' is busy, or writes its tables back; try again",
                     disk_path(disk));
}

int machine_free_io_thread(struct machine *machine, unsigned index)
{
    struct loop *loop = side_loop_of(machine->io_threads[index].side);
    int result = 0;
    for (unsigned i = 0; i < machine->config->disk_count && !result; i++) {
        if (machine->config->disks[i].io_thread == index + 1)
            return -EBUSY;
        if (machine->disks[i] && disk_loop(machine->disks[i]) == loop)
            result = disk_move(machine->disks[i], machine->loop);
    }
    return result || loop->residents ? -EBUSY : 0;
}

static void close_next(void *opaque)
{
    struct machine *machine = opaque;
    for (unsigned i = 0; i < CONFIG_IO_THREAD_MAX; i++) {
        struct side_loop *side = machine->io_threads[i].side;
        if (!side)
            continue;
        machine->io_threads[i].side = NULL;
        side_loop_close(side, close_next, machine);
        return;
    }
    machine->on_io_threads_closed(machine);
}

void machine_close_io_threads(struct machine *machine, void (*on_closed)(struct machine *machine))
{
    machine->on_io_threads_closed = on_closed;
    close_next(machine);
}

void machine_take_io_threads(struct machine *machine)
{
    for (unsigned i = 0; i < CONFIG_IO_THREAD_MAX; i++)
        if (machine->io_threads[i].side)
            loop_check_thread(side_loop_of(machine->io_threads[i].side));
}

pid_t machine_io_thread_id(const struct machine *machine, unsigned index)
{
    CHECK(machine->io_threads[index].side);
    return side_loop_thread_id(machine->io_threads[index].side);
}
