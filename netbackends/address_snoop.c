/* SPDX-License-Identifier: MIT */
/*
 * address_snoop: the frames that tell a guest's addresses, and the short list of what they told.
 *
 * What the guest sends is believed about itself, if the sender's MAC inside agrees with the
 * frame's. What it receives is believed only as the answer to its own last DHCP request, for
 * others' answers pass by as well where they are broadcast.
 */
#include "netbackends/address_snoop.h"

#include "base/bytes.h"
#include "base/error.h"
#include "base/iov.h"
#include "netbackends/packet.h"

/* The longest frame that is looked at: DHCP's options fit, and Ethernet's MTU. */
#define FRAME_MAX 1514
/* Up to the type of an ICMPv6 message. */
#define HEAD_BYTES (PACKET_ETHERNET_BYTES + PACKET_IPV6_BYTES + 1)

enum { MAC_AT = 6, ND_BYTES = 24 };

/* BOOTP fields and DHCP options (RFC 951, 2131, 2132). */
enum {
    BOOTP_XID = 4,
    BOOTP_CIADDR = 12,
    BOOTP_YIADDR = 16,
    BOOTP_CHADDR = 28,
    BOOTP_COOKIE = 236,
    BOOTP_OPTIONS = 240,
};
enum {
    OPTION_PAD = 0,
    OPTION_REQUESTED = 50,
    OPTION_LEASE = 51,
    OPTION_TYPE = 53,
    OPTION_END = 255
};
enum {
    DHCP_DISCOVER = 1,
    DHCP_REQUEST = 3,
    DHCP_DECLINE = 4,
    DHCP_ACK = 5,
    DHCP_NAK = 6,
    DHCP_RELEASE = 7
};

struct dhcp_message {
    const uint8_t *bootp;
    uint8_t type;
    uint32_t lease_s; /* 0: not told; UINT32_MAX: for ever */
    const uint8_t *requested;
};

static bool is_dhcp_port(uint16_t port)
{
    return port == PACKET_DHCP_SERVER || port == PACKET_DHCP_CLIENT;
}

static bool wants_ipv4(const uint8_t *ip, size_t length)
{
    return length >= PACKET_IPV4_BYTES + 4 && ip[0] == 0x45 && ip[9] == PACKET_UDP &&
           is_dhcp_port(load_be16(ip + PACKET_IPV4_BYTES)) &&
           is_dhcp_port(load_be16(ip + PACKET_IPV4_BYTES + 2));
}

static bool wants_ipv6(const uint8_t *ip, size_t length)
{
    return length > PACKET_IPV6_BYTES && ip[6] == PACKET_ICMPV6 &&
           (ip[PACKET_IPV6_BYTES] == PACKET_ND_SOLICITATION ||
            ip[PACKET_IPV6_BYTES] == PACKET_ND_ADVERTISEMENT);
}

static bool wants_head(const uint8_t *head, size_t length)
{
    if (length < PACKET_ETHERNET_BYTES)
        return false;
    const uint8_t *payload = head + PACKET_ETHERNET_BYTES;
    switch (load_be16(head + 12)) {
    case PACKET_TYPE_ARP:
        return true;
    case PACKET_TYPE_IPV4:
        return wants_ipv4(payload, length - PACKET_ETHERNET_BYTES);
    case PACKET_TYPE_IPV6:
        return wants_ipv6(payload, length - PACKET_ETHERNET_BYTES);
    default:
        return false;
    }
}

bool address_snoop_wants(const struct iovec *iov, size_t iov_count)
{
    uint8_t head[HEAD_BYTES];
    if (iov_count && iov->iov_len >= sizeof(head))
        return wants_head(iov->iov_base, sizeof(head));
    return wants_head(head, iov_read(iov, iov_count, 0, head, sizeof(head)));
}

static size_t address_bytes(bool is_ipv6)
{
    return is_ipv6 ? 16 : 4;
}

/* No "this host", no loopback, no group: an address that a peer could reach. */
static bool is_usable(bool is_ipv6, const uint8_t *address)
{
    static const uint8_t zero[15];
    if (is_ipv6)
        return address[0] != 0xff &&
               !(memcmp(address, zero, sizeof(zero)) == 0 && address[15] <= 1);
    return address[0] != 0 && address[0] != 127 && address[0] < 224;
}

static struct address_entry *find(struct address_snoop *snoop, bool is_ipv6, const uint8_t *mac,
                                  const uint8_t *address)
{
    for (unsigned i = 0; i < snoop->count; i++) {
        struct address_entry *entry = &snoop->entries[i];
        if (entry->is_ipv6 == is_ipv6 && memcmp(entry->mac, mac, 6) == 0 &&
            memcmp(entry->address, address, address_bytes(is_ipv6)) == 0)
            return entry;
    }
    return NULL;
}

static bool forget(struct address_snoop *snoop, struct address_entry *entry)
{
    if (!entry)
        return false;
    *entry = snoop->entries[--snoop->count];
    return true;
}

static struct address_entry *make_room(struct address_snoop *snoop)
{
    if (snoop->count < ADDRESS_SNOOP_MAX)
        return &snoop->entries[snoop->count++];
    struct address_entry *oldest = snoop->entries;
    for (unsigned i = 1; i < snoop->count; i++)
        if (snoop->entries[i].last_seen_s < oldest->last_seen_s)
            oldest = &snoop->entries[i];
    return oldest;
}

/* A lease says more than a later ARP for the same address: it keeps its source and its end. */
static bool learn(struct address_snoop *snoop, const struct address_entry *seen)
{
    if (!is_usable(seen->is_ipv6, seen->address))
        return false;
    struct address_entry *entry = find(snoop, seen->is_ipv6, seen->mac, seen->address);
    if (!entry) {
        *make_room(snoop) = *seen;
        return true;
    }
    entry->last_seen_s = seen->last_seen_s;
    if (seen->source == ADDRESS_FROM_DHCP) {
        entry->source = seen->source;
        entry->expires_s = seen->expires_s;
    }
    return false;
}

static bool learn_now(struct address_snoop *snoop, enum address_source source, bool is_ipv6,
                      const uint8_t *mac, const uint8_t *address, int64_t now_s)
{
    struct address_entry seen = {
        .is_ipv6 = is_ipv6, .source = source, .first_seen_s = now_s, .last_seen_s = now_s};
    memcpy(seen.mac, mac, sizeof(seen.mac));
    memcpy(seen.address, address, address_bytes(is_ipv6));
    return learn(snoop, &seen);
}

static bool parse_options(const uint8_t *option, const uint8_t *end, struct dhcp_message *out)
{
    while (option < end && *option != OPTION_END) {
        if (*option == OPTION_PAD) {
            option++;
            continue;
        }
        if (end - option < 2 || end - option < 2 + option[1])
            return false;
        if (option[0] == OPTION_TYPE && option[1] == 1)
            out->type = option[2];
        else if (option[0] == OPTION_LEASE && option[1] == 4)
            out->lease_s = load_be32(option + 2);
        else if (option[0] == OPTION_REQUESTED && option[1] == 4)
            out->requested = option + 2;
        option += 2 + option[1];
    }
    return out->type != 0;
}

static bool parse_dhcp(const uint8_t *frame, const struct packet *packet, uint8_t op,
                       struct dhcp_message *out)
{
    static const uint8_t ethernet[] = {1, 6}, cookie[] = {0x63, 0x82, 0x53, 0x63};
    if (packet->is_ipv6 || packet->protocol != PACKET_UDP || packet->is_fragment ||
        packet->end - packet->transport < PACKET_UDP_BYTES + BOOTP_OPTIONS)
        return false;
    const uint8_t *bootp = frame + packet->transport + PACKET_UDP_BYTES;
    *out = (struct dhcp_message){.bootp = bootp};
    return bootp[0] == op && memcmp(bootp + 1, ethernet, sizeof(ethernet)) == 0 &&
           memcmp(bootp + BOOTP_COOKIE, cookie, sizeof(cookie)) == 0 &&
           parse_options(bootp + BOOTP_OPTIONS, frame + packet->end, out);
}

static bool on_dhcp_sent(struct address_snoop *snoop, const struct dhcp_message *message)
{
    const uint8_t *mac = message->bootp + BOOTP_CHADDR;
    switch (message->type) {
    case DHCP_DISCOVER:
    case DHCP_REQUEST:
        snoop->has_request = true;
        snoop->request_xid = load_be32(message->bootp + BOOTP_XID);
        memcpy(snoop->request_mac, mac, sizeof(snoop->request_mac));
        return false;
    case DHCP_RELEASE:
        return forget(snoop, find(snoop, false, mac, message->bootp + BOOTP_CIADDR));
    case DHCP_DECLINE:
        return message->requested && forget(snoop, find(snoop, false, mac, message->requested));
    default:
        return false;
    }
}

static bool forget_leases(struct address_snoop *snoop, const uint8_t *mac)
{
    bool has_changed = false;
    for (unsigned i = snoop->count; i-- > 0;) {
        struct address_entry *entry = &snoop->entries[i];
        if (entry->source == ADDRESS_FROM_DHCP && memcmp(entry->mac, mac, 6) == 0)
            has_changed |= forget(snoop, entry);
    }
    return has_changed;
}

static bool on_dhcp_received(struct address_snoop *snoop, const struct dhcp_message *message,
                             int64_t now_s)
{
    const uint8_t *mac = message->bootp + BOOTP_CHADDR;
    if (!snoop->has_request || load_be32(message->bootp + BOOTP_XID) != snoop->request_xid ||
        memcmp(mac, snoop->request_mac, 6) != 0)
        return false;
    if (message->type == DHCP_NAK)
        return forget_leases(snoop, mac);
    if (message->type != DHCP_ACK)
        return false;
    bool ends = message->lease_s && message->lease_s != UINT32_MAX;
    struct address_entry lease = {.source = ADDRESS_FROM_DHCP,
                                  .first_seen_s = now_s,
                                  .last_seen_s = now_s,
                                  .expires_s = ends ? now_s + message->lease_s : 0};
    memcpy(lease.mac, mac, sizeof(lease.mac));
    memcpy(lease.address, message->bootp + BOOTP_YIADDR, 4);
    return learn(snoop, &lease);
}

static bool on_arp_sent(struct address_snoop *snoop, const uint8_t *frame, size_t length,
                        int64_t now_s)
{
    static const uint8_t head[] = {0, 1, 8, 0, 6, 4, 0};
    const uint8_t *arp = frame + PACKET_ETHERNET_BYTES;
    if (length < PACKET_ETHERNET_BYTES + PACKET_ARP_BYTES || memcmp(arp, head, sizeof(head)) != 0 ||
        memcmp(arp + PACKET_ARP_SENDER_MAC, frame + MAC_AT, 6) != 0)
        return false;
    return learn_now(snoop, ADDRESS_FROM_ARP, false, frame + MAC_AT, arp + PACKET_ARP_SENDER_IP,
                     now_s);
}

/* The address that a neighbour message speaks for, or NULL. */
static const uint8_t *nd_address(const uint8_t *frame, const struct packet *packet)
{
    static const uint8_t unspecified[16];
    const uint8_t *icmp = frame + packet->transport, *source = frame + packet->ip + 8;
    if (!packet->is_ipv6 || packet->protocol != PACKET_ICMPV6 ||
        packet->end - packet->transport < ND_BYTES)
        return NULL;
    if (icmp[0] == PACKET_ND_ADVERTISEMENT)
        return icmp + PACKET_ND_TARGET;
    if (icmp[0] != PACKET_ND_SOLICITATION)
        return NULL;
    /* From nowhere: the guest tries out the target, and keeps it unless somebody objects. */
    return memcmp(source, unspecified, sizeof(unspecified)) == 0 ? icmp + PACKET_ND_TARGET : source;
}

static bool forget_claimed(struct address_snoop *snoop, const uint8_t *frame,
                           const struct packet *packet)
{
    const uint8_t *address = nd_address(frame, packet);
    if (!address || frame[packet->transport] != PACKET_ND_ADVERTISEMENT)
        return false;
    for (unsigned i = 0; i < snoop->count; i++) {
        struct address_entry *entry = &snoop->entries[i];
        if (entry->source == ADDRESS_FROM_ND && memcmp(entry->address, address, 16) == 0 &&
            memcmp(entry->mac, frame + MAC_AT, 6) != 0)
            return forget(snoop, entry);
    }
    return false;
}

bool address_snoop_sent(struct address_snoop *snoop, const struct iovec *iov, size_t iov_count,
                        int64_t now_s)
{
    uint8_t frame[FRAME_MAX];
    struct packet packet;
    struct dhcp_message message;
    size_t length = iov_read(iov, iov_count, 0, frame, sizeof(frame));
    if (length >= PACKET_ETHERNET_BYTES && load_be16(frame + 12) == PACKET_TYPE_ARP)
        return on_arp_sent(snoop, frame, length, now_s);
    if (!packet_parse_ip(frame, length, &packet))
        return false;
    if (parse_dhcp(frame, &packet, 1, &message))
        return on_dhcp_sent(snoop, &message);
    const uint8_t *address = nd_address(frame, &packet);
    return address && learn_now(snoop, ADDRESS_FROM_ND, true, frame + MAC_AT, address, now_s);
}

bool address_snoop_received(struct address_snoop *snoop, const struct iovec *iov, size_t iov_count,
                            int64_t now_s)
{
    uint8_t frame[FRAME_MAX];
    struct packet packet;
    struct dhcp_message message;
    size_t length = iov_read(iov, iov_count, 0, frame, sizeof(frame));
    if (!packet_parse_ip(frame, length, &packet))
        return false;
    if (parse_dhcp(frame, &packet, 2, &message))
        return on_dhcp_received(snoop, &message, now_s);
    return forget_claimed(snoop, frame, &packet);
}

bool address_snoop_expire(struct address_snoop *snoop, int64_t now_s)
{
    bool has_changed = false;
    for (unsigned i = snoop->count; i-- > 0;) {
        struct address_entry *entry = &snoop->entries[i];
        if (entry->expires_s && entry->expires_s <= now_s)
            has_changed |= forget(snoop, entry);
    }
    return has_changed;
}

bool address_snoop_clear(struct address_snoop *snoop)
{
    bool had_any = snoop->count > 0;
    *snoop = (struct address_snoop){0};
    return had_any;
}

int64_t address_snoop_next_expiry(const struct address_snoop *snoop)
{
    int64_t next_s = 0;
    for (unsigned i = 0; i < snoop->count; i++) {
        int64_t expires_s = snoop->entries[i].expires_s;
        if (expires_s && (!next_s || expires_s < next_s))
            next_s = expires_s;
    }
    return next_s;
}

const char *address_source_name(enum address_source source)
{
    static const char *const names[] = {
        [ADDRESS_FROM_ARP] = "arp", [ADDRESS_FROM_DHCP] = "dhcp", [ADDRESS_FROM_ND] = "nd"};
    return names[source];
}
