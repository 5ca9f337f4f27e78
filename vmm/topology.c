/* SPDX-License-Identifier: MIT */
/*
 * topology: edits CPUID leaves 1, 4, 0xb, 0x1f, 0x80000008, 0x8000001d and 0x8000001e for one CPU.
 * (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.)
 */
#include "vmm/topology.h"

#include <string.h>

enum { LEAF_B_THREADS = 1, LEAF_B_CORES = 2 };

static unsigned bits_for(unsigned count)
{
    unsigned bits = 0;
    while ((1u << bits) < count)
        bits++;
    return bits;
}

static void edit_leaf_1(const struct topology *topology, unsigned index,
                        struct kvm_cpuid_entry2 *entry)
{
    const uint32_t htt = 1u << 28, hypervisor = 1u << 31, tsc_deadline = 1u << 24;
    unsigned per_socket = topology->cores * topology->threads;
    entry->ebx = (entry->ebx & 0xffff) | index << 24 | (per_socket & 0xff) << 16;
    entry->edx = per_socket > 1 ? entry->edx | htt : entry->edx & ~htt;
    entry->ecx |= hypervisor | tsc_deadline;
}

/* Leaf 4 and 0x8000001d: levels 1 and 2 are a core's own, higher ones the socket's. */
static void edit_cache_leaf(const struct topology *topology, struct kvm_cpuid_entry2 *entry)
{
    if (!(entry->eax & 0x1f))
        return;
    unsigned level = (entry->eax >> 5) & 7;
    unsigned per_socket = topology->cores * topology->threads;
    unsigned sharing = level >= 3 ? per_socket : topology->threads;
    entry->eax = (entry->eax & 0x3fff) | ((1u << bits_for(sharing)) - 1) << 14;
    if (entry->function == 4)
        entry->eax |= ((1u << bits_for(topology->cores)) - 1) << 26;
}

static void edit_leaf_b(const struct topology *topology, unsigned index,
                        struct kvm_cpuid_entry2 *entry)
{
    unsigned thread_bits = bits_for(topology->threads);
    entry->ecx = entry->index & 0xff;
    entry->edx = index;
    if (entry->index == 0) {
        entry->eax = thread_bits;
        entry->ebx = topology->threads;
        entry->ecx |= LEAF_B_THREADS << 8;
    } else if (entry->index == 1) {
        entry->eax = thread_bits + bits_for(topology->cores);
        entry->ebx = topology->cores * topology->threads;
        entry->ecx |= LEAF_B_CORES << 8;
    } else {
        entry->eax = entry->ebx = 0;
    }
}

static void edit_amd_sizes(const struct topology *topology, struct kvm_cpuid_entry2 *entry)
{
    unsigned per_socket = topology->cores * topology->threads;
    entry->ecx = (entry->ecx & ~0xffffu) | bits_for(per_socket) << 12 | (per_socket - 1);
}

static void edit_amd_ids(const struct topology *topology, unsigned index,
                         struct kvm_cpuid_entry2 *entry)
{
    entry->eax = index;
    entry->ebx = index / topology->threads | (topology->threads - 1) << 8;
    entry->ecx = index / (topology->cores * topology->threads);
}

static void edit(const struct topology *topology, unsigned index, struct kvm_cpuid_entry2 *entry)
{
    switch (entry->function) {
    case 1:
        edit_leaf_1(topology, index, entry);
        break;
    case 4:
    case 0x8000001d:
        edit_cache_leaf(topology, entry);
        break;
    case 0xb:
    case 0x1f:
        edit_leaf_b(topology, index, entry);
        break;
    case 0x80000008:
        edit_amd_sizes(topology, entry);
        break;
    case 0x8000001e:
        edit_amd_ids(topology, index, entry);
        break;
    default:
        break;
    }
}

/* Some accelerators list only the first subleaf of 0xb; the guest needs all three. */
static void complete_leaf_b(struct accel_cpuid *cpuid)
{
    for (uint32_t index = 0; index < 3; index++) {
        bool found = false;
        for (uint32_t i = 0; i < cpuid->header.nent; i++)
            found |= cpuid->entries[i].function == 0xb && cpuid->entries[i].index == index;
        if (found || cpuid->header.nent == ACCEL_CPUID_MAX)
            continue;
        cpuid->entries[cpuid->header.nent++] = (struct kvm_cpuid_entry2){
            .function = 0xb,
            .index = index,
            .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        };
    }
}

static struct kvm_cpuid_entry2 *find(struct accel_cpuid *cpuid, uint32_t function)
{
    for (uint32_t i = 0; i < cpuid->header.nent; i++)
        if (cpuid->entries[i].function == function)
            return &cpuid->entries[i];
    return NULL;
}

/* AMD's processors tell of threads only with TOPOEXT, and then Linux reads leaf 0xb as well. */
static void announce_amd_threads(struct accel_cpuid *cpuid)
{
    const uint32_t topoext = 1u << 22, authentic_amd_ebx = 0x68747541;
    struct kvm_cpuid_entry2 *vendor = find(cpuid, 0), *largest = find(cpuid, 0x80000000);
    struct kvm_cpuid_entry2 *features = find(cpuid, 0x80000001);
    if (!vendor || vendor->ebx != authentic_amd_ebx || !largest || !features ||
        cpuid->header.nent > ACCEL_CPUID_MAX - 4)
        return;
    features->ecx |= topoext;
    vendor->eax = MAX(vendor->eax, 0xb);
    largest->eax = MAX(largest->eax, 0x8000001e);
    if (!find(cpuid, 0x8000001e))
        cpuid->entries[cpuid->header.nent++] = (struct kvm_cpuid_entry2){.function = 0x8000001e};
}

void topology_apply(const struct topology *topology, unsigned index, struct accel_cpuid *cpuid)
{
    if (topology->threads > 1)
        announce_amd_threads(cpuid);
    if (cpuid->header.nent && cpuid->entries[0].function == 0 && cpuid->entries[0].eax >= 0xb)
        complete_leaf_b(cpuid);
    for (uint32_t i = 0; i < cpuid->header.nent; i++)
        edit(topology, index, &cpuid->entries[i]);
}
