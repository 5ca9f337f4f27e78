/* SPDX-License-Identifier: MIT */
/* mss: the MSS option (RFC 9293, section 3.7.1), kept and rewritten. */
#include "netbackends/mss.h"

#include "base/bytes.h"
#include "base/check.h"

enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_MSS = 2, OPTION_MSS_BYTES = 4 };
enum { DEFAULT_IPV4 = 536, DEFAULT_IPV6 = 1220 }; /* for who has no such option */

static size_t usual(const struct packet *packet)
{
    return MSS_MTU - PACKET_TCP_BYTES -
           (size_t)(packet->is_ipv6 ? PACKET_IPV6_BYTES : PACKET_IPV4_BYTES);
}

static struct mss_entry *find(struct mss_entry *set, const struct flow *flow)
{
    for (size_t i = 0; i < MSS_WAYS; i++)
        if (set[i].bytes && flow_equals(&set[i].flow, flow))
            return &set[i];
    return NULL;
}

/* A free place, or that of the oldest. */
static struct mss_entry *make_place(struct mss_table *table, struct mss_entry *set)
{
    struct mss_entry *oldest = set;
    for (size_t i = 0; i < MSS_WAYS; i++) {
        if (!set[i].bytes) {
            table->count++;
            return &set[i];
        }
        if (table->newest - set[i].age > table->newest - oldest->age)
            oldest = &set[i];
    }
    if (!table->forgotten || oldest->bytes < table->forgotten)
        table->forgotten = oldest->bytes;
    return oldest;
}

static void keep(struct mss_table *table, const struct flow *flow, size_t wish)
{
    struct mss_entry *set = table->entries[flow_hash(flow) % MSS_SETS];
    struct mss_entry *entry = find(set, flow);
    if (!entry)
        entry = make_place(table, set);
    *entry = (struct mss_entry){*flow, (uint16_t)wish, ++table->newest};
}

/* The usual length will do: a connection with the same ends may have had another wish. */
static void drop(struct mss_table *table, const struct flow *flow)
{
    struct mss_entry *entry =
        table->count ? find(table->entries[flow_hash(flow) % MSS_SETS], flow) : NULL;
    if (!entry)
        return;
    entry->bytes = 0;
    table->count--;
}

/* Writes MSS_OFFERED at `at`, which may be odd: its bytes then have each other's place in the sum.
 */
static void rewrite(uint8_t *tcp, size_t at)
{
    uint16_t before = load_be16(tcp + at), after = MSS_OFFERED;
    store_be16(tcp + at, after);
    if (at % 2) {
        before = __builtin_bswap16(before);
        after = __builtin_bswap16(after);
    }
    packet_adjust_checksum(tcp + 16, before, after);
}

/* The smallest of the MSS options, all of which are rewritten; 0 if there is none. */
static size_t rewrite_options(uint8_t *tcp, size_t end)
{
    size_t wish = 0;
    for (size_t at = PACKET_TCP_BYTES; at < end && tcp[at] != OPTION_END;) {
        if (tcp[at] == OPTION_NOP) {
            at++;
            continue;
        }
        if (tcp[at] == OPTION_MSS && tcp[at + 1] == OPTION_MSS_BYTES) {
            size_t found = load_be16(tcp + at + 2);
            wish = wish ? MIN(wish, found) : MAX(found, 1);
            rewrite(tcp, at + 2);
        }
        at += tcp[at + 1];
    }
    return wish;
}

void mss_take_syn(struct mss_table *table, uint8_t *frame, const struct packet *packet,
                  size_t payload)
{
    struct flow flow;
    size_t wish = rewrite_options(frame + packet->transport, payload - packet->transport);
    if (!wish)
        wish = packet->is_ipv6 ? DEFAULT_IPV6 : DEFAULT_IPV4;
    flow_find(frame, packet, true, &flow);
    if (wish < usual(packet))
        keep(table, &flow, MAX(wish, MSS_LEAST));
    else
        drop(table, &flow);
}

size_t mss_of(const struct mss_table *table, const uint8_t *frame, const struct packet *packet)
{
    struct flow flow;
    size_t most = usual(packet);
    if (!table->count && !table->forgotten)
        return most;
    flow_find(frame, packet, false, &flow);
    /* The cast is for find(), which serves writers as well. */
    struct mss_entry *set = ((struct mss_table *)table)->entries[flow_hash(&flow) % MSS_SETS];
    const struct mss_entry *entry = find(set, &flow);
    if (entry)
        return entry->bytes;
    return table->forgotten ? MIN((size_t)table->forgotten, most) : most;
}
