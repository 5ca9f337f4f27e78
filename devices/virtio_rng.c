/* SPDX-License-Identifier: MIT */
/* virtio_rng: fills the guest's buffers from getrandom(2), a bounded piece for each. */
#include "devices/virtio_rng.h"

#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/iov.h"

/* The kernel answers up to 256 bytes at once, uninterrupted. */
#define PIECE_BYTES   256
#define QUEUE_SIZE    64
#define SEGMENTS_MAX  64
#define CHAINS_A_TURN 16

struct virtio_rng {
    struct virtio_pci pci; /* first */
    struct iovec iov[SEGMENTS_MAX];
};

static uint64_t features(struct virtio_device *vdev)
{
    (void)vdev;
    return 0;
}

/* A driver asks again for what it got too little of, so each chain gets one piece at most. */
static uint32_t fill(const struct virtqueue_chain *chain)
{
    uint8_t bytes[PIECE_BYTES];
    ssize_t got = getrandom(bytes, MIN(sizeof(bytes), chain->in_bytes), GRND_NONBLOCK);
    if (got <= 0)
        return 0;
    return (uint32_t)iov_write(virtqueue_chain_in(chain), chain->in_count, 0, bytes, (size_t)got);
}

static void on_kick(struct virtio_device *vdev, unsigned queue)
{
    struct virtio_rng *rng = container_of(virtio_pci_of(vdev), struct virtio_rng, pci);
    struct virtqueue *vq = virtio_queue(vdev, queue);
    struct virtqueue_chain chain = {.iov = rng->iov, .iov_max = SEGMENTS_MAX};
    for (unsigned i = 0; i < CHAINS_A_TURN; i++) {
        if (!virtqueue_pop(vq, &chain))
            return;
        virtqueue_push(vq, &chain, fill(&chain));
    }
    virtio_kick(vdev, queue);
}

static void destroy(struct virtio_device *vdev)
{
    free(container_of(virtio_pci_of(vdev), struct virtio_rng, pci));
}

static const struct virtio_ops virtio_ops = {
    .name = "virtio-rng",
    .device_id = VIRTIO_ID_RNG,
    .features = features,
    .kick = on_kick,
    .destroy = destroy,
};

static const struct state_field state_fields[] = {VIRTIO_PCI_STATE_FIELDS(struct virtio_rng)};

static const struct state_table state = {"virtio-rng-pci", 1, state_fields,
                                         ARRAY_SIZE(state_fields)};

static const struct device_ops device_ops = {
    .kind = "virtio-rng-pci",
    .reset = virtio_pci_reset,
    .state = &state,
    .before_save = virtio_pci_before_save,
    .after_restore = virtio_pci_after_restore,
    .close = virtio_pci_close,
};

int virtio_rng_create(const struct virtio_pci_place *place, struct device **out, struct error *err)
{
    const struct virtio_setup setup = {
        .ops = &virtio_ops, .queue_count = 1, .queue_size = QUEUE_SIZE};
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    CHECK(rng);
    int result = virtio_pci_init(&rng->pci, place, &device_ops, &setup, err);
    if (result) {
        free(rng);
        return result;
    }
    *out = &rng->pci.pci.device;
    return 0;
}
