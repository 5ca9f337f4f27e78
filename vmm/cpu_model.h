/* SPDX-License-Identifier: MIT */
/*
 * cpu_model: which of the features that the accelerator offers the guest's CPUs show: the models
 * and switches of -cpu, and their effect on CPUID.
 *
 * Vendor, family and caches stay the accelerator's own, whatever the model.
 */
#ifndef VMM_CPU_MODEL_H
#define VMM_CPU_MODEL_H

#include "base/error.h"
#include "vmm/accel.h"

#define CPU_FEATURE_WORDS 3 /* of 64 features each */

/* All zero: everything that is offered. */
struct cpu_model {
    uint8_t level;                  /* the x86-64 level that it stops at; 0 for none */
    bool enforce;                   /* a feature asked for must be offered, or there is no guest */
    uint64_t on[CPU_FEATURE_WORDS]; /* by place in the table of features */
    uint64_t off[CPU_FEATURE_WORDS];
};

/* The names that `name` may have. False: there is no such model. */
bool must_check cpu_model_find(const char *name, struct cpu_model *out);
/* `name` may be written with _ or . for -. False: there is no such feature. */
bool must_check cpu_model_switch(struct cpu_model *model, const char *name, bool on);
/* The feature whose name is nearest, or NULL. */
const char *cpu_model_nearest_feature(const char *name);

/* The models by number, in the order of the help; NULL past the last. */
const char *cpu_model_name(unsigned index);

/* Tells each feature that the model is to have and `cpuid`, the accelerator's, does not offer. */
void cpu_model_missing(const struct cpu_model *model, struct accel_cpuid *cpuid,
                       void (*tell)(void *opaque, const char *feature), void *opaque);

/* What `-cpu help` says, to be freed. */
char *cpu_model_help(void);

/*
 * Takes from `cpuid` what the model does not have. A feature asked for that `accel` does not offer
 * is a warning, or with `enforce` -ENOTSUP.
 */
int must_check cpu_model_apply(const struct cpu_model *model, const char *accel,
                               struct accel_cpuid *cpuid, struct error *err);

/* Whether the CPU that `cpuid` describes has the feature of this name, which must be one. */
bool cpu_model_has(struct accel_cpuid *cpuid, const char *feature);

#endif
