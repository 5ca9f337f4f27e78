/* SPDX-License-Identifier: MIT */
/*
 * seed_read: the files of a NoCloud seed, to give a copy of its machine a seed of its own. The
 * image may be anybody's: what it says of places and sizes is checked against the file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/evctl/seed.h"
#include "tools/evctl/store.h"

#define SECTOR           2048u
#define IMAGE_MAX_BYTES  (16u << 20)
#define FIRST_DESCRIPTOR 16u
#define DESCRIPTORS_MAX  16u
#define NAME_MAX_BYTES   30u
#define FLAG_FOLDER      2u

struct image {
    const uint8_t *bytes;
    size_t length;
};

static const uint8_t *part(const struct image *image, uint64_t offset, uint64_t length)
{
    return offset <= image->length && length <= image->length - offset ? image->bytes + offset
                                                                       : NULL;
}

static bool is_joliet(const uint8_t *descriptor)
{
    return descriptor[0] == 2 && memcmp(descriptor + 1, "CD001", 5) == 0 && descriptor[88] == '%' &&
           descriptor[89] == '/';
}

/* The Joliet descriptor of a volume named "cidata", in capital or small letters, or NULL. */
static const uint8_t *find_descriptor(const struct image *image)
{
    static const char name[] = "cidata";
    for (unsigned i = 0; i < DESCRIPTORS_MAX; i++) {
        const uint8_t *at = part(image, (FIRST_DESCRIPTOR + i) * (uint64_t)SECTOR, SECTOR);
        if (!at || at[0] == 255)
            return NULL;
        if (!is_joliet(at))
            continue;
        for (unsigned c = 0; c < sizeof(name) - 1; c++)
            if (at[40 + 2 * c] || (at[41 + 2 * c] | 0x20) != name[c])
                return NULL;
        return at;
    }
    return NULL;
}

/* The name in ASCII, without a version ";1"; NULL if it is none of those that a seed has. */
static char *read_name(const uint8_t *record)
{
    char name[NAME_MAX_BYTES + 1];
    size_t length = record[32] / 2, i;
    if (length == 0 || length > NAME_MAX_BYTES)
        return NULL;
    for (i = 0; i < length; i++) {
        unsigned code = load_be16(record + 33 + 2 * i);
        if (code == ';')
            break;
        if (code <= ' ' || code >= 0x7f)
            return NULL;
        name[i] = (char)code;
    }
    name[i] = '\0';
    return strdup(name);
}

/* 1 and a file, 0 for what is none, -1 where the image cannot be taken over. */
static int read_record(const struct image *image, const uint8_t *record, struct seed_file *file)
{
    uint64_t length = load_le32(record + 10);
    if (record[25] & FLAG_FOLDER)
        return record[32] == 1 ? 0 : -1;
    const uint8_t *text = part(image, load_le32(record + 2) * (uint64_t)SECTOR, length);
    if (!text || length > SEED_FILE_MAX_BYTES || memchr(text, '\0', length))
        return -1;
    file->name = read_name(record);
    file->text = file->name ? strndup((const char *)text, length) : NULL;
    return file->name ? 1 : -1;
}

static size_t read_folder(const struct image *image, const uint8_t *at, uint64_t length,
                          struct seed_file *files)
{
    size_t count = 0;
    for (uint64_t offset = 0; offset + 34 <= length;) {
        const uint8_t *record = at + offset;
        unsigned size = record[0];
        if (size == 0) { /* the rest of a sector is empty */
            offset = align_up(offset + 1, SECTOR);
            continue;
        }
        bool is_whole = size >= 33u + record[32] && offset + size <= length;
        struct seed_file file = {0};
        int found = is_whole ? read_record(image, record, &file) : -1;
        if (found < 0 || (found && count == SEED_FILES_MAX)) {
            seed_free(&file, (size_t)(found > 0));
            seed_free(files, count);
            return 0;
        }
        if (found)
            files[count++] = file;
        offset += size;
    }
    return count;
}

size_t seed_read(const char *path, struct seed_file files[SEED_FILES_MAX])
{
    struct image image = {0};
    struct error ignored = {0};
    char *bytes = store_read_file(path, IMAGE_MAX_BYTES, &image.length, &ignored);
    image.bytes = (const uint8_t *)bytes;
    const uint8_t *descriptor = bytes ? find_descriptor(&image) : NULL;
    size_t count = 0;
    if (descriptor) {
        uint64_t length = load_le32(descriptor + 156 + 10);
        const uint8_t *at =
            part(&image, load_le32(descriptor + 156 + 2) * (uint64_t)SECTOR, length);
        count = at ? read_folder(&image, at, length, files) : 0;
    }
    free(bytes);
    return count;
}

void seed_free(struct seed_file *files, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(files[i].name);
        free(files[i].text);
        files[i] = (struct seed_file){0};
    }
}

struct seed_file *seed_find(struct seed_file *files, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(files[i].name, name) == 0)
            return &files[i];
    return NULL;
}
