/* SPDX-License-Identifier: MIT */
/* config_guest: of the machine's config, what the guest works with the host by: balloon, ports. */
#ifndef VMM_CONFIG_GUEST_H
#define VMM_CONFIG_GUEST_H

#include <stdbool.h>
#include <stdint.h>

struct throttle_limits;

#define CONFIG_SERIAL_BUS_MAX  4
#define CONFIG_SERIAL_PORT_MAX 32
#define CONFIG_MEM_MAX         4
#define CONFIG_RNG_OBJECT_MAX  16
#define CONFIG_IO_THREAD_MAX   16
#define CONFIG_THROTTLE_MAX    16

/* -device virtio-balloon-pci; one a machine. */
struct config_balloon {
    bool is_present;
    char *qdev_id;     /* or NULL */
    unsigned pci_slot; /* 0: the first free one */
    bool deflate_on_oom, free_page_reporting;
    uint64_t polling_s; /* how often statistics are asked for; 0: never */
};

/* -device virtio-serial-pci */
struct config_serial_bus {
    bool is_present;   /* else the entry is free */
    char *qdev_id;     /* or NULL */
    unsigned pci_slot; /* 0: the first free one */
    unsigned port_count;
};

/* -device virtserialport and virtconsole */
struct config_serial_port {
    bool is_present; /* else the entry is free */
    char *qdev_id; /* or NULL */
    char *name;    /* of the port; or NULL */
    bool is_console;
    unsigned bus, number;
    int chardev; /* index, or -1 for none */
};

/* -object memory-backend-ram, -memfd and -file */
struct config_memory_backend {
    char *id;   /* NULL: the entry is free */
    char *path; /* of a file or a folder; NULL: memory of the host */
    uint64_t size_bytes;
    bool is_shared, prealloc; /* as asked for */
    bool is_memfd;            /* by its name; memory of the host is one in any case */
};

/* -device virtio-mem-pci */
struct config_mem {
    char *qdev_id;     /* or NULL */
    char *memdev;      /* the object's id */
    unsigned pci_slot; /* 0: the first free one */
    uint64_t size_bytes, block_bytes, requested_bytes;
};

/* -object throttle-group */
struct config_throttle_group {
    char *id;                       /* NULL: the entry is free */
    struct throttle_limits *limits; /* at its start */
};

struct config_guest {
    struct config_balloon balloon;
    struct config_serial_bus serial_buses[CONFIG_SERIAL_BUS_MAX];
    unsigned serial_bus_count;
    struct config_serial_port serial_ports[CONFIG_SERIAL_PORT_MAX];
    unsigned serial_port_count;
    struct config_mem mems[CONFIG_MEM_MAX];
    unsigned mem_count;
    struct config_memory_backend memory_backends[CONFIG_MEM_MAX];
    char *ram_backend; /* -machine memory-backend=, the id of the one that -m's memory is; or NULL */
    char *rng_objects[CONFIG_RNG_OBJECT_MAX]; /* ids; NULL: free */
    char *io_threads[CONFIG_IO_THREAD_MAX];   /* ids of -object iothread; NULL: free */
    struct config_throttle_group throttle_groups[CONFIG_THROTTLE_MAX];
    uint64_t max_ram_bytes; /* -m maxmem=; 0: not said */
};

#endif
