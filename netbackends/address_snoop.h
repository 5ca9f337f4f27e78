/* SPDX-License-Identifier: MIT */
/*
 * address_snoop: learns a guest's IP addresses from the frames of its NIC, without its help.
 *
 * Looks at ARP (RFC 826, 5227), DHCP (RFC 2131) and neighbour discovery (RFC 4861, 4862) only. An
 * address leaves when the guest releases it, when its lease ends, or when another machine claims it
 * while it is still tentative. Frames are hostile; what does not parse teaches nothing. Pure: the
 * time comes from the caller, in seconds since 1970.
 */
#ifndef NETBACKENDS_ADDRESS_SNOOP_H
#define NETBACKENDS_ADDRESS_SNOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* A guest that shows more loses those seen the longest time ago. */
#define ADDRESS_SNOOP_MAX 16

enum address_source { ADDRESS_FROM_ARP, ADDRESS_FROM_DHCP, ADDRESS_FROM_ND };

struct address_entry {
    uint8_t mac[6];
    bool is_ipv6;
    uint8_t address[16]; /* network byte order; IPv4 in the first four */
    enum address_source source;
    int64_t first_seen_s, last_seen_s;
    int64_t expires_s; /* of a lease; 0: never */
};

/* All zero: nothing known. */
struct address_snoop {
    unsigned count;
    struct address_entry entries[ADDRESS_SNOOP_MAX];
    /* The guest's last DHCP request, whose answer is believed. */
    bool has_request;
    uint32_t request_xid;
    uint8_t request_mac[6];
};

/* Cheap: whether the two below would look at the frame at all. */
bool address_snoop_wants(const struct iovec *iov, size_t iov_count);

/* True if an address came or went. */
bool address_snoop_sent(struct address_snoop *snoop, const struct iovec *iov, size_t iov_count,
                        int64_t now_s);
bool address_snoop_received(struct address_snoop *snoop, const struct iovec *iov, size_t iov_count,
                            int64_t now_s);
bool address_snoop_expire(struct address_snoop *snoop, int64_t now_s);
bool address_snoop_clear(struct address_snoop *snoop);

/* When the next lease ends; 0: none does. */
int64_t address_snoop_next_expiry(const struct address_snoop *snoop);

const char *address_source_name(enum address_source source); /* "arp", "dhcp", "nd" */

#endif
