/* SPDX-License-Identifier: MIT */
/*
 * telnet: what the TELNET protocol adds to a stream of bytes (RFC 854; options of RFC 856, 857 and
 * 858). We offer to echo and ask for single characters and all eight bits, and answer nothing: a
 * client that does not want to stays in lines.
 */
#ifndef BASE_TELNET_H
#define BASE_TELNET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct telnet {
    enum { TELNET_DATA, TELNET_COMMAND, TELNET_OPTION, TELNET_SUB, TELNET_SUB_COMMAND } state;
    uint8_t command; /* whose option comes next */
    bool is_binary;  /* the peer sends bytes as they are */
    bool has_cr;
};

/* The first bytes to a peer. */
extern const uint8_t telnet_greeting[12];

/* A new peer. */
void telnet_init(struct telnet *telnet);

/* Leaves the data of what came from the peer, in its place; returns its length. Breaks are counted
 * in *breaks. */
size_t telnet_take(struct telnet *telnet, uint8_t *bytes, size_t length, unsigned *breaks);

/* Data for the peer, as it must be written; returns the bytes in `to`, *taken of `from`. */
size_t telnet_escape(const uint8_t *from, size_t length, uint8_t *to, size_t room, size_t *taken);

#endif
