/* SPDX-License-Identifier: MIT */
/*
 * virtqueue: the device's side of one split virtqueue (virtio 1.2, section 2.7).
 *
 * Pop chains, do the I/O straight into their iovecs, push each exactly once. Everything from guest
 * memory is copied once and then checked; a queue that breaks the rules is given up (`broken`) and
 * not touched again before its reset. Kicks, their suppression and both event indices are this
 * room's business: when virtqueue_pop finds nothing, the guest will kick for the next chain. Loop's
 * thread only.
 */
#ifndef DEVICES_VIRTQUEUE_H
#define DEVICES_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/limits.h"
#include "base/loop.h"
#include "devices/guest_mem.h"

struct virtqueue;

struct virtqueue_ops {
    /* A used-buffer notification is due. */
    void (*interrupt)(struct virtqueue *vq);
    /* The guest broke the rules; `why` is for the log. Called once, in the middle of a pop. */
    void (*broken)(struct virtqueue *vq, const char *why);
    /* The last chain in flight came back. */
    void (*idle)(struct virtqueue *vq);
};

struct virtqueue_stats {
    uint64_t kicks;      /* notifications that arrived */
    uint64_t chains;     /* popped */
    uint64_t interrupts; /* sent */
    uint64_t suppressed; /* batches published without an interrupt, as the driver wished */
};

/*
 * One chain of buffers between pop and push. The device owns it and its room for iovecs, and keeps
 * both until the push. The buffers are guest memory: they may change at any time, so copy out what
 * is to be checked.
 */
struct virtqueue_chain {
    struct iovec *iov; /* what the device may read first, then what it may write */
    unsigned iov_max;
    unsigned out_count; /* entries to read */
    unsigned in_count;  /* entries to write, from iov + out_count */
    uint32_t out_bytes;
    uint32_t in_bytes;
    uint16_t head; /* private */
};

/* Written by the driver before it enables the queue, latched from then on. */
struct virtqueue_layout {
    uint16_t size;
    uint64_t desc_gpa;
    uint64_t avail_gpa;
    uint64_t used_gpa;
};

struct virtqueue_used {
    uint32_t id;
    uint32_t length;
};

struct virtqueue {
    struct loop *loop;
    const struct guest_mem *mem;
    const struct virtqueue_ops *ops;
    unsigned index;    /* in its device */
    uint16_t size_max; /* a power of two */
    struct virtqueue_layout layout;
    bool enabled;
    struct virtqueue_stats stats;
    /* Private. */
    bool broken;
    bool held;      /* no access to guest memory for now */
    bool event_idx; /* VIRTIO_F_EVENT_IDX was negotiated */
    bool indirect;  /* VIRTIO_F_INDIRECT_DESC was negotiated */
    bool kicks_on;  /* the driver was asked to kick */
    bool polled;    /* the caller looks: no kicks are asked for */
    bool starved;   /* the last pop found nothing */
    const uint8_t *desc;
    uint8_t *avail;
    uint8_t *used;
    uint16_t avail_at;      /* the next entry to pop */
    uint16_t avail_seen;    /* the driver's index when last read */
    uint16_t used_at;       /* the next entry to publish */
    uint16_t in_flight;     /* popped, not pushed */
    uint16_t pending_count; /* pushed, not published */
    struct virtqueue_used *pending;
    uint64_t taken[VIRTQUEUE_SIZE_MAX / 64];  /* heads popped, not published */
    uint64_t popped[VIRTQUEUE_SIZE_MAX / 64]; /* heads popped, not pushed */
    struct loop_task notify;                  /* LOOP_STAGE_NOTIFY */
};

/* `size_max` is a power of two up to VIRTQUEUE_SIZE_MAX. fini: nothing may be in flight. */
void virtqueue_init(struct virtqueue *vq, struct loop *loop, const struct guest_mem *mem,
                    const struct virtqueue_ops *ops, unsigned index, uint16_t size_max);
void virtqueue_fini(struct virtqueue *vq);

/* Latches vq->layout. False if it is malformed or not all RAM; then nothing changed. */
bool must_check virtqueue_enable(struct virtqueue *vq, bool event_idx, bool indirect);

/* Back to power-on, except that stats stay. Nothing may be in flight. */
void virtqueue_reset(struct virtqueue *vq);

/* Where an enabled queue goes on after a restore. */
void virtqueue_restore(struct virtqueue *vq, uint16_t avail_at, uint16_t used_at);

/* Stops all access to the rings until virtqueue_reset; pushes then only count. Idempotent. */
void virtqueue_break(struct virtqueue *vq);

/* While held, pop finds nothing and pushed chains wait. After a release the caller kicks. */
void virtqueue_hold(struct virtqueue *vq, bool hold);

/*
 * Takes the next chain into `chain`, of which the caller set iov and iov_max. False if there is
 * none (the guest will kick), or if the queue is disabled, held or broken. A chain of more than
 * iov_max entries breaks the queue.
 */
bool must_check virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain);

/*
 * Puts back the chain that was popped last; several in reverse order. Nothing was written to it.
 * The guest will not kick for it: the caller remembers to come back.
 */
void virtqueue_unpop(struct virtqueue *vq, const struct virtqueue_chain *chain);

/*
 * Gives a chain back. The first `written_bytes` of its writable part were written, all of them:
 * tells guest_mem_written. Published, with one interrupt decision for all, in LOOP_STAGE_NOTIFY of
 * this turn (of the next, if called in that stage). CHECKs that the chain is in flight.
 */
void virtqueue_push(struct virtqueue *vq, const struct virtqueue_chain *chain,
                    uint32_t written_bytes);

/* For memory that was written but is not covered by a push's written_bytes. */
void virtqueue_written(const struct virtqueue *vq, const struct iovec *iov, size_t iov_count,
                       size_t bytes);

/* Publishes and decides now instead of in LOOP_STAGE_NOTIFY. */
void virtqueue_publish(struct virtqueue *vq);

/* True if a pop would find a chain now. Leaves kicks as they are. */
bool virtqueue_has_chain(struct virtqueue *vq);
/* How many chains the driver offers that nobody has popped. Leaves kicks as they are. */
unsigned virtqueue_offered(struct virtqueue *vq);

/*
 * While polled, a pop that finds nothing asks for no kick: the caller looks at virtqueue_is_due
 * instead. Turning it off asks; the caller looks once more after that.
 */
void virtqueue_set_polled(struct virtqueue *vq, bool polled);

/* True if the last pop found nothing, and the next one would. */
bool virtqueue_is_due(struct virtqueue *vq);

/* The writable parts of a chain. */
static inline struct iovec *virtqueue_chain_in(const struct virtqueue_chain *chain)
{
    return chain->iov + chain->out_count;
}

#endif
