/* SPDX-License-Identifier: MIT */
/* keyval_json: flattens what clients and command lines say in JSON. */
#include "vmm/options/keyval_json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_BYTES 256

static int add_value(struct keyval *list, const char *key, json_t *value, struct error *err);

static int add_pair(struct keyval *list, const char *key, const char *value, struct error *err)
{
    if (list->count == KEYVAL_MAX)
        return error_set(err, E2BIG, "%s: more than %d parts", list->option, KEYVAL_MAX);
    struct keyval_pair *pair = &list->pairs[list->count++];
    pair->key = strdup(key);
    pair->value = strdup(value);
    CHECK(pair->key && pair->value);
    return 0;
}

/* Members as "key.member". */
static int add_object(struct keyval *list, const char *prefix, json_t *object, struct error *err)
{
    const char *name;
    json_t *value;
    int result = 0;
    json_object_foreach(object, name, value)
    {
        char key[KEY_BYTES];
        int length = snprintf(key, sizeof(key), "%s%s%s", prefix, *prefix ? "." : "", name);
        if (!result && length >= KEY_BYTES)
            result = error_set(err, EINVAL, "Parameter '%.64s...' is unexpected", name);
        if (!result)
            result = add_value(list, key, value, err);
    }
    return result;
}

/* A list of strings, which may each be in an object of its own, is the same key several times. */
static int add_array(struct keyval *list, const char *key, json_t *array, struct error *err)
{
    size_t index;
    json_t *value;
    int result = 0;
    json_array_foreach(array, index, value)
    {
        json_t *text = json_object_get(value, "str");
        if (!result)
            result = add_value(list, key, text ? text : value, err);
    }
    return result;
}

static int add_value(struct keyval *list, const char *key, json_t *value, struct error *err)
{
    char number[64];
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return add_object(list, key, value, err);
    case JSON_ARRAY:
        return add_array(list, key, value, err);
    case JSON_STRING:
        return add_pair(list, key, json_string_value(value), err);
    case JSON_INTEGER:
        snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
        return add_pair(list, key, number, err);
    case JSON_REAL:
        snprintf(number, sizeof(number), "%.17g", json_real_value(value));
        return add_pair(list, key, number, err);
    case JSON_TRUE:
    case JSON_FALSE:
        return add_pair(list, key, json_is_true(value) ? "on" : "off", err);
    case JSON_NULL:
        return add_pair(list, key, "", err);
    }
    UNREACHABLE("json_type");
}

int keyval_from_json(struct keyval *list, const char *option, json_t *object, struct error *err)
{
    *list = (struct keyval){.option = strdup(option)};
    CHECK(list->option);
    int result = add_object(list, "", object, err);
    if (result)
        keyval_fini(list);
    return result;
}

int keyval_parse_either(struct keyval *list, const char *option, const char *text,
                        const char *implied, struct error *err)
{
    json_error_t where;
    if (*text != '{')
        return keyval_parse(list, option, text, implied, err);
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    if (!object)
        return error_set(err, EINVAL, "%s %s: JSON parse error at column %d, %s", option, text,
                         where.column, where.text);
    char *whole = NULL;
    CHECK(asprintf(&whole, "%s %s", option, text) > 0);
    int result = keyval_from_json(list, whole, object, err);
    if (!result && !list->count) {
        keyval_fini(list);
        result = error_set(err, EINVAL, "%s: the argument is empty", option);
    }
    free(whole);
    json_decref(object);
    return result;
}
