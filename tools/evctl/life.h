/* SPDX-License-Identifier: MIT */
/* life: starting and watching evisor, for the commands that do so as part of more. */
#ifndef TOOLS_EVCTL_LIFE_H
#define TOOLS_EVCTL_LIFE_H

#include <stdbool.h>
#include <stdint.h>

#include "tools/evctl/qmp.h"
#include "tools/evctl/store.h"

/* Starts a locked, stopped machine; returns when evisor answers. */
int must_check life_start(struct machine *machine, bool is_paused, struct error *err);
/* The addresses of the guest as query-nic-addresses tells, waiting until one is there or the time
 * is over (-ETIMEDOUT). */
int must_check life_addresses(const struct machine *machine, uint64_t wait_ms, json_t **addresses,
                              struct error *err);
/* Of those, the one to call: IPv4 before IPv6, newest first; "" if there is none. */
const char *life_best_address(const json_t *addresses);

#endif
