/* SPDX-License-Identifier: MIT */
/*
 * seed: ISO 9660 (ECMA-119) with the Joliet names that Linux shows.
 *
 * Sectors: 16 primary descriptor, 17 Joliet descriptor, 18 end, 19 and 20 path tables (little and
 * big endian), 21 and 22 the same for Joliet, 23 root folder, 24 Joliet root folder, then files.
 */
#include "tools/evctl/seed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"

#define SECTOR      2048u
#define FIRST_FILE  25u
#define ROOT        23u
#define JOLIET_ROOT 24u

struct image {
    uint8_t *bytes;
    size_t sectors;
    uint32_t extents[SEED_FILES_MAX];
};

/* Both-endian numbers. */
static void put_both32(uint8_t *at, uint32_t value)
{
    store_le32(at, value);
    store_be32(at + 4, value);
}

static void put_both16(uint8_t *at, uint16_t value)
{
    store_le16(at, value);
    store_be16(at + 2, value);
}

/* Names of Joliet are big-endian UCS-2; ours are ASCII. */
static size_t put_name(uint8_t *at, const char *name, bool is_joliet)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < length; i++)
        if (is_joliet)
            store_be16(at + 2 * i, (uint8_t)name[i]);
        else
            at[i] = (uint8_t)name[i];
    return is_joliet ? 2 * length : length;
}

/* ECMA-119 9.1. `name` NULL: the folder itself (0) or its parent (1), by `special`. */
static size_t put_record(uint8_t *at, const char *name, uint8_t special, bool is_joliet,
                         uint32_t extent, uint32_t length)
{
    size_t name_bytes = 1;
    if (name)
        name_bytes = put_name(at + 33, name, is_joliet);
    else
        at[33] = special;
    size_t size = align_up(33 + name_bytes, 2);
    at[0] = (uint8_t)size;
    put_both32(at + 2, extent);
    put_both32(at + 10, length);
    at[18] = 100; /* years since 1900, then month and day: a fixed date makes equal images equal */
    at[19] = at[20] = 1;
    at[25] = name ? 0 : 2;
    put_both16(at + 28, 1);
    at[32] = (uint8_t)name_bytes;
    return size;
}

/* ECMA-119 8.4 and 8.5. */
static void put_descriptor(struct image *image, unsigned sector, bool is_joliet)
{
    uint8_t *at = image->bytes + sector * SECTOR;
    at[0] = is_joliet ? 2 : 1;
    memcpy(at + 1, "CD001\1", 6);
    memset(at + 8, is_joliet ? 0 : ' ', 64);
    put_name(at + 40, is_joliet ? "cidata" : "CIDATA", is_joliet);
    put_both32(at + 80, (uint32_t)image->sectors);
    if (is_joliet)
        memcpy(at + 88, "%/E", 3); /* UCS-2 level 3 */
    put_both16(at + 120, 1);
    put_both16(at + 124, 1);
    put_both16(at + 128, SECTOR);
    put_both32(at + 132, 10);
    store_le32(at + 140, is_joliet ? 21 : 19);
    store_be32(at + 148, is_joliet ? 22 : 20);
    put_record(at + 156, NULL, 0, is_joliet, is_joliet ? JOLIET_ROOT : ROOT, SECTOR);
    memset(at + 190, is_joliet ? 0 : ' ', 623);
    for (unsigned i = 0; i < 4; i++)
        memset(at + 813 + 17 * i, '0', 16);
    at[881] = 1;
}

static void put_path_table(struct image *image, unsigned sector, uint32_t root)
{
    uint8_t *little = image->bytes + sector * SECTOR, *big = little + SECTOR;
    little[0] = big[0] = 1;
    store_le32(little + 2, root);
    store_be32(big + 2, root);
    store_le16(little + 6, 1);
    store_be16(big + 6, 1);
}

/* "user-data" becomes "USER_DATA.;1" where only few characters are allowed. */
static void iso_name(const char *name, char out[40])
{
    size_t i;
    for (i = 0; name[i] && i < 30; i++)
        out[i] = name[i] >= 'a' && name[i] <= 'z'   ? (char)(name[i] - 32)
                 : name[i] >= '0' && name[i] <= '9' ? name[i]
                                                    : '_';
    snprintf(out + i, 40 - i, ".;1");
}

static void put_folder(struct image *image, unsigned sector, bool is_joliet,
                       const struct seed_file *files, size_t count)
{
    uint8_t *at = image->bytes + sector * SECTOR;
    at += put_record(at, NULL, 0, is_joliet, sector, SECTOR);
    at += put_record(at, NULL, 1, is_joliet, sector, SECTOR);
    for (size_t i = 0; i < count; i++) {
        char plain[40];
        iso_name(files[i].name, plain);
        at += put_record(at, is_joliet ? files[i].name : plain, 0, is_joliet, image->extents[i],
                         (uint32_t)strlen(files[i].text));
    }
}

static void put_files(struct image *image, const struct seed_file *files, size_t count)
{
    for (size_t i = 0; i < count; i++)
        memcpy(image->bytes + image->extents[i] * (size_t)SECTOR, files[i].text,
               strlen(files[i].text));
}

static int save(const char *path, const struct image *image, struct error *err)
{
    char *fresh = NULL;
    CHECK(asprintf(&fresh, "%s.new", path) > 0);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), result = 0;
    size_t size = image->sectors * SECTOR;
    errno = 0;
    if (fd < 0 || write(fd, image->bytes, size) != (ssize_t)size || rename(fresh, path) < 0)
        result = error_set_errno(err, errno ? errno : ENOSPC, "cannot write %s", path);
    if (fd >= 0)
        close(fd);
    if (result)
        unlink(fresh);
    free(fresh);
    return result;
}

int seed_write(const char *path, const struct seed_file *files, size_t count, struct error *err)
{
    struct image image = {.sectors = FIRST_FILE};
    CHECK(count <= SEED_FILES_MAX);
    for (size_t i = 0; i < count; i++) {
        CHECK(strlen(files[i].text) <= SEED_FILE_MAX_BYTES && strlen(files[i].name) <= 30);
        image.extents[i] = (uint32_t)image.sectors;
        image.sectors += align_up(MAX(strlen(files[i].text), 1u), SECTOR) / SECTOR;
    }
    image.bytes = calloc(image.sectors, SECTOR);
    CHECK(image.bytes);
    put_descriptor(&image, 16, false);
    put_descriptor(&image, 17, true);
    memcpy(image.bytes + 18 * SECTOR, "\377CD001\1", 7);
    put_path_table(&image, 19, ROOT);
    put_path_table(&image, 21, JOLIET_ROOT);
    put_folder(&image, ROOT, false, files, count);
    put_folder(&image, JOLIET_ROOT, true, files, count);
    put_files(&image, files, count);
    int result = save(path, &image, err);
    free(image.bytes);
    return result;
}
