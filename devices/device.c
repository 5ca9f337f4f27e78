/* SPDX-License-Identifier: MIT */
/* device: the end of those devices that have nothing in flight. */
#include "devices/device.h"

#include <stdlib.h>

struct device_closing {
    struct loop_task task;
    struct device *device;
    void (*on_closed)(void *opaque);
    void *opaque;
};

static void on_close(struct loop_task *task)
{
    struct device_closing *closing = container_of(task, struct device_closing, task);
    void (*on_closed)(void *opaque) = closing->on_closed;
    void *opaque = closing->opaque;
    free(closing->device);
    free(closing);
    on_closed(opaque);
}

void device_close_later(struct loop *loop, struct device *device, void (*on_closed)(void *opaque),
                        void *opaque)
{
    struct device_closing *closing = calloc(1, sizeof(*closing));
    CHECK(closing);
    closing->device = device;
    closing->on_closed = on_closed;
    closing->opaque = opaque;
    loop_task_init(loop, &closing->task, LOOP_STAGE_COMPLETE, on_close);
    loop_task_queue(&closing->task);
}
