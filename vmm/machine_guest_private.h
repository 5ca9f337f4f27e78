/* SPDX-License-Identifier: MIT */
/* machine_guest_private: what the machine keeps of balloon, ports and memory devices. */
#ifndef VMM_MACHINE_GUEST_PRIVATE_H
#define VMM_MACHINE_GUEST_PRIVATE_H

#include "devices/device.h"
#include "vmm/config_guest.h"
#include "vmm/event_throttle.h"
#include "vmm/mem_region.h"

#define MACHINE_MEM_SLOT (MEMSLOT_MAX - CONFIG_MEM_MAX * MEM_REGION_SLOTS) /* the first of them */

struct machine_bus {
    struct machine *machine;
    struct device *device; /* NULL: unplugged */
};

struct machine_port {
    struct char_backend *backend; /* of the chardev it is joined to, or NULL */
};

struct machine_mem_device {
    struct machine *machine;
    struct device *device; /* NULL: none */
    struct mem_region region;
    bool is_mapped;
};

struct machine_guest {
    struct device *balloon; /* NULL: none */
    struct loop_timer poll; /* asks it for statistics */
    uint64_t polling_s;
    int64_t updated_s;
    struct machine_bus buses[CONFIG_SERIAL_BUS_MAX];
    struct machine_port ports[CONFIG_SERIAL_PORT_MAX];
    struct machine_mem_device mems[CONFIG_MEM_MAX];
    uint64_t mem_base, mem_end; /* where -m maxmem= leaves room for more of them */
    struct event_throttle throttle;
    bool is_closing;
    void (*on_closed)(void *opaque);
};

/* machine_guest.c: before anything else; the part of the table; the first and the last of a close.
 */
int must_check machine_init_guest(struct machine *machine, struct error *err);
/* One device of an entry of the config, also while the guest runs. */
int must_check machine_plug_balloon(struct machine *machine, struct error *err);
int must_check machine_plug_bus(struct machine *machine, unsigned index, struct error *err);
int must_check machine_plug_port(struct machine *machine, unsigned index, struct error *err);
/* Takes a port out at once, its entry and its chardev's user with it; tells. */
void machine_unplug_port(struct machine *machine, unsigned index);
int must_check machine_plug_mem(struct machine *machine, unsigned index, struct error *err);
int must_check machine_make_guest(struct machine *machine, struct error *err);
void machine_close_guest(struct machine *machine, void (*on_closed)(void *opaque));
void machine_free_guest(struct machine *machine);

#endif
