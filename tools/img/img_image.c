/* SPDX-License-Identifier: MIT */
/* img_image: a table says which block options are understood; "json:" is flattened into the same.
 */
#include "tools/img/img_image.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct definition {
    const char *given;
    struct img_image *image;
    const char *driver, *file_driver, *path, *protocol_path;
    bool has_force_share;
};

static int cannot_open(const char *given, const char *format, const char *a, const char *b)
{
    struct error err = {0};
    error_set(&err, EINVAL, format, a, b);
    return img_error("Could not open '%s': %s", given, err.text);
}

/* --- memory that lives as long as the program: an image's name is needed until its end --- */

struct kept {
    struct kept *next;
    struct img_options options;
    char *text;
};

static struct kept *all_kept;

static struct kept *keep(void)
{
    struct kept *kept = calloc(1, sizeof(*kept));
    CHECK(kept);
    kept->next = all_kept;
    all_kept = kept;
    return kept;
}

/* --- one option --- */

static int take_switch(const char *given, const struct img_option *option, bool *out)
{
    *out = !strcmp(option->value, "on") || !strcmp(option->value, "true");
    if (*out || !strcmp(option->value, "off") || !strcmp(option->value, "false"))
        return 0;
    return cannot_open(given, "Parameter '%s' expects 'on' or 'off'", option->key, NULL);
}

static int on_driver(struct definition *d, const struct img_option *option)
{
    d->driver = option->value;
    return 0;
}

static int on_file_driver(struct definition *d, const struct img_option *option)
{
    d->file_driver = option->value;
    return 0;
}

static int on_path(struct definition *d, const struct img_option *option)
{
    d->path = option->value;
    return 0;
}

static int on_protocol_path(struct definition *d, const struct img_option *option)
{
    d->protocol_path = option->value;
    return 0;
}

static int on_force_share(struct definition *d, const struct img_option *option)
{
    bool share;
    if (take_switch(d->given, option, &share))
        return 1;
    if (!share && d->image->no_lock)
        return img_error("--force-share/-U conflicts with image options");
    if (share && d->image->writable)
        return cannot_open(d->given, "force-share=on can only be used with read-only images%s", "",
                           NULL);
    d->has_force_share = share;
    return 0;
}

static int on_locking(struct definition *d, const struct img_option *option)
{
    bool lock = true;
    if (strcmp(option->value, "auto") && take_switch(d->given, option, &lock))
        return 1;
    d->has_force_share |= !lock;
    return 0;
}

static int on_read_only(struct definition *d, const struct img_option *option)
{
    bool read_only;
    if (take_switch(d->given, option, &read_only))
        return 1;
    if (read_only && d->image->writable)
        return cannot_open(d->given, "Block node is read-only%s", "", NULL);
    return 0;
}

/* Names, and hints for speed: the result is the same with and without. */
static int on_hint(struct definition *d, const struct img_option *option)
{
    (void)d;
    (void)option;
    return 0;
}

static int on_cache(struct definition *d, const struct img_option *option)
{
    bool value;
    if (take_switch(d->given, option, &value))
        return 1;
    return value ? cannot_open(d->given, "'%s' is not supported here: use -t or -T%s", option->key,
                               "")
                 : 0;
}

static const struct {
    const char *key;
    int (*on_option)(struct definition *d, const struct img_option *option);
} known[] = {
    {"driver", on_driver},
    {"filename", on_protocol_path},
    {"file.driver", on_file_driver},
    {"file.filename", on_path},
    {"force-share", on_force_share},
    {"file.locking", on_locking},
    {"locking", on_locking},
    {"read-only", on_read_only},
    {"file.read-only", on_read_only},
    {"cache.direct", on_cache},
    {"cache.no-flush", on_cache},
    {"file.cache.direct", on_cache},
    {"file.cache.no-flush", on_cache},
    {"node-name", on_hint},
    {"file.node-name", on_hint},
    {"auto-read-only", on_hint},
    {"file.auto-read-only", on_hint},
    {"aio", on_hint},
    {"file.aio", on_hint},
    {"discard", on_hint},
    {"file.discard", on_hint},
    {"cache-size", on_hint},
    {"l2-cache-size", on_hint},
    {"l2-cache-entry-size", on_hint},
    {"refcount-cache-size", on_hint},
    {"cache-clean-interval", on_hint},
};

static int take_option(struct definition *d, const struct img_option *option)
{
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (!strcmp(known[i].key, option->key))
            return known[i].on_option(d, option);
    if (!strncmp(option->key, "encrypt", 7))
        return cannot_open(d->given,
                           "'%s': evisor does not decrypt images; convert it with "
                           "qemu-img convert%s",
                           option->key, "");
    return cannot_open(d->given, "Block format '%s' does not support the option '%s'",
                       d->driver ? d->driver : "qcow2", option->key);
}

/* --- all of them --- */

static bool is_protocol(const char *driver)
{
    return !strcmp(driver, "file") || !strcmp(driver, "host_device");
}

static int settle(struct definition *d)
{
    struct img_image *image = d->image;
    if (d->file_driver && !is_protocol(d->file_driver))
        return cannot_open(d->given, "Unknown driver '%s'%s", d->file_driver, "");
    if (!d->driver && !d->path)
        return cannot_open(d->given, "Must specify either driver or file%s", "", "");
    bool is_file = d->driver && is_protocol(d->driver);
    image->path = is_file ? d->protocol_path : d->path;
    if (!image->path)
        return cannot_open(d->given, "A block device must be specified for \"file\"%s", "", "");
    if (!image->format)
        image->format = is_file ? "raw" : d->driver;
    image->no_lock |= d->has_force_share;
    return 0;
}

static int take_options(const char *given, const struct img_options *options,
                        struct img_image *image)
{
    struct definition d = {.given = given, .image = image};
    d.driver = img_options_get(options, "driver");
    for (size_t i = 0; i < options->count; i++)
        if (take_option(&d, &options->list[i]))
            return 1;
    return settle(&d);
}

/* {"file": {"filename": "x"}} becomes file.filename=x. Commas are doubled for the list. */
static int flatten(json_t *object, const char *prefix, FILE *out)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        char name[256];
        char *text;
        snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "." : "", key);
        if (json_is_object(value)) {
            if (flatten(value, name, out))
                return 1;
            continue;
        }
        text = json_is_string(value) ? strdup(json_string_value(value))
                                     : json_dumps(value, JSON_ENCODE_ANY);
        if (!text)
            return 1;
        fprintf(out, "%s%s=", ftell(out) ? "," : "", name);
        for (const char *c = text; *c; c++) {
            if (*c == ',')
                fputc(',', out);
            fputc(*c, out);
        }
        free(text);
    }
    return 0;
}

/* QEMU's JSON also takes strings in single quotes, and its users write them so in shells. */
static char *double_quotes(const char *text)
{
    char *copy = malloc(2 * strlen(text) + 1), *out = copy;
    char quote = 0;
    for (; copy && *text; text++) {
        if (*text == '\\' && text[1]) {
            *out++ = *text++;
            *out++ = *text;
        } else if (!quote && (*text == '\'' || *text == '"')) {
            quote = *text;
            *out++ = '"';
        } else if (quote && *text == quote) {
            quote = 0;
            *out++ = '"';
        } else if (*text == '"') {
            *out++ = '\\';
            *out++ = '"';
        } else {
            *out++ = *text;
        }
    }
    if (copy)
        *out = '\0';
    return copy;
}

static int parse_json(const char *given, struct kept *kept)
{
    char *text = double_quotes(given + strlen("json:")), *list = NULL;
    size_t bytes = 0;
    json_error_t why;
    json_t *root = text ? json_loads(text, JSON_REJECT_DUPLICATES, &why) : NULL;
    FILE *out = open_memstream(&list, &bytes);
    int status = root && out ? flatten(root, "", out) : 1;
    if (out)
        fclose(out);
    if (!root)
        (void)cannot_open(given, "Could not parse the JSON options: %s%s", why.text, "");
    else if (!status)
        status = img_options_parse(&kept->options, list) ? 1 : 0;
    json_decref(root);
    free(text);
    free(list);
    return status;
}

/* --- names --- */

/* "image:top" speaks of a protocol; "./image:top" does not. */
static bool names_protocol(const char *name)
{
    return name[strcspn(name, ":/")] == ':';
}

static const char *file_path(const char *given)
{
    const char *name = img_path(given);
    if (!names_protocol(name))
        return name;
    struct kept *kept = keep();
    CHECK(asprintf(&kept->text, "./%s", name) > 0);
    return kept->text;
}

static int set_unknown_protocol(const char *given, struct error *err)
{
    return error_set(err, EINVAL, "Unknown protocol '%.*s'", (int)strcspn(given, ":"), given);
}

const char *img_image_new_path(const char *given, struct error *err)
{
    if (img_path(given) == given && names_protocol(given)) {
        set_unknown_protocol(given, err);
        return NULL;
    }
    return file_path(given);
}

int img_image_take(const char *given, struct img_image *image)
{
    bool is_options = image->is_options;
    if (is_options && image->format)
        return img_error("--image-opts and --format are mutually exclusive");
    if (is_options && !strchr(given, '='))
        return cannot_open(given, "Cannot find device='%s' nor node-name='%s'", given, given);
    if (!is_options && strncmp(given, "json:", 5)) {
        struct error err = {0};
        image->path = img_image_new_path(given, &err);
        return image->path ? 0 : img_error("Could not open '%s': %s", given, err.text);
    }
    struct kept *kept = keep();
    if (is_options ? img_options_parse(&kept->options, given) : parse_json(given, kept))
        return 1;
    return take_options(given, &kept->options, image);
}

int img_image_parse(int argc, char **argv, const struct img_arg *args, size_t count,
                    void *arguments, struct img_image *image)
{
    const struct img_syntax syntax = {args, count, IMG_ONE_IMAGE};
    struct img_names names;
    int status = img_parse(argc, argv, &syntax, arguments, &names);
    return status ? status : img_image_take(names.list[0], image);
}
