/* SPDX-License-Identifier: MIT */
/*
 * options_blockdev: one node of -blockdev or blockdev-add: the file itself, which file_nodes keeps
 * until an image or a device uses it, or an image, whose words become those of a drive.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/options/file_nodes.h"
#include "vmm/options/keyval_json.h"
#include "vmm/options/options_private.h"

#define NODE_DRIVERS   "qcow2|raw|vdi|vmdk|vpc|vhdx|file|host_device"
#define NODE_NAME_MAX  31
#define OF_THE_FILE    "driver|filename|locking"
#define SAID_FOR_NODES "node-name|auto-read-only"

static void drop_pair(struct keyval *list, unsigned index)
{
    free(list->pairs[index].key);
    free(list->pairs[index].value);
    list->count--;
    memmove(&list->pairs[index], &list->pairs[index + 1],
            (list->count - index) * sizeof(list->pairs[0]));
}

static void drop_key(struct keyval *list, const char *key)
{
    for (unsigned i = list->count; i-- > 0;)
        if (strcmp(list->pairs[i].key, key) == 0)
            drop_pair(list, i);
}

/*
 * What is said of nodes and not of images goes: a file in use is opened for writing or not, as its
 * image is. How the file is to be accessed is said of the image, which is what opens it.
 */
static void settle_file_words(struct keyval *list)
{
    for (unsigned i = list->count; i-- > 0;) {
        struct keyval_pair *pair = &list->pairs[i];
        const char *word = strncmp(pair->key, "file.", 5) == 0 ? pair->key + 5 : NULL;
        bool is_dropped = keyval_name_index(SAID_FOR_NODES "|file", pair->key) >= 0 ||
                          (word && keyval_name_index(SAID_FOR_NODES, word) >= 0);
        if (is_dropped ||
            (word && keyval_name_index(OF_THE_FILE, word) < 0 && keyval_get(list, word)))
            drop_pair(list, i);
        else if (word && keyval_name_index(OF_THE_FILE, word) < 0)
            memmove(pair->key, word, strlen(word) + 1);
    }
}

static int add_word(struct keyval *list, const char *key, const char *value, struct error *err)
{
    if (list->count == KEYVAL_MAX)
        return error_set(err, E2BIG, "%s: more than %d parts", list->option, KEYVAL_MAX);
    list->pairs[list->count++] = (struct keyval_pair){text_copy(key), text_copy(value)};
    return 0;
}

/* backing=NODE: the image is opened above what that node names. null: above nothing. */
static int settle_backing(const struct vm_config *config, struct keyval *list,
                          struct config_disk *disk, struct error *err)
{
    char *name = NULL;
    keyval_string(list, "backing", &name);
    drop_key(list, "backing");
    drop_key(list, "backing.node-name");
    if (!name)
        return 0;
    const struct config_disk *node = options_find_disk(config, name);
    const char *path = node ? node->options.path : file_nodes_path(config, name);
    int result = 0;
    disk->options.no_backing = !*name;
    if (*name && !path)
        result = error_set(err, ENOENT, "Cannot find device='' nor node-name='%s'", name);
    else if (*name)
        result = add_word(list, "backing.file.filename", path, err);
    if (*name && !result)
        result = add_word(list, "backing.driver",
                          node && node->options.format ? node->options.format : "raw", err);
    free(name);
    return result;
}

/* An image names its file by itself, or the node that stands for it. */
static int check_file(const struct keyval *list, const char *driver, struct error *err)
{
    if (keyval_name_index("file|host_device", driver) >= 0 || keyval_get(list, "file") ||
        keyval_get(list, "file.filename"))
        return 0;
    return error_set(err, EINVAL, "Parameter 'file%s' is missing",
                     keyval_get(list, "file.driver") ? ".filename" : "");
}

int options_blockdev_check(const struct vm_config *config, const struct keyval *list,
                           struct error *err)
{
    const char *driver = keyval_get(list, "driver"), *name = keyval_get(list, "node-name");
    if (!driver)
        return error_set(err, EINVAL, "Parameter 'driver' is missing");
    if (keyval_name_index(NODE_DRIVERS, driver) < 0)
        return error_set(err, ENOTSUP, "Unknown driver '%s': use one of %s", driver, NODE_DRIVERS);
    if (!name)
        return error_set(err, EINVAL, "'node-name' must be specified for the root node");
    if (!keyval_is_id(name) || strlen(name) > NODE_NAME_MAX)
        return error_set(err, EINVAL, "Invalid node-name: '%s'", name);
    if (options_has_node(config, name) || file_nodes_has(config, name))
        return error_set(err, EEXIST, "Duplicate nodes with node-name='%s'", name);
    return check_file(list, driver, err);
}

static int read_image(struct vm_config *config, struct keyval *list, struct config_disk *disk,
                      const char *name, struct error *err)
{
    char *file = NULL;
    keyval_string(list, "file", &file);
    *disk = (struct config_disk){.is_node = true};
    int result = file ? file_nodes_use(config, file, name, list, err) : 0;
    free(file);
    settle_file_words(list);
    if (!result)
        result = settle_backing(config, list, disk, err);
    if (!result)
        result = options_drive_read(disk, list, err);
    if (!result)
        disk->id = text_copy(name);
    else
        options_disk_fini(disk);
    return result;
}

int options_blockdev_read(struct vm_config *config, struct keyval *list, struct config_disk *disk,
                          bool *is_file, struct error *err)
{
    int result = options_blockdev_check(config, list, err);
    if (result)
        return result;
    char *name = text_copy(keyval_get(list, "node-name"));
    *is_file = keyval_name_index("file|host_device", keyval_get(list, "driver")) >= 0;
    if (*is_file)
        settle_file_words(list);
    result = *is_file ? file_nodes_add(config, name, list, err)
                      : read_image(config, list, disk, name, err);
    free(name);
    return result;
}

void options_blockdev_peek(const struct vm_config *config, const struct keyval *list,
                           struct disk_options *out)
{
    const char *driver = keyval_get(list, "driver"), *file = keyval_get(list, "file");
    const char *path = keyval_get(list, "file.filename"), *backing = keyval_get(list, "backing");
    const struct config_disk *below = backing ? options_find_disk(config, backing) : NULL;
    bool is_image = driver && keyval_name_index("file|host_device|raw", driver) < 0;
    if (!path && file)
        path = file_nodes_path(config, file);
    *out = (struct disk_options){.path = path ? path : keyval_get(list, "filename"),
                                 .format = is_image ? driver : "raw",
                                 .no_backing = backing && !*backing,
                                 .backing_path = keyval_get(list, "backing.file.filename"),
                                 .backing_format = keyval_get(list, "backing.driver"),
                                 .data_file_path = keyval_get(list, "data-file.filename")};
    if (below) {
        out->backing_path = below->options.path;
        out->backing_format = below->options.format;
    } else if (backing && *backing) {
        out->backing_path = file_nodes_path(config, backing);
        out->backing_format = "raw";
    }
}

int options_blockdev_from_file(struct vm_config *config, const char *name, struct config_disk *disk,
                               struct error *err)
{
    struct keyval list = {.option = text_copy("blockdev")};
    char *copy = text_copy(name);
    int result = add_word(&list, "driver", "raw", err);
    if (!result)
        result = file_nodes_take(config, name, &list, err);
    if (!result)
        result = read_image(config, &list, disk, copy, err);
    free(copy);
    keyval_fini(&list);
    return result;
}

int option_blockdev(struct options *options, const struct option_entry *entry, const char *argument,
                    struct error *err)
{
    (void)entry;
    struct keyval list;
    struct config_disk disk;
    bool is_file;
    int result = keyval_parse_either(&list, "-blockdev", argument, "driver", err);
    if (result)
        return result;
    result = options_blockdev_read(options->config, &list, &disk, &is_file, err);
    if (!result && !is_file)
        result = options_add_node(options, &disk, err);
    if (result && strncmp(err->text, "-blockdev", 9) != 0)
        error_prefix(err, "-blockdev %s", argument);
    keyval_fini(&list);
    return result;
}
