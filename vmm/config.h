/* SPDX-License-Identifier: MIT */
/*
 * config: the machine that a command line describes, as plain data. vmm/options fills it,
 * vmm/machine builds from it. Strings and arrays belong to the config.
 */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "disk/disk.h"
#include "vmm/config_guest.h"
#include "vmm/cpu_model.h"

#define CONFIG_CHARDEV_MAX 64
#define CONFIG_MONITOR_MAX 8
#define CONFIG_RNG_MAX     8

/* -chardev, and the short forms of -serial, -qmp and -monitor, become one of these. */
enum config_chardev_kind {
    CHARDEV_NULL,
    CHARDEV_STDIO,
    CHARDEV_FILE,
    CHARDEV_PTY,
    CHARDEV_UNIX,
    CHARDEV_TCP, /* loopback only */
    CHARDEV_PIPE,
    CHARDEV_RINGBUF,
};

struct config_chardev {
    enum config_chardev_kind kind;
    char *id;   /* NULL: the entry is free */
    char *path; /* FILE, UNIX, PIPE */
    char *host; /* TCP */
    uint16_t port;
    bool append; /* FILE: keep what is in it */
    uint64_t ring_bytes;   /* RINGBUF: a power of two */
    uint64_t reconnect_ms; /* no server: try again after so long; 0: connect at the start only */
    bool is_quiet;         /* PTY: its place is told otherwise than on standard output */
    bool is_server;        /* UNIX, TCP; else it connects */
    bool is_telnet;        /* TCP, UNIX: the peer speaks the TELNET protocol */
    bool wait;          /* server: hold the start until a client is there */
    bool is_mux;        /* Ctrl-a switches between what shares it; Ctrl-a x leaves */
    char *logfile;      /* a copy of the output, or NULL */
    bool logappend;     /* keep what is in it */
    uint64_t log_bytes; /* so much of its end is kept; 0: all */
    bool history;       /* UNIX, TCP: a client gets the last 64 KiB first */
    bool has_signals;   /* STDIO: Ctrl-C interrupts evisor instead of going to the guest */
};

/* What a failing request does: werror= and rerror= of -drive. */
enum config_on_error { ON_ERROR_REPORT, ON_ERROR_IGNORE, ON_ERROR_STOP, ON_ERROR_ENOSPC };

struct config_disk {
    char *id;      /* of the backend: "virtio0", or what id= said */
    char *qdev_id; /* of the device, if -device named it */
    /*
     * Its strings are owned here. format is NULL where neither format= nor the file's name tells:
     * see vmm/drive_format.h.
     */
    struct disk_options options;
    enum config_on_error werror, rerror; /* default: ENOSPC, REPORT */
    char *serial;                        /* up to 20 bytes, or NULL */
    struct throttle_limits *limits;      /* disk/throttle.h; NULL: none */
    char *throttle_group;                /* whose limits it shares; NULL: as `id` */
    char *node_name;                     /* NULL: as `id` */
    bool is_cdrom;
    bool is_attached;   /* a device refers to it */
    bool is_node;       /* blockdev-add made it: it stays when its device goes */
    unsigned pci_slot;  /* addr= of the device; 0: the first free one */
    unsigned boot_rank; /* 1 + bootindex= of the device; 0 if it has none */
    unsigned queue_count; /* num-queues= of the device; 0: one */
    unsigned io_thread;   /* iothread= of the device, 1 + its place among them; 0: none */
};

enum config_net_kind {
    NET_KIND_USER,
    NET_KIND_TAP,
    NET_KIND_STREAM,
    NET_KIND_DGRAM,
    NET_KIND_INTERNAL,
    NET_KIND_NAT,
    NET_KIND_HOST_ONLY,
};

struct config_forward {
    bool is_udp;
    char *host_path;    /* a local socket, instead of address and port */
    char *host_address; /* NULL: 127.0.0.1 */
    uint16_t host_port;
    char *guest_address; /* NULL: the first DHCP address */
    uint16_t guest_port;
};

/* guestfwd=: from an address of the guest's network to a command, or to a service of the host. */
struct config_guest_forward {
    char *address; /* NULL: the 4th of the network */
    uint16_t port;
    char *command;                   /* or NULL, and */
    char *target_path, *target_host; /* one of these, or neither for this host */
    char *chardev;                   /* until the options are complete: who knows the target */
    uint16_t target_port;
};

/*
 * -netdev user, nat and hostonly, and the user part of -nic; NULL or zero: libslirp's usual values.
 * dnssearch lists domains, separated by commas.
 */
struct config_net_user {
    char *net, *host, *dns, *dhcpstart, *hostname, *dnssearch, *domainname, *tftp, *bootfile;
    char *tftp_server_name;
    char *ipv6_prefix; /* "fec0::/64" */
    char *ipv6_host, *ipv6_dns;
    bool restrict_access;
    bool host_loopback; /* the guest reaches what listens on the host's 127.0.0.1, as 10.0.2.2 */
    bool ipv4_off, ipv6_off;
    struct config_forward *forwards;
    unsigned forward_count;
    struct config_guest_forward *guest_forwards;
    unsigned guest_forward_count;
};

/* -netdev tap and bridge; NULL: as netbackends/tap.h says. */
struct config_net_tap {
    char *ifname, *bridge, *helper;
    int fd; /* -1: none */
    bool vnet_hdr_off;
};

/* A path, or a host and a port. */
struct config_net_address {
    char *path, *host;
    uint16_t port;
};

/* -netdev stream, dgram and socket. */
struct config_net_socket {
    struct config_net_address local;  /* DGRAM; STREAM: where it listens */
    struct config_net_address remote; /* DGRAM; STREAM: where it connects to */
    bool is_server;
    unsigned reconnect_ms;
};

struct config_nic {
    char *netdev_id;
    char *qdev_id;
    enum config_net_kind kind;
    struct config_net_user user;
    struct config_net_tap tap;
    struct config_net_socket socket;
    char *folder; /* INTERNAL, NAT, HOST_ONLY */
    uint8_t mac[6];
    bool has_mac;
    uint16_t mtu; /* host_mtu=: told to the guest; 0: not told */
    uint64_t features_off; /* of virtio-net's: the guest is not to have them */
    bool antispoof; /* the guest sends as itself only */
    bool has_device; /* a -device or -nic made a NIC for it */
    unsigned pci_slot; /* addr= of the NIC; 0: the first free one */
};

struct config_rng {
    char *qdev_id;
    int object; /* of the config's rng_objects, or -1 */
    unsigned pci_slot;
};

struct config_file_node;

enum config_monitor_kind { MONITOR_QMP, MONITOR_HUMAN };

struct config_monitor {
    enum config_monitor_kind kind;
    unsigned chardev; /* index into chardevs */
    bool pretty;
};

#define CONFIG_BOOT_MAX            32
#define CONFIG_BOOT_REBOOT_DEFAULT INT32_MIN

/* -boot. The letters are as in QEMU: c the disks, d the CDs. */
struct config_boot {
    char order[4], once[4]; /* "" is the usual order; `once` counts until the first reset */
    bool has_menu, is_strict;
    int splash_ms; /* -1: the firmware's own */
    int reboot_ms; /* -1: never */
};

struct vm_config {
    char *name;
    char *uuid; /* canonical text, or NULL */
    uint64_t ram_bytes;
    char *mem_path; /* -mem-path, or NULL */
    bool mem_prealloc;
    unsigned cpus;
    unsigned max_cpus; /* with those that may be plugged in; 0: as many as cpus */
    unsigned sockets, cores, threads; /* their product is max_cpus */
    char *cpu_model;                  /* "host", "max", "x86-64-v2" */
    struct cpu_model cpu_features;    /* what it and its switches mean */
    char *accel;                      /* "kvm", "soft", "kvm:soft" */
    char *machine_type;               /* "q35" or "pc"; both give the same machine */

    char *kernel, *initrd, *append;
    bool guest_unpacks; /* evisor leaves the kernel compressed */
    char *bios; /* NULL, and no kernel: SeaBIOS as installed */
    struct config_boot boot;

    struct config_disk *disks;
    unsigned disk_count;
    struct config_file_node *files[DRIVE_MAX]; /* vmm/options/file_nodes.h */
    struct config_nic *nics;
    unsigned nic_count;
    struct config_rng rngs[CONFIG_RNG_MAX];
    unsigned rng_count;

    struct config_guest guest;

    struct config_chardev chardevs[CONFIG_CHARDEV_MAX];
    unsigned chardev_count;
    int serial_chardev; /* index, or -1 for none */
    struct config_monitor monitors[CONFIG_MONITOR_MAX];
    unsigned monitor_count;

    char *metrics; /* "unix:PATH" or "file:PATH", or NULL */
    char *pidfile;
    char *gdb; /* -gdb tcp::1234, or NULL */
    bool daemonize;
    bool start_paused; /* -S */
    bool no_reboot;
    bool no_shutdown;
};

/* The control socket serves this one itself, to several clients; the machine opens the others. */
bool vm_config_chardev_is_control(const struct vm_config *config, unsigned index);

static inline unsigned vm_config_max_cpus(const struct vm_config *config)
{
    return MAX(config->max_cpus, config->cpus);
}

void vm_config_fini(struct vm_config *config);

#endif
