/* SPDX-License-Identifier: MIT */
/*
 * transfer: export and import. The archive format of OVA is left to tar(1). What an archive or a
 * description names is not trusted: files of an archive must be plain files inside it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/model.h"
#include "tools/evctl/network.h"
#include "tools/evctl/portable.h"
#include "tools/evctl/run.h"
#include "tools/evctl/tell.h"

static bool has_suffix(const char *path, const char *suffix)
{
    size_t length = strlen(path), more = strlen(suffix);
    return length > more && strcasecmp(path + length - more, suffix) == 0;
}

static int run_tar(json_t *words, const char *archive, const char *what, struct error *err)
{
    char *tar = run_find("tar", err);
    if (!tar) {
        json_decref(words);
        return -ENOENT;
    }
    int result = run_program(tar, words, what, NULL, err);
    if (result && err->code == EIO)
        error_prefix(err, "%s: tar", archive);
    free(tar);
    return result;
}

/* --- export --- */

struct export
{
    const struct machine *machine;
    char *folder; /* where description and disks are written */
    char *stem;
    struct portable_disk disks[DISK_MAX];
    size_t disk_count;
};

static int export_disk(struct export *export, const json_t *disk, struct error *err)
{
    struct portable_disk *out = &export->disks[export->disk_count];
    struct stat status;
    char *target = NULL, *source = machine_path(export->machine, model_text(disk, "file"));
    snprintf(out->file, sizeof(out->file), "%s.vmdk", model_text(disk, "id"));
    CHECK(asprintf(&target, "%s/%s", export->folder, out->file) > 0);
    json_t *info = disks_info(export->machine, disk, err);
    out->capacity_bytes = model_number(info, "virtual-size");
    int result = info ? 0 : -err->code;
    if (!result)
        result = run_img(json_pack("[s, s, s, s, s, s, s, s, s, s]", "convert", "-p", "-f",
                                   model_text(disk, "format"), "-O", "vmdk", "-o",
                                   "subformat=streamOptimized", source, target),
                         "exporting the disk", NULL, err);
    if (!result && stat(target, &status) < 0)
        result = error_set_errno(err, errno, "%s", target);
    out->file_bytes = result ? 0 : (uint64_t)status.st_size;
    export->disk_count += !result;
    json_decref(info);
    free(source);
    free(target);
    return result;
}

static int export_description(const struct export *export, const char *path, struct error *err)
{
    FILE *file = fopen(path, "we");
    if (!file)
        return error_set_errno(err, errno, "%s", path);
    portable_write_ovf(file, export->machine->config, export->disks, export->disk_count);
    bool failed = fflush(file) || ferror(file);
    int code = errno;
    fclose(file);
    return failed ? error_set_errno(err, code, "cannot write %s", path) : 0;
}

/* The description comes first in the archive, as the standard wants it. */
static int pack(const struct export *export, const char *target, struct error *err)
{
    json_t *words =
        json_pack("[s, s, s, s, s, s]", "--format=gnu", "-C", export->folder, "-cf", target, "--");
    json_array_append_new(words, json_sprintf("%s.ovf", export->stem));
    for (size_t i = 0; i < export->disk_count; i++)
        json_array_append_new(words, json_string(export->disks[i].file));
    return run_tar(words, target, "packing", err);
}

static int write_export(struct export *export, const char *target, bool is_ova, struct error *err)
{
    size_t i;
    json_t *disk;
    char *description = NULL;
    int result = 0;
    CHECK(asprintf(&description, "%s/%s.ovf", export->folder, export->stem) > 0);
    json_array_foreach(json_object_get(export->machine->config, "disks"), i,
                       disk) if (!result && strcmp(model_text(disk, "kind"), "disk") == 0) result =
        export_disk(export, disk, err);
    if (!result)
        result = export_description(export, description, err);
    if (!result && is_ova)
        result = pack(export, target, err);
    free(description);
    return result;
}

/* "/x/web.ova" is written by way of the folder "/x/web.ova.new"; a .ovf into its own folder. */
static int export_to(struct export *export, const char *target, struct error *err)
{
    bool is_ova = has_suffix(target, ".ova");
    const char *slash = strrchr(target, '/'), *name = slash ? slash + 1 : target;
    if (!is_ova && !has_suffix(target, ".ovf"))
        return error_set(err, EINVAL, "'%s': name a file that ends in .ova, or in .ovf", target);
    if (access(target, F_OK) == 0)
        return error_set(err, EEXIST, "%s is there already; remove it or choose another name",
                         target);
    export->stem = strndup(name, strlen(name) - 4);
    if (is_ova)
        CHECK(asprintf(&export->folder, "%s.new", target) > 0);
    else
        export->folder = slash ? strndup(target, (size_t)(slash - target) + 1) : strdup(".");
    if (is_ova && mkdir(export->folder, 0700) < 0)
        return error_set_errno(err, errno, "cannot make the folder %s", export->folder);
    int result = write_export(export, target, is_ova, err);
    if (is_ova)
        unused_result(store_remove_tree(export->folder));
    if (result && is_ova)
        unlink(target);
    return result;
}

int cmd_export(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    int result = machine_open(call->arguments[0], MACHINE_LOCK | MACHINE_STOPPED, &machine, err);
    if (result)
        return result;
    struct export export = {.machine = &machine};
    char *target = NULL;
    CHECK(asprintf(&target, "%s%s", call->argument_count > 1 ? call->arguments[1] : machine.name,
                   call->argument_count > 1 ? "" : ".ova") > 0);
    if (*model_text(machine.config, "kernel"))
        tell_note("a kernel given by --kernel is not part of an OVF package");
    result = export_to(&export, target, err);
    if (!result) {
        tell_line("%s", target);
        tell_json(json_pack("{s:s, s:i}", "file", target, "disks", (int)export.disk_count));
    }
    free(target);
    free(export.stem);
    free(export.folder);
    machine_close(&machine);
    return result;
}

/* --- import --- */

/* A file of an archive: in it, and nothing but a file. */
static int check_inside(const char *folder, const char *name, struct error *err)
{
    struct stat status;
    char *path = NULL;
    CHECK(asprintf(&path, "%s/%s", folder, name) > 0);
    bool ok = !strchr(name, '/') && lstat(path, &status) == 0 && S_ISREG(status.st_mode);
    free(path);
    return ok ? 0
              : error_set(err, EBADMSG,
                          "the description names the disk '%s', which the archive "
                          "does not have",
                          name);
}

static int import_disk(struct machine *machine, const char *folder, const json_t *disk,
                       struct error *err)
{
    const char *name = model_text(disk, "file"), *kind = model_text(disk, "kind");
    bool is_iso = strcmp(kind, "iso") == 0;
    char *source = NULL, id[32], file[48];
    CHECK(asprintf(&source, "%s%s%s", *name == '/' ? "" : folder, *name == '/' ? "" : "/", name) >
          0);
    model_free_id(machine->config, "disks", kind, id);
    snprintf(file, sizeof(file), "%s.%s", id, is_iso ? "iso" : "qcow2");
    char *target = machine_path(machine, file);
    char *format = is_iso ? strdup("raw") : disks_probe(source, err);
    int result = format ? 0 : -err->code;
    if (!result)
        result = run_img(json_pack("[s, s, s, s, s, s, s, s]", "convert", "-p", "-f", format, "-O",
                                   is_iso ? "raw" : "qcow2", source, target),
                         "importing the disk", NULL, err);
    if (!result)
        model_add_disk(machine->config, kind, file, is_iso ? "raw" : "qcow2");
    free(format);
    free(target);
    free(source);
    return result;
}

static int import_nic(struct machine *machine, const char *text, struct error *err)
{
    const char *name = strchr(text, ' ') ? strchr(text, ' ') + 1 : "";
    json_t *network = strncmp(text, "internal ", 9) == 0 ? network_load(name, NULL) : NULL;
    const char *as = network ? name : "user";
    json_decref(network);
    if (strcmp(as, text) != 0 && !network)
        tell_note("a NIC that was %s is behind NAT now; change it with: evctl set --net", text);
    return model_add_nic(machine->config, as, err);
}

static int import_plan(struct machine *machine, const json_t *plan, const char *folder,
                       bool is_archive, struct error *err)
{
    size_t i;
    json_t *entry;
    int result = 0;
    machine->config = (json_decref(machine->config), model_new(machine->name, "linux"));
    json_object_set_new(machine->config, "cpus",
                        json_integer((json_int_t)MIN(model_number(plan, "cpus"), VCPU_MAX)));
    json_object_set_new(
        machine->config, "memory-mib",
        json_integer((json_int_t)MIN(MAX(model_number(plan, "memory-mib"), RAM_MIN_MIB),
                                     RAM_MAX_GIB * UINT64_C(1024))));
    json_array_foreach(json_object_get(plan, "disks"), i, entry)
    {
        if (!result && is_archive)
            result = check_inside(folder, model_text(entry, "file"), err);
        if (!result)
            result = import_disk(machine, folder, entry, err);
    }
    json_array_foreach(json_object_get(plan, "nics"), i, entry) if (!result && i < NIC_MAX) result =
        import_nic(machine, json_string_value(entry), err);
    json_t *first = json_array_get(json_object_get(machine->config, "nics"), 0);
    json_t *forwards = json_object_get(plan, "forwards");
    if (json_array_size(forwards) && strcmp(model_text(first, "mode"), "user") == 0)
        json_object_set(first, "forwards", forwards);
    return result ? result : machine_save(machine, err);
}

/* The only .ovf of an unpacked archive. NULL with err set. */
static char *find_description(const char *folder, const char *archive, struct error *err)
{
    char *output = NULL, *path = NULL;
    json_t *words = json_pack("[s, s, s]", "-tf", archive, "--wildcards");
    json_array_append_new(words, json_string("*.ovf"));
    char *tar = run_find("tar", err);
    if (tar && run_program(tar, words, NULL, &output, err) == 0) {
        output[strcspn(output, "\n")] = '\0';
        if (*output && check_inside(folder, output, err) == 0)
            CHECK(asprintf(&path, "%s/%s", folder, output) > 0);
    }
    if (!path)
        error_set(err, EBADMSG, "%s: there is no description (.ovf) in it", archive);
    free(output);
    free(tar);
    return path;
}

static int unpack(const char *archive, const char *folder, struct error *err)
{
    if (mkdir(folder, 0700) < 0)
        return error_set_errno(err, errno, "cannot make %s", folder);
    return run_tar(json_pack("[s, s, s, s, s, s, s]", "--no-same-owner", "--no-same-permissions",
                             "--no-overwrite-dir", "-C", folder, "-xf", archive),
                   archive, "unpacking", err);
}

static void folder_of(const char *path, char *folder, size_t size)
{
    const char *slash = strrchr(path, '/');
    snprintf(folder, size, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
}

static int import_file(struct machine *machine, const char *path, struct error *err)
{
    char folder[4096], *unpacked = machine_path(machine, "import.new"), *description;
    bool is_archive = has_suffix(path, ".ova");
    int result = is_archive ? unpack(path, unpacked, err) : 0;
    description = result ? NULL : is_archive ? find_description(unpacked, path, err) : strdup(path);
    json_t *plan = description ? portable_read(description, err) : NULL;
    if (plan) {
        folder_of(description, folder, sizeof(folder));
        result = import_plan(machine, plan, folder, is_archive, err);
    } else if (!result) {
        result = -err->code;
    }
    if (is_archive)
        unused_result(store_remove_tree(unpacked));
    json_decref(plan);
    free(description);
    free(unpacked);
    return result;
}

/* The name that was given, or that of the file. */
static void choose_name(const struct evctl_call *call, char name[STORE_NAME_MAX + 1])
{
    const char *path = call->arguments[0], *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    if (call->argument_count > 1)
        snprintf(name, STORE_NAME_MAX + 1, "%s", call->arguments[1]);
    else
        snprintf(name, STORE_NAME_MAX + 1, "%.*s", (int)MIN((size_t)(dot - base), STORE_NAME_MAX),
                 base);
}

int cmd_import(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    char name[STORE_NAME_MAX + 1];
    const char *path = call->arguments[0];
    if (!has_suffix(path, ".ova") && !has_suffix(path, ".ovf") && !has_suffix(path, ".vmx") &&
        !has_suffix(path, ".vbox"))
        return error_set(err, EINVAL,
                         "'%s': name a file that ends in .ova, .ovf, .vmx or .vbox; an image alone "
                         "becomes a machine with: evctl create NAME --image",
                         path);
    if (access(path, R_OK) < 0)
        return error_set_errno(err, errno, "%s", path);
    choose_name(call, name);
    int result = machine_make(name, &machine, err);
    if (!result) {
        result = import_file(&machine, path, err);
        if (result)
            unused_result(machine_remove(&machine, NULL));
    }
    if (!result) {
        tell_line("'%s' is imported, UUID %s", machine.name, model_text(machine.config, "uuid"));
        tell_json(json_deep_copy(machine.config));
    }
    machine_close(&machine);
    return result;
}
