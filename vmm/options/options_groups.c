/* SPDX-License-Identifier: MIT */
/* options_groups: see the header; and of which type each parameter is. */
#include "vmm/options/options_groups.h"

#include <string.h>

#include "base/check.h"

#define TABLE(known)                                                                               \
    (const struct keyval_known *const[])                                                           \
    {                                                                                              \
        known, NULL                                                                                \
    }

const struct options_group options_groups[OPTIONS_GROUPS] = {
    {"machine", TABLE(options_machine_known)},
    {"accel", TABLE(options_accel_known)},
    {"smp-opts", TABLE(options_smp_known)},
    {"memory", TABLE(options_memory_known)},
    {"name", TABLE(options_name_known)},
    {"boot-opts", TABLE(options_boot_known)},
    {"drive", TABLE(options_drive_known)},
    {"nic", NULL},
    {"netdev", NULL},
    {"net", NULL},
    {"device", NULL},
    {"object", NULL},
    {"add-fd", TABLE(options_add_fd_known)},
    {"mon", TABLE(options_mon_known)},
    {"chardev", options_chardev_known},
    {"action", TABLE(options_action_known)},
};

/* All others are strings. A name that ends with a dot is the start of many, and so is none. */
static const struct {
    const char *group, *key, *type;
} types[] = {
    {"boot-opts", "menu", "boolean"},
    {"boot-opts", "strict", "boolean"},
    {"boot-opts", "splash-time", "number"},
    {"boot-opts", "reboot-timeout", "number"},
    {"chardev", "abstract", "boolean"},
    {"chardev", "append", "boolean"},
    {"chardev", "delay", "boolean"},
    {"chardev", "history", "size"},
    {"chardev", "ipv4", "boolean"},
    {"chardev", "ipv6", "boolean"},
    {"chardev", "logappend", "boolean"},
    {"chardev", "logsize", "size"},
    {"chardev", "mux", "boolean"},
    {"chardev", "nodelay", "boolean"},
    {"chardev", "reconnect", "number"},
    {"chardev", "reconnect-ms", "number"},
    {"chardev", "server", "boolean"},
    {"chardev", "signal", "boolean"},
    {"chardev", "size", "size"},
    {"chardev", "telnet", "boolean"},
    {"chardev", "wait", "boolean"},
    {"chardev", "websocket", "boolean"},
    {"drive", "cache-size", "size"},
    {"drive", "cache.direct", "boolean"},
    {"drive", "cache.no-flush", "boolean"},
    {"drive", "cache-clean-interval", "number"},
    {"drive", "copy-on-read", "boolean"},
    {"drive", "force-share", "boolean"},
    {"drive", "index", "number"},
    {"drive", "l2-cache-entry-size", "size"},
    {"drive", "l2-cache-size", "size"},
    {"drive", "lazy-refcounts", "boolean"},
    {"drive", "pass-discard-request", "boolean"},
    {"drive", "read-only", "boolean"},
    {"drive", "readonly", "boolean"},
    {"drive", "refcount-cache-size", "size"},
    {"drive", "snapshot", "boolean"},
    {"drive", "throttling.group", "string"},
    {"drive", "throttling.", "number"},
    {"drive", "bps", "number"},
    {"drive", "bps_rd", "number"},
    {"drive", "bps_wr", "number"},
    {"drive", "iops", "number"},
    {"drive", "iops_rd", "number"},
    {"drive", "iops_wr", "number"},
    {"machine", "dump-guest-core", "boolean"},
    {"machine", "graphics", "boolean"},
    {"machine", "hpet", "boolean"},
    {"machine", "i8042", "boolean"},
    {"machine", "kernel_irqchip", "boolean"},
    {"machine", "mem-merge", "boolean"},
    {"machine", "nvdimm", "boolean"},
    {"machine", "sata", "boolean"},
    {"machine", "unpack-kernel", "boolean"},
    {"machine", "usb", "boolean"},
    {"memory", "maxmem", "size"},
    {"memory", "size", "size"},
    {"memory", "slots", "number"},
    {"mon", "default", "boolean"},
    {"mon", "pretty", "boolean"},
    {"name", "debug-threads", "boolean"},
    {"add-fd", "fd", "number"},
    {"add-fd", "set", "number"},
    {"smp-opts", "", "number"},
};

static bool is_meant(const char *pattern, const char *key)
{
    size_t length = strlen(pattern);
    bool is_start = !length || pattern[length - 1] == '.';
    return is_start ? strncmp(key, pattern, length) == 0 : strcmp(key, pattern) == 0;
}

const char *options_group_type(const char *group, const char *key)
{
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++)
        if (strcmp(types[i].group, group) == 0 && is_meant(types[i].key, key))
            return types[i].type;
    return "string";
}
