/* SPDX-License-Identifier: MIT */
/* machine_private: what machine.c (building), lifecycle.c (running) and machine_query.c share. */
#ifndef VMM_MACHINE_PRIVATE_H
#define VMM_MACHINE_PRIVATE_H

#include <string.h>

#include "base/closing.h"
#include "base/list.h"
#include "devices/acpi_pm.h"
#include "devices/bus.h"
#include "devices/device.h"
#include "devices/guest_clock.h"
#include "devices/i8042.h"
#include "devices/ioapic.h"
#include "devices/pci.h"
#include "devices/pic.h"
#include "devices/rtc.h"
#include "disk/throttle.h"
#include "vmm/accel.h"
#include "vmm/boot/boot.h"
#include "vmm/boot/firmware.h"
#include "vmm/chardev/chardev.h"
#include "vmm/disk_policy.h"
#include "vmm/hotplug/hotplug_private.h"
#include "vmm/irq.h"
#include "vmm/machine.h"
#include "vmm/machine_guest_private.h"
#include "vmm/machine_io_threads.h"
#include "vmm/memory.h"
#include "vmm/nic_addresses.h"
#include "vmm/vcpu.h"

/* The MSRs that a reset puts back; the rest of the power-on state is in accel_vcpu_state. */
struct machine_cpu {
    struct vcpu vcpu;
    struct accel_vcpu_state power_on;
    struct accel_msrs power_on_msrs;
    /* Plugged in; else it waits, parked. The others are for those that device_add plugged. */
    bool is_present;
    char id[64];
    bool is_asked; /* to go, at: */
    uint64_t asked_ns;
    bool is_leaving; /* goes once it is parked */
};

/* What people, clients and the guest asked for, in order; lifecycle.c works it off. */
enum lifecycle_kind {
    LIFECYCLE_STOP,
    LIFECYCLE_CONT,
    LIFECYCLE_RESET,
    LIFECYCLE_SHUTDOWN,
    LIFECYCLE_IO_ERROR, /* a drive failed, and its policy is to stop */
    LIFECYCLE_DEBUG,    /* a breakpoint or a step of the debugger */
    LIFECYCLE_ERROR,    /* the accelerator cannot go on */
    LIFECYCLE_INSPECT,  /* somebody looks at vCPUs */
};

struct lifecycle_op {
    struct list node;
    enum lifecycle_kind kind;
    enum machine_shutdown_cause cause;
    bool has_reset_devices, is_set_up; /* LIFECYCLE_RESET only */
    unsigned debug_cpu;     /* LIFECYCLE_DEBUG only */
    struct accel_exit debug_exit;
    machine_done_fn *on_done;
    void *opaque;
};

struct lifecycle {
    enum machine_state state;
    struct list ops;
    struct loop_task step;
    struct loop_timer poll; /* while waiting for I/O to end */
    struct machine_listener listener;
    struct machine_debugger debugger;
    void (*on_exit)(void *opaque, int status);
    void *on_exit_opaque;
    bool is_exiting;
    bool is_io_error_queued;
    bool is_still; /* the vCPUs of a running machine wait while somebody looks */
};

/* A kernel on its way into memory: machine_boot.c. */
struct machine_loading {
    bool is_wanted, is_running;
    struct loop_job job;
    struct memory memory; /* as it was at the start: memory may be plugged in meanwhile */
    void (*on_loaded)(struct machine *machine); /* machine_when_loaded's; NULL: nobody waits */
    void (*on_stopped)(struct machine *machine);
};

struct machine {
    struct loop *loop;
    struct block *block; /* vmm/block: jobs on the disks */
    void (*on_block_closed)(struct machine *machine);
    struct vm_config *config; /* its tables change by hot-plug */
    const struct accel_ops *accel_ops;
    char accel_why[256]; /* why it is not the first choice; "" if it is */
    struct accel_vm *vm;
    struct memory memory;
    bool has_pinned_memory; /* by io_uring: nobody may take any of it away */
    struct irq irq;
    struct bus bus;
    struct pci_bus pci_bus;
    struct guest_clock clock;
    struct boot boot;
    struct machine_loading loading;
    struct firmware firmware; /* instead of a kernel */
    struct fw_cfg *fw_cfg;    /* NULL without firmware */
    bool has_booted;
    unsigned disk_slots[DRIVE_MAX]; /* of the attached disks' PCI functions, by drive */
    uint64_t rsdp_gpa;

    struct vcpu_group vcpu_group;
    struct machine_cpu *cpus;
    unsigned cpu_count;   /* created so far: in the end all that may be plugged in */
    unsigned cpus_parked; /* of cpu_count */

    struct chardev *chardevs[CONFIG_CHARDEV_MAX];
    struct disk **disks; /* DRIVE_MAX; NULL: the entry is free */
    struct disk_policy *disk_policies; /* by drive */
    struct machine_io_thread io_threads[CONFIG_IO_THREAD_MAX]; /* by place in the config */
    void (*on_io_threads_closed)(struct machine *machine);
    struct throttle_groups throttle_groups;
    struct throttle_group *throttle_objects[CONFIG_THROTTLE_MAX]; /* by place in the config */
    struct net_backend **backends; /* NIC_MAX */
    struct nic_addresses *nic_addresses; /* by NIC */

    struct list devices; /* in the order in which they were made */
    struct ioapic *ioapic;
    struct pic *pic;
    struct rtc *rtc;
    struct acpi_pm *acpi_pm;
    struct hotplug hotplug;

    struct machine_guest guest;

    struct lifecycle lifecycle;
    struct closing closing;
};

/* Of the machine's devices, those that the functions of virtio_pci.h take. */
static inline bool machine_is_virtio(const struct device *device)
{
    return !strncmp(device->ops->kind, "virtio", 6);
}

extern const struct vcpu_handler lifecycle_vcpu_handler;

int must_check lifecycle_init(struct machine *machine, struct error *err);
void lifecycle_close(struct machine *machine, void (*on_closed)(struct loop_timer *poll));
/* The guest asked for it, from inside a device's handler: acted on once the vCPUs are parked. */
void lifecycle_guest_reset(struct machine *machine);
void lifecycle_guest_power_off(struct machine *machine);
void lifecycle_guest_panic(struct machine *machine);
/* It cannot go on: logs `why` and stops the machine into MACHINE_INTERNAL_ERROR. */
void lifecycle_fail(struct machine *machine, const char *why);
/* A drive holds requests back: stops the machine into MACHINE_IO_ERROR. */
void lifecycle_io_error(struct machine *machine);

/* machine_devices.c: slot 0 is the first free one. */
struct virtio_pci_place machine_place(struct machine *machine, const char *id, unsigned pci_slot);
void machine_add_device(struct machine *machine, struct device *device);
/*
 * A device that may be unplugged; a running guest is told of it. `on_removed` may be NULL; it is
 * called with `index` after the device has closed. Returns its slot.
 */
unsigned machine_add_pci_device(struct machine *machine, struct device *device,
                                void (*on_removed)(struct machine *machine, unsigned index),
                                unsigned index);
/* From the entries of the config. */
int must_check machine_plug_disk(struct machine *machine, unsigned index, struct error *err);
/* After a NIC was joined to its network: holds the guest to its addresses, where that is wanted. */
void machine_guard_nic(struct machine *machine, unsigned index);
int must_check machine_plug_nic(struct machine *machine, unsigned index, struct error *err);
/* `object` is the place of its source among the objects, or -1. */
int must_check machine_plug_rng(struct machine *machine, const struct virtio_pci_place *place,
                                int object, struct error *err);
int must_check machine_make_disks(struct machine *machine, struct error *err);
int must_check machine_make_nics(struct machine *machine, struct error *err);
int must_check machine_make_rngs(struct machine *machine, struct error *err);

/* machine_nics.c: the device of a NIC, or NULL; and what it calls. */
struct device *machine_nic_device(const struct machine *machine, unsigned index);
void machine_nic_tell_addresses(struct nic_addresses *addresses);
void machine_nic_filter_changed(void *opaque, struct device *device);

/* hotplug_drives.c, hotplug_net.c: the entry of a drive or node, and of a netdev, or -1. */
int machine_drive_index(const struct machine *machine, const char *name);
int machine_netdev_index(const struct machine *machine, const char *id);
int must_check machine_open_backend(struct machine *machine, unsigned index, struct error *err);

/* machine_firmware.c: the parts of a machine without -kernel; the second makes nothing with one. */
int must_check machine_open_firmware(struct machine *machine, struct error *err);
int must_check machine_make_fw_cfg(struct machine *machine, struct error *err);
/* For power-on and every reset. */
int must_check machine_load_firmware(struct machine *machine, struct error *err);

/* machine_boot.c */
/* Writes the ACPI tables to where this machine has them. */
int must_check machine_write_tables(struct machine *machine, struct error *err);
/* Puts a parked vCPU into the state after power-on. 0 or -errno. */
int machine_reset_cpu(struct machine *machine, struct machine_cpu *cpu);

/*
 * Puts RAM and vCPUs into the state from which the guest starts; all vCPUs are parked, and devices
 * leave RAM alone. A kernel that is to be unpacked is not loaded yet.
 */
int must_check machine_set_up_boot(struct machine *machine, struct error *err);
/*
 * For whoever needs what machine_set_up_boot puts up: false while a kernel is being loaded, which
 * begins with the first call. lifecycle.step is queued when it has ended.
 */
bool must_check machine_is_loaded(struct machine *machine);
/* Calls `on_loaded`, now or later, before lifecycle.step runs again. */
void machine_when_loaded(struct machine *machine, void (*on_loaded)(struct machine *machine));
/* Before the machine goes: calls `on_stopped`, now or later, when nothing is being loaded. */
void machine_stop_loading(struct machine *machine, void (*on_stopped)(struct machine *machine));

#endif
