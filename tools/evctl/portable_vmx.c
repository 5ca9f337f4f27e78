/* SPDX-License-Identifier: MIT */
/*
 * portable_vmx: VMware's .vmx: lines KEY = "VALUE". Keys in any case, quotes that may be missing,
 * |22 for a quote in a value, and the character set that .encoding names.
 */
#include <ctype.h>
#include <errno.h>
#include <iconv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/evctl/model.h"
#include "tools/evctl/portable_plan.h"

#define UNIT_MAX 65 /* of a paravirtual SCSI controller, which has the most */

static char *trim(char *text)
{
    text += strspn(text, " \t");
    size_t length = strlen(text);
    while (length && strchr(" \t\r", text[length - 1]))
        text[--length] = '\0';
    return text;
}

static void decode_bars(char *text)
{
    char *to = text;
    for (; *text; text++) {
        unsigned code;
        if (*text == '|' && sscanf(text + 1, "%2x", &code) == 1 &&
            isxdigit((unsigned char)text[2]) && code) {
            *to++ = (char)code;
            text += 2;
        } else {
            *to++ = *text;
        }
    }
    *to = '\0';
}

/* Splits "key = value"; NULL for comments and anything else. */
static char *split(char *line)
{
    char *equals = strchr(line, '=');
    if (!equals || *line == '#')
        return NULL;
    *equals = '\0';
    char *value = trim(equals + 1), *end;
    if (*value == '"' && (end = strchr(++value, '"')))
        *end = '\0';
    decode_bars(value);
    return value;
}

static json_t *to_utf8(const char *text, const char *encoding)
{
    char out[4096], *to = out, *from = (char *)text;
    size_t in_bytes = strlen(text), out_bytes = sizeof(out);
    json_t *value = json_string(text);
    iconv_t converter = value ? (iconv_t)-1 : iconv_open("UTF-8", encoding);
    if (converter == (iconv_t)-1)
        return value;
    if (iconv(converter, &from, &in_bytes, &to, &out_bytes) != (size_t)-1)
        value = json_stringn(out, sizeof(out) - out_bytes);
    iconv_close(converter);
    return value;
}

/* The values by their keys in small letters. */
static json_t *read_lines(char *text)
{
    json_t *lines = json_object();
    char encoding[32] = "windows-1252", *rest = text, *line;
    while ((line = strsep(&rest, "\r\n"))) {
        char *key = trim(line), *value = split(key);
        key = trim(key);
        for (char *at = key; *at; at++)
            *at = (char)tolower((unsigned char)*at);
        if (value && strcmp(key, ".encoding") == 0)
            snprintf(encoding, sizeof(encoding), "%s", value);
        json_t *read = value && *key ? to_utf8(value, encoding) : NULL;
        if (read && json_object_set_new(lines, key, read))
            continue; /* a key that is no UTF-8 is none of ours */
    }
    return lines;
}

static const char *get(const json_t *lines, const char *device, const char *key)
{
    char name[160];
    snprintf(name, sizeof(name), "%s.%s", device, key);
    return model_text(lines, name);
}

static bool is_false(const char *text)
{
    return strcasecmp(text, "false") == 0 || strcmp(text, "0") == 0 || strcasecmp(text, "no") == 0;
}

static bool is_true(const char *text)
{
    return *text && !is_false(text);
}

static void plan_drive(json_t *plan, const json_t *lines, const char *device)
{
    static const char *const empty[] = {"auto detect", "emptyBackingString"};
    const char *type = get(lines, device, "devicetype"), *file = get(lines, device, "filename");
    bool is_cd = strncasecmp(type, "cdrom", 5) == 0 || strncasecmp(type, "atapi-cdrom", 11) == 0;
    if (is_false(get(lines, device, "present")) || (is_cd && strcasecmp(type, "cdrom-image") != 0))
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(empty); i++)
        if (strcasecmp(file, empty[i]) == 0)
            return;
    size_t length = strlen(file);
    is_cd |= length > 4 && strcasecmp(file + length - 4, ".iso") == 0;
    plan_disk(plan, file, is_cd ? "iso" : "disk");
}

static void plan_drives(json_t *plan, const json_t *lines)
{
    static const char *const buses[] = {"scsi", "sata", "nvme", "ide"};
    char device[32];
    for (unsigned b = 0; b < ARRAY_SIZE(buses); b++)
        for (unsigned bus = 0; bus < 4; bus++) {
            snprintf(device, sizeof(device), "%s%u", buses[b], bus);
            bool is_there = !is_false(get(lines, device, "present"));
            for (unsigned unit = 0; is_there && unit < UNIT_MAX; unit++) {
                snprintf(device, sizeof(device), "%s%u:%u", buses[b], bus, unit);
                plan_drive(plan, lines, device);
            }
        }
}

/* Which of VMware's networks: without a word bridged; a custom one by what it is where it is
 * installed. */
static void plan_connection(json_t *plan, const char *type, const char *network)
{
    static const char *const usual[][2] = {
        {"VMnet0", "bridged"}, {"VMnet1", "hostonly"}, {"VMnet8", "user"}};
    if (strcasecmp(type, "custom") != 0) {
        bool is_bridged = !*type || strcasecmp(type, "bridged") == 0;
        bool is_hostonly = strcasecmp(type, "hostonly") == 0;
        plan_nic(plan, is_bridged ? "bridged" : is_hostonly ? "hostonly" : "user", "");
        return;
    }
    const char *slash = strrchr(network, '/'),
               *name = slash ? slash + 1 : network; /* /dev/vmnet8 */
    for (unsigned i = 0; i < ARRAY_SIZE(usual); i++)
        if (strcasecmp(name, usual[i][0]) == 0) {
            plan_nic(plan, usual[i][1], "");
            return;
        }
    plan_nic(plan, "internal", name);
}

static void plan_nics(json_t *plan, const json_t *lines)
{
    char device[32];
    for (unsigned i = 0; i < 10; i++) {
        snprintf(device, sizeof(device), "ethernet%u", i);
        if (!is_true(get(lines, device, "present")))
            continue;
        plan_connection(plan, get(lines, device, "connectiontype"), get(lines, device, "vnet"));
        if (is_false(get(lines, device, "startconnected")))
            plan_unplug(plan);
    }
}

bool portable_read_vmx(json_t *plan, char *text, const char *path, struct error *err)
{
    json_t *lines = read_lines(text);
    bool is_encrypted = *model_text(lines, "encryption.keysafe");
    if (is_encrypted)
        error_set(err, ENOTSUP, "%s is encrypted; take the encryption away in VMware first", path);
    else if (json_object_size(lines) == 0)
        error_set(err, EBADMSG, "%s: no line of it reads KEY = \"VALUE\"", path);
    if (is_encrypted || json_object_size(lines) == 0) {
        json_decref(lines);
        return false;
    }
    json_object_set_new(plan, "name", json_string(model_text(lines, "displayname")));
    plan_os(plan, model_text(lines, "guestos"));
    plan_number(plan, "cpus", model_text(lines, "numvcpus"), 1);
    plan_number(plan, "memory-mib", model_text(lines, "memsize"), 1);
    plan_firmware(model_text(lines, "firmware"));
    plan_drives(plan, lines);
    plan_nics(plan, lines);
    json_decref(lines);
    return true;
}
