/* SPDX-License-Identifier: MIT */
/* qcow2_pack: compresses clusters, on any thread; one packer belongs to one thread at a time. */
#ifndef DISK_QCOW2_QCOW2_PACK_H
#define DISK_QCOW2_QCOW2_PACK_H

#include <stdbool.h>
#include <stddef.h>

#include "disk/qcow2/qcow2_format.h"

struct qcow2_packer;

bool qcow2_pack_is_supported(enum qcow2_compression type);
/* NULL if there is no memory, or no support for `type`. */
struct qcow2_packer *qcow2_packer_create(enum qcow2_compression type);
void qcow2_packer_destroy(struct qcow2_packer *packer);

/* The bytes written to `out`, fewer than `bytes`; 0 if it does not get that small. */
size_t qcow2_pack(struct qcow2_packer *packer, const void *in, size_t bytes, void *out);

#endif
