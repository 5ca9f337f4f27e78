/* SPDX-License-Identifier: MIT */
/* kvm: the accelerator over Linux's KVM: the machine-wide half (memory, interrupts, eventfds). */
#include "vmm/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Intel needs a page for the identity map and three for a TSS, away from RAM and devices. */
#define IDENTITY_MAP_GPA UINT64_C(0xfeffc000)
#define TSS_GPA          UINT64_C(0xfeffd000)

static struct kvm_vm *to_kvm(struct accel_vm *vm)
{
    return (struct kvm_vm *)vm;
}

static int kvm_open(struct error *err)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    if (errno == ENOENT)
        return error_set(err, ENOENT,
                         "/dev/kvm is not there: load the module kvm-intel or kvm-amd, enable "
                         "virtualization in the firmware, or use -accel soft");
    if (errno == EACCES)
        return error_set(err, EACCES,
                         "/dev/kvm may not be opened by this user: join its group (usermod -aG kvm "
                         "$USER, then log in again), or use -accel soft");
    return error_set_errno(err, errno, "cannot open /dev/kvm; -accel soft works without it");
}

static int check_capabilities(int kvm_fd, struct error *err)
{
    static const struct {
        int capability;
        const char *name;
    } wanted[] = {
        {KVM_CAP_USER_MEMORY, "user memory"},
        {KVM_CAP_SPLIT_IRQCHIP, "split irqchip"},
        {KVM_CAP_IRQFD, "irqfd"},
        {KVM_CAP_IOEVENTFD, "ioeventfd"},
        {KVM_CAP_SIGNAL_MSI, "MSI"},
        {KVM_CAP_IRQ_ROUTING, "interrupt routing"},
        {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
    };
    if (ioctl(kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return error_set(err, ENOTSUP, "/dev/kvm speaks another API version than %d",
                         KVM_API_VERSION);
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
        if (ioctl(kvm_fd, KVM_CHECK_EXTENSION, wanted[i].capability) <= 0)
            return error_set(err, ENOTSUP,
                             "the host's KVM lacks '%s': use a newer kernel, or -accel soft",
                             wanted[i].name);
    return 0;
}

static int kvm_probe(struct error *err)
{
    int fd = kvm_open(err);
    if (fd < 0)
        return fd;
    int result = check_capabilities(fd, err);
    close(fd);
    return result;
}

static int set_up_vm(struct kvm_vm *vm, struct error *err)
{
    uint64_t identity_map = IDENTITY_MAP_GPA;
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {GSI_IOAPIC_PINS}};

    int result = check_capabilities(vm->kvm_fd, err);
    if (result)
        return result;
    vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
    if (vm->fd < 0)
        return error_set_errno(err, errno, "KVM cannot create a machine");
    if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 ||
        ioctl(vm->fd, KVM_SET_TSS_ADDR, TSS_GPA) < 0)
        return error_set_errno(err, errno, "KVM cannot place its own pages");
    if (ioctl(vm->fd, KVM_ENABLE_CAP, &split) < 0)
        return error_set_errno(err, errno, "KVM cannot split the interrupt controller");
    int run_size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_size < (int)sizeof(struct kvm_run))
        return error_set(err, ENOTSUP, "KVM reports a vCPU area of %d bytes", run_size);
    vm->run_size = (size_t)run_size;
    return 0;
}

static void kvm_vm_destroy(struct accel_vm *accel)
{
    struct kvm_vm *vm = to_kvm(accel);
    if (vm->fd >= 0)
        close(vm->fd);
    if (vm->kvm_fd >= 0)
        close(vm->kvm_fd);
    free(vm);
}

static int kvm_vm_create(unsigned vcpu_count, struct accel_vm **out, struct error *err)
{
    struct kvm_vm *vm = calloc(1, sizeof(*vm));
    CHECK(vm);
    vm->accel.ops = &kvm_accel_ops;
    vm->fd = -1;
    vm->kvm_fd = kvm_open(err);
    int result = vm->kvm_fd < 0 ? vm->kvm_fd : set_up_vm(vm, err);
    if (!result) {
        int most = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
        if (most > 0 && vcpu_count > (unsigned)most)
            result =
                error_set(err, EINVAL, "KVM on this host runs at most %d CPUs, -smp asks for %u",
                          most, vcpu_count);
    }
    if (result) {
        kvm_vm_destroy(&vm->accel);
        return result;
    }
    *out = &vm->accel;
    return 0;
}

static int vm_ioctl(struct accel_vm *vm, unsigned long request, const void *argument)
{
    return ioctl(to_kvm(vm)->fd, request, argument) < 0 ? -errno : 0;
}

static int kvm_set_memslot(struct accel_vm *vm, unsigned slot, uint64_t gpa, uint64_t size,
                           void *host, bool read_only)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = read_only ? KVM_MEM_READONLY : 0,
        .guest_phys_addr = gpa,
        .memory_size = size,
        .userspace_addr = (uint64_t)(uintptr_t)host,
    };
    return vm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/* KVM runs the guest on the memory itself: there is no decoded copy to drop. */
static void kvm_ram_written(struct accel_vm *vm, uint64_t gpa, uint64_t length)
{
    (void)vm, (void)gpa, (void)length;
}

static int kvm_supported_cpuid(struct accel_vm *vm, struct accel_cpuid *out)
{
    out->header.nent = ACCEL_CPUID_MAX;
    return ioctl(to_kvm(vm)->kvm_fd, KVM_GET_SUPPORTED_CPUID, &out->header) < 0 ? -errno : 0;
}

static uint32_t kvm_tsc_khz(struct accel_vm *vm)
{
    struct kvm_vcpu *vcpu = to_kvm(vm)->boot_vcpu;
    int khz = vcpu ? ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0) : 0;
    return khz > 0 ? (uint32_t)khz : 0;
}

static void kvm_set_extint(struct accel_vm *vm, bool level)
{
    kvm_vcpu_set_extint(to_kvm(vm)->boot_vcpu, level);
}

static void kvm_msi(struct accel_vm *vm, uint64_t address, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)address,
        .address_hi = (uint32_t)(address >> 32),
        .data = data,
    };
    /* A message that no LAPIC takes is the guest's mistake, as on real hardware. */
    unused_result(vm_ioctl(vm, KVM_SIGNAL_MSI, &msi));
}

static int kvm_set_routes(struct accel_vm *vm, const struct accel_route *routes, unsigned count)
{
    struct {
        struct kvm_irq_routing header;
        struct kvm_irq_routing_entry entries[GSI_MAX];
    } table = {0};
    CHECK(count <= GSI_MAX);
    table.header.nr = count;
    for (unsigned i = 0; i < count; i++) {
        struct kvm_irq_routing_entry *entry = &table.header.entries[i];
        entry->gsi = routes[i].gsi;
        entry->type = KVM_IRQ_ROUTING_MSI;
        entry->u.msi.address_lo = (uint32_t)routes[i].address;
        entry->u.msi.address_hi = (uint32_t)(routes[i].address >> 32);
        entry->u.msi.data = routes[i].data;
    }
    return vm_ioctl(vm, KVM_SET_GSI_ROUTING, &table.header);
}

static int kvm_irqfd_add(struct accel_vm *vm, int fd, uint32_t gsi)
{
    struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = gsi};
    return vm_ioctl(vm, KVM_IRQFD, &irqfd);
}

static void kvm_irqfd_del(struct accel_vm *vm, int fd, uint32_t gsi)
{
    struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = gsi, .flags = KVM_IRQFD_FLAG_DEASSIGN};
    unused_result(vm_ioctl(vm, KVM_IRQFD, &irqfd));
}

static struct kvm_ioeventfd ioeventfd(int fd, bool is_pio, uint64_t address, unsigned size,
                                      bool any, uint64_t value)
{
    return (struct kvm_ioeventfd){
        .datamatch = any ? 0 : value,
        .addr = address,
        .len = size,
        .fd = fd,
        .flags = (any ? 0u : KVM_IOEVENTFD_FLAG_DATAMATCH) | (is_pio ? KVM_IOEVENTFD_FLAG_PIO : 0u),
    };
}

static int kvm_ioeventfd_add(struct accel_vm *vm, int fd, bool is_pio, uint64_t address,
                             unsigned size, bool any, uint64_t value)
{
    struct kvm_ioeventfd request = ioeventfd(fd, is_pio, address, size, any, value);
    return vm_ioctl(vm, KVM_IOEVENTFD, &request);
}

static void kvm_ioeventfd_del(struct accel_vm *vm, int fd, bool is_pio, uint64_t address,
                              unsigned size, bool any, uint64_t value)
{
    struct kvm_ioeventfd request = ioeventfd(fd, is_pio, address, size, any, value);
    request.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
    unused_result(vm_ioctl(vm, KVM_IOEVENTFD, &request));
}

const struct accel_ops kvm_accel_ops = {
    .name = "kvm",
    .probe = kvm_probe,
    .vm_create = kvm_vm_create,
    .vm_destroy = kvm_vm_destroy,
    .set_memslot = kvm_set_memslot,
    .ram_written = kvm_ram_written,
    .supported_cpuid = kvm_supported_cpuid,
    .tsc_khz = kvm_tsc_khz,
    .vcpu_create = kvm_vcpu_create,
    .vcpu_destroy = kvm_vcpu_destroy,
    .vcpu_set_cpuid = kvm_vcpu_set_cpuid,
    .vcpu_run = kvm_vcpu_run,
    .vcpu_kick = kvm_vcpu_kick,
    .vcpu_get_state = kvm_vcpu_get_state,
    .vcpu_set_state = kvm_vcpu_set_state,
    .vcpu_get_msrs = kvm_vcpu_get_msrs,
    .vcpu_set_msrs = kvm_vcpu_set_msrs,
    .vcpu_set_debug = kvm_vcpu_set_debug,
    .vcpu_translate = kvm_vcpu_translate,
    .set_extint = kvm_set_extint,
    .vcpu_inject_extint = kvm_vcpu_inject_extint,
    .msi = kvm_msi,
    .set_routes = kvm_set_routes,
    .irqfd_add = kvm_irqfd_add,
    .irqfd_del = kvm_irqfd_del,
    .ioeventfd_add = kvm_ioeventfd_add,
    .ioeventfd_del = kvm_ioeventfd_del,
};
