/* SPDX-License-Identifier: MIT */
/* A bzImage whose payload is an ELF file of our own, in each compression, honest and broken. */
#include "vmm/boot/unpack.h"

#include <asm/bootparam.h>
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/bytes.h"
#include "build/config.h"
#include "tests/boot_rig.h"
#include "tests/unit/test.h"

#ifdef HAVE_LZ4
#include <lz4.h>
#endif
#ifdef HAVE_LZMA
#include <lzma.h>
#endif
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#define LINK_GPA    UINT64_C(0x1000000)
#define INIT_SIZE   (4 * MIB)
#define ALIGNMENT   (2 * MIB)
#define SETUP_BYTES 1024
#define KERNEL_MAX  (3 * MIB)
#define GUEST_ENTRY (BOOT_HIGH_RAM + 0x200) /* of the bzImage's own first part */

/* The ELF file: text at its place, data that is to be moved down, and memory behind it. */
#define TEXT_OFFSET 0x200000
#define TEXT_BYTES  0x1000
#define DATA_OFFSET 0x203000
#define DATA_BYTES  0x800
#define DATA_AT     0x1000
#define DATA_MEMORY 0x3000
#define ELF_BYTES   (DATA_OFFSET + DATA_BYTES)
#define ELF_MAX     (ELF_BYTES + 4096)
#define ENTRY       0x40

/* The places that relocations name, from LINK_GPA on, and what is there. */
#define ADD64_AT      0x100
#define SUBTRACT32_AT 0x200
#define ADD32_AT      (DATA_AT + 0x10)
#define VALUE64       UINT64_C(0xffffffff81000100)
#define VALUE32       UINT32_C(0x81000200)

static uint8_t elf_file[ELF_MAX];
static uint8_t kernel[KERNEL_MAX];
static size_t kernel_bytes;

static Elf64_Phdr *segment(unsigned index)
{
    return (Elf64_Phdr *)(void *)(elf_file + sizeof(Elf64_Ehdr)) + index;
}

static Elf64_Ehdr *elf_header(void)
{
    return (Elf64_Ehdr *)(void *)elf_file;
}

static uint8_t *in_file(uint64_t at)
{
    return at < DATA_AT ? elf_file + TEXT_OFFSET + at : elf_file + DATA_OFFSET + (at - DATA_AT);
}

static void make_elf(void)
{
    memset(elf_file, 0, sizeof(elf_file));
    Elf64_Ehdr *elf = elf_header();
    memcpy(elf->e_ident, ELFMAG, SELFMAG);
    elf->e_ident[EI_CLASS] = ELFCLASS64;
    elf->e_machine = EM_X86_64;
    elf->e_phentsize = sizeof(Elf64_Phdr);
    elf->e_phoff = sizeof(*elf);
    elf->e_phnum = 2;
    elf->e_entry = LINK_GPA + ENTRY;
    *segment(0) = (Elf64_Phdr){.p_type = PT_LOAD,
                               .p_offset = TEXT_OFFSET,
                               .p_paddr = LINK_GPA,
                               .p_filesz = TEXT_BYTES,
                               .p_memsz = TEXT_BYTES};
    *segment(1) = (Elf64_Phdr){.p_type = PT_LOAD,
                               .p_offset = DATA_OFFSET,
                               .p_paddr = LINK_GPA + DATA_AT,
                               .p_filesz = DATA_BYTES,
                               .p_memsz = DATA_MEMORY};
    memset(elf_file + TEXT_OFFSET, 0xaa, TEXT_BYTES);
    memset(elf_file + DATA_OFFSET, 0xbb, DATA_BYTES);
    store_le64(in_file(ADD64_AT), VALUE64);
    store_le32(in_file(SUBTRACT32_AT), VALUE32);
    store_le32(in_file(ADD32_AT), VALUE32);
}

static uint32_t kernel_address(uint64_t at)
{
    return (uint32_t)(0x80000000 + LINK_GPA + at);
}

/* Appends the tables of relocations; returns the file's size with them. */
static size_t append_relocations(bool has_subtract)
{
    const uint32_t words[] = {0, kernel_address(ADD64_AT), 0, kernel_address(SUBTRACT32_AT),
                              0, kernel_address(ADD32_AT)};
    size_t at = ELF_BYTES;
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (has_subtract || (i != 2 && i != 3)) {
            store_le32(elf_file + at, words[i]);
            at += 4;
        }
    return at;
}

/* --- compressions: each returns the compressed size --- */

static size_t to_gzip(uint8_t *to, size_t to_size, size_t bytes)
{
    z_stream stream = {
        .next_in = elf_file, .avail_in = (uInt)bytes, .next_out = to, .avail_out = (uInt)to_size};
    assert_int_equal(deflateInit2(&stream, 1, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY),
                     Z_OK);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    deflateEnd(&stream);
    return stream.total_out - 4; /* its own trailer ends with the size */
}

#ifdef HAVE_LZ4
/* In two blocks, as the frame may have. */
static size_t to_lz4(uint8_t *to, size_t to_size, size_t bytes)
{
    size_t half = bytes / 2, at = 4;
    store_le32(to, 0x184c2102);
    for (size_t from = 0; from < bytes; from += half) {
        size_t length = MIN(half, bytes - from);
        int done = LZ4_compress_default((const char *)elf_file + from, (char *)to + at + 4,
                                        (int)length, (int)(to_size - at - 4));
        assert_true(done > 0);
        store_le32(to + at, (uint32_t)done);
        at += 4 + (size_t)done;
    }
    return at;
}
#endif

#ifdef HAVE_LZMA
static size_t to_xz(uint8_t *to, size_t to_size, size_t bytes)
{
    size_t at = 0;
    assert_int_equal(
        lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, NULL, elf_file, bytes, to, &at, to_size),
        LZMA_OK);
    return at;
}
#endif

#ifdef HAVE_ZSTD
static size_t to_zstd(uint8_t *to, size_t to_size, size_t bytes)
{
    size_t done = ZSTD_compress(to, to_size, elf_file, bytes, 1);
    assert_false(ZSTD_isError(done));
    return done;
}
#endif

/* --- the bzImage --- */

static struct setup_header *header(void)
{
    return (struct setup_header *)(void *)(kernel + 0x1f1);
}

static void make_kernel(size_t (*compress)(uint8_t *to, size_t to_size, size_t bytes), size_t bytes)
{
    memset(kernel, 0, SETUP_BYTES);
    size_t length = compress(kernel + SETUP_BYTES, KERNEL_MAX - SETUP_BYTES - 4, bytes);
    store_le32(kernel + SETUP_BYTES + length, (uint32_t)bytes);
    kernel_bytes = SETUP_BYTES + length + 4;
    *header() = (struct setup_header){
        .setup_sects = SETUP_BYTES / 512 - 1,
        .syssize = (uint32_t)(length + 4) / 16,
        .boot_flag = 0xaa55,
        .header = 0x53726448,
        .version = 0x020f,
        .loadflags = LOADED_HIGH,
        .xloadflags = XLF_KERNEL_64 | XLF_5LEVEL | XLF_5LEVEL_ENABLED,
        .relocatable_kernel = 1,
        .kernel_alignment = ALIGNMENT,
        .pref_address = LINK_GPA,
        .init_size = INIT_SIZE,
        .initrd_addr_max = 0x7fffffff,
        .payload_length = (uint32_t)length + 4,
    };
}

static void open_kernel(const char *initrd, const char *cmdline)
{
    assert_int_equal(boot_rig_open(kernel, kernel_bytes, initrd, cmdline), 0);
}

static void load(const char *cmdline)
{
    open_kernel(NULL, cmdline);
    boot_load(&boot, &memory, 0);
    boot_close(&boot);
}

static const struct boot_params *params(void)
{
    return (const void *)((const uint8_t *)memory.host + BOOT_ZERO_PAGE_GPA);
}

static const uint8_t *kernel_in_ram(void)
{
    return (const uint8_t *)memory.host + boot.entry - ENTRY;
}

static bool is_unpacked(void)
{
    return boot.entry != GUEST_ENTRY;
}

/* What does not depend on where it lies. */
static void check_segments(void)
{
    const uint8_t *at = kernel_in_ram();
    assert_memory_equal(at, elf_file + TEXT_OFFSET, ADD64_AT);
    assert_memory_equal(at + SUBTRACT32_AT + 4, in_file(SUBTRACT32_AT + 4),
                        TEXT_BYTES - SUBTRACT32_AT - 4);
    assert_memory_equal(at + DATA_AT, in_file(DATA_AT), ADD32_AT - DATA_AT);
    assert_memory_equal(at + ADD32_AT + 4, in_file(ADD32_AT + 4), DATA_BYTES - 0x14);
    for (unsigned i = DATA_BYTES; i < DATA_MEMORY; i++)
        assert_int_equal(at[DATA_AT + i], 0);
}

static void check_compression(size_t (*compress)(uint8_t *to, size_t to_size, size_t bytes))
{
    make_elf();
    make_kernel(compress, append_relocations(true));
    load("console=ttyS0 nokaslr");
    assert_true(boot.entry == LINK_GPA + ENTRY);
    check_segments();
    assert_true(load_le64(kernel_in_ram() + ADD64_AT) == VALUE64);
    assert_false(params()->hdr.loadflags & KASLR_FLAG);
}

static void test_gzip(void **state)
{
    (void)state;
    check_compression(to_gzip);
}

#ifdef HAVE_LZ4
static void test_lz4(void **state)
{
    (void)state;
    check_compression(to_lz4);
}
#endif

#ifdef HAVE_LZMA
static void test_xz(void **state)
{
    (void)state;
    check_compression(to_xz);
}
#endif

#ifdef HAVE_ZSTD
static void test_zstd(void **state)
{
    (void)state;
    check_compression(to_zstd);
}
#endif

/* The distance in virtual memory, of which all three kinds of relocation tell the same. */
static uint64_t check_distance(bool has_subtract)
{
    const uint8_t *at = kernel_in_ram();
    uint64_t distance = load_le64(at + ADD64_AT) - VALUE64;
    assert_true(distance % ALIGNMENT == 0 && distance <= GIB - LINK_GPA - INIT_SIZE);
    assert_int_equal(load_le32(at + ADD32_AT), VALUE32 + (uint32_t)distance);
    assert_int_equal(load_le32(at + SUBTRACT32_AT),
                     VALUE32 - (has_subtract ? (uint32_t)distance : 0));
    return distance;
}

static void check_kaslr(bool has_subtract)
{
    make_elf();
    make_kernel(to_gzip, append_relocations(has_subtract));
    uint64_t physical_low = UINT64_MAX, physical_high = 0, virtual_low = UINT64_MAX,
             virtual_high = 0;
    for (int i = 0; i < 40; i++) {
        load("quiet");
        assert_true(is_unpacked() && params()->hdr.loadflags & KASLR_FLAG);
        check_segments();
        uint64_t physical = boot.entry - ENTRY, distance = check_distance(has_subtract);
        assert_true(physical % ALIGNMENT == 0 && physical >= LINK_GPA);
        assert_true(physical <= 64 * MIB - INIT_SIZE);
        physical_low = MIN(physical_low, physical);
        physical_high = MAX(physical_high, physical);
        virtual_low = MIN(virtual_low, distance);
        virtual_high = MAX(virtual_high, distance);
    }
    /* 23 places and 503: forty times the same means that there is no chance in it. */
    assert_true(physical_low < physical_high && virtual_low < virtual_high);
}

static void test_kaslr(void **state)
{
    (void)state;
    check_kaslr(true);
    check_kaslr(false);
}

static void test_a_kernel_without_relocations_keeps_its_virtual_address(void **state)
{
    (void)state;
    make_elf();
    make_kernel(to_gzip, ELF_BYTES);
    load("");
    assert_true(is_unpacked());
    check_segments();
    assert_true(check_distance(true) == 0);
    assert_false(params()->hdr.loadflags & KASLR_FLAG);
    header()->relocatable_kernel = 0;
    load("");
    assert_true(boot.entry == LINK_GPA + ENTRY);
}

static void test_the_initrd_is_not_overwritten(void **state)
{
    (void)state;
    char initrd[] = "/tmp/evisor-initrd-XXXXXX";
    int fd = mkstemp(initrd);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)(64 * MIB - LINK_GPA - INIT_SIZE - 2 * ALIGNMENT)), 0);
    close(fd);
    make_elf();
    make_kernel(to_gzip, append_relocations(true));
    open_kernel(initrd, "");
    for (int i = 0; i < 20; i++) {
        boot_load(&boot, &memory, 0);
        assert_true(is_unpacked() && boot.entry - ENTRY + INIT_SIZE <= boot.initrd_gpa);
    }
    boot_close(&boot);
    unlink(initrd);
}

static void test_paging_in_five_levels(void **state)
{
    (void)state;
    make_elf();
    make_kernel(to_gzip, append_relocations(true));
    open_kernel(NULL, "quiet");
    for (int has_la57 = 0; has_la57 < 2; has_la57++) {
        struct accel_vcpu_state cpu = {0};
        boot.has_la57 = has_la57;
        boot_load(&boot, &memory, 0);
        boot_set_cpu(&boot, &cpu);
        assert_true(cpu.regs.rip == boot.entry);
        assert_int_equal(cpu.sregs.cr4 >> 12 & 1, has_la57);
        assert_true(cpu.sregs.cr3 == (has_la57 ? BOOT_PML5_GPA : BOOT_PAGE_TABLES_GPA));
    }
    boot_close(&boot);
    assert_true(load_le64((const uint8_t *)memory.host + BOOT_PML5_GPA) ==
                (BOOT_PAGE_TABLES_GPA | 3));
    open_kernel(NULL, "no5lvl");
    boot.has_la57 = true;
    boot_load(&boot, &memory, 0);
    assert_false(boot.uses_la57);
    boot_close(&boot);
}

static void check_left_to_the_guest(void)
{
    assert_false(is_unpacked());
    assert_memory_equal((const uint8_t *)memory.host + BOOT_HIGH_RAM, kernel + SETUP_BYTES,
                        kernel_bytes - SETUP_BYTES);
    assert_false(params()->hdr.loadflags & KASLR_FLAG || boot.uses_la57);
}

static void refuse_to_unpack(const char *what, size_t number)
{
    load("");
    if (is_unpacked())
        fail_msg("%s %zu was taken", what, number);
    check_left_to_the_guest();
}

static void test_what_is_left_to_the_guest(void **state)
{
    (void)state;
    static const char *const lines[] = {"mem=1G", "quiet memmap=1M$2M", "hugepagesz=1G",
                                        "a=\"b hugepages=3\"", "mem=nopentium"};
    static const char *const others[] = {"", "xmem=1", "notmem= quiet", "panic=1 memtest"};
    make_elf();
    make_kernel(to_gzip, append_relocations(true));
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        load(lines[i]);
        check_left_to_the_guest();
    }
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        load(others[i]);
        assert_true(is_unpacked());
    }
    open_kernel(NULL, "");
    assert_true(boot_is_long(&boot));
    boot.guest_unpacks = true;
    assert_false(boot_is_long(&boot));
    boot_load(&boot, &memory, 0);
    check_left_to_the_guest();
    boot_close(&boot);
}

/* Each makes one thing wrong, from an honest ELF file; what it returns is the file's size. */

static size_t break_magic(size_t bytes)
{
    elf_header()->e_ident[0] = 'x';
    return bytes;
}

static size_t break_machine(size_t bytes)
{
    elf_header()->e_machine = EM_386;
    return bytes;
}

static size_t break_program_headers(size_t bytes)
{
    elf_header()->e_phoff = UINT64_MAX - 8;
    return bytes;
}

static size_t break_count(size_t bytes)
{
    elf_header()->e_phnum = 0;
    return bytes;
}

static size_t break_entry(size_t bytes)
{
    elf_header()->e_entry = LINK_GPA + DATA_AT + DATA_BYTES;
    return bytes;
}

static size_t break_sections(size_t bytes)
{
    elf_header()->e_shentsize = sizeof(Elf64_Shdr);
    elf_header()->e_shnum = 3;
    elf_header()->e_shoff = bytes - sizeof(Elf64_Shdr);
    return bytes;
}

static size_t break_offset(size_t bytes)
{
    segment(1)->p_offset = bytes - 1;
    return bytes;
}

static size_t break_address(size_t bytes)
{
    segment(1)->p_paddr = LINK_GPA + INIT_SIZE - DATA_MEMORY + 1;
    return bytes;
}

static size_t break_low_address(size_t bytes)
{
    segment(1)->p_paddr = LINK_GPA - 1;
    return bytes;
}

static size_t break_memory_size(size_t bytes)
{
    segment(1)->p_memsz = UINT64_MAX;
    return bytes;
}

static size_t break_file_size(size_t bytes)
{
    segment(1)->p_filesz = DATA_MEMORY + 1;
    return bytes;
}

/* Above its bytes in the file: moving it would overwrite what is behind. */
static size_t break_direction(size_t bytes)
{
    segment(1)->p_paddr = LINK_GPA + 0x4000;
    return bytes;
}

static size_t break_first_word(size_t bytes)
{
    store_le32(elf_file + ELF_BYTES, 1);
    return bytes;
}

static size_t break_last_word(size_t bytes)
{
    elf_file[bytes] = 0;
    return bytes + 1;
}

static size_t add_tables(size_t bytes)
{
    return bytes + 8;
}

static size_t break_place(size_t bytes)
{
    store_le32(elf_file + ELF_BYTES + 4, kernel_address(INIT_SIZE - 7));
    return bytes;
}

static size_t break_low_place(size_t bytes)
{
    store_le32(elf_file + bytes - 4, kernel_address(0) - 1);
    return bytes;
}

static void test_broken_elf_files(void **state)
{
    (void)state;
    size_t (*const breaks[])(size_t bytes) = {
        break_magic,       break_machine,   break_program_headers,
        break_count,       break_entry,     break_sections,
        break_offset,      break_address,   break_low_address,
        break_memory_size, break_file_size, break_direction,
        break_first_word,  break_last_word, add_tables,
        break_place,       break_low_place};
    for (size_t i = 0; i < ARRAY_SIZE(breaks); i++) {
        make_elf();
        make_kernel(to_gzip, breaks[i](append_relocations(true)));
        refuse_to_unpack("break", i);
    }
}

static void test_broken_headers(void **state)
{
    (void)state;
    make_elf();
    make_kernel(to_gzip, append_relocations(true));
    const struct setup_header good = *header();
    for (unsigned i = 0; i < 8; i++) {
        *header() = good;
        switch (i) {
        case 0:
            header()->payload_length--;
            break;
        case 1:
            header()->payload_length = 4;
            break;
        case 2:
            header()->payload_offset = UINT32_MAX;
            break;
        case 3:
            header()->kernel_alignment = 0;
            break;
        case 4:
            header()->kernel_alignment = 3 * MIB;
            break;
        case 5:
            header()->pref_address = LINK_GPA + 4096;
            break;
        case 6:
            header()->init_size = ELF_BYTES;
            break;
        case 7:
            header()->pref_address = 0;
            break;
        }
        refuse_to_unpack("header", i);
    }
}

/* Nothing but the kernel's own room may be written, and nothing outside of any buffer. */
static void test_damaged_payloads(void **state)
{
    (void)state;
    size_t (*const compressions[])(uint8_t * to, size_t to_size, size_t bytes) = {
        to_gzip,
#ifdef HAVE_LZ4
        to_lz4,
#endif
#ifdef HAVE_LZMA
        to_xz,
#endif
#ifdef HAVE_ZSTD
        to_zstd,
#endif
    };
    make_elf();
    size_t bytes = append_relocations(true);
    for (size_t i = 0; i < ARRAY_SIZE(compressions); i++) {
        make_kernel(compressions[i], bytes);
        uint8_t *payload = kernel + SETUP_BYTES;
        for (unsigned seed = 1; seed <= 60; seed++) {
            size_t at = 6 + seed * 7919 % (kernel_bytes - SETUP_BYTES - 10);
            payload[at] ^= (uint8_t)(1 + seed % 255);
            load("nokaslr");
            payload[at] ^= (uint8_t)(1 + seed % 255);
        }
        load("nokaslr");
        assert_true(is_unpacked());
        check_segments();
    }
    const uint8_t *behind = (const uint8_t *)memory.host + LINK_GPA + INIT_SIZE;
    assert_true(!behind[0] && !memcmp(behind, behind + 1, 4 * MIB - 1));
}

/* Headers and relocations of which random bytes are wrong. */
static void test_damaged_elf_files(void **state)
{
    (void)state;
    unsigned taken = 0;
    srandom(1);
    for (unsigned round = 0; round < 400; round++) {
        make_elf();
        size_t bytes = append_relocations(true);
        for (unsigned i = 0; i < 1 + round % 3; i++) {
            size_t at = (size_t)random() % (sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr) + 24);
            size_t headers = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr);
            elf_file[at < headers ? at : ELF_BYTES + at - headers] = (uint8_t)random();
        }
        make_kernel(to_gzip, bytes);
        load("");
        taken += is_unpacked();
    }
    assert_in_range(taken, 1, 399);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, boot_rig_set_up, boot_rig_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_gzip),
#ifdef HAVE_LZ4
        TEST(test_lz4),
#endif
#ifdef HAVE_LZMA
        TEST(test_xz),
#endif
#ifdef HAVE_ZSTD
        TEST(test_zstd),
#endif
        TEST(test_kaslr),
        TEST(test_a_kernel_without_relocations_keeps_its_virtual_address),
        TEST(test_the_initrd_is_not_overwritten),
        TEST(test_paging_in_five_levels),
        TEST(test_what_is_left_to_the_guest),
        TEST(test_broken_elf_files),
        TEST(test_broken_headers),
        TEST(test_damaged_payloads),
        TEST(test_damaged_elf_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
