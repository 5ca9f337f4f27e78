/* SPDX-License-Identifier: MIT */
/*
 * fuzz_snoop: a libFuzzer target: frames from a hostile guest and hostile neighbours through what
 * learns addresses from them and what decides by them: snoop, anti-spoof filter, shared networks.
 *
 *   ninja build/tests/fuzz_snoop && build/tests/fuzz_snoop -max_len=4096 -max_total_time=60
 *
 * The input is a list of frames, each behind a head of 4 bytes: what happens to it, how many
 * minutes pass before it, its length.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "netbackends/antispoof.h"
#include "netbackends/packet.h"
#include "netbackends/shared_rules.h"

enum { HEAD_BYTES = 4, SPLIT_MAX = 64, MINUTE_S = 60 };
enum { IS_SENT = 1, IS_CLEARED = 2, IS_GUARDED = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

struct input {
    uint8_t flags, minutes;
    uint8_t *frame; /* of exactly `length` bytes on the heap, so that ASan sees its end */
    size_t length;
};

static bool take(const uint8_t **data, size_t *size, struct input *out)
{
    if (*size < HEAD_BYTES)
        return false;
    const uint8_t *head = *data;
    out->flags = head[0];
    out->minutes = head[1];
    out->length = MIN(load_le16(head + 2), *size - HEAD_BYTES);
    out->frame = malloc(out->length + !out->length);
    memcpy(out->frame, head + HEAD_BYTES, out->length);
    *data += HEAD_BYTES + out->length;
    *size -= HEAD_BYTES + out->length;
    return true;
}

static bool is_same_entry(const struct address_entry *a, const struct address_entry *b)
{
    return a->is_ipv6 == b->is_ipv6 && !memcmp(a->mac, b->mac, 6) &&
           !memcmp(a->address, b->address, a->is_ipv6 ? 16 : 4);
}

static void check_snoop(const struct address_snoop *snoop, int64_t now_s)
{
    int64_t next_s = address_snoop_next_expiry(snoop);
    CHECK(snoop->count <= ADDRESS_SNOOP_MAX);
    for (unsigned i = 0; i < snoop->count; i++) {
        const struct address_entry *entry = &snoop->entries[i];
        CHECK(entry->first_seen_s <= entry->last_seen_s && entry->last_seen_s <= now_s);
        CHECK(!entry->expires_s || (entry->source == ADDRESS_FROM_DHCP && next_s &&
                                    next_s <= entry->expires_s && entry->expires_s > now_s));
        for (unsigned j = 0; j < i; j++)
            CHECK(!is_same_entry(entry, &snoop->entries[j]));
    }
}

/* In two pieces, as guests give frames. */
static void feed_snoop(struct address_snoop *snoop, const struct input *in, int64_t now_s)
{
    size_t first = MIN(in->length, in->flags >> 2);
    const struct iovec iov[] = {{in->frame, first}, {in->frame + first, in->length - first}};
    struct address_snoop before = *snoop;
    bool is_sent = in->flags & IS_SENT;
    if (is_sent && (in->flags & IS_GUARDED) && !antispoof_allows(snoop, mac, iov, 2))
        return;
    bool is_wanted = address_snoop_wants(iov, 2);
    bool has_changed =
        (is_sent ? address_snoop_sent : address_snoop_received)(snoop, iov, 2, now_s);
    CHECK(is_wanted || !memcmp(&before, snoop, sizeof(before)));
    CHECK(!has_changed || memcmp(&before, snoop, sizeof(before)) != 0);
    /* What only the guest says of itself stays its own. */
    if (is_sent && (in->flags & IS_GUARDED) && snoop->count > before.count)
        CHECK(!memcmp(snoop->entries[snoop->count - 1].mac, mac, 6));
}

static void feed_rules(struct shared_rules *rules, struct input *in)
{
    size_t length = MIN(in->length, (size_t)SHARED_HEAD_BYTES);
    CHECK(shared_rules_sent(rules, in->frame, length) <= (SHARED_TO_ENGINE | SHARED_TO_OTHERS));
    if (shared_rules_received(rules, in->frame, length) &&
        load_be16(in->frame + 12) == PACKET_TYPE_IPV4)
        CHECK(memcmp(in->frame + 26, &rules->host, 4) != 0);
    if (shared_rules_hide_router(in->frame, in->length)) {
        struct packet packet;
        CHECK(packet_parse_ip(in->frame, in->length, &packet));
        size_t bytes = packet.end - packet.transport;
        uint64_t sum = packet_pseudo_sum(in->frame, &packet, bytes);
        CHECK(packet_fold(packet_sum(in->frame + packet.transport, bytes, sum)) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct address_snoop snoop = {0};
    struct shared_rules rules = {.net.s_addr = htonl(0x0a000200),
                                 .mask.s_addr = htonl(0xffffff00),
                                 .host.s_addr = htonl(0x0a000202),
                                 .dns.s_addr = htonl(0x0a000203)};
    struct input in;
    int64_t now_s = 1000;
    while (take(&data, &size, &in)) {
        now_s += in.minutes * MINUTE_S;
        address_snoop_expire(&snoop, now_s);
        if ((in.flags & IS_CLEARED) && !in.length)
            address_snoop_clear(&snoop);
        feed_snoop(&snoop, &in, now_s);
        address_snoop_expire(&snoop, now_s);
        check_snoop(&snoop, now_s);
        feed_rules(&rules, &in);
        free(in.frame);
    }
    return 0;
}
