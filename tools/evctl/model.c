/* SPDX-License-Identifier: MIT */
/* model: checks machine.json and makes and changes what is in it. */
#include "tools/evctl/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/limits.h"
#include "tools/evctl/network.h"

struct field {
    const char *key;
    json_type type;
    bool is_needed;
};

static const struct field machine_fields[] = {{"format", JSON_INTEGER, true},
                                              {"name", JSON_STRING, true},
                                              {"uuid", JSON_STRING, true},
                                              {"os", JSON_STRING, false},
                                              {"created", JSON_INTEGER, false},
                                              {"cpus", JSON_INTEGER, true},
                                              {"memory-mib", JSON_INTEGER, true},
                                              {"cpus-max", JSON_INTEGER, false},
                                              {"memory-max-mib", JSON_INTEGER, false},
                                              {"accel", JSON_STRING, false},
                                              {"kernel", JSON_STRING, false},
                                              {"initrd", JSON_STRING, false},
                                              {"append", JSON_STRING, false},
                                              {"bios", JSON_STRING, false},
                                              {"boot", JSON_STRING, false},
                                              {"user", JSON_STRING, false},
                                              {"console", JSON_STRING, false},
                                              {"reverting", JSON_STRING, false},
                                              {"disks", JSON_ARRAY, true},
                                              {"nics", JSON_ARRAY, true},
                                              {NULL, JSON_NULL, false}};
static const struct field disk_fields[] = {
    {"id", JSON_STRING, true},   {"file", JSON_STRING, true},  {"format", JSON_STRING, true},
    {"kind", JSON_STRING, true}, {"base", JSON_STRING, false}, {"layers", JSON_ARRAY, false},
    {NULL, JSON_NULL, false}};
static const struct field nic_fields[] = {
    {"id", JSON_STRING, true},       {"mode", JSON_STRING, true},     {"mac", JSON_STRING, true},
    {"network", JSON_STRING, false}, {"bridge", JSON_STRING, false},  {"tap", JSON_STRING, false},
    {"link", JSON_STRING, false},    {"forwards", JSON_ARRAY, false}, {NULL, JSON_NULL, false}};

static const struct field *find_field(const struct field *fields, const char *key)
{
    for (; fields->key; fields++)
        if (strcmp(fields->key, key) == 0)
            return fields;
    return NULL;
}

static int check_fields(const json_t *object, const struct field *fields, const char *where,
                        struct error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return error_set(err, EINVAL, "%s must be an object", where);
    json_object_foreach((json_t *)object, key, value)
    {
        const struct field *field = find_field(fields, key);
        if (!field)
            return error_set(err, EINVAL, "%s: the member '%s' is not known", where, key);
        if (json_typeof(value) != field->type)
            return error_set(err, EINVAL, "%s: '%s' must be %s", where, key,
                             field->type == JSON_STRING    ? "a text"
                             : field->type == JSON_INTEGER ? "a whole number"
                                                           : "a list");
    }
    for (; fields->key; fields++)
        if (fields->is_needed && !json_object_get(object, fields->key))
            return error_set(err, EINVAL, "%s: '%s' is missing", where, fields->key);
    return 0;
}

static int check_list(const json_t *config, const char *list, const struct field *fields,
                      struct error *err)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(config, list), i, entry)
    {
        char where[32];
        snprintf(where, sizeof(where), "%s[%zu]", list, i);
        int result = check_fields(entry, fields, where, err);
        if (result)
            return result;
        const char *id = model_text(entry, "id");
        if (!*id || id[strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-_")])
            return error_set(err, EINVAL, "%s: the id '%s' may have a-z, 0-9, - and _ only", where,
                             id);
    }
    return 0;
}

static int check_layers(const json_t *config, struct error *err)
{
    size_t i, k;
    json_t *disk, *layer;
    json_array_foreach(json_object_get(config, "disks"), i, disk)
        json_array_foreach(json_object_get(disk, "layers"), k, layer)
    {
        const char *file = json_string_value(layer);
        if (!file || !*file || *file == '.' || strchr(file, '/'))
            return error_set(err, EINVAL, "disks[%zu]: a layer must be a file in the folder", i);
    }
    return 0;
}

static int check_forwards(const json_t *config, struct error *err)
{
    size_t i, k;
    json_t *nic, *rule;
    json_array_foreach(json_object_get(config, "nics"), i, nic)
        json_array_foreach(json_object_get(nic, "forwards"), k, rule)
    {
        char *text = json_is_string(rule) ? model_read_forward(json_string_value(rule), err) : NULL;
        if (!text)
            return error_set(err, EINVAL, "nics[%zu]: a forward must be a text", i);
        free(text);
    }
    return 0;
}

static int check_room(const json_t *config, uint64_t cpus, uint64_t memory_mib, struct error *err)
{
    uint64_t max_cpus = model_number(config, "cpus-max");
    uint64_t max_mib = model_number(config, "memory-max-mib");
    if (max_cpus && (max_cpus < cpus || max_cpus > VCPU_MAX))
        return error_set(err, EINVAL, "'cpus-max' must be %llu, the number of CPUs, to %d",
                         (unsigned long long)cpus, VCPU_MAX);
    if (max_mib && (max_mib < memory_mib || max_mib > RAM_MAX_GIB * 1024))
        return error_set(err, EINVAL, "'memory-max-mib' must be %llu, the memory, to %d",
                         (unsigned long long)memory_mib, RAM_MAX_GIB * 1024);
    return 0;
}

int model_check(const json_t *config, struct error *err)
{
    int result = check_fields(config, machine_fields, "the machine", err);
    if (!result && model_number(config, "format") != MODEL_FORMAT)
        result = error_set(err, EINVAL, "'format' is %llu and this evctl knows %d",
                           (unsigned long long)model_number(config, "format"), MODEL_FORMAT);
    uint64_t cpus = result ? 1 : model_number(config, "cpus");
    uint64_t memory = result ? RAM_MIN_MIB : model_number(config, "memory-mib");
    if (!result && (cpus < 1 || cpus > VCPU_MAX))
        result = error_set(err, EINVAL, "'cpus' must be 1 to %d", VCPU_MAX);
    if (!result && (memory < RAM_MIN_MIB || memory > RAM_MAX_GIB * 1024))
        result = error_set(err, EINVAL, "'memory-mib' must be %d to %d", RAM_MIN_MIB,
                           RAM_MAX_GIB * 1024);
    if (!result)
        result = check_room(config, cpus, memory, err);
    if (!result)
        result = check_list(config, "disks", disk_fields, err);
    if (!result)
        result = check_list(config, "nics", nic_fields, err);
    if (!result)
        result = check_layers(config, err);
    return result ? result : check_forwards(config, err);
}

/* --- operating systems --- */

static const struct model_os systems[] = {
    {"linux", "root", "any Linux"},
    {"debian", "debian", "Debian"},
    {"ubuntu", "ubuntu", "Ubuntu"},
    {"fedora", "fedora", "Fedora"},
    {"centos", "cloud-user", "CentOS Stream"},
    {"rocky", "rocky", "Rocky Linux"},
    {"alma", "almalinux", "AlmaLinux"},
    {"alpine", "alpine", "Alpine Linux"},
    {"arch", "arch", "Arch Linux"},
    {"opensuse", "opensuse", "openSUSE"},
    {"freebsd", "freebsd", "FreeBSD"},
    {"other", "root", "something else"},
};

const struct model_os *model_nth_os(unsigned n)
{
    return n < ARRAY_SIZE(systems) ? &systems[n] : NULL;
}

const struct model_os *model_find_os(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(systems); i++)
        if (strcmp(systems[i].name, name) == 0)
            return &systems[i];
    return NULL;
}

/* --- making and changing --- */

static void random_bytes(uint8_t *bytes, size_t length)
{
    CHECK(getrandom(bytes, length, 0) == (ssize_t)length);
}

static json_t *new_uuid(void)
{
    uint8_t b[16];
    random_bytes(b, sizeof(b));
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* RFC 4122: random, version 4 */
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    return json_sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                        b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11],
                        b[12], b[13], b[14], b[15]);
}

static json_t *new_mac(void)
{
    uint8_t b[3];
    random_bytes(b, sizeof(b));
    return json_sprintf("52:54:00:%02x:%02x:%02x", b[0], b[1], b[2]);
}

json_t *model_new(const char *name, const char *os)
{
    json_t *config =
        json_pack("{s:i, s:s, s:o, s:s, s:I, s:i, s:i, s:[], s:[]}", "format", MODEL_FORMAT, "name",
                  name, "uuid", new_uuid(), "os", os, "created", (json_int_t)time(NULL), "cpus", 1,
                  "memory-mib", 1024, "disks", "nics");
    CHECK(config);
    return config;
}

void model_renew(json_t *config, const char *name)
{
    size_t i;
    json_t *nic;
    json_object_set_new(config, "name", json_string(name));
    json_object_set_new(config, "uuid", new_uuid());
    json_object_set_new(config, "created", json_integer(time(NULL)));
    json_array_foreach(json_object_get(config, "nics"), i, nic)
        json_object_set_new(nic, "mac", new_mac());
}

const char *model_text(const json_t *config, const char *key)
{
    const char *text = json_string_value(json_object_get(config, key));
    return text ? text : "";
}

uint64_t model_number(const json_t *config, const char *key)
{
    json_int_t number = json_integer_value(json_object_get(config, key));
    return number > 0 ? (uint64_t)number : 0;
}

void model_set_text(json_t *config, const char *key, const char *text)
{
    if (*text)
        json_object_set_new(config, key, json_string(text));
    else
        json_object_del(config, key);
}

json_t *model_find(const json_t *config, const char *list, const char *id)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(config, list), i,
                       entry) if (strcmp(model_text(entry, "id"), id) == 0) return entry;
    return NULL;
}

int model_remove(json_t *config, const char *list, const char *id, struct error *err)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(config, list), i,
                       entry) if (strcmp(model_text(entry, "id"), id) ==
                                  0) return json_array_remove(json_object_get(config, list), i);
    return error_set(err, ENODEV, "the machine '%s' has no '%s'; 'evctl info' shows what it has",
                     model_text(config, "name"), id);
}

void model_free_id(const json_t *config, const char *list, const char *prefix, char id[32])
{
    for (unsigned i = 0;; i++) {
        snprintf(id, 32, "%s%u", prefix, i);
        if (!model_find(config, list, id))
            return;
    }
}

json_t *model_add_disk(json_t *config, const char *kind, const char *file, const char *format)
{
    char id[32];
    model_free_id(config, "disks", kind, id);
    json_t *disk =
        json_pack("{s:s, s:s, s:s, s:s}", "id", id, "file", file, "format", format, "kind", kind);
    json_array_append_new(json_object_get(config, "disks"), disk);
    return disk;
}

static int set_nic_mode(json_t *nic, const char *mode, struct error *err)
{
    if (strcmp(mode, "user") == 0 || strcmp(mode, "nat") == 0) {
        json_object_set_new(nic, "mode", json_string("user"));
    } else if (strncmp(mode, "bridge=", 7) == 0 && mode[7]) {
        json_object_set_new(nic, "mode", json_string("bridged"));
        json_object_set_new(nic, "bridge", json_string(mode + 7));
    } else if (strncmp(mode, "tap=", 4) == 0 && mode[4]) {
        json_object_set_new(nic, "mode", json_string("tap"));
        json_object_set_new(nic, "tap", json_string(mode + 4));
    } else {
        json_t *network = network_load_for_nic(mode, err);
        if (!network)
            return -err->code;
        json_object_set_new(nic, "mode", json_string("network"));
        json_object_set_new(nic, "network", json_string(mode));
        json_decref(network);
    }
    return 0;
}

static bool is_mac(const char *text)
{
    unsigned bytes[6];
    int used = 0;
    return sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &bytes[0], &bytes[1], &bytes[2], &bytes[3],
                  &bytes[4], &bytes[5], &used) == 6 &&
           strlen(text) == 17 && used == 17 && !(bytes[0] & 1);
}

static int set_nic_option(json_t *nic, const char *option, struct error *err)
{
    if (strncmp(option, "mac=", 4) == 0 && is_mac(option + 4)) {
        json_object_set_new(nic, "mac", json_string(option + 4));
        return 0;
    }
    if (strncmp(option, "mac=", 4) == 0)
        return error_set(err, EINVAL,
                         "'%s' is no MAC address for a NIC; write one such as 52:54:00:12:34:56",
                         option + 4);
    if (strncmp(option, "forward=", 8) != 0)
        return error_set(err, EINVAL, "'%s' is not known here; use mac=ADDRESS or forward=RULE",
                         option);
    if (!network_forwards(nic))
        return error_set(err, EINVAL, "only a NIC behind NAT, as --net user, forwards ports");
    char *rule = model_read_forward(option + 8, err);
    if (!rule)
        return -EINVAL;
    if (!json_object_get(nic, "forwards"))
        json_object_set_new(nic, "forwards", json_array());
    json_array_append_new(json_object_get(nic, "forwards"), json_string(rule));
    free(rule);
    return 0;
}

int model_add_nic(json_t *config, const char *text, struct error *err)
{
    char id[32], *copy = strdup(text), *rest = copy;
    json_t *nics = json_object_get(config, "nics");
    if (strcmp(text, "none") == 0) {
        free(copy);
        return json_array_clear(nics);
    }
    model_free_id(config, "nics", "net", id);
    json_t *nic = json_pack("{s:s, s:o}", "id", id, "mac", new_mac());
    int result = set_nic_mode(nic, strsep(&rest, ","), err);
    while (!result && rest)
        result = set_nic_option(nic, strsep(&rest, ","), err);
    if (!result && json_array_size(nics) >= NIC_MAX)
        result = error_set(err, E2BIG, "a machine has at most %d NICs", NIC_MAX);
    if (!result)
        json_array_append(nics, nic);
    json_decref(nic);
    free(copy);
    return result;
}
