/* SPDX-License-Identifier: MIT */
/*
 * state: the one writer and reader of device state.
 *
 * A record is: name, version (u32), number of fields (u32), then per field its name, element size
 * (u32), count (u32) and little-endian elements. A name is a u32 length and its bytes. x86-64 is
 * little-endian, so elements are copied as they lie.
 */
#include "devices/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

void state_buffer_fini(struct state_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct state_buffer){0};
}

static void append(struct state_buffer *to, const void *from, size_t length)
{
    if (to->capacity - to->length < length) {
        to->capacity = MAX(2 * to->capacity, to->length + length);
        to->bytes = realloc(to->bytes, to->capacity);
        CHECK(to->bytes);
    }
    memcpy(to->bytes + to->length, from, length);
    to->length += length;
}

static void append_u32(struct state_buffer *to, size_t value)
{
    uint8_t bytes[4];
    store_le32(bytes, (uint32_t)value);
    append(to, bytes, sizeof(bytes));
}

static void append_name(struct state_buffer *to, const char *name)
{
    append_u32(to, strlen(name));
    append(to, name, strlen(name));
}

void state_save(const struct state_table *table, const void *object, struct state_buffer *to)
{
    append_name(to, table->name);
    append_u32(to, table->version);
    append_u32(to, table->field_count);
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        append_name(to, field->name);
        append_u32(to, field->size);
        append_u32(to, field->count);
        append(to, (const char *)object + field->offset, field->size * field->count);
    }
}

static const uint8_t *take(struct state_buffer *from, size_t length)
{
    if (!range_fits(from->read_at, length, from->length))
        return NULL;
    const uint8_t *at = from->bytes + from->read_at;
    from->read_at += length;
    return at;
}

static bool take_u32_is(struct state_buffer *from, size_t expected)
{
    const uint8_t *at = take(from, 4);
    return at && load_le32(at) == expected;
}

static bool take_name_is(struct state_buffer *from, const char *expected)
{
    size_t length = strlen(expected);
    if (!take_u32_is(from, length))
        return false;
    const uint8_t *at = take(from, length);
    return at && !memcmp(at, expected, length);
}

int state_restore(const struct state_table *table, void *object, struct state_buffer *from,
                  struct error *err)
{
    if (!take_name_is(from, table->name) || !take_u32_is(from, table->version) ||
        !take_u32_is(from, table->field_count))
        return error_set(err, EINVAL,
                         "saved state does not hold version %u of device '%s': it was written by "
                         "another version of evisor or for another machine",
                         table->version, table->name);
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        const uint8_t *bytes = NULL;
        if (take_name_is(from, field->name) && take_u32_is(from, field->size) &&
            take_u32_is(from, field->count))
            bytes = take(from, field->size * field->count);
        if (!bytes)
            return error_set(err, EINVAL, "saved state of device '%s' lacks field '%s'",
                             table->name, field->name);
        memcpy((char *)object + field->offset, bytes, field->size * field->count);
    }
    return 0;
}
