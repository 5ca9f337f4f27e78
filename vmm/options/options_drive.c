/* SPDX-License-Identifier: MIT */
/*
 * options_drive: -drive, -hda and -cdrom, and what -device virtio-blk-pci makes of a drive.
 *
 * The disks of the config end up in the order in which the guest finds them: those of -device as
 * they were given, then those with if=virtio by their index, then those that no device refers to.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "disk/throttle.h"
#include "vmm/options/file_nodes.h"
#include "vmm/options/options_groups.h"
#include "vmm/options/options_private.h"

static const char no_bus[] = "evisor has virtio disks only; use if=virtio (the guest then sees "
                             "/dev/vda), or if=none with -device virtio-blk-pci";

const struct keyval_known options_drive_known[] = {
    {"file", NULL, NULL},
    {"file.filename", NULL, NULL},
    {"format", NULL, NULL},
    {"driver", NULL, NULL},
    {"if", "virtio|none", no_bus},
    {"index", NULL, NULL},
    {"id", NULL, NULL},
    {"media", NULL, NULL},
    {"readonly", NULL, NULL},
    {"read-only", NULL, NULL},
    {"cache", NULL, NULL},
    {"cache.direct", NULL, NULL},
    {"cache.no-flush", NULL, NULL},
    {"aio", NULL, NULL},
    {"discard", NULL, NULL},
    {"werror", NULL, NULL},
    {"rerror", NULL, NULL},
    {"serial", NULL, NULL},
    {"file.locking", NULL, NULL},
    {"node-name", NULL, NULL},
    {"bps", NULL, NULL},
    {"bps_rd", NULL, NULL},
    {"bps_wr", NULL, NULL},
    {"iops", NULL, NULL},
    {"iops_rd", NULL, NULL},
    {"iops_wr", NULL, NULL},
    OPTIONS_LIMITS("throttling."),
    {"throttling.group", NULL, NULL},
    {"locking", NULL, NULL},
    {"force-share", NULL, NULL},
    {"l2-cache-size", NULL, NULL},
    {"cache-size", NULL, NULL},
    {"backing.file.filename", NULL, NULL},
    {"backing.driver", NULL, NULL},
    {"backing.file.driver", "file|host_device",
     "only files and block devices of this host can be disks"},
    {"data-file.filename", NULL, NULL},
    {"refcount-cache-size", NULL, NULL},
    {"l2-cache-entry-size", NULL, NULL},
    {"cache-clean-interval", NULL, NULL},
    {"lazy-refcounts", "on|off", NULL}, /* refcounts cost no barrier of their own: always exact */
    {"pass-discard-request", NULL, NULL},
    {"pass-discard-snapshot", "on|off", NULL}, /* deleting one punches nothing by itself */
    {"pass-discard-other", NULL, NULL},
    {"overlap-check", NULL, NULL},
    {"overlap-check.template", NULL, NULL},
    {"file.driver", "file|host_device", "only files and block devices of this host can be disks"},
    {"detect-zeroes", "off", "zero detection is not there; leave it out"},
    {"copy-on-read", "off", "copy-on-read is not there; leave it out"},
    {"snapshot", "off",
     "make an overlay instead: evisor-img create -f qcow2 -b IMAGE -F FORMAT OVERLAY"},
    {0}};

static const char *text_of(const struct keyval *list, const char *key, const char *other_key)
{
    const char *value = keyval_get(list, key);
    return value ? value : keyval_get(list, other_key);
}

/* A name that begins with a word and ":" means a protocol; only "file:" is one of ours. */
static int set_path(struct config_disk *disk, const struct keyval *list, struct error *err)
{
    const char *path = text_of(list, "file", "file.filename");
    if (!path || !*path)
        return error_set(err, EINVAL, "%s: name the image with file=PATH", list->option);
    if (strncmp(path, "file:", 5) == 0)
        path += 5;
    size_t word = strcspn(path, ":/");
    if (path[word] == ':')
        return error_set(err, ENOTSUP,
                         "%s: '%.*s:' is read as a protocol, and only local files can be disks; if "
                         "it belongs to the file's name, write ./%s",
                         list->option, (int)word, path, path);
    disk->options.path = text_copy(path);
    return 0;
}

/* NULL if the name does not tell. Contents never decide: a guest could have written them. */
static const char *format_of_name(const char *path)
{
    static const struct {
        const char *suffix, *format;
    } table[] = {{".qcow2", "qcow2"}, {".raw", "raw"}, {".iso", "raw"}};
    size_t length = strlen(path);
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        size_t suffix = strlen(table[i].suffix);
        if (length > suffix && strcasecmp(path + length - suffix, table[i].suffix) == 0)
            return table[i].format;
    }
    return strncmp(path, "/dev/", 5) == 0 ? "raw" : NULL;
}

/* Formats of others that a machine can read. */
static bool is_foreign(const char *format)
{
    return keyval_name_index("vdi|vmdk|vpc|vhdx", format) >= 0;
}

static int set_format(struct config_disk *disk, const struct keyval *list, struct error *err)
{
    const char *format = text_of(list, "format", "driver");
    if (!format)
        format = format_of_name(disk->options.path);
    if (format && keyval_name_index("raw|qcow2|host_device|file", format) < 0 &&
        !is_foreign(format))
        return error_set(err, ENOTSUP,
                         "%s: format %s cannot run a machine; convert it: evisor-img convert -O "
                         "qcow2 %s NEW.qcow2",
                         list->option, format, disk->options.path);
    if (format)
        disk->options.format =
            text_copy(strcmp(format, "qcow2") == 0 || is_foreign(format) ? format : "raw");
    /* A file's name is no reason to open what its header names. */
    disk->options.no_data_file_name = !text_of(list, "format", "driver");
    return 0;
}

static int set_cache(struct config_disk *disk, const struct keyval *list, struct error *err)
{
    static const struct disk_cache_mode modes[] = {
        {.writeback = true},
        {.writeback = false},
        {.writeback = true, .direct = true},
        {.writeback = false, .direct = true},
        {.writeback = true, .no_flush = true},
    };
    unsigned mode = 0;
    int result =
        keyval_choice(list, "cache", "writeback|writethrough|none|directsync|unsafe", &mode, err);
    if (result)
        return result;
    disk->options.cache = modes[mode];
    result = keyval_bool(list, "cache.direct", &disk->options.cache.direct, err);
    if (!result)
        result = keyval_bool(list, "cache.no-flush", &disk->options.cache.no_flush, err);
    return result;
}

/* QEMU's "native" is Linux AIO; io_uring does the same job here. */
static int set_aio(struct config_disk *disk, const struct keyval *list, struct error *err)
{
    static const enum disk_aio ways[] = {DISK_AIO_THREADS, DISK_AIO_AUTO, DISK_AIO_IO_URING};
    const char *value = keyval_get(list, "aio");
    unsigned way = 1;
    int result = value ? keyval_choice(list, "aio", "threads|native|io_uring", &way, err) : 0;
    if (!result)
        disk->options.aio = ways[way];
    return result;
}

static int set_errors(struct config_disk *disk, const struct keyval *list, struct error *err)
{
    unsigned werror = ON_ERROR_ENOSPC, rerror = ON_ERROR_REPORT;
    int result = keyval_choice(list, "werror", "report|ignore|stop|enospc", &werror, err);
    if (!result)
        result = keyval_choice(list, "rerror", "report|ignore|stop", &rerror, err);
    disk->werror = (enum config_on_error)werror;
    disk->rerror = (enum config_on_error)rerror;
    return result;
}

static int set_access(struct config_disk *disk, const struct keyval *list, struct error *err)
{
    unsigned media = 0, discard = 1, locking = 1;
    bool force_share = false;
    int result = keyval_choice(list, "media", "disk|cdrom", &media, err);
    disk->is_cdrom = media;
    disk->options.read_only = disk->is_cdrom;
    if (!result)
        result = keyval_bool(list, "readonly", &disk->options.read_only, err);
    if (!result)
        result = keyval_bool(list, "read-only", &disk->options.read_only, err);
    if (!result)
        result = keyval_choice(list, "discard", "ignore|unmap|off|on", &discard, err);
    disk->options.discard_unmap = discard % 2;
    if (!result)
        result = keyval_choice(list, "locking", "off|on|auto", &locking, err);
    if (!result)
        result = keyval_choice(list, "file.locking", "off|on|auto", &locking, err);
    if (!result)
        result = keyval_bool(list, "force-share", &force_share, err);
    if (!result && force_share && !disk->options.read_only)
        result = error_set(err, EINVAL, "%s: force-share=on needs readonly=on", list->option);
    disk->options.no_lock = !locking || force_share;
    const char *format = disk->options.format;
    if (!result && format && is_foreign(format) && !disk->options.read_only)
        result =
            error_set(err, EROFS,
                      "%s: %s images are only read; add readonly=on, or convert it: evisor-img "
                      "convert -O qcow2 %s NEW.qcow2",
                      list->option, format, disk->options.path);
    return result;
}

static int set_serial(struct config_disk *disk, const struct keyval *list, struct error *err)
{
    keyval_string(list, "serial", &disk->serial);
    if (disk->serial && strlen(disk->serial) > 20)
        return error_set(err, EINVAL, "%s: serial=%s: a serial number has at most 20 bytes",
                         list->option, disk->serial);
    return 0;
}

/* As QEMU divides what is given between the two caches. */
static int set_cache_sizes(struct config_disk *disk, const struct keyval *list, struct error *err)
{
    uint64_t total = 0, l2 = 0, refcounts = 0;
    int result = keyval_size(list, "cache-size", 1, &total, err);
    if (!result)
        result = keyval_size(list, "l2-cache-size", 1, &l2, err);
    if (!result)
        result = keyval_size(list, "refcount-cache-size", 1, &refcounts, err);
    if (result)
        return result;
    if (total && l2 && refcounts)
        return error_set(err, EINVAL,
                         "%s: cache-size, l2-cache-size and refcount-cache-size may not be set at "
                         "the same time",
                         list->option);
    if (total && (l2 > total || refcounts > total))
        return error_set(err, EINVAL, "%s: %s may not exceed cache-size", list->option,
                         l2 > total ? "l2-cache-size" : "refcount-cache-size");
    if (total && !l2)
        l2 = total - refcounts;
    disk->options.l2_cache_bytes = l2;
    disk->options.refcount_cache_bytes = total ? total - l2 : refcounts;
    return 0;
}

static int set_overlap_check(struct config_disk *disk, const struct keyval *list, struct error *err)
{
    /* In the order of enum disk_overlap_check. */
    const char *key =
        keyval_get(list, "overlap-check") ? "overlap-check" : "overlap-check.template";
    const char *value = keyval_get(list, key);
    unsigned check = DISK_OVERLAP_CACHED;
    if (value && strcmp(value, "all") == 0)
        return error_set(err, ENOTSUP,
                         "%s: %s=all would read the tables of all snapshots at each write, which "
                         "is not there; use cached",
                         list->option, key);
    int result = keyval_choice(list, key, "cached|constant|none", &check, err);
    disk->options.overlap_check = (enum disk_overlap_check)check;
    return result;
}

/* How qcow2 keeps its tables and gives space back: QEMU's words, its defaults for a machine. */
static int set_tuning(struct config_disk *disk, const struct keyval *list, struct error *err)
{
    uint64_t entry = 0, clean_s = CACHE_CLEAN_INTERVAL_S;
    bool requested = true, other = false;
    int result = set_cache_sizes(disk, list, err);
    if (!result)
        result = keyval_size(list, "l2-cache-entry-size", 1, &entry, err);
    if (!result)
        result = keyval_uint(list, "cache-clean-interval", 0, UINT32_MAX, &clean_s, err);
    if (!result)
        result = keyval_bool(list, "pass-discard-request", &requested, err);
    if (!result)
        result = keyval_bool(list, "pass-discard-other", &other, err);
    if (!result)
        result = set_overlap_check(disk, list, err);
    disk->options.cache_entry_bytes = (uint32_t)MIN(entry, UINT32_MAX);
    disk->options.cache_clean_s = (uint32_t)clean_s;
    disk->options.idle_writeback_ms = IDLE_WRITEBACK_MS;
    disk->options.keep_requested = !requested;
    disk->options.discard_other = other;
    return result;
}

static int set_backing(struct config_disk *disk, const struct keyval *list, struct error *err)
{
    (void)err;
    const char *backing = keyval_get(list, "backing.file.filename");
    const char *format = keyval_get(list, "backing.driver");
    const char *data_file = keyval_get(list, "data-file.filename");
    if (backing)
        disk->options.backing_path = text_copy(backing);
    if (data_file)
        disk->options.data_file_path = text_copy(data_file);
    if (format)
        disk->options.backing_format = text_copy(format);
    return 0;
}

static int read_limits(const struct keyval *list, struct throttle_limits *limits, struct error *err)
{
    static const char *const short_forms[THROTTLE_KINDS] = {"bps",  "bps_rd",  "bps_wr",
                                                            "iops", "iops_rd", "iops_wr"};
    int result = 0;
    *limits = throttle_no_limits;
    for (unsigned i = 0; i < THROTTLE_KINDS && !result; i++)
        result = keyval_size(list, short_forms[i], 1, &limits->bucket[i].average, err);
    if (!result)
        result = options_read_limits(list, "throttling.", limits, err);
    return result ? result : throttle_check(limits, err);
}

static int set_limits(struct config_disk *disk, const struct keyval *list, struct error *err)
{
    const char *node_name = keyval_get(list, "node-name");
    if (node_name && (!*node_name || strlen(node_name) > 31))
        return error_set(err, EINVAL, "%s: node-name=%s: a node's name has 1 to 31 bytes",
                         list->option, node_name);
    if (node_name)
        disk->node_name = text_copy(node_name);
    disk->limits = calloc(1, sizeof(*disk->limits));
    CHECK(disk->limits);
    keyval_string(list, "throttling.group", &disk->throttle_group);
    return read_limits(list, disk->limits, err);
}

struct config_disk *options_find_disk(const struct vm_config *config, const char *id)
{
    for (unsigned i = 0; i < config->disk_count; i++)
        if (config->disks[i].id && strcmp(config->disks[i].id, id) == 0)
            return &config->disks[i];
    return NULL;
}

bool options_has_node(const struct vm_config *config, const char *name)
{
    for (unsigned i = 0; i < config->disk_count; i++) {
        const char *given = config->disks[i].node_name;
        if (given && strcmp(given, name) == 0)
            return true;
    }
    return options_find_disk(config, name);
}

static int set_identity(struct options *options, struct config_disk *disk,
                        struct options_disk *extra, const struct keyval *list, struct error *err)
{
    const char *id = keyval_get(list, "id");
    const char *interface = keyval_get(list, "if");
    if (id && options_find_disk(options->config, id))
        return error_set(err, EEXIST, "%s: there is another drive with id=%s", list->option, id);
    if (disk->node_name && options_has_node(options->config, disk->node_name))
        return error_set(err, EEXIST, "%s: Duplicate nodes with node-name='%s'", list->option,
                         disk->node_name);
    if (id)
        disk->id = text_copy(id);
    extra->interface = interface && strcmp(interface, "none") == 0 ? DRIVE_NONE : DRIVE_VIRTIO;
    uint64_t unit = 0;
    int result = keyval_uint(list, "index", 0, DISK_MAX - 1, &unit, err);
    extra->unit = keyval_get(list, "index") ? (int)unit : -1;
    return result;
}

int options_drive_read(struct config_disk *disk, struct keyval *list, struct error *err)
{
    int result = keyval_check(list, options_drive_known, err);
    if (!result)
        result = set_path(disk, list, err);
    if (!result)
        result = set_format(disk, list, err);
    int (*const rest[])(struct config_disk *, const struct keyval *,
                        struct error *) = {set_cache,  set_aio,    set_errors,  set_access,
                                           set_serial, set_tuning, set_backing, set_limits};
    for (unsigned i = 0; i < ARRAY_SIZE(rest) && !result; i++)
        result = rest[i](disk, list, err);
    return result;
}

static int add_drive(struct options *options, struct keyval *list, struct error *err)
{
    struct vm_config *config = options->config;
    if (config->disk_count == DISK_MAX)
        return error_set(err, E2BIG, "%s: more than %d drives", list->option, DISK_MAX);
    config->disks = options_grow(config->disks, config->disk_count, sizeof(*config->disks));
    options->disks = options_grow(options->disks, config->disk_count, sizeof(*options->disks));
    struct config_disk *disk = &config->disks[config->disk_count];
    struct options_disk *extra = &options->disks[config->disk_count];
    int result = options_drive_read(disk, list, err);
    if (!result)
        result = set_identity(options, disk, extra, list, err);
    config->disk_count++;
    return result;
}

int options_add_node(struct options *options, struct config_disk *disk, struct error *err)
{
    struct vm_config *config = options->config;
    if (config->disk_count == DISK_MAX) {
        options_disk_fini(disk);
        return error_set(err, E2BIG, "more than %d drives", DISK_MAX);
    }
    config->disks = options_grow(config->disks, config->disk_count, sizeof(*config->disks));
    options->disks = options_grow(options->disks, config->disk_count, sizeof(*options->disks));
    options->disks[config->disk_count] = (struct options_disk){.interface = DRIVE_NONE, .unit = -1};
    config->disks[config->disk_count++] = *disk;
    return 0;
}

int option_drive(struct options *options, const struct option_entry *entry, const char *argument,
                 struct error *err)
{
    (void)entry;
    struct keyval list;
    int result = keyval_parse(&list, "-drive", argument, NULL, err);
    if (result)
        return result;
    result = add_drive(options, &list, err);
    keyval_fini(&list);
    return result;
}

/* The argument is a plain file name, commas and all. */
static int add_file(struct options *options, const char *option, const char *path, unsigned index,
                    const char *rest, struct error *err)
{
    struct keyval list;
    char text[64];
    snprintf(text, sizeof(text), "index=%u,if=virtio%s", index, rest);
    int result = keyval_parse(&list, option, text, NULL, err);
    if (result)
        return result;
    struct keyval_pair *pair = &list.pairs[list.count++];
    pair->key = text_copy("file");
    pair->value = text_copy(path);
    free(list.option);
    CHECK(asprintf(&list.option, "%s %s", option, path) > 0);
    result = add_drive(options, &list, err);
    keyval_fini(&list);
    return result;
}

int option_hd(struct options *options, const struct option_entry *entry, const char *argument,
              struct error *err)
{
    char option[8];
    snprintf(option, sizeof(option), "-%s", entry->name);
    return add_file(options, option, argument, (unsigned)(entry->name[2] - 'a'), "", err);
}

int option_cdrom(struct options *options, const struct option_entry *entry, const char *argument,
                 struct error *err)
{
    (void)entry;
    return add_file(options, "-cdrom", argument, 2, ",media=cdrom,format=raw", err);
}

static int refuse_drive(struct options *options, const struct keyval *device, const char *id,
                        struct error *err)
{
    struct suggest suggest;
    suggest_init(&suggest, id);
    for (unsigned i = 0; i < options->config->disk_count; i++)
        if (options->config->disks[i].id)
            suggest_offer(&suggest, options->config->disks[i].id);
    return error_set(err, ENOENT, "%s: there is no -drive with id=%s%s%s%s", device->option, id,
                     suggest.best ? "; did you mean '" : "; add -drive if=none,id=...,file=...",
                     suggest.best ? suggest.best : "", suggest.best ? "'?" : "");
}

static int refuse_io_thread(const struct keyval *device, struct error *err)
{
    const char *id = keyval_get(device, "iothread");
    return error_set(err, ENOENT,
                     "%s: there is no -object iothread with id=%s; add -object iothread,id=%s",
                     device->option, id, id);
}

int options_attach_drive(struct options *options, struct keyval *device, struct error *err)
{
    const char *id = keyval_get(device, "drive");
    if (!id)
        return error_set(err, EINVAL, "%s: say which disk: drive=ID, with -drive if=none,id=ID",
                         device->option);
    struct config_disk *disk = options_find_disk(options->config, id), node;
    if (!disk && file_nodes_has(options->config, id)) {
        int result = options_blockdev_from_file(options->config, id, &node, err);
        if (!result)
            result = options_add_node(options, &node, err);
        if (result)
            return result;
        disk = &options->config->disks[options->config->disk_count - 1];
        id = disk->id;
    }
    if (!disk)
        return refuse_drive(options, device, id, err);
    struct options_disk *extra = &options->disks[disk - options->config->disks];
    if (extra->interface == DRIVE_VIRTIO)
        return error_set(err, EINVAL,
                         "%s: drive %s already has a device because of if=virtio; write if=none",
                         device->option, id);
    if (disk->is_attached)
        return error_set(err, EBUSY, "%s: drive %s is used by another device", device->option, id);
    if (!options_read_io_thread(&options->config->guest, device, &disk->io_thread))
        return refuse_io_thread(device, err);
    disk->is_attached = true;
    for (unsigned i = 0; i < options->config->disk_count; i++)
        extra->order += options->config->disks[i].is_attached;
    int result = options_read_slot(device, &disk->pci_slot, err);
    return result ? result : options_drive_device(disk, device, err);
}

int options_drive_device(struct config_disk *disk, const struct keyval *device, struct error *err)
{
    keyval_string(device, "id", &disk->qdev_id);
    uint64_t boot_index = UINT64_MAX, queues = 1;
    int result = keyval_bool(device, "write-cache", &disk->options.cache.writeback, err);
    if (!result)
        result = keyval_uint(device, "bootindex", 0, INT32_MAX - 1, &boot_index, err);
    if (!result)
        result = keyval_uint(device, "num-queues", 1, BLK_QUEUES_MAX, &queues, err);
    disk->queue_count = (unsigned)queues;
    if (boot_index != UINT64_MAX)
        disk->boot_rank = (unsigned)boot_index + 1;
    return result ? result : set_serial(disk, device, err);
}

static bool unit_is_used(const struct options *options, int unit, unsigned except)
{
    for (unsigned i = 0; i < options->config->disk_count; i++)
        if (i != except && options->disks[i].interface == DRIVE_VIRTIO &&
            options->disks[i].unit == unit)
            return true;
    return false;
}

static int give_units(struct options *options, struct error *err)
{
    for (unsigned i = 0; i < options->config->disk_count; i++) {
        struct options_disk *extra = &options->disks[i];
        if (extra->interface != DRIVE_VIRTIO)
            continue;
        if (extra->unit >= 0 && unit_is_used(options, extra->unit, i))
            return error_set(err, EEXIST,
                             "two drives have index %d (-hda is 0, -hdb 1, -hdc and -cdrom 2)",
                             extra->unit);
        if (extra->unit >= 0)
            continue;
        for (extra->unit = 0; unit_is_used(options, extra->unit, i);)
            extra->unit++;
    }
    return 0;
}

static void give_ids(struct options *options)
{
    unsigned nameless = 0;
    for (unsigned i = 0; i < options->config->disk_count; i++) {
        struct config_disk *disk = &options->config->disks[i];
        struct options_disk *extra = &options->disks[i];
        if (extra->interface == DRIVE_VIRTIO)
            disk->is_attached = true;
        if (disk->id)
            continue;
        char id[32];
        for (int unit = extra->unit;; unit += DISK_MAX) {
            if (extra->interface == DRIVE_VIRTIO)
                snprintf(id, sizeof(id), "virtio%d", unit);
            else
                snprintf(id, sizeof(id), "none%u", nameless++);
            if (!options_find_disk(options->config, id))
                break;
        }
        disk->id = text_copy(id);
    }
}

/* Where the disk comes in the guest's order. */
static unsigned rank(const struct config_disk *disk, const struct options_disk *extra)
{
    if (!disk->is_attached)
        return 2000;
    return extra->interface == DRIVE_VIRTIO ? 1000 + (unsigned)extra->unit : extra->order;
}

static void sort_disks(struct options *options)
{
    struct config_disk *disks = options->config->disks;
    struct options_disk *extras = options->disks;
    for (unsigned i = 1; i < options->config->disk_count; i++) {
        for (unsigned j = i; j > 0; j--) {
            if (rank(&disks[j - 1], &extras[j - 1]) <= rank(&disks[j], &extras[j]))
                break;
            struct config_disk disk = disks[j];
            struct options_disk extra = extras[j];
            disks[j] = disks[j - 1], extras[j] = extras[j - 1];
            disks[j - 1] = disk, extras[j - 1] = extra;
        }
    }
}

int options_finish_drives(struct options *options, struct error *err)
{
    int result = give_units(options, err);
    if (result)
        return result;
    give_ids(options);
    sort_disks(options);
    return 0;
}
