/* SPDX-License-Identifier: MIT */
/*
 * aml: writes ACPI machine language, as far as our DSDT needs it.
 *
 * (ACPI 6.3, chapter 20; resource descriptors: section 6.4.) Calls that open a block are matched by
 * aml_end. Names are of one to four letters, padded here; a path has
 * dots between them and may begin with a backslash. What does not fit in the buffer is left
 * out and aml_overflowed says so.
 */
#ifndef VMM_BOOT_AML_H
#define VMM_BOOT_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH_MAX 8

struct aml {
    uint8_t *bytes;
    size_t capacity;
    size_t length;
    /* Private. */
    bool has_overflowed;
    bool is_template[AML_DEPTH_MAX]; /* the open blocks: is it a resource template? */
    size_t starts[AML_DEPTH_MAX];    /* where each one's length field is */
    unsigned depth;
};

void aml_init(struct aml *aml, uint8_t *bytes, size_t capacity);
/* All blocks must be closed. */
bool aml_overflowed(const struct aml *aml);

/* Blocks. `path` of a scope may begin with a backslash. */
void aml_scope(struct aml *aml, const char *path);
void aml_device(struct aml *aml, const char *name);
void aml_method(struct aml *aml, const char *name, unsigned arguments);
void aml_package(struct aml *aml, uint8_t elements);
/* A buffer of resource descriptors; the end tag is written by aml_end. */
void aml_resources(struct aml *aml);
void aml_end(struct aml *aml);

/* Declares a name; its value, one of the data objects below, follows. */
void aml_name(struct aml *aml, const char *name);

/* Data objects. */
void aml_integer(struct aml *aml, uint64_t value);
void aml_string(struct aml *aml, const char *text);
void aml_eisa_id(struct aml *aml, const char *id); /* "PNP0A08" */
void aml_buffer(struct aml *aml, const uint8_t *bytes, uint8_t length);

/* In a method: gives back what was passed as argument `index`. */
void aml_return_argument(struct aml *aml, unsigned index);

void aml_return_integer(struct aml *aml, uint64_t value);

/* Registers at I/O ports, in units of 4 bytes; the fields of a region, up to aml_end. */
void aml_region(struct aml *aml, const char *name, uint16_t port, uint8_t length);
void aml_field(struct aml *aml, const char *region);
void aml_field_skip(struct aml *aml, unsigned bits);
void aml_field_unit(struct aml *aml, const char *name, unsigned bits);

/* Statements of a method. */
void aml_serialized_method(struct aml *aml, const char *name); /* without arguments */
void aml_if(struct aml *aml);                                  /* an expression follows */
void aml_and_local(struct aml *aml, unsigned local, uint64_t mask); /* an expression */
void aml_store_integer(struct aml *aml, uint64_t value, const char *to);
void aml_store_argument(struct aml *aml, unsigned index, const char *to);
void aml_store_to_local(struct aml *aml, const char *from, unsigned local);
void aml_notify(struct aml *aml, const char *device, unsigned value);
void aml_call(struct aml *aml, const char *method);

/* Resource descriptors. */
void aml_resource_io(struct aml *aml, uint16_t port, uint8_t length);
void aml_resource_irq(struct aml *aml, unsigned irq);
void aml_resource_memory32(struct aml *aml, uint32_t gpa, uint32_t size);
/* Windows that a bridge passes on. */
void aml_resource_bus_window(struct aml *aml, uint16_t first, uint16_t last);
void aml_resource_io_window(struct aml *aml, uint16_t first, uint16_t last);
void aml_resource_memory_window(struct aml *aml, uint64_t gpa, uint64_t size);

#endif
