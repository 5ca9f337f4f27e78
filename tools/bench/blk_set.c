/* SPDX-License-Identifier: MIT */
/* blk_set: several drivers in one guest's memory, and the sum of their figures. */
#include "tools/bench/blk_set.h"

#include <errno.h>

#include "base/bytes.h"

void blk_set_init(struct blk_set *set, const struct path_options *options)
{
    fake_guest_init(&set->guest);
    set->guest.mem.on_written = NULL; /* nothing here keeps decoded code */
    set->options = options;
    for (unsigned i = 0; i < options->disks; i++) {
        struct blk_driver *driver = &set->drivers[i];
        driver->guest = &set->guest;
        driver->run = (struct path_run){.options = options,
                                        .result = &set->results[i],
                                        .loop = &set->guest.loop,
                                        .image = options->images[i],
                                        .random = options->seed + i};
    }
}

int blk_set_open(struct blk_set *set, unsigned index, struct error *err)
{
    const struct guest_mem_region *ram = &set->guest.mem.regions[0];
    int status = blk_driver_open(&set->drivers[index], err);
    /* All disks of a loop share its ring. */
    if (!status && !index && set->options->is_registered &&
        !disk_register_memory(&set->guest.loop, ram->host, ram->size))
        status = error_set(err, EPERM, "cannot register memory with io_uring: raise ulimit -l");
    return status;
}

static void add(struct path_result *sum, const struct path_result *one)
{
    sum->operations += one->operations;
    sum->driver_cpu_ns += one->driver_cpu_ns;
    sum->io_thread_cpu_ns += one->io_thread_cpu_ns;
    sum->kicks += one->kicks;
    sum->interrupts += one->interrupts;
    sum->host_operations += one->host_operations;
    histogram_merge(&sum->latency_ns, &one->latency_ns);
}

void blk_set_take_figures(struct blk_set *set, struct path_result *result)
{
    *result = set->results[0];
    for (unsigned i = 1; i < set->options->disks; i++)
        add(result, &set->results[i]);
}

int blk_set_close(struct blk_set *set, struct path_result *result, struct error *err)
{
    int status = 0;
    for (unsigned i = 0; i < set->options->disks; i++) {
        struct error later = {0};
        int closed = blk_driver_close(&set->drivers[i], status ? &later : err);
        status = status ? status : closed;
    }
    blk_set_take_figures(set, result);
    fake_guest_fini(&set->guest);
    return status;
}
