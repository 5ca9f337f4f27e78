/* SPDX-License-Identifier: MIT */
/*
 * import: machines of other programs. What an archive or a description names is not trusted: the
 * files of an OVF package are plain files in its folder, and no image leads to another file.
 */
#include <ctype.h>
#include <dirent.h>
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
#include "tools/evctl/scratch.h"
#include "tools/evctl/tell.h"
#include "tools/evctl/transfer.h"

/* "%20" is a space. */
static void decode_percent(char *text)
{
    char *to = text;
    for (; *text; text++) {
        unsigned code;
        if (*text == '%' && isxdigit((unsigned char)text[1]) && isxdigit((unsigned char)text[2]) &&
            sscanf(text + 1, "%2x", &code) == 1 && code) {
            *to++ = (char)code;
            text += 2;
        } else {
            *to++ = *text;
        }
    }
    *to = '\0';
}

static char *path_in(const char *folder, const char *name)
{
    char *path = NULL;
    CHECK(asprintf(&path, "%s/%s", folder, name) > 0);
    return path;
}

/*
 * The file that is meant: where the description says; else with its %20 undone; else, unless a
 * package confines it, beside the description, for the folder of a machine is often moved as a
 * whole. NULL with err set.
 */
static char *find_source(const char *folder, const char *name, bool is_confined, struct error *err)
{
    char *decoded = strdup(name), *path;
    const char *slash = strrchr(name, '/'), *backslash = strrchr(name, '\\');
    const char *last = MAX(slash, backslash) ? MAX(slash, backslash) + 1 : name;
    decode_percent(decoded);
    char *tries[] = {*name == '/' ? strdup(name) : path_in(folder, name), path_in(folder, decoded),
                     path_in(folder, is_confined ? decoded : last)};
    path = NULL;
    for (unsigned i = 0; i < ARRAY_SIZE(tries); i++)
        if (!path && access(tries[i], F_OK) == 0)
            path = tries[i];
        else
            free(tries[i]);
    free(decoded);
    if (!path)
        error_set(err, ENOENT, "the disk '%s', which the description names, is not there", name);
    return path;
}

/* A file of an OVF package lies beside the description. Links are gone from unpacked archives. */
static int check_inside(const char *folder, const char *path, const char *name, struct error *err)
{
    struct stat status;
    if (disks_is_inside(path, folder) && !strchr(path + strlen(folder) + 1, '/') &&
        stat(path, &status) == 0 && S_ISREG(status.st_mode))
        return 0;
    return error_set(err, EBADMSG,
                     "the description names the disk '%s', which is no file beside it", name);
}

/* An image that names other files would bring any file of this host into the guest. */
static char *check_source(const char *source, struct error *err)
{
    static const char *const names[] = {"backing-filename", "data-file"};
    char *output = NULL, *format = NULL;
    if (run_img(json_pack("[s, s, s, s, s]", "info", "-U", "--output=json", "--", source), NULL,
                &output, err))
        return free(output), NULL;
    json_t *info = json_loads(output, 0, NULL);
    json_t *data = json_object_get(json_object_get(info, "format-specific"), "data");
    const char *other = "";
    for (unsigned i = 0; i < ARRAY_SIZE(names) && !*other; i++)
        other =
            *model_text(info, names[i]) ? model_text(info, names[i]) : model_text(data, names[i]);
    if (*other)
        error_set(err, EBADMSG,
                  "the disk %s builds on another file, %s; an import takes whole images only: "
                  "evisor-img convert makes one",
                  source, other);
    else
        format = strdup(model_text(info, "format"));
    json_decref(info);
    free(output);
    return format;
}

static int copy_source(const char *source, const char *target, bool is_iso, struct error *err)
{
    char *format = is_iso ? strdup("raw") : check_source(source, err);
    int result = format ? 0 : -err->code;
    if (!result)
        result = run_img(json_pack("[s, s, s, s, s, s, s, s]", "convert", "-p", "-f", format, "-O",
                                   is_iso ? "raw" : "qcow2", source, target),
                         "importing the disk", NULL, err);
    free(format);
    return result;
}

static int import_disk(struct machine *machine, const char *folder, const json_t *disk,
                       bool is_confined, struct error *err)
{
    const char *name = model_text(disk, "file"), *kind = model_text(disk, "kind");
    bool is_iso = strcmp(kind, "iso") == 0;
    char id[32], file[48];
    if (!*name) {
        char size[32];
        snprintf(size, sizeof(size), "%lluB", (unsigned long long)model_number(disk, "bytes"));
        return disks_add(machine, kind, size, err);
    }
    char *source = find_source(folder, name, is_confined, err);
    if (!source && is_iso) {
        tell_note("the ISO image '%s' is not there; the machine goes without it", name);
        *err = (struct error){0};
        return 0;
    }
    model_free_id(machine->config, "disks", kind, id);
    snprintf(file, sizeof(file), "%s.%s", id, is_iso ? "iso" : "qcow2");
    char *target = machine_path(machine, file);
    int result = source ? 0 : -ENOENT;
    if (!result && is_confined)
        result = check_inside(folder, source, name, err);
    if (!result)
        result = copy_source(source, target, is_iso, err);
    if (!result)
        model_add_disk(machine->config, kind, file, is_iso ? "raw" : "qcow2");
    free(target);
    free(source);
    return result;
}

static bool is_unplugged(const json_t *plan, size_t place)
{
    size_t i;
    json_t *one;
    bool found = false;
    json_array_foreach(json_object_get(plan, "unplugged"), i, one) found |=
        json_integer_value(one) == (json_int_t)place;
    return found;
}

static int import_nic(struct machine *machine, const json_t *plan, size_t place, struct error *err)
{
    const char *text = json_string_value(json_array_get(json_object_get(plan, "nics"), place));
    const char *name = strchr(text, ' ') ? strchr(text, ' ') + 1 : "";
    json_t *network = strncmp(text, "internal ", 9) == 0 ? network_load(name, NULL) : NULL;
    const char *as = network ? name : "user";
    json_decref(network);
    if (strcmp(as, text) != 0 && !network)
        tell_note("a NIC that was %s is behind NAT now; change it with: evctl set --net", text);
    int result = model_add_nic(machine->config, as, err);
    if (result || !is_unplugged(plan, place))
        return result;
    json_t *nic = json_array_get(json_object_get(machine->config, "nics"), place);
    model_set_text(nic, "link", "off");
    tell_note("the cable of '%s' is out, as it was; plug it in with: evctl set --link %s=on",
              model_text(nic, "id"), model_text(nic, "id"));
    return 0;
}

/* What is more or less than a machine may have becomes what it may have, and that is told. */
static void import_number(json_t *config, const json_t *plan, const char *key, uint64_t min,
                          uint64_t max)
{
    uint64_t wanted = model_number(plan, key), value = MIN(MAX(wanted, min), max);
    if (value != wanted)
        tell_note("the description's %s of %llu become %llu", key, (unsigned long long)wanted,
                  (unsigned long long)value);
    json_object_set_new(config, key, json_integer((json_int_t)value));
}

static int import_disks(struct machine *machine, const json_t *plan, const char *folder,
                        bool is_confined, struct error *err)
{
    size_t i;
    json_t *entry;
    int result = 0;
    json_array_foreach(json_object_get(plan, "disks"), i, entry)
    {
        if (!result && i >= DISK_MAX)
            result = error_set(err, E2BIG, "it has more than %d disks", DISK_MAX);
        if (!result)
            result = import_disk(machine, folder, entry, is_confined, err);
    }
    return result;
}

static int import_plan(struct machine *machine, const json_t *plan, const char *folder,
                       bool is_confined, struct error *err)
{
    size_t i;
    json_t *entry;
    machine->config = (json_decref(machine->config), model_new(machine->name, "linux"));
    json_object_set(machine->config, "os", json_object_get(plan, "os"));
    import_number(machine->config, plan, "cpus", 1, VCPU_MAX);
    import_number(machine->config, plan, "memory-mib", RAM_MIN_MIB, RAM_MAX_GIB * UINT64_C(1024));
    int result = import_disks(machine, plan, folder, is_confined, err);
    json_array_foreach(json_object_get(plan, "nics"), i, entry) if (!result && i < NIC_MAX) result =
        import_nic(machine, plan, i, err);
    if (!result && json_array_size(json_object_get(plan, "nics")) > NIC_MAX)
        tell_note("a machine has at most %d NICs; the others are left out", NIC_MAX);
    json_t *first = json_array_get(json_object_get(machine->config, "nics"), 0);
    json_t *forwards = json_object_get(plan, "forwards");
    if (json_array_size(forwards) && first && network_forwards(first))
        json_object_set(first, "forwards", forwards);
    return result;
}

/*
 * The description of an unpacked archive. What is no plain file goes: a link could lead anywhere.
 * NULL with err set.
 */
static char *find_description(const char *path, const char *archive, struct error *err)
{
    DIR *folder = opendir(path);
    struct stat status;
    char *found = NULL;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
            unlinkat(dirfd(folder), entry->d_name, 0);
        else if (!found && S_ISREG(status.st_mode) && transfer_has_suffix(entry->d_name, ".ovf"))
            found = path_in(path, entry->d_name);
    }
    if (folder)
        closedir(folder);
    if (!found)
        error_set(err, EBADMSG, "%s: there is no description (.ovf) in it", archive);
    return found;
}

static int unpack(const char *archive, const char *folder, struct error *err)
{
    if (mkdir(folder, 0700) < 0)
        return error_set_errno(err, errno, "cannot make %s", folder);
    return transfer_tar(json_pack("[s, s, s, s, s, s, s]", "--no-same-owner",
                                  "--no-same-permissions", "--no-overwrite-dir", "-C", folder,
                                  "-xf", archive),
                        archive, "unpacking", err);
}

/* DIR/NAME.ovf has its manifest in DIR/NAME.mf. */
static int check_manifest(const char *description, const char *folder, struct error *err)
{
    const char *slash = strrchr(description, '/'), *name = slash ? slash + 1 : description;
    char manifest[300];
    if (!transfer_has_suffix(name, ".ovf"))
        return 0;
    snprintf(manifest, sizeof(manifest), "%.*s.mf", (int)MIN(strlen(name) - 4, 255ul), name);
    return transfer_check_manifest(folder, manifest, err);
}

static void folder_of(const char *path, char *folder, size_t size)
{
    const char *slash = strrchr(path, '/');
    snprintf(folder, size, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
}

static int import_file(struct machine *machine, const char *path, struct error *err)
{
    char folder[4096], *unpacked = machine_path(machine, "import.new"), *description;
    bool is_archive = transfer_has_suffix(path, ".ova");
    int result = is_archive ? unpack(path, unpacked, err) : 0;
    description = result ? NULL : is_archive ? find_description(unpacked, path, err) : strdup(path);
    if (description) {
        folder_of(description, folder, sizeof(folder));
        result = check_manifest(description, folder, err);
    }
    json_t *plan = description && !result ? portable_read(description, err) : NULL;
    if (plan) {
        result = import_plan(machine, plan, folder, transfer_has_suffix(description, ".ovf"), err);
    } else if (!result) {
        result = -err->code;
    }
    if (is_archive)
        unused_result(scratch_remove_tree(unpacked));
    if (!result)
        result = machine_publish(machine, err);
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
    if (!transfer_has_suffix(path, ".ova") && !transfer_has_suffix(path, ".ovf") &&
        !transfer_has_suffix(path, ".vmx") && !transfer_has_suffix(path, ".vbox"))
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
