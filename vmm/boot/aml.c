/* SPDX-License-Identifier: MIT */
/*
 * aml: appends opcodes to a buffer.
 *
 * The length of a block stands before its content, so a field of the widest form (4 bytes) is left
 * open and filled in by aml_end.
 */
#include "vmm/boot/aml.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"

enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_EXTENDED = 0x5b,
    OP_EXTENDED_DEVICE = 0x82,
    OP_ARGUMENT_0 = 0x68,
    OP_LOCAL_0 = 0x60,
    OP_STORE = 0x70,
    OP_AND = 0x7b,
    OP_NOTIFY = 0x86,
    OP_IF = 0xa0,
    OP_RETURN = 0xa4,
    OP_EXTENDED_REGION = 0x80,
    OP_EXTENDED_FIELD = 0x81,
    OP_DUAL_NAME = 0x2e,
    OP_MULTI_NAME = 0x2f,
};

enum {
    RESOURCE_IRQ = 0x22,
    RESOURCE_IO = 0x47,
    RESOURCE_END = 0x79,
    RESOURCE_MEMORY32_FIXED = 0x86,
    RESOURCE_DWORD_WINDOW = 0x87,
    RESOURCE_WORD_WINDOW = 0x88,
    RESOURCE_QWORD_WINDOW = 0x8a,
};

enum window_type {
    WINDOW_MEMORY = 0,
    WINDOW_IO = 1,
    WINDOW_BUS = 2,
};

enum {
    REGION_SYSTEM_IO = 1,
    FIELD_DWORD_ACCESS = 3,
    FIELD_WRITE_AS_ZEROS = 2 << 5,
    METHOD_SERIALIZED = 1 << 3,
};

#define LENGTH_BYTES        4
#define LENGTH_FORM         0xc0 /* three more bytes follow */
#define TEMPLATE_SIZE_BYTES 3    /* a word constant: the size of a resource buffer */
#define WINDOW_FIXED        0x0c /* both ends are fixed, decoded positively */
#define WINDOW_IO_ENTIRE    0x03
#define WINDOW_READ_WRITE   0x01

void aml_init(struct aml *aml, uint8_t *bytes, size_t capacity)
{
    *aml = (struct aml){.bytes = bytes, .capacity = capacity};
}

bool aml_overflowed(const struct aml *aml)
{
    CHECK(aml->depth == 0);
    return aml->has_overflowed;
}

static void put(struct aml *aml, const void *bytes, size_t length)
{
    if (!range_fits(aml->length, length, aml->capacity)) {
        aml->has_overflowed = true;
        return;
    }
    memcpy(aml->bytes + aml->length, bytes, length);
    aml->length += length;
}

static void put8(struct aml *aml, unsigned value)
{
    uint8_t byte = (uint8_t)value;
    put(aml, &byte, 1);
}

static void put_le(struct aml *aml, uint64_t value, unsigned bytes)
{
    uint8_t all[8];
    store_le64(all, value);
    put(aml, all, bytes);
}

static void put_segment(struct aml *aml, const char *name, size_t length)
{
    CHECK(length >= 1 && length <= 4);
    put(aml, name, length);
    put(aml, "___", 4 - length);
}

static void put_name(struct aml *aml, const char *name)
{
    unsigned segments = 1;
    if (*name == '\\') {
        put8(aml, '\\');
        name++;
    }
    if (!*name) {
        put8(aml, OP_ZERO); /* the root itself */
        return;
    }
    for (const char *at = name; (at = strchr(at, '.')); at++)
        segments++;
    if (segments == 2)
        put8(aml, OP_DUAL_NAME);
    else if (segments > 2)
        put(aml, (const uint8_t[]){OP_MULTI_NAME, (uint8_t)segments}, 2);
    for (; segments; segments--) {
        size_t length = strcspn(name, ".");
        put_segment(aml, name, length);
        name += length + 1;
    }
}

static void open_block(struct aml *aml, bool is_template)
{
    CHECK(aml->depth < AML_DEPTH_MAX);
    aml->is_template[aml->depth] = is_template;
    aml->starts[aml->depth++] = aml->length;
    put(aml, (const uint8_t[LENGTH_BYTES]){0}, LENGTH_BYTES);
}

void aml_scope(struct aml *aml, const char *path)
{
    put8(aml, OP_SCOPE);
    open_block(aml, false);
    put_name(aml, path);
}

void aml_device(struct aml *aml, const char *name)
{
    put8(aml, OP_EXTENDED);
    put8(aml, OP_EXTENDED_DEVICE);
    open_block(aml, false);
    put_name(aml, name);
}

void aml_method(struct aml *aml, const char *name, unsigned arguments)
{
    put8(aml, OP_METHOD);
    open_block(aml, false);
    put_name(aml, name);
    put8(aml, arguments);
}

void aml_package(struct aml *aml, uint8_t elements)
{
    put8(aml, OP_PACKAGE);
    open_block(aml, false);
    put8(aml, elements);
}

void aml_resources(struct aml *aml)
{
    put8(aml, OP_BUFFER);
    open_block(aml, true);
    put8(aml, OP_WORD);
    put_le(aml, 0, 2);
}

/* The buffer says its size a second time, as an integer. */
static void end_template(struct aml *aml, size_t start)
{
    put8(aml, RESOURCE_END);
    put8(aml, 0); /* a checksum of 0 counts as right */
    if (aml->has_overflowed)
        return;
    size_t content = aml->length - start - LENGTH_BYTES - TEMPLATE_SIZE_BYTES;
    store_le16(aml->bytes + start + LENGTH_BYTES + 1, (uint16_t)content);
}

void aml_end(struct aml *aml)
{
    CHECK(aml->depth > 0);
    size_t start = aml->starts[--aml->depth];
    if (aml->is_template[aml->depth])
        end_template(aml, start);
    if (aml->has_overflowed)
        return;
    size_t length = aml->length - start;
    uint8_t *field = aml->bytes + start;
    field[0] = (uint8_t)(LENGTH_FORM | (length & 0x0f));
    field[1] = (uint8_t)(length >> 4);
    field[2] = (uint8_t)(length >> 12);
    field[3] = (uint8_t)(length >> 20);
}

void aml_name(struct aml *aml, const char *name)
{
    put8(aml, OP_NAME);
    put_name(aml, name);
}

void aml_integer(struct aml *aml, uint64_t value)
{
    if (value <= 1) {
        put8(aml, value ? OP_ONE : OP_ZERO);
        return;
    }
    unsigned bytes = value <= UINT8_MAX ? 1 : value <= UINT16_MAX ? 2 : value <= UINT32_MAX ? 4 : 8;
    put8(aml, bytes == 1 ? OP_BYTE : bytes == 2 ? OP_WORD : bytes == 4 ? OP_DWORD : OP_QWORD);
    put_le(aml, value, bytes);
}

void aml_string(struct aml *aml, const char *text)
{
    put8(aml, OP_STRING);
    put(aml, text, strlen(text) + 1);
}

static unsigned hex_digit(char digit)
{
    return (unsigned)(digit <= '9' ? digit - '0' : digit - 'A' + 10);
}

/* Three letters of five bits and four hexadecimal digits, the most significant byte first. */
void aml_eisa_id(struct aml *aml, const char *id)
{
    uint32_t value = 0;
    uint8_t bytes[4];
    CHECK(strlen(id) == 7);
    for (unsigned i = 0; i < 3; i++)
        value = value << 5 | (uint32_t)(id[i] - '@');
    for (unsigned i = 3; i < 7; i++)
        value = value << 4 | hex_digit(id[i]);
    store_be32(bytes, value);
    put8(aml, OP_DWORD);
    put(aml, bytes, sizeof(bytes));
}

void aml_return_argument(struct aml *aml, unsigned index)
{
    put8(aml, OP_RETURN);
    put8(aml, OP_ARGUMENT_0 + index);
}

void aml_return_integer(struct aml *aml, uint64_t value)
{
    put8(aml, OP_RETURN);
    aml_integer(aml, value);
}

void aml_buffer(struct aml *aml, const uint8_t *bytes, uint8_t length)
{
    put8(aml, OP_BUFFER);
    open_block(aml, false);
    aml_integer(aml, length);
    put(aml, bytes, length);
    aml_end(aml);
}

void aml_region(struct aml *aml, const char *name, uint16_t port, uint8_t length)
{
    put8(aml, OP_EXTENDED);
    put8(aml, OP_EXTENDED_REGION);
    put_name(aml, name);
    put8(aml, REGION_SYSTEM_IO);
    aml_integer(aml, port);
    aml_integer(aml, length);
}

void aml_field(struct aml *aml, const char *region)
{
    put8(aml, OP_EXTENDED);
    put8(aml, OP_EXTENDED_FIELD);
    open_block(aml, false);
    put_name(aml, region);
    put8(aml, FIELD_DWORD_ACCESS | FIELD_WRITE_AS_ZEROS);
}

/* As a length field of two bytes, which does for what a region holds. */
static void put_bits(struct aml *aml, unsigned bits)
{
    CHECK(bits < 1u << 12);
    put8(aml, 1 << 6 | (bits & 0x0f));
    put8(aml, bits >> 4);
}

void aml_field_skip(struct aml *aml, unsigned bits)
{
    if (!bits)
        return;
    put8(aml, OP_ZERO);
    put_bits(aml, bits);
}

void aml_field_unit(struct aml *aml, const char *name, unsigned bits)
{
    put_segment(aml, name, strlen(name));
    put_bits(aml, bits);
}

void aml_serialized_method(struct aml *aml, const char *name)
{
    aml_method(aml, name, METHOD_SERIALIZED);
}

void aml_if(struct aml *aml)
{
    put8(aml, OP_IF);
    open_block(aml, false);
}

void aml_and_local(struct aml *aml, unsigned local, uint64_t mask)
{
    put8(aml, OP_AND);
    put8(aml, OP_LOCAL_0 + local);
    aml_integer(aml, mask);
    put8(aml, OP_ZERO); /* stored nowhere */
}

void aml_store_integer(struct aml *aml, uint64_t value, const char *to)
{
    put8(aml, OP_STORE);
    aml_integer(aml, value);
    put_name(aml, to);
}

void aml_store_argument(struct aml *aml, unsigned index, const char *to)
{
    put8(aml, OP_STORE);
    put8(aml, OP_ARGUMENT_0 + index);
    put_name(aml, to);
}

void aml_store_to_local(struct aml *aml, const char *from, unsigned local)
{
    put8(aml, OP_STORE);
    put_name(aml, from);
    put8(aml, OP_LOCAL_0 + local);
}

void aml_notify(struct aml *aml, const char *device, unsigned value)
{
    put8(aml, OP_NOTIFY);
    put_name(aml, device);
    aml_integer(aml, value);
}

void aml_call(struct aml *aml, const char *method)
{
    put_name(aml, method);
}

void aml_resource_io(struct aml *aml, uint16_t port, uint8_t length)
{
    put8(aml, RESOURCE_IO);
    put8(aml, 1); /* all 16 address bits are decoded */
    put_le(aml, port, 2);
    put_le(aml, port, 2);
    put8(aml, 1); /* alignment */
    put8(aml, length);
}

void aml_resource_irq(struct aml *aml, unsigned irq)
{
    put8(aml, RESOURCE_IRQ);
    put_le(aml, UINT64_C(1) << irq, 2);
}

void aml_resource_memory32(struct aml *aml, uint32_t gpa, uint32_t size)
{
    put8(aml, RESOURCE_MEMORY32_FIXED);
    put_le(aml, 9, 2);
    put8(aml, WINDOW_READ_WRITE);
    put_le(aml, gpa, 4);
    put_le(aml, size, 4);
}

/* `bytes` is the width of each of the five numbers. */
static void put_window(struct aml *aml, enum window_type type, uint8_t type_flags, unsigned bytes,
                       uint64_t first, uint64_t last)
{
    put8(aml, bytes == 2   ? RESOURCE_WORD_WINDOW
              : bytes == 4 ? RESOURCE_DWORD_WINDOW
                           : RESOURCE_QWORD_WINDOW);
    put_le(aml, 3 + 5 * bytes, 2);
    put8(aml, type);
    put8(aml, WINDOW_FIXED);
    put8(aml, type_flags);
    put_le(aml, 0, bytes); /* granularity */
    put_le(aml, first, bytes);
    put_le(aml, last, bytes);
    put_le(aml, 0, bytes); /* translation */
    put_le(aml, last - first + 1, bytes);
}

void aml_resource_bus_window(struct aml *aml, uint16_t first, uint16_t last)
{
    put_window(aml, WINDOW_BUS, 0, 2, first, last);
}

void aml_resource_io_window(struct aml *aml, uint16_t first, uint16_t last)
{
    put_window(aml, WINDOW_IO, WINDOW_IO_ENTIRE, 2, first, last);
}

void aml_resource_memory_window(struct aml *aml, uint64_t gpa, uint64_t size)
{
    uint64_t last = gpa + size - 1;
    put_window(aml, WINDOW_MEMORY, WINDOW_READ_WRITE, last <= UINT32_MAX ? 4 : 8, gpa, last);
}
