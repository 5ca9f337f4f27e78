/* SPDX-License-Identifier: MIT */
/*
 * bare_exit: what one port exit costs with KVM_RUN in a loop and its handler in the same thread,
 * and nothing else: the least that any machine on KVM could take. Prints nanoseconds.
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

/* mov ecx, READS; 1: in al, 0x80; dec ecx; jnz 1b; hlt (in real mode, with operand prefixes) */
static const uint8_t code[] = {0x66, 0xb9, READS & 0xff, READS >> 8, 0,    0,   0xe4,
                               0x80, 0x66, 0x49,         0x75,       0xfa, 0xf4};

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

/* The number of exits until the guest halts. */
static unsigned run(int vcpu, struct kvm_run *shared)
{
    for (unsigned exits = 0;; exits++) {
        call(vcpu, KVM_RUN, NULL, "KVM_RUN");
        if (shared->exit_reason != KVM_EXIT_IO)
            return exits;
        memset((char *)shared + shared->io.data_offset, 0xff, shared->io.size);
    }
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
    uint64_t began_ns = now_ns();
    unsigned exits = run(vcpu, shared);
    uint64_t took_ns = now_ns() - began_ns;
    if (exits != READS) {
        fprintf(stderr, "bare-exit: %u exits, not %u\n", exits, READS);
        return 1;
    }
    printf("%.1f\n", (double)took_ns / READS);
    return 0;
}
