/* SPDX-License-Identifier: MIT */
/* export: a machine as .ova, or as .ovf with its disks and its manifest beside it. */
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
#include "tools/evctl/portable.h"
#include "tools/evctl/run.h"
#include "tools/evctl/scratch.h"
#include "tools/evctl/tell.h"
#include "tools/evctl/transfer.h"

struct export
{
    const struct machine *machine;
    char *folder; /* where description and disks are written */
    char *stem;
    struct portable_disk disks[DISK_MAX];
    size_t disk_count;
};

static void name_disk(const struct export *export, const json_t *disk, struct portable_disk *out)
{
    snprintf(out->file, sizeof(out->file), "%.255s-%.32s.vmdk", export->stem,
             model_text(disk, "id"));
}

static int check_free(const struct export *export, const char *file, struct error *err)
{
    char *path = NULL;
    CHECK(asprintf(&path, "%s/%s", export->folder, file) > 0);
    bool is_there = faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    int result = is_there ? error_set(err, EEXIST,
                                      "%s is there already; remove it or choose another name", path)
                          : 0;
    free(path);
    return result;
}

/* What a .ovf has beside it is written, and after a failure removed, only where nothing was. */
static int check_beside(const struct export *export, struct error *err)
{
    struct portable_disk out;
    char manifest[300];
    size_t i;
    json_t *disk;
    snprintf(manifest, sizeof(manifest), "%.255s.mf", export->stem);
    int result = check_free(export, manifest, err);
    json_array_foreach(json_object_get(export->machine->config, "disks"), i, disk)
    {
        if (result || strcmp(model_text(disk, "kind"), "disk") != 0)
            continue;
        name_disk(export, disk, &out);
        result = check_free(export, out.file, err);
    }
    return result;
}

static int export_disk(struct export *export, const json_t *disk, struct error *err)
{
    struct portable_disk *out = &export->disks[export->disk_count];
    struct stat status;
    char *target = NULL, *source = machine_path(export->machine, model_text(disk, "file"));
    name_disk(export, disk, out);
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
    if (result)
        unlink(target);
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

/* The description and the disks, in the order that the standard wants in an archive. */
static json_t *list_files(const struct export *export)
{
    json_t *files = json_pack("[o]", json_sprintf("%s.ovf", export->stem));
    for (size_t i = 0; i < export->disk_count; i++)
        json_array_append_new(files, json_string(export->disks[i].file));
    return files;
}

static int pack(const struct export *export, const char *target, struct error *err)
{
    json_t *words =
        json_pack("[s, s, s, s, s, s]", "--format=gnu", "-C", export->folder, "-cf", target, "--");
    json_t *files = list_files(export);
    json_array_insert_new(files, 1, json_sprintf("%s.mf", export->stem));
    json_array_extend(words, files);
    json_decref(files);
    return transfer_tar(words, target, "packing", err);
}

/* What an export as .ovf that failed has written. */
static void remove_half(const struct export *export)
{
    static const char *const suffixes[] = {".ovf", ".mf"};
    char *path = NULL;
    for (size_t i = 0; i < export->disk_count; i++) {
        CHECK(asprintf(&path, "%s/%s", export->folder, export->disks[i].file) > 0);
        unlink(path);
        free(path);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(suffixes); i++) {
        CHECK(asprintf(&path, "%s/%s%s", export->folder, export->stem, suffixes[i]) > 0);
        unlink(path);
        free(path);
    }
}

static int write_export(struct export *export, const char *target, bool is_ova, struct error *err)
{
    size_t i;
    json_t *disk;
    char *description = NULL, manifest[300];
    int result = 0;
    CHECK(asprintf(&description, "%s/%s.ovf", export->folder, export->stem) > 0);
    snprintf(manifest, sizeof(manifest), "%.255s.mf", export->stem);
    json_array_foreach(json_object_get(export->machine->config, "disks"), i,
                       disk) if (!result && strcmp(model_text(disk, "kind"), "disk") == 0) result =
        export_disk(export, disk, err);
    if (!result)
        result = export_description(export, description, err);
    if (!result) {
        json_t *files = list_files(export);
        result = transfer_write_manifest(export->folder, manifest, files, err);
        json_decref(files);
    }
    if (!result && is_ova)
        result = pack(export, target, err);
    if (result && !is_ova)
        remove_half(export);
    free(description);
    return result;
}

/* The archive is made in the folder as well, so that it appears whole. */
static int make_archive(struct export *export, const char *target, struct error *err)
{
    char *path = NULL;
    int lock = scratch_make(export->folder, err);
    if (lock < 0)
        return lock == -EBUSY ? error_set(err, EBUSY, "another export is writing %s", target)
                              : lock;
    CHECK(asprintf(&path, "%s/ova", export->folder) > 0);
    int result = write_export(export, path, true, err);
    if (!result && renameat2(AT_FDCWD, path, AT_FDCWD, target, RENAME_NOREPLACE) < 0)
        result = error_set_errno(err, errno, "%s", target);
    unused_result(scratch_remove_tree(export->folder));
    close(lock);
    free(path);
    return result;
}

/* "/x/web.ova" is written by way of the folder "/x/web.ova.new"; a .ovf into its own folder. */
static int export_to(struct export *export, const char *target, struct error *err)
{
    bool is_ova = transfer_has_suffix(target, ".ova");
    const char *slash = strrchr(target, '/'), *name = slash ? slash + 1 : target;
    if (!is_ova && !transfer_has_suffix(target, ".ovf"))
        return error_set(err, EINVAL, "'%s': name a file that ends in .ova, or in .ovf", target);
    if (access(target, F_OK) == 0)
        return error_set(err, EEXIST, "%s is there already; remove it or choose another name",
                         target);
    export->stem = strndup(name, strlen(name) - 4);
    if (is_ova)
        CHECK(asprintf(&export->folder, "%s.new", target) > 0);
    else
        export->folder = slash ? strndup(target, (size_t)(slash - target) + 1) : strdup(".");
    if (is_ova)
        return make_archive(export, target, err);
    int result = check_beside(export, err);
    return result ? result : write_export(export, target, false, err);
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
    result = export_to(&export, target, err);
    if (!result && *model_text(machine.config, "kernel"))
        tell_note("the kernel, given by --kernel, is not part of %s", target);
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
