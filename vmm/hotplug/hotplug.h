/* SPDX-License-Identifier: MIT */
/*
 * hotplug: devices, networks and disks that come and go while the machine exists.
 *
 * Each function takes a list of the same words as the command line's option, checks it, and fails
 * with QEMU's sentence; -ENODEV is a name that nothing has. Loop's thread only. A device that was
 * asked to go is in use until the guest has let go; then DEVICE_DELETED follows. Nothing of a disk
 * is lost: its device waits for what is in flight, and its image is closed after the device.
 */
#ifndef VMM_HOTPLUG_HOTPLUG_H
#define VMM_HOTPLUG_HOTPLUG_H

#include "vmm/machine.h"
#include "vmm/options/keyval.h"

/* device_add: "driver" and what the driver takes. */
int must_check machine_device_add(struct machine *machine, struct keyval *list, struct error *err);
/* device_del: an id, or its path below /machine/peripheral. */
int must_check machine_device_del(struct machine *machine, const char *id, struct error *err);

/* netdev_add: "type", "id" and what the type takes. */
int must_check machine_netdev_add(struct machine *machine, struct keyval *list, struct error *err);
/* A NIC that uses it is left without a cable. on_done follows where this returns 0; so below. */
int must_check machine_netdev_del(struct machine *machine, const char *id, machine_done_fn *on_done,
                                  void *opaque, struct error *err);
/* Joins a NIC to another netdev that no NIC uses; the old one stays, without a NIC. */
int must_check machine_nic_set_netdev(struct machine *machine, const char *nic, const char *netdev,
                                      struct error *err);

/*
 * blockdev-add, flattened ("file.filename"); the image is opened, which may take long. The list is
 * taken over where it succeeds.
 */
int must_check machine_blockdev_add(struct machine *machine, struct keyval *list,
                                    machine_done_fn *on_done, void *opaque, struct error *err);
int must_check machine_blockdev_del(struct machine *machine, const char *name,
                                    machine_done_fn *on_done, void *opaque, struct error *err);
/*
 * blockdev-reopen: a list for each node; all change or none. The files are looked at first, which
 * may take long. The lists stay the caller's.
 */
int must_check machine_blockdev_reopen(struct machine *machine, struct keyval *lists,
                                       unsigned count, machine_done_fn *on_done, void *opaque,
                                       struct error *err);
/* The human monitor's drive_add and drive_del: as -drive if=none. */
int must_check machine_drive_add(struct machine *machine, struct keyval *list,
                                 machine_done_fn *on_done, void *opaque, struct error *err);
int must_check machine_drive_del(struct machine *machine, const char *id, machine_done_fn *on_done,
                                 void *opaque, struct error *err);

/* object-add of random number sources, which devices may name. */
int must_check machine_object_add(struct machine *machine, struct keyval *list, struct error *err);
int must_check machine_object_del(struct machine *machine, const char *id, struct error *err);

/* The disk of a drive's id or a node's name, or NULL; see also machine_disk. */
struct disk *machine_find_disk(const struct machine *machine, const char *name);
void machine_forget_disk(struct machine *machine, struct disk *disk);

/* The driver by which device_add knows this machine's CPUs: "host-x86_64-cpu". */
void machine_cpu_type(const struct machine *machine, char *text, size_t size);

#endif
