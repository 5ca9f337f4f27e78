/* SPDX-License-Identifier: MIT */
/*
 * qom: the machine as a tree of objects with properties, as QEMU's object model shows it.
 *
 * The tree is made anew for each question from the config and the machine; it holds what evisor
 * has: devices, CPUs, backends, terminals. Names of types and properties are QEMU's.
 */
#ifndef VMM_CONTROL_QOM_H
#define VMM_CONTROL_QOM_H

#include "vmm/machine.h"

#define QOM_PATH_MAX 160

struct qom_type;

struct qom_object {
    char path[QOM_PATH_MAX]; /* "/machine/peripheral/net0" */
    const struct qom_type *type;
    unsigned index; /* of the entry in the config that it stands for */
};

/* A property. `read` gives a new value; NULL leaves the object without it. */
struct qom_property {
    const char *name;  /* NULL: no more */
    const char *kind;  /* "str", "bool", "size", "int", "uint32", "link<bus>" */
    const char *about; /* or NULL */
    json_t *(*read)(struct machine *machine, const struct qom_object *object);
    /* NULL: it cannot be changed. Of the value's type it is sure where the kind is a number. */
    int (*write)(struct machine *machine, const struct qom_object *object, json_t *value,
                 struct error *err);
    bool is_fixed; /* settable for a new device, not for one that is there */
};

struct qom_type {
    const char *name;   /* "virtio-net-pci" */
    const char *parent; /* "virtio-pci", or NULL */
    bool is_device;
    const struct qom_property *properties; /* beside "type" */
};

/* qom_throttle.c */
extern const struct qom_property qom_throttle_properties[];
/* qom_types.c: all types; abstract ones have no properties. */
extern const struct qom_type qom_types[];
extern const unsigned qom_type_count;
const struct qom_type *qom_find_type(const char *name);

/* Calls `visit` for each object, parents first, until it returns false. */
void qom_walk(struct machine *machine, bool (*visit)(void *opaque, const struct qom_object *object),
              void *opaque);

/* An absolute path, or the end of one that only one object has. False: none, or several. */
bool qom_find(struct machine *machine, const char *path, struct qom_object *out,
              bool *is_ambiguous);

#endif
