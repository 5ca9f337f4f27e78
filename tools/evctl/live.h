/* SPDX-License-Identifier: MIT */
/*
 * live: changes of a machine while it runs, over its control socket. Devices carry the names of
 * live_device(), so that they can be taken off; a guest that does not let go within the time, or
 * does not take what it is given, is an error with -ETIMEDOUT.
 */
#ifndef TOOLS_EVCTL_LIVE_H
#define TOOLS_EVCTL_LIVE_H

#include <jansson.h>
#include <stdint.h>

#include "tools/evctl/qmp.h"

#define LIVE_DEVICE_BYTES 48

/* "dev-disk0": the device of a disk or NIC. Returns `buffer`. */
const char *live_device(const char *id, char buffer[LIVE_DEVICE_BYTES]);

int must_check live_attach_disk(struct qmp *qmp, const json_t *disk, struct error *err);
int must_check live_attach_nic(struct qmp *qmp, const json_t *nic, struct error *err);
/* Waits until the guest has let go, then closes what is behind the device. */
int must_check live_detach(struct qmp *qmp, const char *id, bool is_nic, struct error *err);
int must_check live_set_link(struct qmp *qmp, const char *nic, bool is_up, struct error *err);

/* Plugs CPUs in or, of those that were plugged in, out. */
int must_check live_set_cpus(struct qmp *qmp, uint64_t count, struct error *err);
/* By the balloon below what the machine was started with, by its memory device above. */
int must_check live_set_memory(struct qmp *qmp, uint64_t mib, struct error *err);

/* What it has at this moment, whatever its description says of the next start. */
int must_check live_read_now(struct qmp *qmp, uint64_t *cpus, uint64_t *memory_mib,
                             struct error *err);

#endif
