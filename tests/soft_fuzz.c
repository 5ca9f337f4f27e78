/* SPDX-License-Identifier: MIT */
/*
 * soft_fuzz: random instructions on the host's CPU and on the software CPU, side by side.
 *
 *   soft_fuzz [--cases N] [--seed S] [--set all|integer|sse|x87|vex] [--32]
 *   soft_fuzz [--32] --bytes HEX --state SEED      one case again, as a report prints it
 *
 * Ends with 0 if every case agreed in registers, flags, memory and faults.
 */
#include <inttypes.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "tests/softfuzz/fuzz_case.h"
#include "tests/softfuzz/fuzz_compare.h"
#include "tests/softfuzz/fuzz_native.h"
#include "tests/softfuzz/fuzz_soft_cpu.h"

struct options {
    uint64_t cases, seed, state;
    enum fuzz_set set;
    const char *bytes;
    bool is_32;
    unsigned reports; /* mismatches to print before giving up */
};

struct counts {
    uint64_t ran, skipped, faulted, undefined, mismatches;
};

static int parse_options(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {
        {"cases", required_argument, NULL, 'c'},
        {"seed", required_argument, NULL, 's'},
        {"set", required_argument, NULL, 't'},
        {"bytes", required_argument, NULL, 'b'},
        {"32", no_argument, NULL, '3'},
        {"state", required_argument, NULL, 'i'},
        {"reports", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    static const char *const sets[] = {"all", "integer", "sse", "x87", "vex"};
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'c':
            options->cases = strtoull(optarg, NULL, 0);
            break;
        case 's':
            options->seed = strtoull(optarg, NULL, 0);
            break;
        case 'b':
            options->bytes = optarg;
            break;
        case 'i':
            options->state = strtoull(optarg, NULL, 0);
            break;
        case 'r':
            options->reports = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case '3':
            options->is_32 = true;
            break;
        case 't':
            for (unsigned i = 0; i < ARRAY_SIZE(sets); i++)
                if (!strcmp(optarg, sets[i]))
                    options->set = i;
            break;
        default:
            return 2;
        }
    }
    return 0;
}

/* True if both agree. */
static bool run_case(struct fuzz_case *c, struct counts *counts, bool report)
{
    static struct fuzz_result native, soft;

    fuzz_native_run(c, &native);
    fuzz_soft_cpu_run(c, &soft);
    counts->ran++;
    counts->faulted += native.vector >= 0;
    if (fuzz_compare(c, &native, &soft))
        return true;
    counts->mismatches++;
    if (report)
        fuzz_compare_report(c, &native, &soft);
    return false;
}

static bool parse_bytes(const char *text, struct fuzz_case *c)
{
    unsigned count = 0;

    memset(c->bytes, 0, sizeof(c->bytes));
    for (; text[0] && text[1] && count < FUZZ_INSTRUCTION_MAX; text += 2) {
        char byte[3] = {text[0], text[1], 0};

        c->bytes[count++] = (uint8_t)strtoul(byte, NULL, 16);
    }
    return count > 0;
}

static int replay(const struct options *options)
{
    static struct fuzz_case c;
    struct counts counts = {0};

    c.is_32 = options->is_32;
    if (!parse_bytes(options->bytes, &c))
        return 2;
    fuzz_case_make_state(&c, options->state);
    fuzz_soft_cpu_decode(&c);
    if (run_case(&c, &counts, true)) {
        printf("agrees\n");
        return 0;
    }
    return 1;
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static struct counts fuzz(const struct options *options)
{
    static struct fuzz_case c;
    struct counts counts = {0};
    uint64_t seed = options->seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
    unsigned states = 1;

    c.is_32 = options->is_32;
    while (counts.ran < options->cases && counts.mismatches < options->reports) {
        /* Each encoding is tried with a few states. */
        if (--states == 0) {
            fuzz_case_make_bytes(&c, fuzz_random(&seed), options->set);
            states = 4;
        }
        fuzz_case_make_state(&c, fuzz_random(&seed));
        fuzz_soft_cpu_decode(&c);
        if (!fuzz_case_is_safe(&c)) {
            counts.skipped++;
            states = 1;
            continue;
        }
        if (c.undefined) {
            counts.undefined++;
            states = 1;
        }
        if (!run_case(&c, &counts, true))
            states = 1;
    }
    return counts;
}

int main(int argc, char **argv)
{
    struct options options = {.cases = 1000000, .seed = 1, .reports = 20};
    struct counts counts;
    double start;
    int failed = parse_options(argc, argv, &options);

    if (failed)
        return failed;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (fuzz_native_init(options.is_32)) {
        fprintf(stderr, "soft_fuzz: the fixed addresses are taken; run it again\n");
        return 2;
    }
    fuzz_soft_cpu_init(options.is_32);
    if (options.bytes)
        return replay(&options);
    start = seconds();
    counts = fuzz(&options);
    printf("%" PRIu64 " cases, %" PRIu64 " faulted, %" PRIu64 " undefined, %" PRIu64
           " not tried, %" PRIu64 " differ; %.0f cases a second\n",
           counts.ran, counts.faulted, counts.undefined, counts.skipped, counts.mismatches,
           (double)counts.ran / (seconds() - start));
    return counts.mismatches != 0;
}
