/* SPDX-License-Identifier: MIT */
/*
 * virtio_mem: memory that grows and shrinks in blocks (virtio 1.2, section 5.15).
 *
 * The device owns a region of guest-physical addresses. The host asks for a size; the guest plugs
 * and unplugs blocks until it has that much. Unplugged blocks are given back to the host.
 */
#ifndef DEVICES_VIRTIO_MEM_H
#define DEVICES_VIRTIO_MEM_H

#include "devices/virtio_pci.h"

#define VIRTIO_MEM_BLOCK_MIN     (UINT64_C(1) << 20)
#define VIRTIO_MEM_BLOCK_DEFAULT (UINT64_C(2) << 20) /* one huge page */

struct virtio_mem_options {
    uint64_t gpa; /* aligned to the block */
    uint64_t size_bytes, block_bytes, requested_bytes;
    /* Optional. Addresses below `usable_bytes` of the region may be used from now on: a bigger
     * requested size needs more of them. Returns false if that cannot be. */
    bool (*make_usable)(void *opaque, uint64_t usable_bytes);
    /* Optional. The guest plugged or unplugged blocks. */
    void (*on_size_changed)(void *opaque);
    void *opaque;
};

int must_check virtio_mem_create(const struct virtio_pci_place *place,
                                 const struct virtio_mem_options *options, struct device **out,
                                 struct error *err);

/* -EINVAL: no multiple of the block, or more than the region. */
int must_check virtio_mem_request(struct device *device, uint64_t bytes, struct error *err);

struct virtio_mem_info {
    uint64_t gpa, size_bytes, block_bytes, requested_bytes, plugged_bytes;
};

void virtio_mem_get_info(const struct device *device, struct virtio_mem_info *info);

#endif
