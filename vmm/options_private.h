/* SPDX-License-Identifier: MIT */
/*
 * options_private: what the files of the options room share.
 *
 * Arguments are read from left to right into the config; whatever may refer to an id that comes
 * later (devices, monitors, the serial port) is kept as text and settled at the end.
 */
#ifndef VMM_OPTIONS_PRIVATE_H
#define VMM_OPTIONS_PRIVATE_H

#include "vmm/keyval.h"
#include "vmm/options.h"

#define OPTIONS_DEVICE_MAX 64
#define OPTIONS_OBJECT_MAX 16

enum options_drive_interface { DRIVE_VIRTIO, DRIVE_NONE };

/* What is known of a disk beyond its config until the end; disks[i] goes with config's. */
struct options_disk {
    enum options_drive_interface interface;
    int unit;       /* of a DRIVE_VIRTIO drive; -1 until one is given out */
    unsigned order; /* of the -device that refers to it */
};

/* A monitor or the serial port that waits for its chardev. */
struct options_char_user {
    char *chardev_id;
    char *option; /* as typed */
    enum config_monitor_kind kind;
    bool is_serial;
    bool pretty;
};

struct options {
    struct vm_config *config;
    char *text; /* what a "help" value wants printed */

    bool nographic, nodefaults, has_display;
    bool has_serial, has_monitor, has_net;
    bool has_legacy_nic, has_legacy_user; /* -net nic, -net user */
    uint64_t cpus, sockets, cores, threads;

    struct options_disk *disks;
    struct keyval devices[OPTIONS_DEVICE_MAX];
    unsigned device_count;
    char *objects[OPTIONS_OBJECT_MAX]; /* ids of rng backends */
    unsigned object_count;
    struct options_char_user char_users[CONFIG_MONITOR_MAX + 1];
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
    option_name, option_uuid, option_mem_path,
    option_pidfile, option_gdb, option_gdb_short, option_flag, option_action,
    option_help, option_version, option_object, option_display;
int options_finish_machine(struct options *options, struct error *err);
/* options_boot.c */
option_parse_fn option_bios, option_boot, option_kernel, option_initrd, option_append;
int options_finish_boot(struct options *options, struct error *err);
/* options_drive.c */
option_parse_fn option_drive, option_hd, option_cdrom;
int options_finish_drives(struct options *options, struct error *err);
int options_attach_drive(struct options *options, struct keyval *device, struct error *err);
/* options_net.c */
option_parse_fn option_netdev, option_nic, option_net;
int options_finish_net(struct options *options, struct error *err);
int options_attach_net(struct options *options, struct keyval *device, struct error *err);
/* options_netdev.c: the kinds of networks. */
struct options_netdev;
int must_check options_netdev_check(struct keyval *list, const struct keyval_known *also,
                                    const struct options_netdev **out, struct error *err);
int must_check options_netdev_read(const struct options_netdev *kind, struct config_nic *nic,
                                   const struct keyval *list, struct error *err);
void options_netdev_fini(struct config_nic *nic);
/* options_char.c */
option_parse_fn option_chardev, option_serial, option_monitor, option_mon;
int options_finish_chars(struct options *options, struct error *err);
/* options_device.c */
option_parse_fn option_device;
int options_finish_devices(struct options *options, struct error *err);
/* options_help.c */
char *options_help_text(void);
char *options_version_text(void);

/* Adds one zeroed element to an array of the config. */
void *options_grow(void *array, unsigned count, size_t element_size);

char *options_copy(const char *text);

#endif
