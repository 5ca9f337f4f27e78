/* SPDX-License-Identifier: MIT */
/*
 * options_private: what the files of the options room share.
 *
 * Arguments are read from left to right into the config; whatever may refer to an id that comes
 * later (devices, monitors, the serial port) is kept as text and settled at the end.
 */
#ifndef VMM_OPTIONS_OPTIONS_PRIVATE_H
#define VMM_OPTIONS_OPTIONS_PRIVATE_H

#include "base/text.h"
#include "vmm/options/keyval.h"
#include "vmm/options/options.h"

#define OPTIONS_DEVICE_MAX 64

enum options_drive_interface { DRIVE_VIRTIO, DRIVE_NONE };

/* What is known of a disk beyond its config until the end; disks[i] goes with config's. */
struct options_disk {
    enum options_drive_interface interface;
    int unit;       /* of a DRIVE_VIRTIO drive; -1 until one is given out */
    unsigned order; /* of the -device that refers to it */
};

/* A monitor, the serial port or a virtio port that waits for its chardev. */
struct options_char_user {
    char *chardev_id;
    char *option; /* as typed */
    enum config_monitor_kind kind;
    bool is_serial;
    bool is_port;  /* virtio: */
    unsigned port; /* index into the config's */
    bool pretty;
};

struct options {
    struct vm_config *config;
    char *text; /* what a "help" value wants printed */

    bool nographic, nodefaults, has_display;
    bool has_serial, has_monitor, has_net;
    bool has_legacy_nic, has_legacy_user; /* -net nic, -net user */
    uint64_t cpus, max_cpus, sockets, cores, threads;

    struct options_disk *disks;
    struct keyval devices[OPTIONS_DEVICE_MAX];
    unsigned device_count;
    struct options_char_user char_users[CONFIG_MONITOR_MAX + 1 + CONFIG_SERIAL_PORT_MAX];
    unsigned char_user_count;
    unsigned monitor_ids;
};

/* One option of the command line. The table is in options_table.c, in the order of the manual. */
struct option_entry {
    const char *name;     /* without "-"; NULL: a heading, in `help` */
    const char *argument; /* what the help calls it; NULL: takes none */
    const char *help;     /* NULL: accepted, but left out of help and manual */
    int (*parse)(struct options *options, const struct option_entry *entry, const char *argument,
                 struct error *err);
    /* For option_accept and option_refuse: as in struct keyval_known. */
    const char *only;
    const char *instead;
};

extern const struct option_entry option_table[];
extern const unsigned option_table_length;

typedef int option_parse_fn(struct options *options, const struct option_entry *entry,
                            const char *argument, struct error *err);

/* options_table.c: options that change nothing, and options that are known and refused. */
option_parse_fn option_accept, option_refuse;
/* options_machine.c */
option_parse_fn option_m, option_smp, option_cpu, option_accel, option_enable_kvm, option_machine,
    option_name, option_uuid, option_mem_path, option_metrics, option_pidfile, option_gdb,
    option_gdb_short, option_flag, option_action, option_help, option_version, option_display;
int options_finish_machine(struct options *options, struct error *err);
/* options_boot.c */
option_parse_fn option_bios, option_boot, option_kernel, option_initrd, option_append;
int options_finish_boot(struct options *options, struct error *err);
/* options_drive.c */
option_parse_fn option_drive, option_hd, option_cdrom;
/* The disk is taken over where it succeeds; ended where not. */
int must_check options_add_node(struct options *options, struct config_disk *disk,
                                struct error *err);
int options_finish_drives(struct options *options, struct error *err);
int options_attach_drive(struct options *options, struct keyval *device, struct error *err);
/* The entry of that id, or NULL. */
struct config_disk *options_find_disk(const struct vm_config *config, const char *id);
/* A drive or node has that id, or was given that node-name. */
bool options_has_node(const struct vm_config *config, const char *name);
/* One drive by itself: all but its id. What it got is freed by the last one, success or not. */
int must_check options_drive_read(struct config_disk *disk, struct keyval *list, struct error *err);
/* What -device virtio-blk-pci says beside the drive. */
int must_check options_drive_device(struct config_disk *disk, const struct keyval *device,
                                    struct error *err);
void options_disk_fini(struct config_disk *disk);
/* options_blockdev.c */
option_parse_fn option_blockdev;
/*
 * One node. Of a file it becomes the config's, and takes the list's words; of an image *disk has
 * its words and its name, and is the caller's.
 */
int must_check options_blockdev_read(struct vm_config *config, struct keyval *list,
                                     struct config_disk *disk, bool *is_file, struct error *err);
/* Driver and name are fine, and the name is free. */
int must_check options_blockdev_check(const struct vm_config *config, const struct keyval *list,
                                      struct error *err);
/* Which files it is about, without checks; strings live as long as the list and the config. */
void options_blockdev_peek(const struct vm_config *config, const struct keyval *list,
                           struct disk_options *out);
/* The file's node becomes the node of a raw image, for a device: there is one of that name. */
int must_check options_blockdev_from_file(struct vm_config *config, const char *name,
                                          struct config_disk *disk, struct error *err);
/* options_reopen.c: what a node that is open as `now` says becomes of it; words of its file's node
 * are added to the list. Errors are those of blockdev-reopen. */
int must_check options_blockdev_reread(const struct vm_config *config, struct keyval *list,
                                       const struct disk_options *now, struct disk_options *out,
                                       struct error *err);
/* options_net.c */
option_parse_fn option_netdev, option_nic, option_net;
int options_finish_net(struct options *options, struct error *err);
int options_attach_net(struct options *options, struct keyval *device, struct error *err);
/* One netdev by itself, with its id. What it got is freed by options_netdev_fini, success or not.
 */
int must_check options_netdev_load(struct config_nic *nic, struct keyval *list, struct error *err);
/* What -device virtio-net-pci says beside the netdev. */
int must_check options_net_device(struct config_nic *nic, const struct keyval *device,
                                  struct error *err);
/* options_netdev.c: the kinds of networks. */
struct options_netdev;
int must_check options_netdev_check(struct keyval *list, const struct keyval_known *also,
                                    const struct options_netdev **out, struct error *err);
int must_check options_netdev_read(const struct options_netdev *kind, struct config_nic *nic,
                                   const struct keyval *list, struct error *err);
void options_netdev_fini(struct config_nic *nic);
/* options_guestfwd.c: what -chardev says goes to who forwards to it; before options_finish_chars */
int options_finish_guestfwd(struct options *options, struct error *err);
/* Of one rule, whose chardev nobody else uses. */
int must_check options_guest_forward_target(struct vm_config *config,
                                            struct config_guest_forward *forward,
                                            struct error *err);
/* options_char.c */
option_parse_fn option_chardev, option_serial, option_monitor, option_mon;
int must_check options_add_port_user(struct options *options, const char *option,
                                     const char *chardev_id, unsigned port, struct error *err);
int options_finish_chars(struct options *options, struct error *err);
/* One chardev by itself, with its id; the entry is the config's. Freed by options_chardev_fini. */
int must_check options_chardev_load(struct vm_config *config, struct keyval *list,
                                    struct config_chardev **out, struct error *err);
void options_chardev_fini(struct config_chardev *chardev);
/* options_guest.c: the first four are for devices */
int options_attach_balloon(struct options *options, struct keyval *device, struct error *err);
int options_attach_serial_bus(struct options *options, struct keyval *device, struct error *err);
int options_attach_serial_port(struct options *options, struct keyval *device, struct error *err);
int options_attach_mem(struct options *options, struct keyval *device, struct error *err);
/* The same, one by one, for the command line and for device_add; entries are the config's. */
int must_check options_balloon_load(struct config_guest *guest, const struct keyval *device,
                                    struct error *err);
int must_check options_serial_bus_load(struct config_guest *guest, const struct keyval *device,
                                       unsigned *index, struct error *err);
/* But for its chardev. */
int must_check options_serial_port_load(struct config_guest *guest, const struct keyval *device,
                                        unsigned *index, struct error *err);
int must_check options_mem_load(struct config_guest *guest, const struct keyval *device,
                                unsigned *index, struct error *err);
void options_balloon_fini(struct config_balloon *balloon);
void options_serial_bus_fini(struct config_serial_bus *bus);
void options_serial_port_fini(struct config_serial_port *port);
void options_mem_fini(struct config_mem *mem);
/* options_object.c: one object, by its "qom-type" and "id". */
option_parse_fn option_object;
int must_check options_object_load(struct config_guest *guest, struct keyval *list,
                                   struct error *err);
int options_find_rng_object(const struct config_guest *guest, const char *id);     /* or -1 */
int options_find_memory_backend(const struct config_guest *guest, const char *id); /* or -1 */
bool options_memory_backend_is_used(const struct config_guest *guest, const char *id);
int options_find_io_thread(const struct config_guest *guest, const char *id);      /* or -1 */
int options_find_throttle_group(const struct config_guest *guest, const char *id); /* or -1 */
/* iothread= of a device, as an id or a path: 1 + its place, or 0 without one. False: unknown. */
bool must_check options_read_io_thread(const struct config_guest *guest,
                                       const struct keyval *device, unsigned *number);
/* options_throttle.c: limits, whose keys begin with the prefix; the others stay as they are. */
#define OPTIONS_LIMIT(prefix, name)                                                                \
    {prefix name, NULL, NULL}, {prefix name "-max", NULL, NULL},                                   \
    {                                                                                              \
        prefix name "-max-length", NULL, NULL                                                      \
    }
#define OPTIONS_LIMITS(prefix)                                                                     \
    OPTIONS_LIMIT(prefix, "bps-total"), OPTIONS_LIMIT(prefix, "bps-read"),                         \
        OPTIONS_LIMIT(prefix, "bps-write"), OPTIONS_LIMIT(prefix, "iops-total"),                   \
        OPTIONS_LIMIT(prefix, "iops-read"), OPTIONS_LIMIT(prefix, "iops-write"),                   \
    {                                                                                              \
        prefix "iops-size", NULL, NULL                                                             \
    }
int must_check options_read_limits(const struct keyval *list, const char *prefix,
                                   struct throttle_limits *limits, struct error *err);
int must_check options_throttle_group_load(struct config_guest *guest, struct keyval *list,
                                           struct error *err);
void options_throttle_group_fini(struct config_throttle_group *group);
option_parse_fn option_add_fd;
int options_finish_guest(struct options *options, struct error *err);
/* How much memory, and from where: -m, -mem-path and -machine memory-backend=. */
int must_check options_finish_ram(struct vm_config *config, struct error *err);
void options_guest_fini(struct config_guest *guest);
/* options_device.c */
option_parse_fn option_device;
int options_finish_devices(struct options *options, struct error *err);
/* The keys of a -device, by any of its names, and these; NULL: there is no such device. */
const struct keyval_known *options_device_known(const char *driver, const char **names);
/* addr=: left alone where it is missing. */
int must_check options_read_slot(const struct keyval *device, unsigned *slot, struct error *err);
/* options_help.c */
char *options_help_text(void);
char *options_version_text(void);

/* Adds one zeroed element to an array of the config. */
void *options_grow(void *array, unsigned count, size_t element_size);

#endif
