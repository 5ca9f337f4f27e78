/* SPDX-License-Identifier: MIT */
/*
 * state: what a device must remember across save and restore, declared as a table of fields.
 *
 * One generic writer and reader serve all devices: the stream names each field, so a restore
 * refuses what it does not know or misses, and says which. Integers are little-endian.
 */
#ifndef DEVICES_STATE_H
#define DEVICES_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct state_field {
    const char *name;
    size_t offset; /* in the device's struct */
    size_t size;   /* of one element, in bytes: 1, 2, 4 or 8 for integers */
    size_t count;  /* elements; 1 for a plain field */
};

#define STATE_FIELD(type, member)                                                                  \
    {                                                                                              \
#member, offsetof(type, member), sizeof(((type *)0)->member), 1                            \
    }
#define STATE_ARRAY(type, member)                                                                  \
    {                                                                                              \
#member, offsetof(type, member), sizeof(((type *)0)->member[0]),                           \
            ARRAY_SIZE(((type *)0)->member)                                                        \
    }

struct state_table {
    const char *name; /* of the device kind */
    unsigned version;
    const struct state_field *fields;
    size_t field_count;
};

/* A growing byte buffer; zero-initialised is empty. */
struct state_buffer {
    uint8_t *bytes;
    size_t length;
    size_t capacity;
    size_t read_at; /* the reader's position */
};

void state_buffer_fini(struct state_buffer *buffer);

/* Appends the fields of `object`. */
void state_save(const struct state_table *table, const void *object, struct state_buffer *to);

/* Reads what state_save wrote. On failure `object` may be half changed: reset it. */
int must_check state_restore(const struct state_table *table, void *object,
                             struct state_buffer *from, struct error *err);

#endif
