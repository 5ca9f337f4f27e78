/* SPDX-License-Identifier: MIT */
/*
 * gdb_registers: the CPU's registers in gdb's order, from one table that also describes them to it.
 *
 * A register is little-endian on the wire, as wide as the table says; what the state has fewer
 * bytes of is extended with zeroes. The CPU must be parked.
 */
#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "vmm/gdb/gdb_private.h"

#define GROUPS (ACCEL_STATE_REGS | ACCEL_STATE_SREGS | ACCEL_STATE_FPU | ACCEL_STATE_XSAVE)

/* In XSAVE's area: which components are not in their initial state, and the upper halves of YMM. */
#define XSTATE_BV_OFFSET 512
#define XSTATE_YMM       4u
#define YMM_OFFSET       576

enum special { PLAIN, TAG_WORD, YMM_HIGH };

struct gdb_register {
    const char *name, *type;
    unsigned bytes;       /* on the wire */
    unsigned state_bytes; /* in the state; 0: reads as zero */
    size_t offset;
    const char *feature; /* set where a new one begins */
    enum special special;
};

#define AT(member)                                                                                 \
    sizeof(((struct accel_vcpu_state *)0)->member), offsetof(struct accel_vcpu_state, member)
#define GENERAL(name)                                                                              \
    {                                                                                              \
#name, "int64", 8, AT(regs.name), NULL, PLAIN                                              \
    }
#define SEGMENT(name)                                                                              \
    {                                                                                              \
#name, "int32", 4, AT(sregs.name.selector), NULL, PLAIN                                    \
    }
#define X87(number)                                                                                \
    {                                                                                              \
        "st" #number, "i387_ext", 10, 10, offsetof(struct accel_vcpu_state, fpu.fpr[number]),      \
            NULL, PLAIN                                                                            \
    }
#define SSE(number)                                                                                \
    {                                                                                              \
        "xmm" #number, "uint128", 16, AT(fpu.xmm[number]), NULL, PLAIN                             \
    }
#define YMM_AT(number) 16, offsetof(struct accel_vcpu_state, xsave) + YMM_OFFSET + 16 * (number)
#define AVX(number)                                                                                \
    {                                                                                              \
        "ymm" #number "h", "uint128", 16, YMM_AT(number), NULL, YMM_HIGH                           \
    }
#define CONTROL(name)                                                                              \
    {                                                                                              \
#name, "int64", 8, AT(sregs.name), NULL, PLAIN                                             \
    }

static const struct gdb_register registers[] = {
    {"rax", "int64", 8, AT(regs.rax), "org.gnu.gdb.i386.core", PLAIN},
    GENERAL(rbx),
    GENERAL(rcx),
    GENERAL(rdx),
    GENERAL(rsi),
    GENERAL(rdi),
    {"rbp", "data_ptr", 8, AT(regs.rbp), NULL, PLAIN},
    {"rsp", "data_ptr", 8, AT(regs.rsp), NULL, PLAIN},
    GENERAL(r8),
    GENERAL(r9),
    GENERAL(r10),
    GENERAL(r11),
    GENERAL(r12),
    GENERAL(r13),
    GENERAL(r14),
    GENERAL(r15),
    {"rip", "code_ptr", 8, AT(regs.rip), NULL, PLAIN},
    {"eflags", "int32", 4, 4, offsetof(struct accel_vcpu_state, regs.rflags), NULL, PLAIN},
    SEGMENT(cs),
    SEGMENT(ss),
    SEGMENT(ds),
    SEGMENT(es),
    SEGMENT(fs),
    SEGMENT(gs),
    X87(0),
    X87(1),
    X87(2),
    X87(3),
    X87(4),
    X87(5),
    X87(6),
    X87(7),
    {"fctrl", "int32", 4, AT(fpu.fcw), NULL, PLAIN},
    {"fstat", "int32", 4, AT(fpu.fsw), NULL, PLAIN},
    {"ftag", "int32", 4, AT(fpu.ftwx), NULL, TAG_WORD},
    {"fiseg", "int32", 4, 0, 0, NULL, PLAIN},
    {"fioff", "int32", 4, 4, offsetof(struct accel_vcpu_state, fpu.last_ip), NULL, PLAIN},
    {"foseg", "int32", 4, 0, 0, NULL, PLAIN},
    {"fooff", "int32", 4, 4, offsetof(struct accel_vcpu_state, fpu.last_dp), NULL, PLAIN},
    {"fop", "int32", 4, AT(fpu.last_opcode), NULL, PLAIN},
    {"xmm0", "uint128", 16, AT(fpu.xmm[0]), "org.gnu.gdb.i386.sse", PLAIN},
    SSE(1),
    SSE(2),
    SSE(3),
    SSE(4),
    SSE(5),
    SSE(6),
    SSE(7),
    SSE(8),
    SSE(9),
    SSE(10),
    SSE(11),
    SSE(12),
    SSE(13),
    SSE(14),
    SSE(15),
    {"mxcsr", "int32", 4, AT(fpu.mxcsr), NULL, PLAIN},
    {"fs_base", "int64", 8, AT(sregs.fs.base), "org.gnu.gdb.i386.segments", PLAIN},
    {"gs_base", "int64", 8, AT(sregs.gs.base), NULL, PLAIN},
    {"cr0", "int64", 8, AT(sregs.cr0), "org.evisor.i386.system", PLAIN},
    CONTROL(cr2),
    CONTROL(cr3),
    CONTROL(cr4),
    CONTROL(cr8),
    CONTROL(efer),
    {"ymm0h", "uint128", 16, YMM_AT(0), "org.gnu.gdb.i386.avx", YMM_HIGH},
    AVX(1),
    AVX(2),
    AVX(3),
    AVX(4),
    AVX(5),
    AVX(6),
    AVX(7),
    AVX(8),
    AVX(9),
    AVX(10),
    AVX(11),
    AVX(12),
    AVX(13),
    AVX(14),
    AVX(15),
};

static bool is_in_use(const struct accel_vcpu_state *state)
{
    return ((const uint8_t *)state->xsave.region)[XSTATE_BV_OFFSET] & XSTATE_YMM;
}

/* FXSAVE keeps one bit a register, "in use"; gdb wants two, 0 for valid and 3 for empty. */
static uint32_t expand_tags(uint8_t tags)
{
    uint32_t word = 0;
    for (unsigned i = 0; i < 8; i++)
        if (!(tags >> i & 1))
            word |= 3u << (2 * i);
    return word;
}

static uint8_t fold_tags(uint32_t word)
{
    uint8_t tags = 0;
    for (unsigned i = 0; i < 8; i++)
        if ((word >> (2 * i) & 3) != 3)
            tags |= (uint8_t)(1u << i);
    return tags;
}

static void get_one(const struct gdb_register *reg, const struct accel_vcpu_state *state,
                    uint8_t bytes[16])
{
    memset(bytes, 0, 16);
    if (reg->special != YMM_HIGH || is_in_use(state))
        memcpy(bytes, (const char *)state + reg->offset, reg->state_bytes);
    if (reg->special == TAG_WORD) {
        uint32_t word = expand_tags(bytes[0]);
        memcpy(bytes, &word, sizeof(word));
    }
}

static void set_one(const struct gdb_register *reg, struct accel_vcpu_state *state,
                    const uint8_t bytes[16])
{
    uint8_t *area = (uint8_t *)state->xsave.region;
    uint32_t word;
    memcpy(&word, bytes, sizeof(word));
    if (reg->special == YMM_HIGH && !is_in_use(state)) {
        if (!word && !memcmp(bytes, bytes + 4, 12))
            return;
        memset(area + YMM_OFFSET, 0, 16 * 16);
        area[XSTATE_BV_OFFSET] |= XSTATE_YMM;
    }
    if (reg->special == TAG_WORD)
        state->fpu.ftwx = fold_tags(word);
    else
        memcpy((char *)state + reg->offset, bytes, reg->state_bytes);
}

static int get_state(struct accel_vcpu *cpu, struct accel_vcpu_state *state)
{
    return cpu->vm->ops->vcpu_get_state(cpu, GROUPS, state);
}

int gdb_read_registers(struct accel_vcpu *cpu, char *hex, size_t room)
{
    struct accel_vcpu_state state;
    int result = get_state(cpu, &state);
    for (size_t i = 0; i < ARRAY_SIZE(registers) && !result; i++) {
        uint8_t bytes[16];
        size_t length = 2 * registers[i].bytes;
        CHECK(room > length);
        get_one(&registers[i], &state, bytes);
        gdb_to_hex(bytes, registers[i].bytes, hex);
        hex += length, room -= length;
    }
    return result;
}

int gdb_write_registers(struct accel_vcpu *cpu, const char *hex)
{
    struct accel_vcpu_state state;
    int result = get_state(cpu, &state);
    if (result)
        return result;
    size_t length = strlen(hex);
    for (size_t i = 0; i < ARRAY_SIZE(registers); i++) {
        uint8_t bytes[16] = {0};
        if (length < 2 * registers[i].bytes || !gdb_from_hex(hex, registers[i].bytes, bytes))
            return -EINVAL;
        set_one(&registers[i], &state, bytes);
        hex += 2 * registers[i].bytes, length -= 2 * registers[i].bytes;
    }
    return cpu->vm->ops->vcpu_set_state(cpu, GROUPS, &state);
}

int gdb_read_register(struct accel_vcpu *cpu, unsigned number, char *hex, size_t room)
{
    struct accel_vcpu_state state;
    uint8_t bytes[16];
    if (number >= ARRAY_SIZE(registers) || room <= 2 * registers[number].bytes)
        return -EINVAL;
    int result = get_state(cpu, &state);
    if (result)
        return result;
    get_one(&registers[number], &state, bytes);
    gdb_to_hex(bytes, registers[number].bytes, hex);
    return 0;
}

/* The one group that a register is in: the others must not be written back without need. */
static unsigned group_of(const struct gdb_register *reg)
{
    if (reg->special == YMM_HIGH)
        return ACCEL_STATE_XSAVE;
    if (reg->offset >= offsetof(struct accel_vcpu_state, fpu))
        return ACCEL_STATE_FPU;
    return reg->offset >= offsetof(struct accel_vcpu_state, sregs) ? ACCEL_STATE_SREGS
                                                                   : ACCEL_STATE_REGS;
}

int gdb_write_register(struct accel_vcpu *cpu, unsigned number, const char *hex)
{
    struct accel_vcpu_state state;
    uint8_t bytes[16] = {0};
    if (number >= ARRAY_SIZE(registers) || strlen(hex) != 2 * registers[number].bytes ||
        !gdb_from_hex(hex, registers[number].bytes, bytes))
        return -EINVAL;
    int result = get_state(cpu, &state);
    if (result)
        return result;
    set_one(&registers[number], &state, bytes);
    return cpu->vm->ops->vcpu_set_state(cpu, group_of(&registers[number]), &state);
}

char *gdb_target_xml(void)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);
    CHECK(to);
    fputs("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
          "<architecture>i386:x86-64</architecture>",
          to);
    for (size_t i = 0; i < ARRAY_SIZE(registers); i++) {
        if (registers[i].feature)
            fprintf(to, "%s<feature name=\"%s\">", i ? "</feature>" : "", registers[i].feature);
        fprintf(to, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"/>", registers[i].name,
                8 * registers[i].bytes, registers[i].type);
    }
    fputs("</feature></target>", to);
    CHECK(fclose(to) == 0);
    return text;
}
