/* SPDX-License-Identifier: MIT */
/* keyval: lists of keys and values, as the options of QEMU's command line spell them. */
#include "vmm/options/keyval.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/suggest.h"
#include "base/text.h"

/* Copies up to the next single comma; *at is left on it or on the end. */
static char *take_element(const char **at)
{
    char *element = malloc(strlen(*at) + 1);
    CHECK(element);
    size_t length = 0;
    while (**at) {
        if (**at == ',') {
            if ((*at)[1] != ',')
                break;
            ++*at;
        }
        element[length++] = *(*at)++;
    }
    element[length] = 0;
    return element;
}

static int add_element(struct keyval *list, const char *element, bool has_value,
                       const char *implied, struct error *err)
{
    if (list->count == KEYVAL_MAX)
        return error_set(err, E2BIG, "%s: more than %d parts", list->option, KEYVAL_MAX);
    struct keyval_pair *pair = &list->pairs[list->count];
    size_t key_length = has_value ? strcspn(element, "=") : strlen(element);
    if (!has_value && implied && list->count == 0) {
        pair->key = text_copy(implied);
        pair->value = text_copy(element);
    } else {
        pair->key = strndup(element, key_length);
        CHECK(pair->key);
        pair->value = has_value ? text_copy(element + key_length + 1) : NULL;
    }
    list->count++;
    if (!*pair->key)
        return error_set(err, EINVAL, "%s: there is an empty part between two commas",
                         list->option);
    return 0;
}

int keyval_parse(struct keyval *list, const char *option, const char *text, const char *implied,
                 struct error *err)
{
    memset(list, 0, sizeof(*list));
    if (asprintf(&list->option, "%s %s", option, text) < 0)
        return -ENOMEM;
    int result = 0;
    for (const char *at = text; *at && !result;) {
        bool has_value = at[strcspn(at, "=,")] == '='; /* a comma first belongs to a bare value */
        char *element = take_element(&at);
        result = add_element(list, element, has_value, implied, err);
        free(element);
        if (*at == ',')
            at++;
    }
    if (!result && list->count == 0)
        result = error_set(err, EINVAL, "%s: the argument is empty", option);
    if (result)
        keyval_fini(list);
    return result;
}

void keyval_fini(struct keyval *list)
{
    for (unsigned i = 0; i < list->count; i++) {
        free(list->pairs[i].key);
        free(list->pairs[i].value);
    }
    free(list->option);
    memset(list, 0, sizeof(*list));
}

struct tables {
    const struct keyval_known *each[2];
};

static const struct keyval_known *find_known(const struct tables *tables, const char *key)
{
    for (unsigned i = 0; i < ARRAY_SIZE(tables->each); i++)
        for (const struct keyval_known *known = tables->each[i]; known->key; known++)
            if (strcmp(known->key, key) == 0)
                return known;
    return NULL;
}

/* A switch gets its value: "on", or "off" where it is a known key with "no" before it. */
static void settle_switch(struct keyval_pair *pair, const struct tables *tables)
{
    if (pair->value)
        return;
    bool is_negated = !find_known(tables, pair->key) && strncmp(pair->key, "no", 2) == 0 &&
                      find_known(tables, pair->key + 2);
    if (is_negated)
        memmove(pair->key, pair->key + 2, strlen(pair->key + 2) + 1);
    pair->value = text_copy(is_negated ? "off" : "on");
}

static int refuse_key(const struct keyval *list, const char *key, const struct tables *tables,
                      struct error *err)
{
    struct suggest suggest;
    suggest_init(&suggest, key);
    for (unsigned i = 0; i < ARRAY_SIZE(tables->each); i++)
        for (const struct keyval_known *known = tables->each[i]; known->key; known++)
            suggest_offer(&suggest, known->key);
    if (suggest.best)
        return error_set(err, EINVAL, "%s: '%s' is not known here; did you mean '%s'?",
                         list->option, key, suggest.best);
    return error_set(err, EINVAL, "%s: '%s' is not known here; see evisor -help", list->option,
                     key);
}

int keyval_check_both(struct keyval *list, const struct keyval_known *known,
                      const struct keyval_known *also, struct error *err)
{
    const struct tables tables = {{known, also}};
    for (unsigned i = 0; i < list->count; i++) {
        struct keyval_pair *pair = &list->pairs[i];
        settle_switch(pair, &tables);
        const struct keyval_known *entry = find_known(&tables, pair->key);
        if (!entry)
            return refuse_key(list, pair->key, &tables, err);
        if (!entry->only || strcmp(entry->only, "*") == 0)
            continue;
        if (keyval_name_index(entry->only, pair->value) < 0)
            return error_set(err, ENOTSUP, "%s: %s=%s: %s", list->option, pair->key, pair->value,
                             entry->instead);
    }
    return 0;
}

int keyval_check(struct keyval *list, const struct keyval_known *known, struct error *err)
{
    static const struct keyval_known none[] = {{0}};
    return keyval_check_both(list, known, none, err);
}

const char *keyval_get(const struct keyval *list, const char *key)
{
    for (unsigned i = list->count; i-- > 0;)
        if (strcmp(list->pairs[i].key, key) == 0)
            return list->pairs[i].value ? list->pairs[i].value : "on";
    return NULL;
}

int keyval_bool(const struct keyval *list, const char *key, bool *out, struct error *err)
{
    const char *value = keyval_get(list, key);
    if (!value)
        return 0;
    int index = keyval_name_index("off|on|no|yes|false|true|n|y", value);
    if (index < 0)
        return error_set(err, EINVAL, "%s: %s=%s: say on or off", list->option, key, value);
    *out = index % 2;
    return 0;
}

int keyval_uint(const struct keyval *list, const char *key, uint64_t min, uint64_t max,
                uint64_t *out, struct error *err)
{
    const char *value = keyval_get(list, key);
    if (!value)
        return 0;
    uint64_t number;
    if (!keyval_text_to_uint(value, &number) || number < min || number > max)
        return error_set(err, EINVAL, "%s: %s=%s: say a number from %llu to %llu", list->option,
                         key, value, (unsigned long long)min, (unsigned long long)max);
    *out = number;
    return 0;
}

int keyval_size(const struct keyval *list, const char *key, uint64_t unit, uint64_t *out,
                struct error *err)
{
    const char *value = keyval_get(list, key);
    if (value && !keyval_text_to_size(value, unit, out))
        return error_set(err, EINVAL, "%s: %s=%s: say a size such as 512M or 2G", list->option, key,
                         value);
    return 0;
}

int keyval_choice(const struct keyval *list, const char *key, const char *names, unsigned *out,
                  struct error *err)
{
    const char *value = keyval_get(list, key);
    if (!value)
        return 0;
    int index = keyval_name_index(names, value);
    if (index < 0)
        return error_set(err, EINVAL, "%s: %s=%s: say one of %s", list->option, key, value, names);
    *out = (unsigned)index;
    return 0;
}

void keyval_string(const struct keyval *list, const char *key, char **out)
{
    const char *value = keyval_get(list, key);
    if (!value)
        return;
    free(*out);
    *out = text_copy(value);
}

bool keyval_text_to_uint(const char *text, uint64_t *out)
{
    if (!isdigit((unsigned char)*text))
        return false;
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
    if (errno || *end)
        return false;
    *out = number;
    return true;
}

/* The factor that a suffix stands for; 0 if it is none. */
static uint64_t suffix_factor(const char *suffix, uint64_t unit)
{
    static const char letters[] = "bkmgtpe";
    if (!*suffix)
        return unit;
    const char *letter = strchr(letters, tolower((unsigned char)*suffix));
    if (!letter || suffix[1])
        return 0;
    return UINT64_C(1) << (10 * (letter - letters));
}

bool keyval_text_to_size(const char *text, uint64_t unit, uint64_t *out)
{
    if (!isdigit((unsigned char)*text))
        return false;
    char *end;
    errno = 0;
    unsigned long long whole = strtoull(text, &end, 10);
    double fraction = 0;
    if (!errno && *end == '.')
        fraction = strtod(end, &end);
    uint64_t factor = suffix_factor(end, unit), product, sum;
    if (errno || !factor || fraction < 0 || fraction >= 1 ||
        __builtin_mul_overflow((uint64_t)whole, factor, &product) ||
        __builtin_add_overflow(product, (uint64_t)(fraction * (double)factor), &sum))
        return false;
    *out = sum;
    return true;
}

int keyval_name_index(const char *names, const char *name)
{
    size_t length = strlen(name);
    for (int index = 0;; index++) {
        size_t candidate = strcspn(names, "|");
        if (candidate == length && strncmp(names, name, length) == 0)
            return index;
        if (!names[candidate])
            return -1;
        names += candidate + 1;
    }
}

bool keyval_is_id(const char *text)
{
    if (!isalpha((unsigned char)*text))
        return false;
    for (; *text; text++)
        if (!isalnum((unsigned char)*text) && !strchr("-._", *text))
            return false;
    return true;
}
