/* SPDX-License-Identifier: MIT */
/* disks: images by way of evisor-img, so that every format and rule of it holds here too. */
#include "tools/evctl/disks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/evctl/cloud.h"
#include "tools/evctl/model.h"
#include "tools/evctl/run.h"
#include "tools/evctl/tell.h"

char *disks_probe(const char *path, struct error *err)
{
    char *output = NULL, *format = NULL;
    if (run_img(json_pack("[s, s, s, s, s]", "info", "-U", "--output=json", "--", path), NULL,
                &output, err) == 0) {
        json_t *info = json_loads(output, 0, NULL);
        format = strdup(model_text(info, "format"));
        json_decref(info);
    }
    free(output);
    return format;
}

static bool is_file(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && !S_ISDIR(status.st_mode);
}

/* Two guests' disks of one image, or a disk and what it builds on, would ruin each other. */
static int check_unused(const struct machine *machine, const char *absolute, struct error *err)
{
    size_t i, k;
    json_t *disk, *layer;
    json_array_foreach(json_object_get(machine->config, "disks"), i, disk)
    {
        json_t *files = json_object_get(disk, "layers");
        files = files ? json_copy(files) : json_array();
        json_array_append(files, json_object_get(disk, "file"));
        bool is_used = false;
        json_array_foreach(files, k, layer)
        {
            char *path = machine_path(machine, json_string_value(layer));
            char *found = realpath(path, NULL);
            is_used |= found && strcmp(found, absolute) == 0;
            free(found);
            free(path);
        }
        json_decref(files);
        if (is_used)
            return error_set(err, EEXIST, "'%s' has %s already: it belongs to %s", machine->name,
                             absolute, model_text(disk, "id"));
    }
    return 0;
}

/* A file of the machine's own folder goes with it where that is renamed. */
static const char *name_inside(const struct machine *machine, const char *absolute)
{
    char *folder = realpath(machine->folder, NULL);
    bool is_inside = folder && disks_is_inside(absolute, folder);
    const char *name = is_inside ? absolute + strlen(folder) + 1 : absolute;
    free(folder);
    return is_inside && strchr(name, '/') ? absolute : name;
}

static int add_file(struct machine *machine, const char *kind, const char *path, struct error *err)
{
    char *absolute = realpath(path, NULL);
    if (!absolute)
        return error_set_errno(err, errno, "%s", path);
    bool is_iso = strcmp(kind, "iso") == 0;
    int result = is_iso ? 0 : check_unused(machine, absolute, err);
    char *format = result ? NULL : is_iso ? strdup("raw") : disks_probe(absolute, err);
    if (format)
        model_add_disk(machine->config, kind, name_inside(machine, absolute), format);
    else
        result = -err->code;
    free(format);
    free(absolute);
    return result;
}

void disks_free_file(const struct machine *machine, const char *id, char file[DISKS_FILE_BYTES])
{
    snprintf(file, DISKS_FILE_BYTES, "%.40s.qcow2", id);
    for (unsigned n = 1; faccessat(machine->folder_fd, file, F_OK, AT_SYMLINK_NOFOLLOW) == 0; n++)
        snprintf(file, DISKS_FILE_BYTES, "%.40s-%u.qcow2", id, n);
}

static int add_new(struct machine *machine, uint64_t bytes, struct error *err)
{
    char id[32], file[DISKS_FILE_BYTES], size[32];
    model_free_id(machine->config, "disks", "disk", id);
    disks_free_file(machine, id, file);
    snprintf(size, sizeof(size), "%llu", (unsigned long long)bytes);
    char *path = machine_path(machine, file);
    int result = run_img(json_pack("[s, s, s, s, s, s]", "create", "-q", "-f", "qcow2", path, size),
                         NULL, NULL, err);
    free(path);
    if (!result)
        model_add_disk(machine->config, "disk", file, "qcow2");
    return result;
}

int disks_add(struct machine *machine, const char *kind, const char *text, struct error *err)
{
    uint64_t bytes;
    if (is_file(text))
        return add_file(machine, kind, text, err);
    if (strcmp(kind, "disk") == 0 && parse_size(text, 1 << 20, &bytes))
        return add_new(machine, bytes, err);
    return error_set(err, strchr(text, '/') ? ENOENT : EINVAL, "--%s %s: %s%s", kind, text,
                     access(text, F_OK) == 0 ? "it is a folder" : "there is no such file",
                     strcmp(kind, "disk") == 0 ? ", and it is no size such as 10G" : "");
}

/* --- copies --- */

static int copy_image(const char *from, const char *format, const char *to, const char *to_format,
                      struct error *err)
{
    return run_img(json_pack("[s, s, s, s, s, s, s, s]", "convert", "-p", "-f", format, "-O",
                             to_format, from, to),
                   "copying the image", NULL, err);
}

static int link_image(const char *from, const char *format, const char *to, struct error *err)
{
    return run_img(json_pack("[s, s, s, s, s, s, s, s, s]", "create", "-q", "-f", "qcow2", "-b",
                             from, "-F", format, to),
                   NULL, NULL, err);
}

/* What --disk says beside --image; an image does not shrink into it. */
static int read_size(const struct machine *machine, const char *image, const char *format,
                     const char *size, char text[32], struct error *err)
{
    uint64_t bytes;
    char has[TELL_SIZE_BYTES];
    if (!parse_size(size, 1 << 20, &bytes))
        return error_set(err, EINVAL, "--disk %s: it must be a size such as 20G beside --image",
                         size);
    json_t *disk = json_pack("{s:s, s:s}", "file", image, "format", format);
    json_t *info = disks_info(machine, disk, err);
    uint64_t now = model_number(info, "virtual-size");
    int result = info ? 0 : -err->code;
    if (!result && bytes < now)
        result = error_set(err, EINVAL, "--disk %s is less than the %s that %s has", size,
                           tell_size(now, has), image);
    snprintf(text, 32, "%llu", (unsigned long long)bytes);
    json_decref(disk);
    json_decref(info);
    return result;
}

int disks_add_copy(struct machine *machine, const char *image, bool is_linked, const char *size,
                   struct error *err)
{
    char *from = realpath(image, NULL), bytes[32];
    if (!from)
        return error_set_errno(err, errno, "--image %s", image);
    char *format = disks_probe(from, err), *to = machine_path(machine, "disk0.qcow2");
    int result = format ? 0 : -err->code;
    if (!result && size)
        result = read_size(machine, from, format, size, bytes, err);
    if (!result)
        result = is_linked ? link_image(from, format, to, err)
                           : copy_image(from, format, to, "qcow2", err);
    if (!result && size)
        result = run_img(json_pack("[s, s, s, s, s, s]", "resize", "-q", "-f", "qcow2", to, bytes),
                         NULL, NULL, err);
    json_t *disk = result ? NULL : model_add_disk(machine->config, "disk", "disk0.qcow2", "qcow2");
    if (disk && is_linked)
        json_object_set_new(disk, "base", json_string(from));
    free(from);
    free(format);
    free(to);
    return result;
}

static void describe(json_t *disk, const char *file, const char *format, const char *base)
{
    json_object_set_new(disk, "file", json_string(file));
    json_object_set_new(disk, "format", json_string(format));
    json_object_del(disk, "layers");
    model_set_text(disk, "base", base);
}

/* A seed says who the copy is; nobody writes to other images, so both may have one from outside. */
static int clone_iso(const char *source, struct machine *to, json_t *disk, struct error *err)
{
    char file[64];
    bool is_seed, is_inside = !strchr(model_text(disk, "file"), '/');
    snprintf(file, sizeof(file), "%.40s.iso", model_text(disk, "id"));
    int result = cloud_clone(to, source, file, &is_seed, err);
    if (!result && !is_seed && is_inside) {
        char *target = machine_path(to, file);
        result = copy_image(source, "raw", target, "raw", err);
        free(target);
    }
    if (!result && (is_seed || is_inside))
        describe(disk, file, "raw", "");
    return result;
}

int disks_clone(const struct machine *from, struct machine *to, json_t *disk, bool is_linked,
                struct error *err)
{
    const char *format = model_text(disk, "format");
    char file[64], *source = machine_path(from, model_text(disk, "file"));
    if (strcmp(model_text(disk, "kind"), "iso") == 0) {
        int result = clone_iso(source, to, disk, err);
        free(source);
        return result;
    }
    snprintf(file, sizeof(file), "%.40s.qcow2", model_text(disk, "id"));
    char *target = machine_path(to, file);
    int result = is_linked ? link_image(source, format, target, err)
                           : copy_image(source, format, target, "qcow2", err);
    if (!result)
        describe(disk, file, "qcow2", is_linked ? source : "");
    free(source);
    free(target);
    return result;
}

/* --- linked clones --- */

bool disks_is_inside(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && path[length] == '/';
}

/* An image that the guest of `machine` writes to. */
static bool is_active(const struct machine *machine, const char *path)
{
    size_t i;
    json_t *disk;
    bool found = false;
    json_array_foreach(json_object_get(machine->config, "disks"), i, disk)
    {
        char *file = machine_path(machine, model_text(disk, "file"));
        found |= strcmp(file, path) == 0;
        free(file);
    }
    return found;
}

/* With `machine` only those that build on what its guest writes to. */
static bool builds_on(const json_t *config, const char *folder, const struct machine *machine)
{
    size_t i;
    json_t *disk;
    json_array_foreach(json_object_get(config, "disks"), i, disk)
    {
        const char *base = model_text(disk, "base");
        if (disks_is_inside(base, folder) && (!machine || is_active(machine, base)))
            return true;
    }
    return false;
}

int disks_check_known(const struct machine *but, struct error *err)
{
    json_t *names = store_names(err), *item;
    int result = names ? 0 : -err->code;
    size_t i;
    json_array_foreach(names, i, item)
    {
        struct machine other;
        const char *name = json_string_value(item);
        if (result || (but && strcmp(name, but->name) == 0))
            continue;
        int opened = machine_open(name, 0, &other, NULL);
        if (!opened)
            machine_close(&other);
        else if (opened != -ENODEV) /* it is gone since its name was read */
            result =
                error_set(err, EBADMSG,
                          "cannot tell whether the machine '%s' builds on these images, for it "
                          "cannot be read; 'evctl info' says why: mend it, or remove it first",
                          name);
    }
    json_decref(names);
    return result;
}

static json_t *find_clones(const char *folder, const struct machine *machine, struct error *err)
{
    json_t *names = store_names(err), *found = names ? json_array() : NULL, *name;
    size_t i;
    json_array_foreach(names, i, name)
    {
        struct machine other;
        if (machine_open(json_string_value(name), MACHINE_BROKEN_OK, &other, NULL))
            continue;
        if (builds_on(other.config, folder, machine))
            json_array_append(found, name);
        machine_close(&other);
    }
    json_decref(names);
    return found;
}

json_t *disks_clones_of(const char *folder, struct error *err)
{
    return find_clones(folder, NULL, err);
}

int disks_check_unlinked(const struct machine *machine, const char *what, bool is_any,
                         struct error *err)
{
    json_t *clones = find_clones(machine->folder, is_any ? NULL : machine, err);
    int result = clones ? 0 : -err->code;
    if (json_array_size(clones))
        result = error_set(err, EBUSY,
                           "'%s' is a linked clone of '%s': its disk builds on this one's, and "
                           "%s would ruin it; delete the clone first, or make it whole: evctl "
                           "disk flatten",
                           json_string_value(json_array_get(clones, 0)), machine->name, what);
    json_decref(clones);
    return result;
}

/* --- looking --- */

json_t *disks_info(const struct machine *machine, const json_t *disk, struct error *err)
{
    char *path = machine_path(machine, model_text(disk, "file")), *output = NULL;
    json_t *info = NULL;
    if (run_img(json_pack("[s, s, s, s, s, s]", "info", "-U", "-f", model_text(disk, "format"),
                          "--output=json", path),
                NULL, &output, err) == 0)
        info = json_loads(output, 0, NULL);
    free(output);
    free(path);
    return info;
}

static json_t *find_snapshot(const json_t *list, const char *name)
{
    size_t i;
    json_t *snapshot;
    json_array_foreach(list, i, snapshot) if (strcmp(model_text(snapshot, "name"), name) ==
                                              0) return snapshot;
    return NULL;
}

/* False with err set. */
static bool add_snapshots(const struct machine *machine, const json_t *disk, json_t *list,
                          struct error *err)
{
    json_t *info = disks_info(machine, disk, err), *snapshot;
    size_t i;
    json_array_foreach(json_object_get(info, "snapshots"), i, snapshot)
    {
        json_t *known = find_snapshot(list, model_text(snapshot, "name"));
        if (!known) {
            known = json_deep_copy(snapshot);
            json_object_set_new(known, "disks", json_array());
            json_array_append_new(list, known);
        }
        json_array_append(json_object_get(known, "disks"), json_object_get(disk, "id"));
    }
    json_decref(info);
    return info;
}

static bool has_text(const json_t *texts, const char *text)
{
    size_t i;
    json_t *one;
    json_array_foreach(texts, i, one) if (strcmp(json_string_value(one), text) == 0) return true;
    return false;
}

json_t *disks_snapshots(const struct machine *machine, struct error *err)
{
    size_t i, k;
    json_t *disk, *snapshot, *list = json_array();
    json_array_foreach(json_object_get(machine->config, "disks"), i,
                       disk) if (strcmp(model_text(disk, "kind"), "disk") == 0 &&
                                 !add_snapshots(machine, disk, list, err))
    {
        json_decref(list);
        return NULL;
    }
    json_array_foreach(list, k, snapshot)
    {
        json_t *missing = json_array();
        json_array_foreach(
            json_object_get(machine->config, "disks"), i,
            disk) if (strcmp(model_text(disk, "kind"), "disk") == 0 &&
                      !has_text(json_object_get(snapshot, "disks"), model_text(disk, "id")))
            json_array_append(missing, json_object_get(disk, "id"));
        json_object_set_new(snapshot, "missing", missing);
    }
    return list;
}

int disks_check_snapshots(const struct machine *machine, struct error *err)
{
    size_t i, count = 0;
    json_t *disk;
    json_array_foreach(json_object_get(machine->config, "disks"), i, disk)
    {
        if (strcmp(model_text(disk, "kind"), "iso") == 0)
            continue;
        if (strcmp(model_text(disk, "format"), "qcow2") != 0)
            return error_set(err, ENOTSUP,
                             "the disk '%s' of '%s' is %s, which keeps no snapshots; make a qcow2 "
                             "image of it: evisor-img convert -O qcow2",
                             model_text(disk, "id"), machine->name, model_text(disk, "format"));
        count++;
    }
    return count ? 0
                 : error_set(err, ENODEV, "the machine '%s' has no disk to make a snapshot of",
                             machine->name);
}
