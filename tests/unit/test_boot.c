/* SPDX-License-Identifier: MIT */
#include "vmm/boot/boot.h"

#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/boot_rig.h"
#include "tests/unit/test.h"

#define KERNEL_BYTES (64 * 1024)
#define SETUP_BYTES  (5 * 512)

static int open_kernel(const void *bytes, size_t length, const char *initrd)
{
    return boot_rig_open(bytes, length, initrd, "console=ttyS0");
}

static void refuse(const void *bytes, size_t length, const char *why)
{
    assert_true(open_kernel(bytes, length, NULL) < 0);
    if (!strstr(err.text, why))
        fail_msg("expected '%s' in '%s'", why, err.text);
    assert_non_null(strstr(err.text, boot_rig_path));
    assert_null(strchr(err.text, '\n'));
}

static struct setup_header *make_bzimage(uint8_t *kernel)
{
    memset(kernel, 0x90, KERNEL_BYTES);
    memset(kernel, 0, SETUP_BYTES);
    struct setup_header *header = (struct setup_header *)(void *)(kernel + 0x1f1);
    header->setup_sects = 4;
    header->syssize = (KERNEL_BYTES - SETUP_BYTES) / 16;
    header->boot_flag = 0xaa55;
    header->header = 0x53726448;
    header->version = 0x020f;
    header->loadflags = LOADED_HIGH;
    header->xloadflags = XLF_KERNEL_64;
    header->pref_address = 0x1000000;
    header->init_size = 0x100000;
    header->initrd_addr_max = 0x7fffffff;
    return header;
}

static void test_loads_a_bzimage(void **state)
{
    (void)state;
    static uint8_t kernel[KERNEL_BYTES];
    make_bzimage(kernel);
    assert_int_equal(open_kernel(kernel, sizeof(kernel), NULL), 0);
    boot_load(&boot, &memory, 0xe0000);
    const uint8_t *ram = memory.host;
    assert_memory_equal(ram + BOOT_HIGH_RAM, kernel + SETUP_BYTES, KERNEL_BYTES - SETUP_BYTES);
    const struct boot_params *params = (const void *)(ram + BOOT_ZERO_PAGE_GPA);
    assert_int_equal(params->hdr.cmd_line_ptr, BOOT_CMDLINE_GPA);
    assert_string_equal((const char *)ram + BOOT_CMDLINE_GPA, "console=ttyS0");
    assert_true(params->acpi_rsdp_addr == 0xe0000);
    uint64_t usable = 0;
    for (int i = 0; i < params->e820_entries; i++)
        if (params->e820_table[i].type == 1)
            usable += params->e820_table[i].size;
    assert_true(usable == BOOT_LOW_RAM_END + 64 * MIB - BOOT_HIGH_RAM);
    struct accel_vcpu_state cpu = {0};
    boot_set_cpu(&boot, &cpu);
    assert_true(cpu.regs.rip == BOOT_HIGH_RAM + 0x200);
    assert_int_equal(cpu.sregs.efer, 0x500);
    boot_close(&boot);
}

/* A 32-bit kernel starts at its first byte, in flat 32-bit segments without paging. */
static void test_bzimage_without_a_64_bit_entry(void **state)
{
    (void)state;
    static uint8_t kernel[KERNEL_BYTES];
    struct setup_header *header = make_bzimage(kernel);
    header->xloadflags = 0;
    assert_int_equal(open_kernel(kernel, sizeof(kernel), NULL), 0);
    boot_load(&boot, &memory, 0);
    struct accel_vcpu_state cpu = {0};
    boot_set_cpu(&boot, &cpu);
    assert_true(cpu.regs.rip == BOOT_HIGH_RAM && cpu.regs.rsi == BOOT_ZERO_PAGE_GPA);
    assert_true(cpu.regs.rbx == 0 && cpu.sregs.efer == 0);
    assert_true(cpu.sregs.cs.db && !cpu.sregs.cs.l && cpu.sregs.cs.limit == UINT32_MAX);
    assert_int_equal(cpu.sregs.cr0 & 0x80000001, 1);
    boot_close(&boot);
}

/* Pages of the kernel's file that this process has mapped now. */
static unsigned count_resident(void)
{
    uint64_t entries[KERNEL_BYTES / 4096]; /* pagemap's; bit 63: present */
    unsigned count = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(
        pread(fd, entries, sizeof(entries), (uintptr_t)boot.kernel.bytes / 4096 * sizeof(uint64_t)),
        sizeof(entries));
    close(fd);
    for (unsigned i = 0; i < ARRAY_SIZE(entries); i++)
        count += (unsigned)(entries[i] >> 63);
    return count;
}

static void test_the_file_does_not_stay_resident(void **state)
{
    (void)state;
    static uint8_t kernel[KERNEL_BYTES];
    make_bzimage(kernel);
    assert_int_equal(open_kernel(kernel, sizeof(kernel), NULL), 0);
    assert_true(count_resident() > 0);
    boot_load(&boot, &memory, 0);
    assert_int_equal(count_resident(), 0);
    boot_close(&boot);
}

static void test_a_second_load_repairs_the_first(void **state)
{
    (void)state;
    static uint8_t kernel[KERNEL_BYTES];
    make_bzimage(kernel);
    assert_int_equal(open_kernel(kernel, sizeof(kernel), NULL), 0);
    boot_load(&boot, &memory, 0);
    memset(memory.host, 0xcc, 2 * MIB);
    boot_load(&boot, &memory, 0);
    assert_memory_equal((char *)memory.host + BOOT_HIGH_RAM, kernel + SETUP_BYTES,
                        KERNEL_BYTES - SETUP_BYTES);
    boot_close(&boot);
}

static void test_refuses_foreign_and_broken_bzimages(void **state)
{
    (void)state;
    static uint8_t kernel[KERNEL_BYTES];
    struct setup_header *header = make_bzimage(kernel);
    refuse(kernel, 0, "is empty");
    refuse(kernel, 100, "not a Linux kernel");
    refuse("#!/bin/sh\n", 10, "not a Linux kernel");
    for (size_t length = 0x1f1 + sizeof(*header); length + 16 <= KERNEL_BYTES; length += 977)
        refuse(kernel, length, "cut short");
    header->version = 0x0209;
    refuse(kernel, KERNEL_BYTES, "too old");
    header = make_bzimage(kernel);
    header->loadflags = 0;
    refuse(kernel, KERNEL_BYTES, "zImage");
    header = make_bzimage(kernel);
    header->syssize = 0xffffffff;
    refuse(kernel, KERNEL_BYTES, "cut short");
}

static void test_refuses_what_does_not_fit(void **state)
{
    (void)state;
    static uint8_t kernel[KERNEL_BYTES];
    struct setup_header *header = make_bzimage(kernel);
    header->init_size = 0xffffffff;
    assert_int_equal(open_kernel(kernel, sizeof(kernel), NULL), -ENOMEM);
    assert_non_null(strstr(err.text, "-m"));
    header = make_bzimage(kernel);
    header->pref_address = UINT64_MAX - 10;
    assert_true(open_kernel(kernel, sizeof(kernel), NULL) < 0);
}

static void test_directory_and_missing_files(void **state)
{
    (void)state;
    err = (struct error){0};
    assert_int_equal(boot_open(&boot, &memory, "/tmp", NULL, NULL, &err), -EISDIR);
    err = (struct error){0};
    assert_int_equal(boot_open(&boot, &memory, "/nonexistent/vmlinuz", NULL, NULL, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/vmlinuz"));
    err = (struct error){0};
    assert_int_equal(boot_open(&boot, &memory, "/dev/null", NULL, NULL, &err), -EINVAL);
}

/* One PT_LOAD of 4 KiB at 1 MiB and a PVH note with entry 0x100010. */
struct tiny_elf {
    Elf64_Ehdr header;
    Elf64_Phdr load, note;
    Elf64_Nhdr note_header;
    char note_name[4];
    uint32_t entry, pad;
    uint8_t code[4096];
};

static struct tiny_elf make_elf(void)
{
    struct tiny_elf elf = {
        .header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                   .e_type = ET_EXEC,
                   .e_machine = EM_X86_64,
                   .e_phoff = offsetof(struct tiny_elf, load),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = 2},
        .load = {.p_type = PT_LOAD,
                 .p_offset = offsetof(struct tiny_elf, code),
                 .p_paddr = 0x100000,
                 .p_filesz = 4096,
                 .p_memsz = 8192},
        .note = {.p_type = PT_NOTE,
                 .p_offset = offsetof(struct tiny_elf, note_header),
                 .p_filesz = 20},
        .note_header = {4, 4, 18},
        .note_name = "Xen",
        .entry = 0x100010,
    };
    memset(elf.code, 0xf4, sizeof(elf.code));
    return elf;
}

static void test_loads_an_elf_by_pvh(void **state)
{
    (void)state;
    struct tiny_elf elf = make_elf();
    assert_int_equal(open_kernel(&elf, sizeof(elf), NULL), 0);
    memset((char *)memory.host + 0x100000, 0xff, 8192);
    boot_load(&boot, &memory, 0xe0000);
    const uint8_t *ram = memory.host;
    assert_int_equal(ram[0x100fff], 0xf4);
    assert_int_equal(ram[0x101000], 0);
    assert_int_equal(load_le32(ram + BOOT_PVH_INFO_GPA), 0x336ec578);
    struct accel_vcpu_state cpu = {0};
    boot_set_cpu(&boot, &cpu);
    assert_true(cpu.regs.rip == 0x100010 && cpu.regs.rbx == BOOT_PVH_INFO_GPA);
    assert_int_equal(cpu.sregs.cr0, 0x11);
    boot_close(&boot);
}

static void test_refuses_broken_elfs(void **state)
{
    (void)state;
    struct tiny_elf elf = make_elf();
    elf.header.e_machine = EM_AARCH64;
    refuse(&elf, sizeof(elf), "another machine");
    elf = make_elf();
    elf.note_header.n_type = 1;
    refuse(&elf, sizeof(elf), "no PVH entry");
    elf = make_elf();
    elf.load.p_paddr = 1 * TIB;
    refuse(&elf, sizeof(elf), "-m");
    elf = make_elf();
    elf.load.p_paddr = 0x1000;
    refuse(&elf, sizeof(elf), "cannot put it");
    elf = make_elf();
    elf.load.p_memsz = UINT64_MAX;
    refuse(&elf, sizeof(elf), "-m");
    elf = make_elf();
    elf.header.e_phoff = UINT64_MAX - 8;
    refuse(&elf, sizeof(elf), "cut short");
    elf = make_elf();
    elf.note.p_filesz = UINT64_MAX;
    refuse(&elf, sizeof(elf), "no PVH entry");
    elf = make_elf();
    elf.note_header.n_namesz = UINT32_MAX;
    refuse(&elf, sizeof(elf), "no PVH entry");
    elf = make_elf();
    for (size_t length = 4; length < sizeof(elf); length += 31)
        assert_true(open_kernel(&elf, length, NULL) < 0);
}

static void test_initrd_at_the_top_of_low_ram(void **state)
{
    (void)state;
    static uint8_t kernel[KERNEL_BYTES];
    make_bzimage(kernel);
    char initrd[] = "/tmp/evisor-initrd-XXXXXX";
    int fd = mkstemp(initrd);
    assert_int_equal(write(fd, "initrd bytes", 12), 12);
    assert_int_equal(open_kernel(kernel, sizeof(kernel), initrd), 0);
    boot_load(&boot, &memory, 0);
    assert_true(boot.initrd_gpa == 64 * MIB - 4096);
    assert_memory_equal((char *)memory.host + boot.initrd_gpa, "initrd bytes", 12);
    boot_close(&boot);
    assert_int_equal(ftruncate(fd, 60 * MIB), 0);
    assert_int_equal(open_kernel(kernel, sizeof(kernel), initrd), -ENOMEM);
    assert_non_null(strstr(err.text, initrd));
    close(fd);
    unlink(initrd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, boot_rig_set_up, boot_rig_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_loads_a_bzimage),
        TEST(test_bzimage_without_a_64_bit_entry),
        TEST(test_the_file_does_not_stay_resident),
        TEST(test_a_second_load_repairs_the_first),
        TEST(test_refuses_foreign_and_broken_bzimages),
        TEST(test_refuses_what_does_not_fit),
        TEST(test_directory_and_missing_files),
        TEST(test_loads_an_elf_by_pvh),
        TEST(test_refuses_broken_elfs),
        TEST(test_initrd_at_the_top_of_low_ram),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
