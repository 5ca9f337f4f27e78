/* SPDX-License-Identifier: MIT */
/*
 * qmp_types: what arguments and answers of QMP commands look like, as query-qmp-schema tells it.
 * The table of commands names these types; tests hold every answer against them, and them against
 * QEMU's.
 */
#ifndef VMM_CONTROL_QMP_TYPES_H
#define VMM_CONTROL_QMP_TYPES_H

#include <stdbool.h>
#include <stddef.h>

/* A type's name is that of an entry below, or "str", "int", "bool", "any"; "[x]" is a list. */
struct qmp_member {
    const char *name; /* NULL: no more */
    const char *type;
    bool is_optional;
};

struct qmp_variant {
    const char *value; /* of the tag; NULL: no more */
    const char *type;  /* an object, whose members come in addition */
};

struct qmp_object_type {
    const char *name;
    const struct qmp_member *members;
    const char *tag;                    /* NULL: no variants */
    const struct qmp_variant *variants; /* where there is a tag */
};

/* Lists of as many as there are: their pointers are relocated at every start. */
#define QMP_MEMBERS(...)                                                                           \
    (const struct qmp_member[])                                                                    \
    {                                                                                              \
        __VA_ARGS__,                                                                               \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }
#define QMP_VARIANTS(...)                                                                          \
    (const struct qmp_variant[])                                                                   \
    {                                                                                              \
        __VA_ARGS__,                                                                               \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }

struct qmp_enum_type {
    const char *name;
    const char *(*value)(unsigned index); /* NULL: no more */
};

struct qmp_alternate_type {
    const char *name;
    const char *types[4]; /* NULL: no more */
};

extern const struct qmp_object_type qmp_object_types[];
extern const size_t qmp_object_type_count;
extern const struct qmp_enum_type qmp_enum_types[];
extern const size_t qmp_enum_type_count;

/* qmp_arguments.c */
extern const struct qmp_object_type qmp_argument_objects[];
extern const size_t qmp_argument_object_count;
extern const struct qmp_alternate_type qmp_alternate_types[];
extern const size_t qmp_alternate_type_count;
/* What the table of commands does not tell of an argument; NULL: it tells all. */
const char *qmp_argument_type(const char *command, const char *argument);
/* The object that all arguments of the command make together, or NULL. */
const char *qmp_arguments_type(const char *command);
/* The type, which may be NULL, is an enum and has no such word. */
bool qmp_enum_refuses(const char *type, const char *word);

#endif
