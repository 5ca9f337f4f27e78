/* SPDX-License-Identifier: MIT */
/*
 * virtio: what every virtio device has in common: status, features, configuration, queues, reset
 * (virtio 1.2, sections 2 and 3). A transport (virtio_pci) calls down into it, a device (blk, net,
 * rng) stands behind struct virtio_ops. Loop's thread only.
 */
#ifndef DEVICES_VIRTIO_H
#define DEVICES_VIRTIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/virtio_config.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/loop.h"
#include "base/spinner.h"
#include "devices/guest_mem.h"
#include "devices/virtqueue.h"

struct virtio_device;

#define VIRTIO_FEATURE(bit) (UINT64_C(1) << (bit))

struct virtio_ops {
    const char *name;   /* "virtio-blk", for the log */
    uint16_t device_id; /* virtio 1.2, section 5 */

    /* Required. The device's own feature bits to offer; asked once, at init. */
    uint64_t (*features)(struct virtio_device *vdev);

    /* Optional. The driver settled on vdev->features (FEATURES_OK); false refuses the set. */
    bool (*features_chosen)(struct virtio_device *vdev);

    /* Optional. The driver wrote inside the configuration space; without it writes are ignored. */
    void (*config_written)(struct virtio_device *vdev, size_t offset, const void *from,
                           size_t length);

    /* Optional. DRIVER_OK: from now on queues may be popped. Each enabled queue is kicked next. */
    void (*started)(struct virtio_device *vdev);

    /*
     * Required. Drain one queue: pop up to VIRTIO_DRAIN_BUDGET chains; if there may be more, ask to
     * be called again with virtio_kick. Called in LOOP_STAGE_DRAIN, once a turn at most, only while
     * the device is live.
     */
    void (*kick)(struct virtio_device *vdev, unsigned queue);

    /*
     * Optional. The driver resets the device, or it closes: push back at once what can be, let the
     * rest come back by itself. Rings are out of reach already: pushes only count. May be called
     * twice in a row.
     */
    void (*reset)(struct virtio_device *vdev);

    /* Required. The last step of a close: nothing is in flight; give up loop state and free. */
    void (*destroy)(struct virtio_device *vdev);
};

/* What the transport does for the device. */
struct virtio_transport_ops {
    void (*queue_interrupt)(struct virtio_device *vdev, unsigned queue);
    void (*config_interrupt)(struct virtio_device *vdev);
    /* Status became 0 after a reset: vectors and ISR back to power-on. */
    void (*reset_done)(struct virtio_device *vdev);
};

/* What each state permits. virtio.c's set_state makes every move and checks this text. */
enum virtio_state {
    /* Status without FEATURES_OK. Features may be written; no queue is enabled. */
    VIRTIO_STATE_SETUP,
    /* FEATURES_OK. Features are latched; queues may be configured and enabled, not popped. */
    VIRTIO_STATE_READY,
    /* DRIVER_OK. Queues are popped and pushed, interrupts fire. */
    VIRTIO_STATE_LIVE,
    /* DEVICE_NEEDS_RESET, or the driver said FAILED. No ring is touched; only reset leads out. */
    VIRTIO_STATE_BROKEN,
    /* Reset was asked for while chains were in flight. Status keeps its value and every write is
     * ignored until they are back; then SETUP. */
    VIRTIO_STATE_RESETTING,
    /* As RESETTING, but for good. */
    VIRTIO_STATE_CLOSING,
};

struct virtio_queue {
    struct virtqueue vq;
    struct virtio_device *vdev;
    struct loop_task drain; /* LOOP_STAGE_DRAIN */
    struct spinner spinner; /* looks for chains by itself while kicks come quickly */
};

struct virtio_device {
    const struct virtio_ops *ops;
    const struct virtio_transport_ops *transport;
    struct loop *loop;
    const struct guest_mem *mem;
    uint64_t offered;
    uint64_t features; /* the driver's choice; valid from VIRTIO_STATE_READY on */
    enum virtio_state state;
    uint8_t status; /* VIRTIO_CONFIG_S_* */
    uint8_t generation;
    const void *config; /* the device's, little-endian, as the driver reads it */
    size_t config_size;
    unsigned queue_count;
    struct virtio_queue *queues;
    /* Private. */
    struct loop_task settle; /* ends RESETTING and CLOSING */
    void (*on_idle)(struct virtio_device *vdev);
};

struct virtio_setup {
    const struct virtio_ops *ops;
    struct loop *loop;
    const struct guest_mem *mem;
    const void *config; /* lives as long as the device */
    size_t config_size;
    unsigned queue_count; /* up to VIRTIO_QUEUES_MAX */
    uint16_t queue_size;  /* of each queue, at most: a power of two */
};

/* What a device remembers across save and restore, flat, for a state table. */
struct virtio_saved {
    uint8_t status;
    uint8_t generation;
    uint64_t features;
    uint8_t enabled[VIRTIO_QUEUES_MAX];
    uint16_t size[VIRTIO_QUEUES_MAX];
    uint16_t avail_at[VIRTIO_QUEUES_MAX];
    uint16_t used_at[VIRTIO_QUEUES_MAX];
    uint64_t desc_gpa[VIRTIO_QUEUES_MAX];
    uint64_t avail_gpa[VIRTIO_QUEUES_MAX];
    uint64_t used_gpa[VIRTIO_QUEUES_MAX];
};

/* For the transport. */
void virtio_init(struct virtio_device *vdev, const struct virtio_setup *setup,
                 const struct virtio_transport_ops *transport);
void virtio_fini(struct virtio_device *vdev);
void virtio_set_features(struct virtio_device *vdev, unsigned half, uint32_t bits);
void virtio_set_status(struct virtio_device *vdev, uint8_t status);
/* Beyond the configuration space it reads as zero, and writes are ignored. */
void virtio_config_read(const struct virtio_device *vdev, size_t offset, void *to, size_t length);
void virtio_config_write(struct virtio_device *vdev, size_t offset, const void *from,
                         size_t length);
/* The layout of queue `queue`, or NULL if it does not exist or may not be changed now. */
struct virtqueue_layout *virtio_queue_layout(struct virtio_device *vdev, unsigned queue);
void virtio_queue_enable(struct virtio_device *vdev, unsigned queue);
/* Bus mastering went off or on. */
void virtio_set_dma(struct virtio_device *vdev, bool on);
/* Takes the device down; on_idle is called, perhaps from inside, when nothing is in flight. */
void virtio_close(struct virtio_device *vdev, void (*on_idle)(struct virtio_device *vdev));

/* The device is idle; what was pushed is published. */
void virtio_save(struct virtio_device *vdev, struct virtio_saved *saved);
/*
 * The device is reset and idle. Trusts nothing in `saved`: -EINVAL if it could not have come about.
 * A live device is kicked, and its driver interrupted, as either may have been lost on the way.
 */
int must_check virtio_restore(struct virtio_device *vdev, const struct virtio_saved *saved,
                              struct error *err);

/* For transport and device. */
/* Has queue `queue` drained in the next LOOP_STAGE_DRAIN. Out-of-range queues are ignored. */
void virtio_kick(struct virtio_device *vdev, unsigned queue);
/* The same, for a doorbell that woke the loop. */
void virtio_doorbell(struct virtio_device *vdev, unsigned queue);
bool virtio_is_live(const struct virtio_device *vdev);
/* No chain of any queue is with the device. */
bool virtio_is_idle(const struct virtio_device *vdev);
static inline bool virtio_has(const struct virtio_device *vdev, unsigned feature_bit)
{
    return vdev->features & VIRTIO_FEATURE(feature_bit);
}
static inline struct virtqueue *virtio_queue(struct virtio_device *vdev, unsigned queue)
{
    return &vdev->queues[queue].vq;
}

/* For the device. */
/* The guest broke the device's rules: NEEDS_RESET, config interrupt, a line in the log. */
void virtio_broken(struct virtio_device *vdev, const char *why);
/* The device changed *config. */
void virtio_config_changed(struct virtio_device *vdev);

#endif
