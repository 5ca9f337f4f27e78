/* SPDX-License-Identifier: MIT */
/* transfer: archives by tar(1), and manifests by the programs that make sums. */
#include "tools/evctl/transfer.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/evctl/run.h"
#include "tools/evctl/store.h"

#define MANIFEST_MAX_BYTES (1u << 20)

bool transfer_has_suffix(const char *path, const char *suffix)
{
    size_t length = strlen(path), more = strlen(suffix);
    return length > more && strcasecmp(path + length - more, suffix) == 0;
}

int transfer_tar(json_t *words, const char *archive, const char *what, struct error *err)
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

/* --- manifests --- */

/* `kind` is "sha256" or the like. The sum in hexadecimal, which the caller frees, or NULL. */
static char *sum_of(const char *kind, const char *folder, const char *file, struct error *err)
{
    char name[32], *path = NULL, *output = NULL;
    snprintf(name, sizeof(name), "%.16ssum", kind);
    char *program = run_find(name, err);
    CHECK(asprintf(&path, "%s/%s", folder, file) > 0);
    int result = program ? run_program(program, json_pack("[s, s]", "--", path), "checking sums",
                                       &output, err)
                         : -ENOENT;
    free(path);
    free(program);
    if (!result) {
        /* A name with a backslash or a line end makes the program put one before the sum. */
        char *start = output + (*output == '\\');
        start[strspn(start, "0123456789abcdef")] = '\0';
        memmove(output, start, strlen(start) + 1);
        return output;
    }
    free(output);
    return NULL;
}

int transfer_write_manifest(const char *folder, const char *name, const json_t *files,
                            struct error *err)
{
    size_t i;
    json_t *file;
    char *path = NULL;
    CHECK(asprintf(&path, "%s/%s", folder, name) > 0);
    FILE *to = fopen(path, "we");
    int result = to ? 0 : error_set_errno(err, errno, "%s", path);
    json_array_foreach(files, i, file)
    {
        char *sum = result ? NULL : sum_of("sha256", folder, json_string_value(file), err);
        if (sum)
            fprintf(to, "SHA256(%s)= %s\n", json_string_value(file), sum);
        else if (!result)
            result = -err->code;
        free(sum);
    }
    if (to && (ferror(to) | fclose(to)) && !result)
        result = error_set_errno(err, errno, "cannot write %s", path);
    free(path);
    return result;
}

/* "SHA256(disk.vmdk)= 12ab..."; other lines are passed over. */
static int check_line(const char *line, const char *folder, struct error *err)
{
    static const char *const kinds[] = {"sha1", "sha224", "sha256", "sha384", "sha512"};
    char kind[16], file[256], wanted[130];
    if (sscanf(line, " %15[A-Za-z0-9] (%255[^)]) = %129[0-9a-fA-F]", kind, file, wanted) != 3 ||
        strchr(file, '/'))
        return 0;
    for (char *at = kind; *at; at++)
        *at = (char)tolower((unsigned char)*at);
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strcmp(kind, kinds[i]) != 0)
            continue;
        char *sum = sum_of(kind, folder, file, err);
        int result = sum ? 0 : -err->code;
        if (sum && strcasecmp(sum, wanted) != 0)
            result = error_set(err, EBADMSG,
                               "%s is not what its manifest says; it is damaged or was changed: "
                               "get it again",
                               file);
        free(sum);
        return result;
    }
    return 0;
}

int transfer_check_manifest(const char *folder, const char *name, struct error *err)
{
    char *path = NULL;
    int result = 0;
    CHECK(asprintf(&path, "%s/%s", folder, name) > 0);
    char *text =
        access(path, F_OK) == 0 ? store_read_file(path, MANIFEST_MAX_BYTES, NULL, err) : NULL;
    if (!text && access(path, F_OK) == 0)
        result = -err->code;
    for (char *rest = text, *line; !result && (line = strsep(&rest, "\r\n"));)
        result = check_line(line, folder, err);
    free(text);
    free(path);
    return result;
}
