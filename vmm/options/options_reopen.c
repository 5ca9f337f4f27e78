/* SPDX-License-Identifier: MIT */
/*
 * options_reopen: a node of blockdev-reopen, in the words of blockdev-add: what it is to become,
 * and what of it nobody can change while it is open. What is not said becomes the default again,
 * but for the sizes of caches and other fine tuning, which stay.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/options/file_nodes.h"
#include "vmm/options/options_private.h"

static int cannot_change(const char *option, struct error *err)
{
    return error_set(err, EINVAL, "Cannot change the option '%s'", option);
}

/* QEMU could; the way is another one here. */
static int not_in_use(const char *option, const char *node, struct error *err)
{
    return error_set(err, ENOTSUP,
                     "Cannot change the option '%s' of node '%s' while it is open: blockdev-del "
                     "it, and blockdev-add it anew",
                     option, node);
}

/* The file stays, however it is named; a node that stands for it adds what was said of it. */
static int check_file(const struct vm_config *config, struct keyval *list,
                      const struct disk_options *now, struct error *err)
{
    const char *name = keyval_get(list, "file"), *path = keyval_get(list, "file.filename");
    if (!name && !path)
        return error_set(err, EINVAL, "Parameter 'file.filename' is missing");
    if (path)
        return strcmp(path, now->path) == 0 ? 0 : cannot_change("filename", err);
    path = file_nodes_path(config, name);
    if (!path && !options_has_node(config, name))
        return error_set(err, ENOENT, "Cannot find device='' nor node-name='%s'", name);
    if (!path || strcmp(path, now->path) != 0)
        return not_in_use("file", keyval_get(list, "node-name"), err);
    return file_nodes_words(config, name, list, err);
}

static int check_shared(const struct keyval *list, const struct disk_options *now,
                        struct error *err)
{
    bool is_shared = now->read_only && now->no_lock, wanted = is_shared;
    int result = keyval_bool(list, "force-share", &wanted, err);
    return result || wanted == is_shared ? result : cannot_change("force-share", err);
}

static int check_words(const struct keyval *list, const struct disk_options *now,
                       const struct disk_options *wanted, struct error *err)
{
#define FIELD(member)                                                                              \
    offsetof(struct disk_options, member), sizeof(((struct disk_options *)NULL)->member)
    static const struct {
        const char *key;
        size_t offset, bytes;
    } fixed[] = {
        {"cache-size", FIELD(l2_cache_bytes)},
        {"l2-cache-size", FIELD(l2_cache_bytes)},
        {"refcount-cache-size", FIELD(refcount_cache_bytes)},
        {"l2-cache-entry-size", FIELD(cache_entry_bytes)},
        {"cache-clean-interval", FIELD(cache_clean_s)},
        {"pass-discard-request", FIELD(keep_requested)},
        {"pass-discard-other", FIELD(discard_other)},
        {"overlap-check", FIELD(overlap_check)},
    };
#undef FIELD
    const char *node = keyval_get(list, "node-name");
    if ((keyval_get(list, "aio") || keyval_get(list, "file.aio")) && wanted->aio != now->aio)
        return cannot_change("aio", err);
    if (keyval_get(list, "file.locking") && wanted->no_lock != now->no_lock)
        return cannot_change("locking", err);
    /* Without locks only because it was read: a writer needs them. */
    if (now->no_lock && !wanted->no_lock && now->read_only && !wanted->read_only)
        return cannot_change("force-share", err);
    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
        if (keyval_get(list, fixed[i].key) &&
            memcmp((const char *)now + fixed[i].offset, (const char *)wanted + fixed[i].offset,
                   fixed[i].bytes) != 0)
            return not_in_use(fixed[i].key, node, err);
    return 0;
}

/* Words about nodes mean nothing to a drive. */
static int read_drive(const struct keyval *list, const struct disk_options *now,
                      struct disk_options *out, struct error *err)
{
    static const char dropped[] = "node-name|auto-read-only|file|backing|data-file";
    struct keyval words = {.option = text_copy(list->option)};
    struct config_disk disk = {0};
    for (unsigned i = 0; i < list->count; i++) {
        const struct keyval_pair *pair = &list->pairs[i];
        const char *key = strncmp(pair->key, "file.", 5) == 0 ? pair->key + 5 : pair->key;
        bool is_of_file = keyval_name_index("driver|filename|locking", key) >= 0;
        if (keyval_name_index(dropped, key) >= 0 ||
            (key != pair->key && !is_of_file && keyval_get(list, key)))
            continue;
        words.pairs[words.count++] = (struct keyval_pair){
            text_copy(is_of_file ? pair->key : key), text_copy(pair->value)};
    }
    if (!keyval_get(&words, "file.filename") && words.count < KEYVAL_MAX)
        words.pairs[words.count++] =
            (struct keyval_pair){text_copy("file.filename"), text_copy(now->path)};
    int result = options_drive_read(&disk, &words, err);
    if (!result)
        result = check_words(list, now, &disk.options, err);
    *out = *now;
    out->read_only = disk.options.read_only;
    out->discard_unmap = disk.options.discard_unmap;
    out->cache.direct = disk.options.cache.direct;
    out->cache.no_flush = disk.options.cache.no_flush;
    options_disk_fini(&disk);
    keyval_fini(&words);
    return result;
}

int options_blockdev_reread(const struct vm_config *config, struct keyval *list,
                            const struct disk_options *now, struct disk_options *out,
                            struct error *err)
{
    int result = 0;
    if (strcmp(keyval_get(list, "driver"), now->format) != 0)
        return cannot_change("driver", err);
    for (unsigned i = 0; i < list->count && !result; i++)
        if (strncmp(list->pairs[i].key, "data-file", 9) == 0)
            result = cannot_change("data-file", err);
    if (!result)
        result = check_file(config, list, now, err);
    if (!result)
        result = check_shared(list, now, err);
    return result ? result : read_drive(list, now, out, err);
}
