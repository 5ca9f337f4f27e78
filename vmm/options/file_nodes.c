/* SPDX-License-Identifier: MIT */
/* file_nodes: names for files, and the words that go from them to the images that use them. */
#include "vmm/options/file_nodes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/options/options_private.h"

struct config_file_node {
    char *name, *user; /* the node that may have opened it, or NULL */
    struct keyval list;
    bool is_held;
};

static struct config_file_node *find(const struct vm_config *config, const char *name)
{
    for (unsigned i = 0; i < DRIVE_MAX; i++)
        if (config->files[i] && strcmp(config->files[i]->name, name) == 0)
            return config->files[i];
    return NULL;
}

bool file_nodes_has(const struct vm_config *config, const char *name)
{
    return find(config, name);
}

const char *file_nodes_path(const struct vm_config *config, const char *name)
{
    const struct config_file_node *file = find(config, name);
    return file ? keyval_get(&file->list, "filename") : NULL;
}

int file_nodes_add(struct vm_config *config, const char *name, struct keyval *list,
                   struct error *err)
{
    struct config_file_node **file = config->files;
    if (!keyval_get(list, "filename"))
        return error_set(err, EINVAL, "%s: Parameter 'filename' is missing", list->option);
    while (file < config->files + DRIVE_MAX && *file)
        file++;
    if (file == config->files + DRIVE_MAX)
        return error_set(err, ENOSPC, "there are %d such nodes already: remove one first",
                         DRIVE_MAX);
    *file = calloc(1, sizeof(**file));
    CHECK(*file);
    (*file)->name = text_copy(name);
    (*file)->list = *list;
    memset(list, 0, sizeof(*list)); /* the words are the node's now */
    return 0;
}

static bool is_used(const struct vm_config *config, const struct config_file_node *file)
{
    if (file->is_held)
        return true;
    for (unsigned i = 0; file->user && i < config->disk_count; i++)
        if (config->disks[i].id && strcmp(config->disks[i].id, file->user) == 0)
            return true;
    return false;
}

static void forget(struct vm_config *config, struct config_file_node *file)
{
    for (unsigned i = 0; i < DRIVE_MAX; i++)
        if (config->files[i] == file)
            config->files[i] = NULL;
    keyval_fini(&file->list);
    free(file->name);
    free(file->user);
    free(file);
}

int file_nodes_del(struct vm_config *config, const char *name, struct error *err)
{
    struct config_file_node *file = find(config, name);
    if (is_used(config, file))
        return error_set(err, EBUSY, "Node %s is in use", name);
    forget(config, file);
    return 0;
}

/* What belongs to the file keeps to it; the rest is said of the image. */
static int add_words(struct keyval *list, const struct config_file_node *file, struct error *err)
{
    for (unsigned i = 0; i < file->list.count; i++) {
        const struct keyval_pair *from = &file->list.pairs[i];
        bool is_own = keyval_name_index("driver|filename|locking", from->key) >= 0;
        if (!is_own && keyval_get(list, from->key))
            continue;
        if (list->count == KEYVAL_MAX)
            return error_set(err, E2BIG, "%s: more than %d parts", list->option, KEYVAL_MAX);
        struct keyval_pair *to = &list->pairs[list->count++];
        CHECK(asprintf(&to->key, "%s%s", is_own ? "file." : "", from->key) > 0);
        to->value = text_copy(from->value);
    }
    return 0;
}

int file_nodes_use(struct vm_config *config, const char *name, const char *user,
                   struct keyval *list, struct error *err)
{
    struct config_file_node *file = find(config, name);
    if (!file)
        return error_set(err, ENOENT, "Cannot find device='%s' nor node-name='%s'", name, name);
    if (is_used(config, file))
        return error_set(err, EBUSY, "Node %s is in use", name);
    free(file->user);
    file->user = text_copy(user);
    return add_words(list, file, err);
}

int file_nodes_words(const struct vm_config *config, const char *name, struct keyval *list,
                     struct error *err)
{
    return add_words(list, find(config, name), err);
}

int file_nodes_take(struct vm_config *config, const char *name, struct keyval *list,
                    struct error *err)
{
    struct config_file_node *file = find(config, name);
    if (is_used(config, file))
        return error_set(err, EBUSY, "Node %s is in use", name);
    int result = add_words(list, file, err);
    forget(config, file);
    return result;
}

int file_nodes_hold(struct vm_config *config, const char *name, const char **path,
                    struct error *err)
{
    struct config_file_node *file = find(config, name);
    bool is_read_only = false;
    if (!file)
        return error_set(err, ENOENT, "Cannot find device='%s' nor node-name='%s'", name, name);
    if (file->is_held)
        return error_set(err, EBUSY, "Node %s is in use", name);
    if (is_used(config, file))
        return error_set(err, EBUSY,
                         "Permission conflict on node '%s': permissions 'write, resize' are both "
                         "required by an unnamed block device (uses node '%s' as 'root' child) and "
                         "unshared by node '%s' (uses node '%s' as 'file' child).",
                         name, name, file->user, name);
    int result = keyval_bool(&file->list, "read-only", &is_read_only, err);
    if (!result && is_read_only)
        result = error_set(err, EROFS, "Block node is read-only");
    if (result)
        return result;
    file->is_held = true;
    *path = keyval_get(&file->list, "filename");
    return 0;
}

void file_nodes_release(struct vm_config *config, const char *name)
{
    find(config, name)->is_held = false;
}

int file_nodes_check(const struct vm_config *config, struct error *err)
{
    for (unsigned i = 0; i < DRIVE_MAX; i++) {
        const char *path =
            config->files[i] ? keyval_get(&config->files[i]->list, "filename") : NULL;
        if (path && access(path, R_OK))
            return error_set(err, errno, "-blockdev: Could not open '%s': %s", path,
                             strerror(errno));
    }
    return 0;
}

void file_nodes_fini(struct vm_config *config)
{
    for (unsigned i = 0; i < DRIVE_MAX; i++)
        if (config->files[i])
            forget(config, config->files[i]);
}
