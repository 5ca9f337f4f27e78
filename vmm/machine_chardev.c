/* SPDX-License-Identifier: MIT */
/* machine_chardev: opens chardevs into free entries of the config, and closes them again. */
#include "vmm/machine_chardev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/machine_private.h"
#include "vmm/options/options_private.h"

static int find(const struct machine *machine, const char *id)
{
    const struct vm_config *config = machine->config;
    for (unsigned i = 0; i < config->chardev_count; i++)
        if (config->chardevs[i].id && strcmp(config->chardevs[i].id, id) == 0)
            return (int)i;
    return -1;
}

struct chardev *machine_find_chardev(const struct machine *machine, const char *id)
{
    int index = find(machine, id);
    return index < 0 ? NULL : machine->chardevs[index];
}

int machine_chardev_add(struct machine *machine, struct keyval *list, struct error *err)
{
    struct config_chardev *config;
    int result = options_chardev_load(machine->config, list, &config, err);
    if (result)
        return result;
    struct chardev **chardev = &machine->chardevs[config - machine->config->chardevs];
    config->is_quiet = true;
    if (config->wait)
        result =
            error_set(err, EINVAL, "Chardev '%s': wait=on would hold the machine up; leave it out",
                      config->id);
    if (!result)
        result = chardev_create(machine->loop, config, chardev, err);
    if (result) {
        *chardev = NULL;
        options_chardev_fini(config);
    }
    return result;
}

static bool is_busy(const struct machine *machine, unsigned index)
{
    const struct vm_config *config = machine->config;
    bool is_used = config->serial_chardev == (int)index || !machine->chardevs[index];
    for (unsigned i = 0; i < config->monitor_count; i++)
        is_used |= config->monitors[i].chardev == index;
    for (unsigned i = 0; i < config->guest.serial_port_count; i++)
        is_used |= config->guest.serial_ports[i].is_present &&
                   config->guest.serial_ports[i].chardev == (int)index;
    return is_used;
}

int machine_guest_forward_target(struct machine *machine, struct config_guest_forward *forward,
                                 struct error *err)
{
    if (!forward->chardev)
        return 0;
    int index = find(machine, forward->chardev);
    if (index >= 0 && is_busy(machine, (unsigned)index))
        return error_set(err, EBUSY, "guestfwd: chardev %s is used by something else too",
                         forward->chardev);
    return options_guest_forward_target(machine->config, forward, err);
}

struct removal {
    struct machine *machine;
    unsigned index;
    machine_done_fn *on_done;
    void *opaque;
};

static void on_closed(void *opaque)
{
    struct removal *removal = opaque;
    struct machine *machine = removal->machine;
    options_chardev_fini(&machine->config->chardevs[removal->index]);
    removal->on_done(removal->opaque, 0, NULL);
    free(removal);
    hotplug_close_ends(machine);
}

int machine_chardev_remove(struct machine *machine, const char *id, machine_done_fn *on_done,
                           void *opaque, struct error *err)
{
    int index = find(machine, id);
    if (index < 0)
        return error_set(err, ENOENT, "Chardev '%s' not found", id);
    if (is_busy(machine, (unsigned)index))
        return error_set(err, EBUSY, "Chardev '%s' is busy", id);
    struct removal *removal = calloc(1, sizeof(*removal));
    CHECK(removal);
    *removal = (struct removal){machine, (unsigned)index, on_done, opaque};
    struct chardev *chardev = machine->chardevs[index];
    machine->chardevs[index] = NULL;
    hotplug_close_begins(machine);
    chardev_close(chardev, on_closed, removal);
    return 0;
}
