/* SPDX-License-Identifier: MIT */
/* hmp_expression: a reader by recursive descent; parentheses may nest so deep only. */
#include "vmm/control/hmp_expression.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define DEPTH_MAX 64

struct reader {
    struct hmp_expression *expression;
    unsigned depth;
};

static bool fail(struct reader *reader, const char *what)
{
    snprintf(reader->expression->error, sizeof(reader->expression->error), "%s", what);
    return false;
}

static void skip_blanks(struct reader *reader)
{
    while (isspace((unsigned char)*reader->expression->at))
        reader->expression->at++;
}

static char next_sign(struct reader *reader)
{
    reader->expression->at++;
    skip_blanks(reader);
    return *reader->expression->at;
}

/* --- registers --- */

struct named {
    const char *name;
    size_t offset, bytes;
};

#define REGISTER(name, member)                                                                     \
    {                                                                                              \
        name, offsetof(struct accel_vcpu_state, member),                                           \
            sizeof(((struct accel_vcpu_state *)0)->member)                                         \
    }
#define GENERAL(letters, member)                                                                   \
    REGISTER("e" letters, regs.member), REGISTER("r" letters, regs.member)
#define SEGMENT(name)                                                                              \
    REGISTER(#name, sregs.name.selector), REGISTER(#name ".base", sregs.name.base),                \
        REGISTER(#name ".limit", sregs.name.limit)

/* QEMU's names, which know no width: $eax is all of RAX; and the usual ones. */
static const struct named registers[] = {
    GENERAL("ax", rax),
    GENERAL("bx", rbx),
    GENERAL("cx", rcx),
    GENERAL("dx", rdx),
    GENERAL("si", rsi),
    GENERAL("di", rdi),
    GENERAL("bp", rbp),
    GENERAL("sp", rsp),
    GENERAL("ip", rip),
    REGISTER("sp", regs.rsp),
    REGISTER("fp", regs.rbp),
    REGISTER("r8", regs.r8),
    REGISTER("r9", regs.r9),
    REGISTER("r10", regs.r10),
    REGISTER("r11", regs.r11),
    REGISTER("r12", regs.r12),
    REGISTER("r13", regs.r13),
    REGISTER("r14", regs.r14),
    REGISTER("r15", regs.r15),
    REGISTER("eflags", regs.rflags),
    REGISTER("rflags", regs.rflags),
    SEGMENT(cs),
    SEGMENT(ds),
    SEGMENT(es),
    SEGMENT(ss),
    SEGMENT(fs),
    SEGMENT(gs),
    REGISTER("cr0", sregs.cr0),
    REGISTER("cr2", sregs.cr2),
    REGISTER("cr3", sregs.cr3),
    REGISTER("cr4", sregs.cr4),
    REGISTER("cr8", sregs.cr8),
    REGISTER("efer", sregs.efer),
};

/* In the state's layout, which is little-endian. */
static int64_t value_of(const struct named *named, const struct accel_vcpu_state *state)
{
    uint64_t value = 0;
    memcpy(&value, (const char *)state + named->offset, named->bytes);
    return (int64_t)value;
}

/* $pc is where the next instruction is fetched from. */
static bool read_register(struct reader *reader, int64_t *out)
{
    const char *name = reader->expression->at + 1;
    const struct accel_vcpu_state *state = reader->expression->state;
    size_t length = 0;
    while (isalnum((unsigned char)name[length]) || name[length] == '.' || name[length] == '_')
        length++;
    reader->expression->at = name + length;
    skip_blanks(reader);
    if (!state)
        return fail(reader, "no CPU available");
    if (length == 2 && strncmp(name, "pc", 2) == 0) {
        *out = (int64_t)(state->sregs.cs.base + state->regs.rip);
        return true;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(registers); i++)
        if (strlen(registers[i].name) == length && strncmp(registers[i].name, name, length) == 0) {
            *out = value_of(&registers[i], state);
            return true;
        }
    return fail(reader, "unknown register");
}

/* --- operands --- */

static bool read_sum(struct reader *reader, int64_t *out);
static bool read_operand(struct reader *reader, int64_t *out);

static bool read_number(struct reader *reader, int64_t *out)
{
    char *end, what[] = "invalid char '?' in expression";
    errno = 0;
    *out = (int64_t)strtoull(reader->expression->at, &end, 0);
    if (errno == ERANGE)
        return fail(reader, "number too large");
    if (end == reader->expression->at) {
        *strchr(what, '?') = *end;
        return fail(reader, what);
    }
    reader->expression->at = end;
    skip_blanks(reader);
    return true;
}

static bool read_character(struct reader *reader, int64_t *out)
{
    const char *at = reader->expression->at + 1;
    if (!*at)
        return fail(reader, "character constant expected");
    if (at[1] != '\'')
        return fail(reader, "missing terminating ' character");
    *out = (unsigned char)*at;
    reader->expression->at = at + 2;
    skip_blanks(reader);
    return true;
}

static bool read_group(struct reader *reader, int64_t *out)
{
    next_sign(reader);
    if (!read_sum(reader, out))
        return false;
    if (*reader->expression->at != ')')
        return fail(reader, "')' expected");
    next_sign(reader);
    return true;
}

static bool read_signed(struct reader *reader, char sign, int64_t *out)
{
    next_sign(reader);
    if (!read_operand(reader, out))
        return false;
    if (sign == '-')
        *out = (int64_t) - (uint64_t)*out;
    else if (sign == '~')
        *out = ~*out;
    return true;
}

static bool read_plain(struct reader *reader, int64_t *out)
{
    const char sign = *reader->expression->at;
    switch (sign) {
    case '+':
    case '-':
    case '~':
        return read_signed(reader, sign, out);
    case '(':
        return read_group(reader, out);
    case '\'':
        return read_character(reader, out);
    case '$':
        return read_register(reader, out);
    case 0:
        return fail(reader, "unexpected end of expression");
    default:
        return read_number(reader, out);
    }
}

static bool read_operand(struct reader *reader, int64_t *out)
{
    if (reader->depth >= DEPTH_MAX)
        return fail(reader, "the expression nests too deep");
    reader->depth++;
    bool ok = read_plain(reader, out);
    reader->depth--;
    return ok;
}

/* --- operators --- */

/* As unsigned numbers, that wrap; only the least one by -1 would not be one. */
static bool apply(struct reader *reader, char sign, int64_t *left, int64_t right)
{
    const uint64_t a = (uint64_t)*left, b = (uint64_t)right;
    switch (sign) {
    case '*':
        *left = (int64_t)(a * b);
        return true;
    case '&':
        *left = (int64_t)(a & b);
        return true;
    case '|':
        *left = (int64_t)(a | b);
        return true;
    case '^':
        *left = (int64_t)(a ^ b);
        return true;
    case '+':
        *left = (int64_t)(a + b);
        return true;
    case '-':
        *left = (int64_t)(a - b);
        return true;
    }
    if (!right)
        return fail(reader, "division by zero");
    if (right == -1)
        *left = sign == '/' ? (int64_t)-a : 0;
    else
        *left = sign == '/' ? *left / right : *left % right;
    return true;
}

static bool read_level(struct reader *reader, unsigned level, int64_t *out)
{
    static const char signs[][4] = {"+-", "&|^", "*/%"};
    if (level == ARRAY_SIZE(signs))
        return read_operand(reader, out);
    if (!read_level(reader, level + 1, out))
        return false;
    for (char sign; (sign = *reader->expression->at) && strchr(signs[level], sign);) {
        int64_t right;
        next_sign(reader);
        if (!read_level(reader, level + 1, &right) || !apply(reader, sign, out, right))
            return false;
    }
    return true;
}

static bool read_sum(struct reader *reader, int64_t *out)
{
    return read_level(reader, 0, out);
}

bool hmp_expression_read(struct hmp_expression *expression, int64_t *out)
{
    struct reader reader = {.expression = expression};
    skip_blanks(&reader);
    return read_sum(&reader, out);
}
