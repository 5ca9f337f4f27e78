/* SPDX-License-Identifier: MIT */
/*
 * bare_exit: what one port exit and one memory exit cost with KVM_RUN in a loop and its handler in
 * the same thread, and nothing else: the least that any machine on KVM could take. Prints both, in
 * nanoseconds.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define RAM_BYTES 0x10000u
#define CODE_GPA  0x1000u
#define READS     20000u

/*
 * In real mode, with operand prefixes:
 *     mov ecx, READS; 1: in al, 0x80; dec ecx; jnz 1b
 *     mov ax, 0x2000; mov ds, ax (beyond RAM)
 *     mov ecx, READS; 1: mov al, [0]; dec ecx; jnz 1b; hlt
 */
static const uint8_t code[] = {0x66, 0xb9, READS & 0xff, READS >> 8,   0,          0,    0xe4, 0x80,
                               0x66, 0x49, 0x75,         0xfa,         0xb8,       0,    0x20, 0x8e,
                               0xd8, 0x66, 0xb9,         READS & 0xff, READS >> 8, 0,    0,    0xa0,
                               0,    0,    0x66,         0x49,         0x75,       0xf9, 0xf4};

/* The exits of one kind: the time between the first and the last of them. */
struct series {
    unsigned exits;
    uint64_t first_ns, last_ns;
};

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int call(int fd, unsigned long request, void *argument, const char *what)
{
    int result = ioctl(fd, request, argument);
    if (result < 0)
        fail(what);
    return result;
}

static void set_registers(int vcpu)
{
    struct kvm_sregs system;
    struct kvm_regs general = {.rip = CODE_GPA, .rflags = 2};
    call(vcpu, KVM_GET_SREGS, &system, "KVM_GET_SREGS");
    system.cs.base = 0;
    system.cs.selector = 0;
    call(vcpu, KVM_SET_SREGS, &system, "KVM_SET_SREGS");
    call(vcpu, KVM_SET_REGS, &general, "KVM_SET_REGS");
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void add(struct series *series)
{
    series->last_ns = now_ns();
    if (!series->exits++)
        series->first_ns = series->last_ns;
}

/* Until the guest halts. */
static void run(int vcpu, struct kvm_run *shared, struct series *port, struct series *memory)
{
    for (;;) {
        call(vcpu, KVM_RUN, NULL, "KVM_RUN");
        if (shared->exit_reason == KVM_EXIT_IO) {
            memset((char *)shared + shared->io.data_offset, 0xff, shared->io.size);
            add(port);
        } else if (shared->exit_reason == KVM_EXIT_MMIO) {
            memset(shared->mmio.data, 0xff, sizeof(shared->mmio.data));
            add(memory);
        } else {
            return;
        }
    }
}

static double each_ns(const struct series *series, const char *what)
{
    if (series->exits != READS) {
        fprintf(stderr, "bare-exit: %u %s exits, not %u\n", series->exits, what, READS);
        exit(1);
    }
    return (double)(series->last_ns - series->first_ns) / (READS - 1);
}

int main(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        fail("/dev/kvm");
    int vm = call(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
    char *ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ram == MAP_FAILED)
        fail("mmap");
    memcpy(ram + CODE_GPA, code, sizeof(code));
    struct kvm_userspace_memory_region slot = {.memory_size = RAM_BYTES,
                                               .userspace_addr = (uintptr_t)ram};
    call(vm, KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION");
    int vcpu = call(vm, KVM_CREATE_VCPU, NULL, "KVM_CREATE_VCPU");
    size_t size = (size_t)call(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE");
    struct kvm_run *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (shared == MAP_FAILED)
        fail("mmap of the vCPU");
    set_registers(vcpu);
    struct series port = {0}, memory = {0};
    run(vcpu, shared, &port, &memory);
    printf("%.1f %.1f\n", each_ns(&port, "port"), each_ns(&memory, "memory"));
    return 0;
}
