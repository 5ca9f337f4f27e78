/* SPDX-License-Identifier: MIT */
/* hmp_memory: x and xp of the human monitor: guest memory in numbers, as QEMU prints it. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/guest_mem.h"
#include "vmm/accel.h"
#include "vmm/control/hmp_private.h"

#define DUMP_BYTES_MAX (1 << 20)
#define PAGE_BYTES     4096u

struct dump {
    struct hmp_call *call;
    bool is_physical;
    char format;   /* x d u o c */
    unsigned size; /* of a number in bytes */
    uint64_t count;
};

static bool refuse(struct hmp_call *call, const char *what)
{
    fprintf(call->out, "%s\r\nTry \"help %s\" for more information\r\n", what, call->words[0]);
    return false;
}

/* "8xg": how many, how, how large; each may be left out. */
static bool read_format(struct dump *dump, const char *text)
{
    static const char sizes[] = "bhwg";
    char *end = (char *)text, what[] = "invalid char in format: '?'";
    const char *size = NULL;
    dump->count = text && *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 1;
    dump->format = 'x';
    for (; text && *end; end++) {
        if (strchr("xduoc", *end))
            dump->format = *end;
        else if (strchr(sizes, *end))
            size = strchr(sizes, *end);
        else if (*end == 'i')
            return refuse(dump->call, "evisor has no disassembler: start it with -gdb and use gdb");
        else {
            what[sizeof(what) - 3] = *end;
            return refuse(dump->call, what);
        }
    }
    dump->size = size ? 1u << (size - sizes) : dump->format == 'c' ? 1 : 4;
    if (dump->format == 'c')
        dump->size = 1;
    return dump->count <= DUMP_BYTES_MAX / dump->size ||
           refuse(dump->call, "at most one MiB at a time");
}

/* The CPUs are parked where addresses are virtual. */
static bool read_piece(const struct dump *dump, uint64_t address, uint8_t *to, size_t length)
{
    struct machine *machine = dump->call->control->machine;
    const struct guest_mem *mem = machine_guest_mem(machine);
    if (dump->is_physical)
        return guest_mem_read(mem, address, to, length);
    struct accel_vcpu *cpu = machine_accel_vcpu(machine, 0);
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
    switch (dump->format) {
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

void hmp_dump(struct hmp_call *call)
{
    struct dump dump = {.call = call, .is_physical = strcmp(call->words[0], "xp") == 0};
    int64_t address;
    if (!read_format(&dump, call->format) || !hmp_read_number(call, call->words[1], &address))
        return;
    if (!dump.is_physical && machine_get_state(call->control->machine) == MACHINE_RUNNING)
        fprintf(call->out, "Error: the guest runs, and its page tables with it: stop it first, or "
                           "use xp\r\n");
    else
        print_dump(&dump, (uint64_t)address);
}
