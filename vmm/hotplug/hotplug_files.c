/* SPDX-License-Identifier: MIT */
/*
 * hotplug_files: nodes of blockdev-add for plain files, to which a format's node or a device refers
 * later. Such a node is a name for a file and what was said about it; whoever uses it opens it, so
 * that the image's locks are taken once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/hotplug/hotplug_private.h"
#include "vmm/machine_private.h"
#include "vmm/options/options_private.h"

static struct hotplug_file *find(const struct machine *machine, const char *name)
{
    for (unsigned i = 0; i < DRIVE_MAX; i++)
        if (machine->hotplug.files[i] && strcmp(machine->hotplug.files[i]->name, name) == 0)
            return machine->hotplug.files[i];
    return NULL;
}

bool hotplug_has_file(const struct machine *machine, const char *name)
{
    return find(machine, name);
}

static int check_readable(const char *path, struct error *err)
{
    if (!path)
        return error_set(err, EINVAL, "Parameter 'filename' is missing");
    if (access(path, R_OK))
        return error_set(err, errno, "Could not open '%s': %s", path, strerror(errno));
    return 0;
}

int hotplug_file_add(struct machine *machine, const char *name, struct keyval *list,
                     struct error *err)
{
    struct hotplug_file **file = machine->hotplug.files;
    int result = check_readable(keyval_get(list, "filename"), err);
    if (result)
        return result;
    while (file < machine->hotplug.files + DRIVE_MAX && *file)
        file++;
    if (file == machine->hotplug.files + DRIVE_MAX)
        return error_set(err, ENOSPC, "there are %d such nodes already: remove one first",
                         DRIVE_MAX);
    *file = calloc(1, sizeof(**file));
    CHECK(*file);
    (*file)->name = options_copy(name);
    (*file)->list = *list;
    memset(list, 0, sizeof(*list)); /* the words are the node's now */
    return 0;
}

static bool is_used(const struct machine *machine, const struct hotplug_file *file)
{
    return file->user && machine_find_disk(machine, file->user);
}

static void forget(struct machine *machine, struct hotplug_file *file)
{
    for (unsigned i = 0; i < DRIVE_MAX; i++)
        if (machine->hotplug.files[i] == file)
            machine->hotplug.files[i] = NULL;
    keyval_fini(&file->list);
    free(file->name);
    free(file->user);
    free(file);
}

int hotplug_file_del(struct machine *machine, const char *name, struct error *err)
{
    struct hotplug_file *file = find(machine, name);
    if (is_used(machine, file))
        return error_set(err, EBUSY, "Node %s is in use", name);
    forget(machine, file);
    return 0;
}

/* What belongs to the file keeps to it; the rest is said of the image. */
static int add_words(struct keyval *list, const struct hotplug_file *file, struct error *err)
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
        to->value = options_copy(from->value);
    }
    return 0;
}

int hotplug_file_use(struct machine *machine, const char *name, const char *user,
                     struct keyval *list, struct error *err)
{
    struct hotplug_file *file = find(machine, name);
    if (!file)
        return error_set(err, ENOENT, "Cannot find device='' nor node-name='%s'", name);
    if (is_used(machine, file))
        return error_set(err, EBUSY, "Node %s is in use", name);
    free(file->user);
    file->user = options_copy(user);
    return add_words(list, file, err);
}

int hotplug_file_take(struct machine *machine, const char *name, struct keyval *list,
                      struct error *err)
{
    struct hotplug_file *file = find(machine, name);
    if (is_used(machine, file))
        return error_set(err, EBUSY, "Node %s is in use", name);
    int result = add_words(list, file, err);
    forget(machine, file);
    return result;
}

void hotplug_files_fini(struct machine *machine)
{
    for (unsigned i = 0; i < DRIVE_MAX; i++)
        if (machine->hotplug.files[i])
            forget(machine, machine->hotplug.files[i]);
}
