/* SPDX-License-Identifier: MIT */
/*
 * hmp_memory: the human monitor about numbers, in guest memory and on ports, as QEMU prints them.
 * A format that is not said is that of the command before.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/guest_mem.h"
#include "vmm/accel.h"
#include "vmm/control/hmp_private.h"
#include "vmm/machine_inspect.h"

#define DUMP_BYTES_MAX (64 << 10) /* of which less than CONTROL_OUTPUT_MAX_BYTES become */
#define SUM_BYTES_MAX  (64 << 20)
#define PAGE_BYTES     4096u

struct dump {
    struct hmp_call *call;
    bool is_physical;
    char letter;   /* x d u o c */
    unsigned size; /* of a number in bytes */
    uint64_t count;
};

static bool refuse(struct hmp_call *call, const char *what)
{
    fprintf(call->out, "%s\r\nTry \"help %s\" for more information\r\n", what, call->words[0]);
    return false;
}

/* One letter of a format; false: said what is wrong with it. */
static bool read_letter(struct hmp_call *call, char letter)
{
    static const char sizes[] = "bhwg";
    struct hmp_format *format = &call->control->format;
    char what[] = "invalid char in format: '?'";
    if (strchr("xduoc", letter)) {
        format->letter = letter;
    } else if (strchr(sizes, letter)) {
        format->size = 1u << (strchr(sizes, letter) - sizes);
    } else if (letter == 'i') {
        return refuse(call, "evisor has no disassembler: start it with -gdb and use gdb");
    } else {
        what[sizeof(what) - 3] = letter;
        return refuse(call, what);
    }
    return true;
}

/* "8xg": how many, how, how large; each may be left out. */
static bool read_format(struct dump *dump)
{
    struct hmp_call *call = dump->call;
    const char *text = call->format ? call->format : "";
    char *end = (char *)text;
    dump->count = *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 1;
    for (; *end; end++)
        if (!read_letter(call, *end))
            return false;
    dump->letter = call->control->format.letter;
    dump->size = dump->letter == 'c' ? 1 : call->control->format.size;
    return true;
}

/* The CPUs are parked where addresses are virtual. */
static bool read_piece(const struct dump *dump, uint64_t address, uint8_t *to, size_t length)
{
    struct machine *machine = dump->call->control->machine;
    const struct guest_mem *mem = machine_guest_mem(machine);
    if (dump->is_physical)
        return guest_mem_read(mem, address, to, length);
    struct accel_vcpu *cpu = hmp_current_cpu(dump->call);
    while (length) {
        size_t piece = MIN(length, PAGE_BYTES - address % PAGE_BYTES);
        uint64_t gpa;
        if (cpu->vm->ops->vcpu_translate(cpu, address, &gpa) ||
            !guest_mem_read(mem, gpa, to, piece))
            return false;
        to += piece, address += piece, length -= piece;
    }
    return true;
}

static void print_char(FILE *out, uint8_t byte)
{
    static const char escapes[][3] = {"\nn", "\rr", "\\\\", "''"};
    for (unsigned i = 0; i < ARRAY_SIZE(escapes); i++)
        if (byte == (uint8_t)escapes[i][0]) {
            fprintf(out, "'\\%c'", escapes[i][1]);
            return;
        }
    fprintf(out, byte >= 32 && byte <= 126 ? "'%c'" : "'\\x%02x'", byte);
}

static void print_number(const struct dump *dump, const uint8_t *bytes)
{
    FILE *out = dump->call->out;
    const int bits = (int)dump->size * 8;
    uint64_t value = 0;
    memcpy(&value, bytes, dump->size); /* little-endian on both sides */
    const int64_t number = (int64_t)(value << (64 - bits)) >> (64 - bits);
    switch (dump->letter) {
    case 'c':
        print_char(out, *bytes);
        break;
    case 'o':
        fprintf(out, "%#*" PRIo64, (bits + 2) / 3, value);
        break;
    case 'u':
        fprintf(out, "%*" PRIu64, (bits * 10 + 32) / 33, value);
        break;
    case 'd':
        fprintf(out, "%*" PRId64, (bits * 10 + 32) / 33, number);
        break;
    default:
        fprintf(out, "0x%0*" PRIx64, bits / 4, value);
    }
}

static void print_dump(const struct dump *dump, uint64_t address)
{
    FILE *out = dump->call->out;
    size_t left = dump->count * dump->size, row = dump->size == 1 ? 8 : 16;
    uint8_t bytes[16];
    for (; left; address += row) {
        size_t length = MIN(left, row);
        fprintf(out, "%016" PRIx64 ":", address);
        if (!read_piece(dump, address, bytes, length)) {
            fprintf(out, " Cannot access memory\r\n");
            return;
        }
        for (size_t at = 0; at < length; at += dump->size) {
            fputc(' ', out);
            print_number(dump, bytes + at);
        }
        fprintf(out, "\r\n");
        left -= length;
    }
}

static void look_at_memory(struct hmp_call *call)
{
    struct dump dump = {.call = call, .is_physical = strcmp(call->words[0], "xp") == 0};
    int64_t address;
    if (!read_format(&dump) || !hmp_read_expression(call, &address) || !hmp_read_end(call))
        return;
    if (dump.count <= DUMP_BYTES_MAX / dump.size)
        print_dump(&dump, (uint64_t)address);
    else
        refuse(call, "at most 64 KiB at a time");
}

void hmp_dump(struct hmp_call *call)
{
    hmp_inspect(call, look_at_memory);
}

/* --- print --- */

static void print_value(struct hmp_call *call)
{
    struct dump dump = {.call = call};
    int64_t value;
    if (!read_format(&dump) || !hmp_read_expression(call, &value) || !hmp_read_end(call))
        return;
    switch (dump.letter) {
    case 'o':
        fprintf(call->out, "%#" PRIo64, (uint64_t)value);
        break;
    case 'x':
        fprintf(call->out, "%#" PRIx64, (uint64_t)value);
        break;
    case 'u':
        fprintf(call->out, "%" PRIu64, (uint64_t)value);
        break;
    case 'c':
        print_char(call->out, (uint8_t)value);
        break;
    default:
        fprintf(call->out, "%" PRId64, value);
    }
    fprintf(call->out, "\r\n");
}

void hmp_print(struct hmp_call *call)
{
    hmp_inspect(call, print_value);
}

/* --- where memory is, and what it adds up to --- */

static void print_sum(struct hmp_call *call)
{
    int64_t address, size;
    uint16_t sum = 0;
    uint8_t bytes[PAGE_BYTES];
    if (!hmp_read_expression(call, &address) || !hmp_read_expression(call, &size) ||
        !hmp_read_end(call))
        return;
    if (size < 0 || size > SUM_BYTES_MAX) {
        refuse(call, "at most 64 MiB at a time");
        return;
    }
    for (uint64_t at = 0; at < (uint64_t)size; at += sizeof(bytes)) {
        size_t length = MIN((uint64_t)size - at, sizeof(bytes));
        if (!guest_mem_read(machine_guest_mem(call->control->machine), (uint64_t)address + at,
                            bytes, length)) {
            fprintf(call->out, "Error: there is no memory at 0x%" PRIx64 "\r\n",
                    (uint64_t)address + at);
            return;
        }
        for (size_t i = 0; i < length; i++)
            sum = (uint16_t)((sum >> 1 | sum << 15) + bytes[i]);
    }
    fprintf(call->out, "%05d\r\n", sum);
}

void hmp_sum(struct hmp_call *call)
{
    hmp_inspect(call, print_sum);
}

static void print_physical(struct hmp_call *call)
{
    struct accel_vcpu *cpu = hmp_current_cpu(call);
    int64_t address;
    uint64_t gpa;
    if (!hmp_read_expression(call, &address) || !hmp_read_end(call))
        return;
    if (cpu->vm->ops->vcpu_translate(cpu, (uint64_t)address, &gpa))
        fprintf(call->out, "Unmapped\r\n");
    else
        fprintf(call->out, "gpa: %#" PRIx64 "\r\n", gpa);
}

void hmp_gva2gpa(struct hmp_call *call)
{
    hmp_inspect(call, print_physical);
}

static void print_host(struct hmp_call *call)
{
    int64_t address;
    if (!hmp_read_expression(call, &address) || !hmp_read_end(call))
        return;
    void *host = guest_mem_span(machine_guest_mem(call->control->machine), (uint64_t)address, 1);
    if (host)
        fprintf(call->out, "Host virtual address for 0x%" PRIx64 " (pc.ram) is %p\r\n",
                (uint64_t)address, host);
    else
        fprintf(call->out, "No memory is mapped at address 0x%" PRIx64 "\r\n", (uint64_t)address);
}

void hmp_gpa2hva(struct hmp_call *call)
{
    hmp_inspect(call, print_host);
}

/* --- ports --- */

/* As wide as the format says; a port takes no eight bytes. */
static bool read_port(struct dump *dump, int64_t *port)
{
    if (!read_format(dump) || !hmp_read_expression(dump->call, port))
        return false;
    dump->size = MIN(dump->size, 4u);
    return true;
}

static void read_in(struct hmp_call *call)
{
    struct dump dump = {.call = call};
    struct machine *machine = call->control->machine;
    int64_t port, index;
    bool has_index = false;
    uint64_t value = 0;
    if (!read_port(&dump, &port))
        return;
    if (*call->rest == '.') {
        call->rest++;
        has_index = true;
        if (!hmp_read_expression(call, &index))
            return;
    }
    if (!hmp_read_end(call))
        return;
    if (has_index)
        machine_access_port(machine, (uint16_t)port++, 1, true, &(uint64_t){(uint8_t)index});
    machine_access_port(machine, (uint16_t)port, dump.size, false, &value);
    fprintf(call->out, "port%c[0x%04x] = 0x%0*" PRIx64 "\r\n",
            dump.size == 1   ? 'b'
            : dump.size == 2 ? 'w'
                             : 'l',
            (uint16_t)port, 2 * (int)dump.size, value);
}

void hmp_in(struct hmp_call *call)
{
    hmp_inspect(call, read_in);
}

static void write_out(struct hmp_call *call)
{
    struct dump dump = {.call = call};
    int64_t port, value;
    if (!read_port(&dump, &port) || !hmp_read_expression(call, &value) || !hmp_read_end(call))
        return;
    machine_access_port(call->control->machine, (uint16_t)port, dump.size, true,
                        &(uint64_t){(uint64_t)value});
}

void hmp_out(struct hmp_call *call)
{
    hmp_inspect(call, write_out);
}
