/* SPDX-License-Identifier: MIT */
/* descriptor: a segment descriptor as a register holds it (Intel SDM volume 3, 3.4.5). */
#ifndef TESTS_DESCRIPTOR_H
#define TESTS_DESCRIPTOR_H

#include <linux/kvm.h>
#include <stdint.h>

static inline struct kvm_segment descriptor_segment(uint16_t selector, uint64_t descriptor)
{
    uint64_t d = descriptor;
    struct kvm_segment segment = {
        .selector = selector,
        .base = (d >> 16 & 0xffffff) | (d >> 56) << 24,
        .limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000)),
        .type = d >> 40 & 15,
        .s = d >> 44 & 1,
        .dpl = d >> 45 & 3,
        .present = d >> 47 & 1,
        .l = d >> 53 & 1,
        .db = d >> 54 & 1,
        .g = d >> 55 & 1,
    };

    if (segment.g)
        segment.limit = segment.limit << 12 | 0xfff;
    return segment;
}

#endif
