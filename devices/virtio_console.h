/* SPDX-License-Identifier: MIT */
/*
 * virtio_console: consoles and named serial ports (virtio 1.2, section 5.3), as for guest agents.
 *
 * Each port is joined to a char_backend. What the host sends waits at its source while the guest
 * has the port closed; what the guest sends waits in its own buffers while the host takes nothing.
 */
#ifndef DEVICES_VIRTIO_CONSOLE_H
#define DEVICES_VIRTIO_CONSOLE_H

#include "devices/char.h"
#include "devices/virtio_pci.h"

#define VIRTIO_CONSOLE_PORTS_MAX 31 /* of two queues each, beside the two for control */
#define VIRTIO_CONSOLE_NAME_MAX  63

struct virtio_console_options {
    unsigned port_count; /* 1 to VIRTIO_CONSOLE_PORTS_MAX */
    /* Optional. The guest opened or closed a port. */
    void (*on_guest_open)(void *opaque, unsigned port, bool is_open);
    void *opaque;
};

int must_check virtio_console_create(const struct virtio_pci_place *place,
                                     const struct virtio_console_options *options,
                                     struct device **out, struct error *err);

struct virtio_console_port_options {
    struct char_backend *backend; /* the caller's; outlives the port; NULL: nobody is there */
    bool is_console;
    const char *name; /* or NULL; copied */
};

/*
 * Plugs a port into a free place; a guest that runs is told. -EEXIST, -EINVAL (no such place, a
 * name too long; a driver without ports sees number 0 only, and takes it for a console).
 */
int must_check virtio_console_add_port(struct device *device, unsigned port,
                                       const struct virtio_console_port_options *options,
                                       struct error *err);
/* Takes it out at once; the backend has no user then. */
void virtio_console_remove_port(struct device *device, unsigned port);

/* The terminal at a console's other end has another size. */
void virtio_console_resize(struct device *device, unsigned port, unsigned columns, unsigned rows);

bool virtio_console_has_port(const struct device *device, unsigned port);
bool virtio_console_is_open(const struct device *device, unsigned port);

#endif
