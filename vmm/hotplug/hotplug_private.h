/* SPDX-License-Identifier: MIT */
/* hotplug_private: what the files of the hot-plug room share with each other and the machine. */
#ifndef VMM_HOTPLUG_HOTPLUG_PRIVATE_H
#define VMM_HOTPLUG_HOTPLUG_PRIVATE_H

#include "devices/acpi_hotplug.h"
#include "devices/pci.h"
#include "devices/virtio_pci.h"
#include "vmm/hotplug/hotplug.h"

#define HOTPLUG_ASK_NS     UINT64_C(5000000000) /* so long a guest has before it is asked again */

/* A PCI slot whose device may go. */
struct hotplug_slot {
    struct device *device; /* NULL: none */
    /* Optional. The device is closed; `index` is what machine_add_pci_device was given. */
    void (*on_removed)(struct machine *machine, unsigned index);
    unsigned index;
    bool is_asked; /* to go, at: */
    uint64_t asked_ns;
};

/* A netdev on its way out; its place is not free before. */
struct hotplug_closing {
    bool is_closing;
    machine_done_fn *on_done;
    void *opaque;
};

struct hotplug {
    struct acpi_hotplug *acpi;
    struct hotplug_slot slots[PCI_SLOT_MAX];
    struct list removals; /* devices that close */
    struct list openings; /* images that are being opened */
    struct hotplug_closing netdevs_closing[NIC_MAX];
    unsigned closing; /* removals, images and networks */
    void (*on_settled)(struct machine *machine);
};

/* One driver of device_add. The keys that it takes are those of -device. */
struct hotplug_kind {
    const char *names;                /* the first is the real one */
    const struct keyval_known *known; /* NULL: as options_device_known has it */
    int (*plug)(struct machine *machine, const struct keyval *list,
                const struct virtio_pci_place *place, struct error *err);
    bool is_pci;
};

const struct hotplug_kind *hotplug_find_kind(const char *driver);

/* The part of the machine's table, and its end. */
int must_check hotplug_make(struct machine *machine, struct error *err);
void hotplug_fini(struct machine *machine);
/* The machine is reset: what was asked to go goes. */
void hotplug_reset(struct machine *machine);
/* Nothing closes any more: now, or later. */
void hotplug_when_settled(struct machine *machine, void (*on_settled)(struct machine *machine));
/* Around every close of its own. */
void hotplug_close_begins(struct machine *machine);
void hotplug_close_ends(struct machine *machine);

/* Is there a device of that id, be it one that goes? */
bool hotplug_has_device(const struct machine *machine, const char *id);
/* The machine has run: there may be a guest that wants to be told. */
bool hotplug_has_guest(const struct machine *machine);
void hotplug_tell_deleted(const struct machine *machine, const char *id, bool is_virtio);

/* hotplug_drives.c: the image that goes with its device, now the caller's to close; or NULL. */
struct disk *hotplug_take_image(struct machine *machine, unsigned index);
void hotplug_drive_removed(struct machine *machine, unsigned index);
/* Opens a file's node as a raw image, for a device; its place, or -errno. */
int must_check hotplug_open_file(struct machine *machine, const char *name, struct error *err);

/* hotplug_openings.c: opens the image off the loop, then adds it; takes the list over where it
 * succeeds. on_done follows. */
typedef int hotplug_add_fn(struct machine *machine, struct keyval *list, struct error *err);
int must_check hotplug_open_first(struct machine *machine, const struct disk_options *image,
                                  struct keyval *list, hotplug_add_fn *add,
                                  machine_done_fn *on_done, void *opaque, struct error *err);
/* Those that have not opened yet are refused, and waited for by hotplug_when_settled. */
void hotplug_end_openings(struct machine *machine);

/* hotplug_net.c: a NIC leaves its network before it closes. */
void hotplug_nic_leaves(struct device *device);
void hotplug_nic_removed(struct machine *machine, unsigned index);

/* hotplug_kinds.c: marks the slots whose index is that of an object, or -1. */
void hotplug_rng_removed(struct machine *machine, unsigned object);

/* hotplug_guest.c */
typedef int hotplug_plug_fn(struct machine *machine, const struct keyval *list,
                            const struct virtio_pci_place *place, struct error *err);
hotplug_plug_fn hotplug_plug_balloon, hotplug_plug_serial_bus, hotplug_plug_port, hotplug_plug_mem;
/* The entry of the virtio port with that id, or -1. */
int hotplug_find_port(const struct machine *machine, const char *id);
bool hotplug_is_mem(const struct machine *machine, const char *id);

/* hotplug_cpus.c */
int must_check hotplug_plug_cpu(struct machine *machine, const struct keyval *list,
                                const struct virtio_pci_place *place, struct error *err);
int must_check hotplug_unplug_cpu(struct machine *machine, unsigned index, struct error *err);
/* The CPU that device_add gave this id, or -1. */
int hotplug_find_cpu(const struct machine *machine, const char *id);
/* From lifecycle.c, whatever the reason. */
void hotplug_cpu_parked(struct machine *machine, unsigned index);
void hotplug_cpus_reset(struct machine *machine);
void hotplug_cpu_ejected(void *opaque, unsigned cpu);
void hotplug_cpu_ost(void *opaque, unsigned cpu, uint32_t event, uint32_t status);

#endif
