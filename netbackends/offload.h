/* SPDX-License-Identifier: MIT */
/*
 * offload: done in software what one side left to the other: checksums and segmentation.
 *
 * Frames here come from guests and peers: every offset of a meta is checked before it is used.
 */
#ifndef NETBACKENDS_OFFLOAD_H
#define NETBACKENDS_OFFLOAD_H

#include "netbackends/net.h"

/*
 * True if a meta that came from outside makes sense for a frame of `length` bytes and asks for
 * nothing beyond `offloads`. Says nothing about the frame's own headers.
 */
bool offload_check_meta(const struct net_meta *meta, size_t length, unsigned offloads);

/*
 * Fills in the checksum that `meta` asks for. 0, or -EINVAL if the meta does not fit the frame.
 */
int must_check offload_finish_checksum(const struct net_meta *meta, uint8_t *frame, size_t length);

/* What offload_segment calls for each piece; another result than 0 ends it. */
typedef int offload_emit_fn(void *opaque, uint8_t *frame, size_t length);

#define OFFLOAD_PIECES_MAX 1366 /* 64 KiB in the shortest segments that Linux makes */

/*
 * Cuts a TCP frame that `meta` describes (NET_GSO_TCPV4 or TCPV6) into frames of gso_size payload
 * with complete checksums, and emits each, OFFLOAD_PIECES_MAX at most; `room` (of at least
 * OFFLOAD_SEGMENT_ROOM) is where the pieces are built. 0, -EINVAL, or what emit answered.
 */
#define OFFLOAD_SEGMENT_ROOM (14 + 65535)
int must_check offload_segment(const struct net_meta *meta, const uint8_t *frame, size_t length,
                               uint8_t *room, offload_emit_fn *emit, void *opaque);

#endif
