/* SPDX-License-Identifier: MIT */
/*
 * program: the small guest programs of accel_table, and the memory they find.
 *
 * A program starts at GUEST_CODE with RAX, RCX, ... of a known pattern and ends by writing to port
 * GUEST_END_PORT. All vectors lead to stubs that push their number and do the same; so what an
 * exception left on the stack can be seen, and no register is lost. From ring 3 `int $0x80` ends.
 */
#ifndef TESTS_ACCELTABLE_PROGRAM_H
#define TESTS_ACCELTABLE_PROGRAM_H

#include <stdint.h>

enum guest_mode {
    MODE_KERNEL64,
    MODE_USER64,
    MODE_USER32,     /* compatibility mode */
    MODE_PROTECTED,  /* 32-bit ring 0 without paging */
    MODE_PAE,        /* 32-bit ring 0, PAE paging */
    MODE_REAL,
    MODE_V86,        /* virtual-8086 in the PROTECTED setting, IOPL 0 */
};

struct program {
    const uint8_t *start, *end;
    const char *name;
    uint64_t mode;
};

/* All programs, in the order of the source. */
extern const struct program __start_guest_programs[], __stop_guest_programs[];

#define GUEST_END_PORT   0xf4
#define GUEST_PAE_POINTERS 0x6000
#define GUEST_GDT        0x8000
#define GUEST_IDT        0x9000
#define GUEST_LDT        0xb000
#define GUEST_TSS64      0xc000
#define GUEST_TSS32      0xc400
#define GUEST_STUBS      0x10000 /* 16 bytes a vector */
#define GUEST_STUBS_REAL 0x14000 /* 8 bytes a vector */
#define GUEST_PROLOGUE       0x18000
#define GUEST_PROLOGUE_TR    0x18100
#define GUEST_PROLOGUE_STACK 0x19000
#define GUEST_CODE       0x20000
#define GUEST_DATA       0x30000 /* two pages that count in the result */
#define GUEST_STACK      0x38000 /* tops */
#define GUEST_STACK_USER 0x3c000
#define GUEST_STACK_IST1 0x40000
#define GUEST_STACK_IST2 0x44000
#define GUEST_STACK_RSP0 0x48000
/* Pages with a character, in the modes with paging. */
#define GUEST_PAGE_ABSENT   0x50000
#define GUEST_PAGE_RDONLY   0x51000
#define GUEST_PAGE_KERNEL   0x52000
#define GUEST_PAGE_NX       0x53000
#define GUEST_PAGE_RESERVED 0x54000 /* a reserved bit is set */
#define GUEST_RAM_BYTES     0x400000

/* Selectors. */
#define SEL_CODE64     0x08
#define SEL_DATA       0x10
#define SEL_CODE32     0x18
#define SEL_USER_CS32  0x23
#define SEL_USER_DS    0x2b
#define SEL_USER_CS64  0x33
#define SEL_TSS64      0x38
#define SEL_TSS32      0x48
#define SEL_CODE16     0x50
#define SEL_DATA16     0x58
#define SEL_EXPANDDOWN 0x60
#define SEL_RDONLY     0x68
#define SEL_ABSENT     0x70
#define SEL_GATE64     0x78 /* call gate, 16 bytes, DPL 3 */
#define SEL_LDT64      0x88
#define SEL_EXECONLY   0x98
#define SEL_CONFORMING 0xa0
#define SEL_SMALL      0xab /* 4 KiB at GUEST_DATA, ring 3 */
#define SEL_GATE32     0xb0
#define SEL_LDT32      0xb8
#define SEL_END        0xc0

#define PROGRAM_STRING_(x) #x
#define PROGRAM_STRING(x)  PROGRAM_STRING_(x)

#define PROGRAM_BITS_MODE_KERNEL64  ".code64\n"
#define PROGRAM_BITS_MODE_USER64    ".code64\n"
#define PROGRAM_BITS_MODE_USER32    ".code32\n"
#define PROGRAM_BITS_MODE_PROTECTED ".code32\n"
#define PROGRAM_BITS_MODE_PAE       ".code32\n"
#define PROGRAM_BITS_MODE_REAL      ".code16\n"
#define PROGRAM_BITS_MODE_V86       ".code16\n"
#define PROGRAM_NUMBER_MODE_KERNEL64  "0"
#define PROGRAM_NUMBER_MODE_USER64    "1"
#define PROGRAM_NUMBER_MODE_USER32    "2"
#define PROGRAM_NUMBER_MODE_PROTECTED "3"
#define PROGRAM_NUMBER_MODE_PAE       "4"
#define PROGRAM_NUMBER_MODE_REAL      "5"
#define PROGRAM_NUMBER_MODE_V86       "6"

#define PROGRAM(mode, name, text)                                                                  \
    __asm__(".pushsection .rodata\n" PROGRAM_BITS_##mode "program_" #name ":\n" text              \
            "\nprogram_" #name "_end:\n"                                                           \
            ".code64\n"                                                                            \
            "program_" #name "_name: .asciz \"" #name "\"\n"                                       \
            ".popsection\n"                                                                        \
            ".pushsection guest_programs, \"aw\"\n"                                                \
            ".balign 8\n"                                                                          \
            ".quad program_" #name ", program_" #name "_end, program_" #name "_name, "            \
            PROGRAM_NUMBER_##mode "\n"                                                             \
            ".popsection\n");

/* How programs end. */
#define END      "outb %al, $0xf4\n"
#define END_USER "int $0x80\n"

#endif
