/* SPDX-License-Identifier: MIT */
/* img: the common ground of the subcommands of evisor-img. */
#include "tools/img/img.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/foreign/foreign.h"
#include "disk/foreign/foreign_writer.h"
#include "disk/lock.h"
#include "disk/probe.h"

/* --- messages --- */

static const char *program = "evisor-img";

void img_set_program(const char *path)
{
    const char *slash = strrchr(path, '/');
    program = slash ? slash + 1 : path;
}

static void print_error(const char *format, va_list args)
{
    fflush(stdout);
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

int img_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_error(format, args);
    va_end(args);
    return 1;
}

int img_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_error(format, args);
    va_end(args);
    fprintf(stderr, "Try '%s --help' for more information\n", program);
    return 1;
}

int img_bad_option(int getopt_result, const char *option)
{
    if (getopt_result == ':')
        return img_usage("missing argument for option '%s'", option);
    return img_usage("unrecognized option '%s'", option);
}

int img_parse_output(const char *text, enum img_output *output)
{
    if (!strcmp(text, "json")) {
        *output = IMG_OUTPUT_JSON;
    } else if (!strcmp(text, "human")) {
        *output = IMG_OUTPUT_HUMAN;
    } else {
        img_error("--output must be used with human or json as argument.");
        return -1;
    }
    return 0;
}

/* --- sizes --- */

static int suffix_shift(char suffix)
{
    static const char suffixes[] = "bkmgtpe";
    const char *at = suffix ? strchr(suffixes, suffix | 0x20) : NULL;
    return at ? (int)(at - suffixes) * 10 : -1;
}

/* Scales "12.5" by a power of two; the fraction may be lost below one byte. */
static int scale(const char *text, const char *end, uint64_t whole, uint64_t unit, uint64_t *bytes)
{
    const char *point = memchr(text, '.', (size_t)(end - text));
    long double fraction = 0, place = 1;
    for (const char *digit = point ? point + 1 : end; digit < end; digit++) {
        place /= 10;
        fraction += place * (*digit - '0');
    }
    if (whole && unit > UINT64_MAX / whole)
        return -ERANGE;
    uint64_t rest = (uint64_t)(fraction * (long double)unit + 0.5L);
    if (whole * unit > UINT64_MAX - rest)
        return -ERANGE;
    *bytes = whole * unit + rest;
    return 0;
}

static int parse_decimal(const char *text, uint64_t unit, uint64_t *bytes)
{
    const char *end = text + strspn(text, "0123456789");
    char *number_end;
    if (end == text)
        return -EINVAL;
    errno = 0;
    uint64_t whole = strtoull(text, &number_end, 10);
    if (errno)
        return -ERANGE;
    if (*end == '.')
        end += 1 + strspn(end + 1, "0123456789");
    if (*end) {
        int shift = suffix_shift(*end);
        if (shift < 0 || end[1])
            return -EINVAL;
        unit = UINT64_C(1) << shift;
    }
    const char *point = memchr(text, '.', (size_t)(end - text));
    if (point && unit == 1 && point + 1 + strspn(point + 1, "0") < end)
        return -EINVAL; /* a part of a byte; and end[0] may be the suffix b */
    return scale(text, end, whole, unit, bytes);
}

int img_parse_size(const char *text, uint64_t unit, uint64_t *bytes)
{
    while (*text == ' ' || *text == '\t')
        text++;
    if (text[0] != '0' || (text[1] | 0x20) != 'x')
        return parse_decimal(text, unit, bytes);
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 16);
    if (*end || end == text + 2)
        return -EINVAL;
    if (errno || (value && unit > UINT64_MAX / value))
        return -ERANGE;
    *bytes = value * unit;
    return 0;
}

const char *const img_size_hint = "expects a non-negative number below 2^64\n"
                                  "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, "
                                  "tera-, peta-\nand exabytes, respectively.";

int img_parse_named_size(const char *text, const char *name, uint64_t *bytes)
{
    int result = img_parse_size(text, 1, bytes);
    if (result == -ERANGE || (!result && *bytes > (uint64_t)INT64_MAX)) {
        img_error("Invalid %s specified. Must be between 0 and %lld.", name, (long long)INT64_MAX);
        return -1;
    }
    if (result) {
        img_error("Invalid %s specified. You may use k, M, G, T, P or E suffixes for", name);
        img_error("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
        return -1;
    }
    return 0;
}

int img_parse_image_size(const char *text, uint64_t *bytes)
{
    return img_parse_named_size(text, "image size", bytes);
}

const char *img_size_text(uint64_t bytes, char buffer[IMG_SIZE_TEXT_BYTES])
{
    static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    int exponent = 0;
    /* One unit up from 1000 on, not from 1024 on: no more than three digits before the point. */
    frexp((double)bytes / (1000.0 / 1024.0), &exponent);
    int unit = exponent > 0 ? (exponent - 1) / 10 : 0;
    snprintf(buffer, IMG_SIZE_TEXT_BYTES, "%0.3g %sB",
             (double)bytes / (double)(UINT64_C(1) << (unit * 10)), units[unit]);
    return buffer;
}

/* --- option lists --- */

/* Takes one item up to a single comma; doubled commas become one. */
static char *take_item(const char **text)
{
    char *item = malloc(strlen(*text) + 1);
    char *out = item;
    const char *in = *text;
    if (!item)
        return NULL;
    for (; *in; in++) {
        if (*in == ',' && in[1] != ',')
            break;
        if (*in == ',')
            in++;
        *out++ = *in;
    }
    *out = '\0';
    *text = *in ? in + 1 : in;
    return item;
}

static int append_option(struct img_options *options, char *item)
{
    struct img_option *list = realloc(options->list, (options->count + 1) * sizeof(*list));
    if (!list || !item) {
        options->list = list ? list : options->list;
        free(item);
        img_error("out of memory for options");
        return -1;
    }
    options->list = list;
    char *equals = strchr(item, '=');
    if (equals)
        *equals = '\0';
    list[options->count].key = item;
    list[options->count].value = equals ? strdup(equals + 1) : strdup("on");
    options->count++;
    return 0;
}

int img_options_parse(struct img_options *options, const char *text)
{
    if (!*text || *text == ',' || (text[strlen(text) - 1] == ',' && strchr(text, '=') == NULL)) {
        img_error("Invalid option list: %s", text);
        return -1;
    }
    while (*text)
        if (append_option(options, take_item(&text)))
            return -1;
    return 0;
}

const char *img_options_get(const struct img_options *options, const char *key)
{
    for (size_t i = options->count; i-- > 0;)
        if (!strcmp(options->list[i].key, key))
            return options->list[i].value;
    return NULL;
}

bool img_options_wants_help(const struct img_options *options)
{
    return img_options_get(options, "help") || img_options_get(options, "?");
}

void img_options_free(struct img_options *options)
{
    for (size_t i = 0; i < options->count; i++) {
        free(options->list[i].key);
        free(options->list[i].value);
    }
    free(options->list);
    memset(options, 0, sizeof(*options));
}

/* --- files --- */

const char *img_path(const char *given)
{
    return strncmp(given, "file:", 5) ? given : given + 5;
}

static void set_open_error(struct error *err, const char *path, const char *verb)
{
    struct stat info;
    int code = err->code;
    if (!stat(path, &info) && S_ISDIR(info.st_mode))
        code = EISDIR;
    if (code == EAGAIN)
        return; /* the lock's own sentence says who */
    if (!stat(path, &info) && !S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
        snprintf(err->text, sizeof(err->text),
                 "Could not %s '%s': '%s' is not a regular file or a block device", verb, path,
                 path);
        return;
    }
    snprintf(err->text, sizeof(err->text), "Could not %s '%s': %s", verb, path, strerror(code));
}

struct io_file *img_open_file(struct loop *loop, const char *path,
                              const struct img_file_options *options)
{
    const struct io_options io = {.read_only = !options->writable, .aio = DISK_AIO_THREADS};
    struct io_file *file = NULL;
    struct error err = {0};
    int result = io_open(loop, path, &io, &file, &err);
    if (result) {
        set_open_error(&err, path, "open");
        img_error("%s", err.text);
        return NULL;
    }
    if (options->may_be_written && !options->no_lock)
        result = lock_take(file->fd, path, LOCK_BIT(LOCK_PERM_CONSISTENT_READ), 0, &err);
    else if (!options->no_lock)
        result = lock_image(file, path, !options->writable, &err);
    if (!result)
        return file;
    img_error("%s", err.text);
    io_close_wait(file);
    return NULL;
}

/* As an input, say, of which -U takes no lock, or as what an input names. A descriptor that came
 * from outside, of flock(1), say, is not closed on exec. */
static bool is_open_here(const char *path)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    struct stat wanted, found;
    bool is_open = false;
    if (!folder)
        return false;
    while (!stat(path, &wanted) && !is_open && (entry = readdir(folder))) {
        long fd = strtol(entry->d_name, NULL, 10);
        is_open = fcntl((int)fd, F_GETFD) == FD_CLOEXEC && !fstat((int)fd, &found) &&
                  found.st_dev == wanted.st_dev && found.st_ino == wanted.st_ino;
    }
    closedir(folder);
    return is_open;
}

static volatile sig_atomic_t has_made_file;

bool img_has_made_file(void)
{
    return has_made_file;
}

struct io_file *img_create_file(struct loop *loop, const char *path, struct error *err)
{
    const struct io_options io = {.aio = DISK_AIO_THREADS};
    struct io_file *file = NULL;
    struct stat info;
    if (is_open_here(path)) {
        error_set(err, EBUSY,
                  "'%s' is read by this command, and would be emptied first: choose "
                  "another name for what is made",
                  path);
        return NULL;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        error_set(err, errno, "Could not create '%s': %s", path, strerror(errno));
        return NULL;
    }
    bool is_regular = !fstat(fd, &info) && S_ISREG(info.st_mode);
    close(fd);
    if (io_open(loop, path, &io, &file, err)) {
        set_open_error(err, path, "create");
        return NULL;
    }
    uint64_t length = 0;
    int result = lock_image(file, path, false, err);
    if (!result)
        has_made_file = true;
    if (!result)
        result = io_length(file, &length);
    /* Emptying an empty file would make some file systems flush it at the end. */
    if (!result && is_regular && length) {
        result = io_truncate_now(file, 0);
        if (result)
            error_set(err, -result, "Could not create '%s': %s", path, strerror(-result));
    }
    if (!result)
        return file;
    io_close_wait(file);
    return NULL;
}

bool img_format_is_native(const char *format)
{
    return !strcmp(format, "raw") || !strcmp(format, "qcow2");
}

bool img_format_is_writable(const char *format)
{
    return img_format_is_native(format) || foreign_writer_is_known(format);
}

bool img_format_is_known(const char *format)
{
    return img_format_is_native(format) || foreign_is_known(format);
}

int img_find_format(struct io_file *file, const char *path, const char *given, const char **format)
{
    struct error err = {0};
    if (!given) {
        if (probe_format(file, path, format, &err))
            return img_error("%s", err.text);
        given = *format;
    }
    *format = given;
    if (!img_format_is_known(given))
        return img_error("Could not open '%s': Unknown driver '%s'", path, given);
    return 0;
}
