/* SPDX-License-Identifier: MIT */
/*
 * divide: DIV and IDIV. The host must never see a division that faults, so what would is found
 * out first. False: #DE is raised.
 */
#ifndef VMM_SOFT_DIVIDE_H
#define VMM_SOFT_DIVIDE_H

#include <string.h>

#include "vmm/soft/cpu.h"

static inline bool divide_error(struct soft_cpu *cpu)
{
    return soft_raise(cpu, SOFT_DE, 0);
}

static inline bool div_8(struct soft_cpu *cpu, uint8_t by)
{
    uint16_t value = (uint16_t)cpu->r[SOFT_RAX];

    if (value >> 8 >= by)
        return divide_error(cpu);
    uint8_t result[2] = {(uint8_t)(value / by), (uint8_t)(value % by)};

    memcpy(&cpu->r[SOFT_RAX], result, 2);
    return true;
}

static inline bool idiv_8(struct soft_cpu *cpu, uint8_t raw)
{
    int value = (int16_t)cpu->r[SOFT_RAX], by = (int8_t)raw;

    if (!by || value / by != (int8_t)(value / by))
        return divide_error(cpu);
    uint8_t result[2] = {(uint8_t)(value / by), (uint8_t)(value % by)};

    memcpy(&cpu->r[SOFT_RAX], result, 2);
    return true;
}

static inline bool div_16(struct soft_cpu *cpu, uint16_t by)
{
    uint32_t value = (uint32_t)(uint16_t)cpu->r[SOFT_RDX] << 16 | (uint16_t)cpu->r[SOFT_RAX];

    if (value >> 16 >= by)
        return divide_error(cpu);
    uint16_t quotient = (uint16_t)(value / by), rest = (uint16_t)(value % by);

    memcpy(&cpu->r[SOFT_RAX], &quotient, 2);
    memcpy(&cpu->r[SOFT_RDX], &rest, 2);
    return true;
}

static inline bool idiv_16(struct soft_cpu *cpu, uint16_t raw)
{
    int64_t by = (int16_t)raw;
    int64_t value =
        (int32_t)((uint32_t)(uint16_t)cpu->r[SOFT_RDX] << 16 | (uint16_t)cpu->r[SOFT_RAX]);

    if (!by || value / by != (int16_t)(value / by))
        return divide_error(cpu);
    uint16_t quotient = (uint16_t)(value / by), rest = (uint16_t)(value % by);

    memcpy(&cpu->r[SOFT_RAX], &quotient, 2);
    memcpy(&cpu->r[SOFT_RDX], &rest, 2);
    return true;
}

static inline bool div_32(struct soft_cpu *cpu, uint32_t by)
{
    uint64_t value = cpu->r[SOFT_RDX] << 32 | (uint32_t)cpu->r[SOFT_RAX];

    if (value >> 32 >= by)
        return divide_error(cpu);
    cpu->r[SOFT_RAX] = value / by;
    cpu->r[SOFT_RDX] = value % by;
    return true;
}

static inline bool idiv_32(struct soft_cpu *cpu, uint32_t raw)
{
    int64_t by = (int32_t)raw;
    int64_t value = (int64_t)(cpu->r[SOFT_RDX] << 32 | (uint32_t)cpu->r[SOFT_RAX]);

    if (!by || (by == -1 && value == INT64_MIN) || value / by != (int32_t)(value / by))
        return divide_error(cpu);
    cpu->r[SOFT_RAX] = (uint32_t)(value / by);
    cpu->r[SOFT_RDX] = (uint32_t)(value % by);
    return true;
}

static inline bool div_64(struct soft_cpu *cpu, uint64_t by)
{
    if (cpu->r[SOFT_RDX] >= by)
        return divide_error(cpu);
    asm("divq %2" : "+a"(cpu->r[SOFT_RAX]), "+d"(cpu->r[SOFT_RDX]) : "r"(by) : "cc");
    return true;
}

static inline bool idiv_64(struct soft_cpu *cpu, uint64_t raw)
{
    bool value_negative = cpu->r[SOFT_RDX] >> 63, by_negative = raw >> 63;
    unsigned __int128 value = (unsigned __int128)cpu->r[SOFT_RDX] << 64 | cpu->r[SOFT_RAX];
    uint64_t by = by_negative ? -raw : raw;
    uint64_t limit = (UINT64_C(1) << 63) - (value_negative == by_negative);

    if (value_negative)
        value = -value;
    if ((uint64_t)(value >> 64) >= by)
        return divide_error(cpu);
    uint64_t quotient = (uint64_t)value, rest = (uint64_t)(value >> 64);

    asm("divq %2" : "+a"(quotient), "+d"(rest) : "r"(by) : "cc");
    if (quotient > limit)
        return divide_error(cpu);
    cpu->r[SOFT_RAX] = value_negative == by_negative ? quotient : -quotient;
    cpu->r[SOFT_RDX] = value_negative ? -rest : rest;
    return true;
}

#endif
