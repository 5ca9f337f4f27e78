/* SPDX-License-Identifier: MIT */
/*
 * hotplug_openings: images that are on their way in: opened once by the opener's thread, since the
 * loop must not wait for a file that does not answer, and only then added.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/hotplug/hotplug_private.h"
#include "vmm/machine_private.h"
#include "vmm/opener.h"

struct opening {
    struct list node;
    struct machine *machine;
    struct aside *aside;
    struct keyval list;
    hotplug_add_fn *add;
    machine_done_fn *on_done;
    void *opaque;
    bool is_ending; /* the machine waits for it */
};

static void on_opened(void *opaque, int result, const struct error *reason)
{
    struct opening *opening = opaque;
    struct machine *machine = opening->machine;
    struct error err = *reason;
    if (!result)
        result = opening->add(machine, &opening->list, &err);
    list_remove(&opening->node);
    opening->on_done(opening->opaque, result, &err);
    if (opening->is_ending)
        hotplug_close_ends(machine);
    keyval_fini(&opening->list);
    free(opening);
}

int hotplug_open_first(struct machine *machine, const struct disk_options *image,
                       struct keyval *list, hotplug_add_fn *add, machine_done_fn *on_done,
                       void *opaque, struct error *err)
{
    if (!image->path) {
        int result = add(machine, list, err);
        if (!result)
            on_done(opaque, 0, NULL);
        return result;
    }
    struct opening *opening = calloc(1, sizeof(*opening));
    CHECK(opening);
    *opening = (struct opening){
        .machine = machine, .add = add, .on_done = on_done, .opaque = opaque, .list = *list};
    int result = opener_start(machine->loop, image, on_opened, opening, &opening->aside, err);
    if (result) {
        free(opening);
        return result;
    }
    memset(list, 0, sizeof(*list)); /* the words are the opening's now */
    list_push_back(&machine->hotplug.openings, &opening->node);
    return 0;
}

void hotplug_end_openings(struct machine *machine)
{
    list_for_each(node, &machine->hotplug.openings)
    {
        struct opening *opening = list_entry(node, struct opening, node);
        opening->is_ending = true;
        hotplug_close_begins(machine);
        aside_cancel(opening->aside);
    }
}
