/* SPDX-License-Identifier: MIT */
/* boot: opens kernel and initrd, places the initrd, sets the boot CPU's registers. */
#include "vmm/boot/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"

static int check_file(int fd, const char *what, const char *path, struct boot_file *out,
                      struct error *err)
{
    struct stat info;
    if (fstat(fd, &info) < 0)
        return error_set_errno(err, errno, "cannot look at %s '%s'", what, path);
    if (S_ISDIR(info.st_mode))
        return error_set(err, EISDIR, "%s '%s' is a directory: name a file in it", what, path);
    if (!S_ISREG(info.st_mode))
        return error_set(err, EINVAL, "%s '%s' is not a regular file", what, path);
    if (info.st_size == 0)
        return error_set(err, EINVAL, "%s '%s' is empty", what, path);
    void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return error_set_errno(err, errno, "cannot map %s '%s'", what, path);
    *out = (struct boot_file){bytes, (size_t)info.st_size};
    return 0;
}

static int map_file(const char *what, const char *path, struct boot_file *out, struct error *err)
{
    /* O_NONBLOCK: a FIFO must not hang the start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set_errno(err, errno, "cannot open %s '%s'", what, path);
    int result = check_file(fd, what, path, out, err);
    close(fd);
    return result;
}

static void unmap_file(struct boot_file *file)
{
    if (file->size)
        munmap((void *)(uintptr_t)file->bytes, file->size);
    *file = (struct boot_file){0};
}

/* The guest has its copy; the file's pages come back if it is loaded again, after a reset. */
static void drop_pages(const struct boot_file *file)
{
    if (file->size)
        madvise((void *)(uintptr_t)file->bytes, file->size, MADV_DONTNEED);
}

/* At the top of low RAM, as boot loaders do: the kernel grows upwards from below. */
static int place_initrd(struct boot *boot, const struct memory *memory, const char *path,
                        struct error *err)
{
    uint64_t low_end = memory->guest.regions[0].size;
    uint64_t end = MIN(low_end, boot->initrd_limit);
    if (boot->kernel_end > low_end)
        return error_set(err, ENOMEM,
                         "the kernel needs %llu MiB of memory: give the machine more with -m",
                         (unsigned long long)(boot->kernel_end / MIB) + 1);
    if (!boot->initrd.size)
        return 0;
    if (boot->initrd.size > end || align_down(end - boot->initrd.size, 4096) < boot->kernel_end)
        return error_set(err, ENOMEM,
                         "initrd '%s' (%llu MiB) does not fit beside the kernel: give the machine "
                         "more memory with -m",
                         path, (unsigned long long)(boot->initrd.size / MIB + 1));
    boot->initrd_gpa = align_down(end - boot->initrd.size, 4096);
    return 0;
}

static int parse_kernel(struct boot *boot, const struct memory *memory, const char *path,
                        struct error *err)
{
    if (boot->kernel.size >= 4 && !memcmp(boot->kernel.bytes, "\177ELF", 4))
        return boot_pvh_parse(boot, memory, path, err);
    return boot_bzimage_parse(boot, path, err);
}

int boot_open(struct boot *boot, const struct memory *memory, const char *kernel,
              const char *initrd, const char *cmdline, struct error *err)
{
    *boot = (struct boot){0};
    if (cmdline && strlen(cmdline) >= CMDLINE_MAX_BYTES)
        return error_set(err, EINVAL, "-append is longer than %d bytes", CMDLINE_MAX_BYTES - 1);
    int result = map_file("kernel", kernel, &boot->kernel, err);
    if (!result && initrd)
        result = map_file("initrd", initrd, &boot->initrd, err);
    if (!result)
        result = parse_kernel(boot, memory, kernel, err);
    if (!result)
        result = place_initrd(boot, memory, initrd, err);
    boot->cmdline = strdup(cmdline ? cmdline : "");
    CHECK(boot->cmdline);
    if (result)
        boot_close(boot);
    return result;
}

void boot_close(struct boot *boot)
{
    unmap_file(&boot->kernel);
    unmap_file(&boot->initrd);
    free(boot->cmdline);
    boot->cmdline = NULL;
}

/* Flat segments: selector 0x10 code, 0x18 data, 0x20 TSS, as both boot protocols want them. */
static void load_gdt(const struct boot *boot, const struct guest_mem *mem)
{
    const uint64_t code64 = UINT64_C(0x00af9b000000ffff);
    const uint64_t code32 = UINT64_C(0x00cf9b000000ffff);
    const uint64_t gdt[] = {0, 0, boot->kind == BOOT_BZIMAGE ? code64 : code32,
                            UINT64_C(0x00cf93000000ffff), UINT64_C(0x00008b0000000067)};
    CHECK(guest_mem_write(mem, BOOT_GDT_GPA, gdt, sizeof(gdt)));
}

/* The first 4 GiB, one to one, in 2 MiB pages; in 4 levels from the PML4 on, in 5 from the PML5. */
static void load_page_tables(const struct guest_mem *mem)
{
    enum { PRESENT_WRITABLE = 3, LARGE = 0x80 };
    uint64_t table[512] = {BOOT_PAGE_TABLES_GPA + 4096 + PRESENT_WRITABLE};
    CHECK(guest_mem_write(mem, BOOT_PAGE_TABLES_GPA, table, sizeof(table)));
    table[0] = BOOT_PAGE_TABLES_GPA + PRESENT_WRITABLE;
    CHECK(guest_mem_write(mem, BOOT_PML5_GPA, table, sizeof(table)));
    memset(table, 0, sizeof(table));
    for (uint64_t i = 0; i < 4; i++)
        table[i] = BOOT_PAGE_TABLES_GPA + (2 + i) * 4096 + PRESENT_WRITABLE;
    CHECK(guest_mem_write(mem, BOOT_PAGE_TABLES_GPA + 4096, table, sizeof(table)));
    for (uint64_t i = 0; i < 4; i++) {
        for (uint64_t page = 0; page < 512; page++)
            table[page] = ((i * 512 + page) << 21) | PRESENT_WRITABLE | LARGE;
        CHECK(guest_mem_write(mem, BOOT_PAGE_TABLES_GPA + (2 + i) * 4096, table, sizeof(table)));
    }
}

void boot_load(struct boot *boot, const struct memory *memory, uint64_t rsdp_gpa)
{
    const struct guest_mem *mem = &memory->guest;
    load_gdt(boot, mem);
    CHECK(guest_mem_write(mem, BOOT_CMDLINE_GPA, boot->cmdline, strlen(boot->cmdline) + 1));
    if (boot->initrd.size)
        CHECK(guest_mem_write(mem, boot->initrd_gpa, boot->initrd.bytes, boot->initrd.size));
    if (boot->kind == BOOT_BZIMAGE)
        load_page_tables(mem);
    if (boot->kind == BOOT_PVH)
        boot_pvh_load(boot, memory, rsdp_gpa);
    else
        boot_bzimage_load(boot, memory, rsdp_gpa);
    drop_pages(&boot->kernel);
    drop_pages(&boot->initrd);
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool is_long)
{
    bool is_system = selector == 0x20;
    return (struct kvm_segment){
        .limit = is_system ? 0x67 : 0xffffffff,
        .selector = selector,
        .type = type,
        .present = 1,
        .db = !is_long && !is_system,
        .s = !is_system,
        .l = is_long,
        .g = !is_system,
    };
}

static void set_long_mode(const struct boot *boot, struct kvm_sregs *sregs)
{
    enum { EFER_LME = 1 << 8, EFER_LMA = 1 << 10, CR4_PAE = 1 << 5, CR4_LA57 = 1 << 12 };
    sregs->cr3 = boot->uses_la57 ? BOOT_PML5_GPA : BOOT_PAGE_TABLES_GPA;
    sregs->cr4 = CR4_PAE | (boot->uses_la57 ? CR4_LA57 : 0);
    sregs->cr0 |= 0x80000000u;
    sregs->efer = EFER_LME | EFER_LMA;
}

void boot_set_cpu(const struct boot *boot, struct accel_vcpu_state *state)
{
    bool is_long = boot->kind == BOOT_BZIMAGE;
    struct kvm_sregs *sregs = &state->sregs;
    sregs->cs = segment(0x10, 0xb, is_long);
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = segment(0x18, 0x3, false);
    sregs->tr = segment(0x20, 0xb, false);
    sregs->gdt = (struct kvm_dtable){.base = BOOT_GDT_GPA, .limit = 5 * 8 - 1};
    sregs->idt = (struct kvm_dtable){0};
    sregs->cr0 = 0x11; /* protected mode, extension type */
    if (is_long)
        set_long_mode(boot, sregs);
    state->regs = (struct kvm_regs){
        .rip = boot->entry,
        .rflags = 2,
        .rsp = BOOT_STACK_GPA,
        .rsi = BOOT_ZERO_PAGE_GPA,
        .rbx = boot->kind == BOOT_PVH ? BOOT_PVH_INFO_GPA : 0,
    };
}
