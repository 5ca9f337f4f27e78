/* SPDX-License-Identifier: MIT */
/*
 * virtio: the status machine that all virtio devices share.
 *
 * Theory of operation. enum virtio_state says what is permitted; set_state makes every move and
 * checks it against the queues. A reset breaks off all access to the rings at once, then waits for
 * the chains whose I/O still runs: only when the last came back does status read 0, so the guest
 * never gets memory back that a device may still write. The end of that wait runs from a task,
 * since the last push may come from deep inside the device.
 */
#include "devices/virtio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"

#include <linux/virtio_ring.h>

#define TRANSPORT_FEATURES                                                                         \
    (VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |            \
     VIRTIO_FEATURE(VIRTIO_RING_F_EVENT_IDX))

/* The bits that a driver sets, in the order of an initialisation, and its resignation. */
#define DRIVER_STATUS                                                                              \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |          \
     VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED)

bool virtio_is_idle(const struct virtio_device *vdev)
{
    for (unsigned i = 0; i < vdev->queue_count; i++)
        if (vdev->queues[i].vq.in_flight)
            return false;
    return true;
}

/* The text of enum virtio_state as code. */
static void check_state(const struct virtio_device *vdev)
{
    bool may_be_enabled = vdev->state != VIRTIO_STATE_SETUP;
    bool must_be_broken = vdev->state >= VIRTIO_STATE_BROKEN;
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        const struct virtqueue *vq = &vdev->queues[i].vq;
        CHECK(may_be_enabled || (!vq->enabled && vq->in_flight == 0));
        CHECK(!must_be_broken || vq->broken);
    }
    CHECK(vdev->state != VIRTIO_STATE_LIVE || (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK));
}

static void set_state(struct virtio_device *vdev, enum virtio_state state)
{
    static const uint8_t successors[] = {
        [VIRTIO_STATE_SETUP] = 1 << VIRTIO_STATE_READY | 1 << VIRTIO_STATE_BROKEN |
                               1 << VIRTIO_STATE_RESETTING | 1 << VIRTIO_STATE_CLOSING,
        [VIRTIO_STATE_READY] = 1 << VIRTIO_STATE_LIVE | 1 << VIRTIO_STATE_BROKEN |
                               1 << VIRTIO_STATE_RESETTING | 1 << VIRTIO_STATE_CLOSING,
        [VIRTIO_STATE_LIVE] =
            1 << VIRTIO_STATE_BROKEN | 1 << VIRTIO_STATE_RESETTING | 1 << VIRTIO_STATE_CLOSING,
        [VIRTIO_STATE_BROKEN] = 1 << VIRTIO_STATE_RESETTING | 1 << VIRTIO_STATE_CLOSING,
        [VIRTIO_STATE_RESETTING] = 1 << VIRTIO_STATE_SETUP | 1 << VIRTIO_STATE_CLOSING,
        [VIRTIO_STATE_CLOSING] = 0,
    };
    CHECK(successors[vdev->state] & 1 << state);
    log_trace("virtio", "%s: state %d to %d", vdev->ops->name, (int)vdev->state, (int)state);
    vdev->state = state;
    check_state(vdev);
}

static void break_queues(struct virtio_device *vdev)
{
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        virtqueue_break(&vdev->queues[i].vq);
        loop_task_cancel(&vdev->queues[i].drain);
    }
}

static void finish_reset(struct virtio_device *vdev)
{
    for (unsigned i = 0; i < vdev->queue_count; i++)
        virtqueue_reset(&vdev->queues[i].vq);
    vdev->status = 0;
    vdev->features = 0;
    set_state(vdev, VIRTIO_STATE_SETUP);
    vdev->transport->reset_done(vdev);
}

/* The last chain came back, perhaps. */
static void on_settle(struct loop_task *task)
{
    struct virtio_device *vdev = container_of(task, struct virtio_device, settle);
    if (!virtio_is_idle(vdev))
        return;
    if (vdev->state == VIRTIO_STATE_RESETTING)
        finish_reset(vdev);
    else if (vdev->state == VIRTIO_STATE_CLOSING)
        vdev->on_idle(vdev);
}

/* Into RESETTING or CLOSING. */
static void wind_down(struct virtio_device *vdev, enum virtio_state state)
{
    break_queues(vdev);
    set_state(vdev, state);
    if (vdev->ops->reset)
        vdev->ops->reset(vdev);
    loop_task_cancel(&vdev->settle);
}

static void start_reset(struct virtio_device *vdev)
{
    wind_down(vdev, VIRTIO_STATE_RESETTING);
    if (virtio_is_idle(vdev))
        finish_reset(vdev);
}

void virtio_close(struct virtio_device *vdev, void (*on_idle)(struct virtio_device *vdev))
{
    loop_check_thread(vdev->loop);
    vdev->on_idle = on_idle;
    wind_down(vdev, VIRTIO_STATE_CLOSING);
    if (virtio_is_idle(vdev))
        on_idle(vdev);
}

static void on_queue_interrupt(struct virtqueue *vq)
{
    struct virtio_device *vdev = container_of(vq, struct virtio_queue, vq)->vdev;
    vdev->transport->queue_interrupt(vdev, vq->index);
}

static void on_queue_broken(struct virtqueue *vq, const char *why)
{
    virtio_broken(container_of(vq, struct virtio_queue, vq)->vdev, why);
}

static void on_queue_idle(struct virtqueue *vq)
{
    struct virtio_device *vdev = container_of(vq, struct virtio_queue, vq)->vdev;
    if (vdev->state >= VIRTIO_STATE_RESETTING)
        loop_task_queue(&vdev->settle);
}

static const struct virtqueue_ops queue_ops = {on_queue_interrupt, on_queue_broken, on_queue_idle};

static void on_drain(struct loop_task *task)
{
    struct virtio_queue *queue = container_of(task, struct virtio_queue, drain);
    if (virtio_is_live(queue->vdev) && queue->vq.enabled)
        queue->vdev->ops->kick(queue->vdev, queue->vq.index);
}

static bool poll_queue(struct spinner *spinner)
{
    struct virtio_queue *queue = container_of(spinner, struct virtio_queue, spinner);
    if (!virtio_is_live(queue->vdev) || !virtqueue_is_due(&queue->vq))
        return false;
    loop_task_queue(&queue->drain);
    return true;
}

static void on_turned(struct spinner *spinner, bool on)
{
    virtqueue_set_polled(&container_of(spinner, struct virtio_queue, spinner)->vq, on);
}

void virtio_init(struct virtio_device *vdev, const struct virtio_setup *setup,
                 const struct virtio_transport_ops *transport)
{
    CHECK(setup->queue_count >= 1 && setup->queue_count <= VIRTIO_QUEUES_MAX);
    *vdev = (struct virtio_device){.ops = setup->ops,
                                   .transport = transport,
                                   .loop = setup->loop,
                                   .mem = setup->mem,
                                   .state = VIRTIO_STATE_SETUP,
                                   .config = setup->config,
                                   .config_size = setup->config_size,
                                   .queue_count = setup->queue_count};
    vdev->queues = calloc(setup->queue_count, sizeof(*vdev->queues));
    CHECK(vdev->queues);
    for (unsigned i = 0; i < setup->queue_count; i++) {
        struct virtio_queue *queue = &vdev->queues[i];
        queue->vdev = vdev;
        virtqueue_init(&queue->vq, setup->loop, setup->mem, &queue_ops, i, setup->queue_size);
        loop_task_init(setup->loop, &queue->drain, LOOP_STAGE_DRAIN, on_drain);
        spinner_init(&queue->spinner, setup->loop, poll_queue, on_turned);
    }
    loop_task_init(setup->loop, &vdev->settle, LOOP_STAGE_NOTIFY, on_settle);
    vdev->offered = vdev->ops->features(vdev) | TRANSPORT_FEATURES;
}

void virtio_fini(struct virtio_device *vdev)
{
    loop_task_cancel(&vdev->settle);
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        loop_task_cancel(&vdev->queues[i].drain);
        spinner_fini(&vdev->queues[i].spinner);
        virtqueue_fini(&vdev->queues[i].vq);
    }
    free(vdev->queues);
    vdev->queues = NULL;
    vdev->queue_count = 0;
}

bool virtio_is_live(const struct virtio_device *vdev)
{
    return vdev->state == VIRTIO_STATE_LIVE;
}

void virtio_kick(struct virtio_device *vdev, unsigned queue)
{
    loop_check_thread(vdev->loop);
    if (queue < vdev->queue_count && virtio_is_live(vdev))
        loop_task_queue(&vdev->queues[queue].drain);
}

void virtio_doorbell(struct virtio_device *vdev, unsigned queue)
{
    virtio_kick(vdev, queue);
    if (queue < vdev->queue_count)
        spinner_signalled(&vdev->queues[queue].spinner);
}

static void kick_all(struct virtio_device *vdev)
{
    for (unsigned i = 0; i < vdev->queue_count; i++)
        virtio_kick(vdev, i);
}

void virtio_broken(struct virtio_device *vdev, const char *why)
{
    loop_check_thread(vdev->loop);
    if (vdev->state >= VIRTIO_STATE_BROKEN)
        return;
    log_limited("%s: the guest's driver broke the rules, its device needs a reset: %s",
                vdev->ops->name, why);
    bool tell = virtio_is_live(vdev);
    vdev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    break_queues(vdev);
    set_state(vdev, VIRTIO_STATE_BROKEN);
    if (tell)
        vdev->transport->config_interrupt(vdev);
}

void virtio_config_changed(struct virtio_device *vdev)
{
    loop_check_thread(vdev->loop);
    vdev->generation++;
    if (virtio_is_live(vdev))
        vdev->transport->config_interrupt(vdev);
}

void virtio_set_features(struct virtio_device *vdev, unsigned half, uint32_t bits)
{
    loop_check_thread(vdev->loop);
    if (vdev->state != VIRTIO_STATE_SETUP || half > 1)
        return;
    uint64_t kept = vdev->features & ~(UINT64_C(0xffffffff) << 32 * half);
    vdev->features = kept | (uint64_t)bits << 32 * half;
}

static bool features_are_fine(struct virtio_device *vdev)
{
    if ((vdev->features & ~vdev->offered) || !virtio_has(vdev, VIRTIO_F_VERSION_1))
        return false;
    return !vdev->ops->features_chosen || vdev->ops->features_chosen(vdev);
}

static void start(struct virtio_device *vdev)
{
    set_state(vdev, VIRTIO_STATE_LIVE);
    if (vdev->ops->started)
        vdev->ops->started(vdev);
    kick_all(vdev);
}

/* Bits are only ever added; what a bit permits follows from the state in which it comes. */
void virtio_set_status(struct virtio_device *vdev, uint8_t status)
{
    loop_check_thread(vdev->loop);
    if (vdev->state >= VIRTIO_STATE_RESETTING)
        return;
    if (status == 0) {
        start_reset(vdev);
        return;
    }
    uint8_t added = status & DRIVER_STATUS & (uint8_t)~vdev->status;
    if ((added & VIRTIO_CONFIG_S_FEATURES_OK) &&
        (vdev->state != VIRTIO_STATE_SETUP || !features_are_fine(vdev)))
        added &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
    if (added & VIRTIO_CONFIG_S_FEATURES_OK)
        set_state(vdev, VIRTIO_STATE_READY);
    if (vdev->state != VIRTIO_STATE_READY)
        added &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER_OK;
    vdev->status |= added;
    if (added & VIRTIO_CONFIG_S_DRIVER_OK)
        start(vdev);
    if ((added & VIRTIO_CONFIG_S_FAILED) && vdev->state != VIRTIO_STATE_BROKEN) {
        break_queues(vdev);
        set_state(vdev, VIRTIO_STATE_BROKEN);
    }
}

void virtio_config_read(const struct virtio_device *vdev, size_t offset, void *to, size_t length)
{
    memset(to, 0, length);
    if (offset < vdev->config_size)
        memcpy(to, (const char *)vdev->config + offset, MIN(length, vdev->config_size - offset));
}

void virtio_config_write(struct virtio_device *vdev, size_t offset, const void *from, size_t length)
{
    loop_check_thread(vdev->loop);
    if (vdev->state < VIRTIO_STATE_BROKEN && vdev->ops->config_written &&
        range_fits(offset, length, vdev->config_size))
        vdev->ops->config_written(vdev, offset, from, length);
}

struct virtqueue_layout *virtio_queue_layout(struct virtio_device *vdev, unsigned queue)
{
    if (queue >= vdev->queue_count || vdev->state > VIRTIO_STATE_READY)
        return NULL;
    struct virtqueue *vq = &vdev->queues[queue].vq;
    return vq->enabled ? NULL : &vq->layout;
}

void virtio_queue_enable(struct virtio_device *vdev, unsigned queue)
{
    if (!virtio_queue_layout(vdev, queue))
        return;
    if (vdev->state != VIRTIO_STATE_READY) {
        virtio_broken(vdev, "a queue was enabled before FEATURES_OK");
        return;
    }
    if (!virtqueue_enable(virtio_queue(vdev, queue), virtio_has(vdev, VIRTIO_RING_F_EVENT_IDX),
                          virtio_has(vdev, VIRTIO_RING_F_INDIRECT_DESC)))
        virtio_broken(vdev, "a queue with an illegal size, alignment or address was enabled");
}

void virtio_set_dma(struct virtio_device *vdev, bool on)
{
    loop_check_thread(vdev->loop);
    for (unsigned i = 0; i < vdev->queue_count; i++)
        virtqueue_hold(&vdev->queues[i].vq, !on);
    if (on)
        kick_all(vdev);
}

void virtio_save(struct virtio_device *vdev, struct virtio_saved *saved)
{
    CHECK(virtio_is_idle(vdev) && vdev->state < VIRTIO_STATE_RESETTING);
    *saved = (struct virtio_saved){
        .status = vdev->status, .generation = vdev->generation, .features = vdev->features};
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        struct virtqueue *vq = virtio_queue(vdev, i);
        virtqueue_publish(vq);
        saved->enabled[i] = vq->enabled;
        saved->size[i] = vq->layout.size;
        saved->avail_at[i] = vq->avail_at;
        saved->used_at[i] = vq->used_at;
        saved->desc_gpa[i] = vq->layout.desc_gpa;
        saved->avail_gpa[i] = vq->layout.avail_gpa;
        saved->used_gpa[i] = vq->layout.used_gpa;
    }
}

/* False if the queue is one that could not have been enabled. */
static bool restore_queue(struct virtio_device *vdev, unsigned i, const struct virtio_saved *saved)
{
    struct virtqueue *vq = virtio_queue(vdev, i);
    vq->layout = (struct virtqueue_layout){saved->size[i], saved->desc_gpa[i], saved->avail_gpa[i],
                                           saved->used_gpa[i]};
    if (!saved->enabled[i])
        return true;
    virtio_queue_enable(vdev, i);
    if (!vq->enabled)
        return false;
    virtqueue_restore(vq, saved->avail_at[i], saved->used_at[i]);
    return true;
}

static bool restore_status(struct virtio_device *vdev, const struct virtio_saved *saved)
{
    vdev->features = saved->features;
    vdev->generation = saved->generation;
    vdev->status = saved->status;
    if (saved->status & VIRTIO_CONFIG_S_FEATURES_OK) {
        if (!features_are_fine(vdev))
            return false;
        set_state(vdev, VIRTIO_STATE_READY);
    }
    for (unsigned i = 0; i < vdev->queue_count; i++)
        if (!restore_queue(vdev, i, saved))
            return false;
    if (saved->status & (VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED)) {
        break_queues(vdev);
        set_state(vdev, VIRTIO_STATE_BROKEN);
    } else if (saved->status & VIRTIO_CONFIG_S_DRIVER_OK) {
        if (vdev->state != VIRTIO_STATE_READY)
            return false;
        set_state(vdev, VIRTIO_STATE_LIVE);
    }
    return true;
}

int virtio_restore(struct virtio_device *vdev, const struct virtio_saved *saved, struct error *err)
{
    loop_check_thread(vdev->loop);
    CHECK(vdev->state == VIRTIO_STATE_SETUP);
    if (!restore_status(vdev, saved))
        return error_set(err, EINVAL,
                         "saved state of a %s device has features or queues that the device here "
                         "does not offer: restore it on the machine it was saved from",
                         vdev->ops->name);
    for (unsigned i = 0; virtio_is_live(vdev) && i < vdev->queue_count; i++)
        if (virtio_queue(vdev, i)->enabled)
            vdev->transport->queue_interrupt(vdev, i);
    kick_all(vdev);
    return 0;
}
