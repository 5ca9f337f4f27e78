/* SPDX-License-Identifier: MIT */
/*
 * fuzz_frames: a libFuzzer target: frames from a hostile guest or peer through everything that
 * reads them before a library or a guest does: guard, lanes, merging, checksums, cutting.
 *
 *   ninja build/tests/fuzz_frames && build/tests/fuzz_frames -max_len=4096 -max_total_time=60
 *
 * The input is a list of frames, each behind a head of 13 bytes: flags, a net_meta, its length.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/iov.h"
#include "netbackends/guard.h"
#include "netbackends/lane.h"
#include "netbackends/merge.h"
#include "netbackends/offload.h"
#include "netbackends/packet.h"

enum { HEAD_BYTES = 13, QUEUE_BYTES = 256 * 1024, FILL_BYTES = 20000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct frame_queue queue;
static uint8_t room[OFFLOAD_SEGMENT_ROOM];
static struct lane_set lanes;

struct input {
    uint8_t flags;
    struct net_meta meta;
    uint8_t *frame; /* of exactly `length` bytes on the heap, so that ASan sees its end */
    size_t length;
};

static bool take(const uint8_t **data, size_t *size, struct input *out)
{
    if (*size < HEAD_BYTES)
        return false;
    const uint8_t *head = *data;
    size_t here = MIN(load_le16(head + 11), *size - HEAD_BYTES);
    out->flags = head[0];
    out->meta = (struct net_meta){head[1],
                                  head[2],
                                  load_le16(head + 3),
                                  load_le16(head + 5),
                                  load_le16(head + 7),
                                  load_le16(head + 9)};
    out->length = here + (head[0] & 0x80 ? FILL_BYTES : 0);
    out->frame = malloc(out->length + !out->length);
    memcpy(out->frame, head + HEAD_BYTES, here);
    memset(out->frame + here, 0x55, out->length - here);
    *data += HEAD_BYTES + here;
    *size -= HEAD_BYTES + here;
    return true;
}

/* What the guard let through can be parsed, is for somebody else, and has no urgent data. */
static void check_passed(const struct input *in, const struct guard *guard)
{
    struct packet packet;
    size_t payload;
    if (load_be16(in->frame + 12) == PACKET_TYPE_ARP)
        return;
    CHECK(packet_parse_ip(in->frame, in->length, &packet));
    CHECK(packet.is_ipv6 || (in->frame[packet.ip + 16] != 127 && in->frame[packet.ip + 16] != 0));
    if (guard->host_only && packet.protocol == PACKET_TCP)
        CHECK(packet.is_ipv6 ? !memcmp(in->frame + packet.ip + 24, guard->host6, 16)
                             : !memcmp(in->frame + packet.ip + 16, guard->host, 4));
    if (packet.protocol != PACKET_TCP)
        return;
    CHECK(packet_parse_tcp(in->frame, &packet, &payload));
    CHECK(!(in->frame[packet.transport + 13] & TCP_URG));
}

static bool is_checksum_right(const uint8_t *frame, size_t length)
{
    struct packet packet;
    CHECK(packet_parse_ip(frame, length, &packet));
    size_t bytes = packet.end - packet.transport;
    uint64_t sum = packet_pseudo_sum(frame, &packet, bytes);
    return packet_fold(packet_sum(frame + packet.transport, bytes, sum)) == 0;
}

static int on_piece(void *opaque, uint8_t *frame, size_t length)
{
    const struct net_meta *meta = opaque;
    struct packet packet;
    size_t payload;
    CHECK(packet_parse_ip(frame, length, &packet) && packet.end == length);
    CHECK(packet_parse_tcp(frame, &packet, &payload));
    CHECK(length - payload <= meta->gso_size);
    CHECK(is_checksum_right(frame, length));
    return 0;
}

static void drain(struct merge *merge);

static int push_piece(void *opaque, uint8_t *frame, size_t length)
{
    struct merge *merge = opaque;
    struct net_meta cut;
    int result = merge_push(merge, &queue, frame, length, &cut);
    CHECK(result != -EMSGSIZE);
    if (result)
        drain(merge);
    return 0;
}

/* What is too long for the receiver can be cut, and then no piece is. */
static void push(struct merge *merge, const uint8_t *frame, size_t length)
{
    static uint8_t own_room[OFFLOAD_SEGMENT_ROOM];
    struct net_meta cut;
    int result = merge_push(merge, &queue, frame, length, &cut);
    if (result == -EMSGSIZE)
        CHECK(offload_segment(&cut, frame, length, own_room, push_piece, merge) == 0);
    else if (result)
        drain(merge);
}

static void drain(struct merge *merge)
{
    struct frame *frame;
    merge_close(merge, &queue);
    while ((frame = frame_queue_front(&queue))) {
        CHECK(frame->length <= GUARD_FRAME_MAX);
        if (frame->meta.gso_type)
            CHECK(offload_segment(&frame->meta, frame->bytes, frame->length, room, on_piece,
                                  &frame->meta) == 0);
        frame_queue_pop(&queue);
    }
}

static int on_lane_frame(void *opaque, const struct net_meta *meta, const struct iovec *iov,
                         size_t iov_count)
{
    (void)opaque;
    CHECK(offload_check_meta(meta, iov_size(iov, iov_count), lanes.offloads));
    return 0;
}

/* A guest's frame on its way into a libslirp that answers each SYN, and frames of its own. */
static void try_lane(struct input *in, unsigned kind)
{
    struct packet packet;
    size_t payload;
    if (!packet_parse_ip(in->frame, in->length, &packet) ||
        !packet_parse_tcp(in->frame, &packet, &payload))
        return;
    if (kind & 1) {
        lanes_from_guest(&lanes, in->frame, &packet, payload, 1);
        lanes_on_fd(&lanes, 0);
        lanes_taken(&lanes);
    } else if (packet.end - packet.transport < 100 && lanes_know(&lanes, in->frame, &packet)) {
        uint8_t *longer = malloc(packet.end + 4);
        size_t length = packet.end;
        memcpy(longer, in->frame, length);
        (void)!lanes_to_guest(&lanes, longer, &length, &packet, 1460);
        CHECK(length == packet.end || length == packet.end + 4);
        free(longer);
    }
    lanes_pump(&lanes, 1, on_lane_frame, NULL);
    if (kind & 2)
        lanes_expire(&lanes, UINT64_MAX - 1);
    if ((kind & 4) && lanes.count)
        lanes_on_fd_closed(&lanes, 0);
}

static void try_one(struct input *in, struct merge *merge)
{
    const struct guard guard = {.allows_tftp = in->flags & 1,
                                .refuses_new_flows = in->flags & 2,
                                .host_only = in->flags & 4,
                                .mss = in->flags & 8 ? &merge->mss : NULL,
                                .host = {10, 0, 2, 2},
                                .host6 = {0xfe, 0xc0, [15] = 2}};
    if (guard_check(&guard, in->frame, in->length)) {
        check_passed(in, &guard);
        try_lane(in, in->flags >> 4);
    }
    if (in->length <= GUARD_FRAME_MAX)
        push(merge, in->frame, in->length);
    bool is_sane = offload_check_meta(&in->meta, in->length, in->flags >> 2);
    if (in->meta.gso_type)
        (void)!offload_segment(&in->meta, in->frame, in->length, room, on_piece, &in->meta);
    else if (offload_finish_checksum(&in->meta, in->frame, in->length))
        CHECK(!is_sane || in->meta.csum_start < PACKET_ETHERNET_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct merge merge = {.offloads = size ? data[0] >> 2 : 0};
    struct input in;
    if (!queue.arena)
        CHECK(frame_queue_init(&queue, QUEUE_BYTES) == 0 && lanes_init(&lanes) == 0);
    lanes.offloads = size ? data[0] >> 2 : 0;
    while (take(&data, &size, &in)) {
        try_one(&in, &merge);
        free(in.frame);
    }
    drain(&merge);
    if (lanes.count)
        lanes_on_fd_closed(&lanes, 0);
    return 0;
}
