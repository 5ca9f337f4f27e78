/* SPDX-License-Identifier: MIT */
/*
 * slirp: the user-mode network: a NAT, a DHCP and a DNS server inside the process, by libslirp.
 *
 * It needs no privilege. The guest is 10.0.2.15, its router and the host's loopback 10.0.2.2, its
 * name server 10.0.2.3, unless the options say otherwise. What comes in from outside comes in by a
 * forward. Frames pass netbackends/guard first. SIGPIPE is ignored from the first create on.
 */
#ifndef NETBACKENDS_SLIRP_H
#define NETBACKENDS_SLIRP_H

#include "netbackends/net.h"
#include "netbackends/socket_address.h"

/* A port of the host, or a local socket of its, that leads to a port of the guest. */
struct net_forward {
    bool is_udp;
    const char *host_path;    /* a local socket, which is made; then no address and port */
    const char *host_address; /* NULL: 127.0.0.1; IPv4 or IPv6 */
    uint16_t host_port;
    const char *guest_address; /* NULL: the first DHCP address; of the same family */
    uint16_t guest_port;
};

/*
 * A port of an address on the guest's network that leads to a service of the host, which is
 * connected to, or to a command, which is started, for each of the guest's connections. TCP only.
 */
struct net_guest_forward {
    const char *guest_address; /* IPv4, on the network; NULL: its 4th address */
    uint16_t guest_port;
    const char *command;              /* split into words as by a shell, which is not run; or */
    struct net_socket_address target; /* a service */
};

/* As -netdev user has them. NULL and zero mean the usual value; strings are not kept. */
struct net_slirp_options {
    const char *net;       /* "10.0.2.0/24" */
    const char *host;      /* 2nd address of net */
    const char *dns;       /* 3rd address of net */
    const char *dhcpstart; /* 15th address of net */
    const char *hostname;
    const char *dnssearch; /* several are separated by commas */
    const char *domainname;
    const char *tftp; /* a folder that the guest may read */
    const char *bootfile;
    const char *tftp_server_name; /* for boot loaders that ask DHCP for it */
    const char *ipv6_prefix;      /* "fec0::/64" */
    const char *ipv6_host;        /* ::2 of it */
    const char *ipv6_dns;         /* ::3 of it */
    bool restrict_access;         /* nothing passes but forwards */
    bool disable_host_loopback;
    /* Nothing but the host can be reached, and its loopback as `host`; the usual network is
     * 192.168.56.0/24, with the host at .1 and leases from .101 on. */
    bool host_only;
    bool ipv4_off, ipv6_off;
    const struct net_forward *forwards;
    size_t forward_count;
    const struct net_guest_forward *guest_forwards;
    size_t guest_forward_count;
};

int must_check net_slirp_create(struct loop *loop, const char *id,
                                const struct net_slirp_options *options, struct net_backend **out,
                                struct error *err);

/* At any time. The backend must be one of net_slirp_create. */
int must_check net_slirp_forward_add(struct net_backend *backend, const struct net_forward *forward,
                                     struct error *err);
/* Only is_udp, host_path, host_address and host_port count. Connections that exist live on. */
int must_check net_slirp_forward_remove(struct net_backend *backend,
                                        const struct net_forward *forward, struct error *err);
/* In the order of their making; the strings live during the call. */
void net_slirp_for_each_forward(const struct net_backend *backend,
                                void (*emit)(void *opaque, const struct net_forward *forward),
                                void *opaque);

/* At any time. */
int must_check net_slirp_guest_forward_add(struct net_backend *backend,
                                           const struct net_guest_forward *forward,
                                           struct error *err);
/* Only guest_address and guest_port count. Connections that exist are ended. */
int must_check net_slirp_guest_forward_remove(struct net_backend *backend,
                                              const struct net_guest_forward *forward,
                                              struct error *err);
void net_slirp_for_each_guest_forward(const struct net_backend *backend,
                                      void (*emit)(void *opaque,
                                                   const struct net_guest_forward *forward),
                                      void *opaque);

bool net_backend_is_slirp(const struct net_backend *backend);

/* libslirp's table of connections, for `info usernet`; freed by the caller. */
char *net_slirp_connections(const struct net_backend *backend);

#endif
