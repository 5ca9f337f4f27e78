/* SPDX-License-Identifier: MIT */
/*
 * vmdk_descriptor: the text that describes a VMDK: its kind, its parent, its extents. It comes from
 * a stranger: an extent is a file beside the descriptor, never a path.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/foreign/vmdk.h"

#define NO_PARENT 0xffffffffu

/* The value of `key=` at the start of a line, or NULL. */
static const char *find_value(const char *text, const char *key)
{
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        line += strspn(line, " \t");
        if (!strncasecmp(line, key, length)) {
            const char *after = line + length + strspn(line + length, " \t");
            if (*after == '=')
                return after + 1 + strspn(after + 1, " \t");
        }
    }
    return NULL;
}

static void copy_text(char *out, size_t room, const char *value)
{
    size_t length = 0;
    if (value && *value == '"')
        value++;
    while (value && value[length] && !strchr("\"\r\n", value[length]) && length + 1 < room)
        length++;
    if (length)
        memcpy(out, value, length);
    out[length] = '\0';
}

static const char *const readable_types[] = {
    "monolithicSparse",     "monolithicFlat",     "streamOptimized",
    "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "vmfs",
};

static bool is_readable(const char *type)
{
    for (size_t i = 0; i < ARRAY_SIZE(readable_types); i++)
        if (!strcmp(readable_types[i], type))
            return true;
    return false;
}

int vmdk_descriptor_read(struct foreign *foreign, struct vmdk *vmdk, const char *text,
                         struct error *err)
{
    const char *cid = find_value(text, "CID"), *parent = find_value(text, "parentCID");
    char name[256];
    vmdk->has_descriptor = true;
    vmdk->cid = cid ? (uint32_t)strtoul(cid, NULL, 16) : 0;
    vmdk->parent_cid = parent ? (uint32_t)strtoul(parent, NULL, 16) : NO_PARENT;
    copy_text(vmdk->create_type, sizeof(vmdk->create_type), find_value(text, "createType"));
    if (vmdk->parent_cid != NO_PARENT) {
        copy_text(name, sizeof(name), find_value(text, "parentFileNameHint"));
        return foreign_refuse(foreign, err,
                              "it is a delta of '%s', which holds only what differs from it; merge "
                              "them first (vmkfstools -i, or delete the snapshots)",
                              name);
    }
    if (!is_readable(vmdk->create_type))
        return foreign_refuse(foreign, err,
                              "VMDK type '%s' is not supported; export it as streamOptimized",
                              vmdk->create_type);
    return 0;
}

/* Takes a word without blanks; false if there is none or no room. */
static bool take_word(const char **at, char *out, size_t room)
{
    const char *start = *at + strspn(*at, " \t");
    size_t length = strcspn(start, " \t\r\n");
    if (!length || length >= room)
        return false;
    memcpy(out, start, length);
    out[length] = '\0';
    *at = start + length;
    return true;
}

static bool take_number(const char **at, uint64_t *out)
{
    char word[24], *end;
    if (!take_word(at, word, sizeof(word)) || word[0] < '0' || word[0] > '9')
        return false;
    errno = 0;
    *out = strtoull(word, &end, 10);
    return !errno && !*end;
}

static bool take_name(const char **at, char *out, size_t room)
{
    const char *start = *at + strspn(*at, " \t");
    size_t length = *start == '"' ? strcspn(start + 1, "\"\r\n") : 0;
    if (!length || start[1 + length] != '"' || length >= room)
        return false;
    memcpy(out, start + 1, length);
    out[length] = '\0';
    *at = start + 1 + length + 1;
    return true;
}

static bool is_extent_line(const char *line)
{
    return !strncmp(line, "RW ", 3) || !strncmp(line, "RDONLY ", 7) ||
           !strncmp(line, "NOACCESS ", 9);
}

static bool take_line(const char *line, struct vmdk_line *out)
{
    char access[16];
    *out = (struct vmdk_line){0};
    if (!take_word(&line, access, sizeof(access)) || !take_number(&line, &out->sectors) ||
        !take_word(&line, out->type, sizeof(out->type)))
        return false;
    if (!strcmp(out->type, "ZERO"))
        return true;
    if (!take_name(&line, out->name, sizeof(out->name)))
        return false;
    bool has_offset = take_number(&line, &out->offset_sectors);
    return has_offset || strcmp(out->type, "FLAT");
}

bool vmdk_descriptor_next(const char **at, struct vmdk_line *out, bool *is_bad)
{
    while (**at) {
        const char *line = *at + strspn(*at, " \t");
        *at += strcspn(*at, "\n");
        *at += **at == '\n';
        if (!is_extent_line(line))
            continue;
        *is_bad = !take_line(line, out);
        return true;
    }
    return false;
}
