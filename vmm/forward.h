/* SPDX-License-Identifier: MIT */
/* forward: rules of port forwarding as -nic hostfwd= and hostfwd_add write them. */
#ifndef VMM_FORWARD_H
#define VMM_FORWARD_H

#include <stdbool.h>

#include "vmm/config.h"

/*
 * Reads "tcp|udp:[host address]:host port-[guest address]:guest port"; without `has_guest` the part
 * before "-" alone. False if it is not one. The addresses are the caller's to free, in any case.
 */
bool forward_parse(const char *text, bool has_guest, struct config_forward *out);

void forward_fini(struct config_forward *forward);

/* True if the text, up to `length`, is an IPv4 address. */
bool forward_is_ipv4(const char *text, size_t length);

#endif
