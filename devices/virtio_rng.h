/* SPDX-License-Identifier: MIT */
/* virtio_rng: entropy for the guest (virtio 1.2, section 5.4) from the host's getrandom(2). */
#ifndef DEVICES_VIRTIO_RNG_H
#define DEVICES_VIRTIO_RNG_H

#include "devices/virtio_pci.h"

int must_check virtio_rng_create(const struct virtio_pci_place *place, struct device **out,
                                 struct error *err);

#endif
