/* SPDX-License-Identifier: MIT */
/* portable: other programs' descriptions by the file's name, and the plan that they fill. */
#include "tools/evctl/portable.h"

#include <stdlib.h>
#include <string.h>

#include "tools/evctl/model.h"
#include "tools/evctl/portable_plan.h"
#include "tools/evctl/tell.h"

#define DESCRIPTION_MAX_BYTES (4u << 20)

void plan_number(json_t *plan, const char *key, const char *text, double scale)
{
    double value = strtod(text, NULL) * scale;
    if (value >= 1 && value < 1e9)
        json_object_set_new(plan, key, json_integer((json_int_t)value));
    else if (*text)
        tell_note("the description's %s, '%s', cannot be; it becomes %lld", key, text,
                  (long long)json_integer_value(json_object_get(plan, key)));
}

void plan_disk(json_t *plan, const char *file, const char *kind)
{
    if (*file)
        json_array_append_new(json_object_get(plan, "disks"),
                              json_pack("{s:s, s:s}", "file", file, "kind", kind));
}

void plan_empty_disk(json_t *plan, double bytes)
{
    if (bytes >= 512 && bytes < 9e18)
        json_array_append_new(
            json_object_get(plan, "disks"),
            json_pack("{s:s, s:I, s:s}", "file", "", "bytes", (json_int_t)bytes, "kind", "disk"));
}

void plan_nic(json_t *plan, const char *mode, const char *name)
{
    json_array_append_new(json_object_get(plan, "nics"),
                          json_sprintf("%s%s%s", mode, *name ? " " : "", name));
}

void plan_unplug(json_t *plan)
{
    size_t count = json_array_size(json_object_get(plan, "nics"));
    json_array_append_new(json_object_get(plan, "unplugged"), json_integer((json_int_t)count - 1));
}

void plan_os(json_t *plan, const char *text)
{
    static const char *const words[][2] = {
        {"oracle", "linux"}, {"rhel", "linux"}, {"redhat", "linux"}, {"suse", "opensuse"}};
    for (unsigned n = 0; model_nth_os(n); n++) {
        const char *name = model_nth_os(n)->name;
        if (strcmp(name, "linux") != 0 && strcmp(name, "other") != 0 && strcasestr(text, name)) {
            json_object_set_new(plan, "os", json_string(name));
            return;
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
        if (strcasestr(text, words[i][0]))
            json_object_set_new(plan, "os", json_string(words[i][1]));
    if (strcasestr(text, "windows") || strncasecmp(text, "win", 3) == 0)
        json_object_set_new(plan, "os", json_string("other"));
}

void plan_firmware(const char *text)
{
    if (strncasecmp(text, "efi", 3) == 0)
        tell_note("the machine was made for EFI firmware; evisor starts it by SeaBIOS, which its "
                  "disk may not be made for");
}

struct xml_node *plan_find_with(struct xml_node *root, const char *name, const char *attribute,
                                const char *value)
{
    struct xml_node *node = NULL;
    while ((node = xml_find(root, node, name)))
        if (strcmp(xml_attribute(node, attribute), value) == 0)
            return node;
    return NULL;
}

static bool read_xml(json_t *plan, const char *text, size_t length, const char *path, bool is_vbox,
                     struct error *err)
{
    struct xml_node *root = xml_parse(text, length, path, err);
    bool ok = root && (is_vbox ? portable_read_vbox(plan, root, path, err)
                               : portable_read_ovf(plan, root, path, err));
    xml_free(root);
    return ok;
}

json_t *portable_read(const char *path, struct error *err)
{
    size_t length;
    const char *dot = strrchr(path, '.');
    bool is_vmx = dot && strcasecmp(dot, ".vmx") == 0, is_vbox = dot && !strcasecmp(dot, ".vbox");
    char *text = store_read_file(path, DESCRIPTION_MAX_BYTES, &length, err);
    json_t *plan = json_pack("{s:i, s:i, s:[], s:[], s:[], s:[], s:s}", "cpus", 1, "memory-mib",
                             1024, "disks", "nics", "unplugged", "forwards", "os", "linux");
    bool ok = text && (is_vmx ? portable_read_vmx(plan, text, path, err)
                              : read_xml(plan, text, length, path, is_vbox, err));
    free(text);
    if (ok)
        return plan;
    json_decref(plan);
    return NULL;
}
