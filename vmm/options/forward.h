/* SPDX-License-Identifier: MIT */
/* forward: rules of port forwarding as -nic hostfwd= and hostfwd_add write them. */
#ifndef VMM_OPTIONS_FORWARD_H
#define VMM_OPTIONS_FORWARD_H

#include <stdbool.h>

#include "netbackends/slirp.h"
#include "vmm/config.h"

/*
 * Reads "tcp|udp:[host address]:host port-[guest address]:guest port" or
 * "unix:path-[guest address]:guest port"; without `has_guest` the part before "-" alone. IPv6
 * addresses stand in brackets. False if it is not one. The strings are the caller's to free, in any
 * case.
 */
bool forward_parse(const char *text, bool has_guest, struct config_forward *out);

void forward_fini(struct config_forward *forward);

/*
 * Reads "[tcp]:[address]:port-TARGET", where TARGET is cmd:COMMAND, tcp:HOST:PORT, unix:PATH or
 * chardev:ID; without `has_target` the part before "-" alone. False if it is not one; the strings are the
 * caller's to free, in any case.
 */
bool forward_parse_guest(const char *text, bool has_target, struct config_guest_forward *out);

void forward_fini_guest(struct config_guest_forward *forward);

/* The same as the backends have them; strings are shared. */
struct net_forward forward_for_net(const struct config_forward *forward);
struct net_guest_forward forward_guest_for_net(const struct config_guest_forward *forward);

/* As forward_parse reads them; the caller frees the text. */
char *forward_text(const struct net_forward *forward);
char *forward_text_guest(const struct net_guest_forward *forward);

/* True if the text, up to `length`, is an IPv4 address. */
bool forward_is_ipv4(const char *text, size_t length);

#endif
