/* SPDX-License-Identifier: MIT */
/* main: deals the workloads out to processes, adds up, and says what came of it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/crash_sim/rules.h"
#include "tests/crash_sim/workload.h"

/* Under the sanitizers everything takes long: the run at full speed is the one that counts. */
#ifdef __SANITIZE_ADDRESS__
#define STATES UINT64_C(20000)
#else
#define STATES UINT64_C(1000000)
#endif
#define JOBS_MAX     64u
#define GATE_STATES  400000u /* without finding anything: the rule is not guarded */
#define GATE_SECONDS 120u
#define NO_ITEM      UINT64_MAX

static const char help[] =
    "Usage: tests/crash [--states N] [--seed S] [--jobs J]\n"
    "       tests/crash --item I [--seed S] [--break RULE]\n"
    "       tests/crash --gate [--states N]\n"
    "\n"
    "Cuts the power of a simulated disk under the qcow2 engine, and judges what is left.\n"
    "\n"
    "  --states N    go on until so many states have been judged (1000000; under ASan 20000)\n"
    "  --seed S      what is drawn: the disk's order, the states that are sampled (1)\n"
    "  --jobs J      processes (2)\n"
    "  --item I      only this workload, with the engine's own messages: how a failure is "
    "replayed\n"
    "  --break RULE  break one of the engine's rules of order; --rules lists them\n"
    "  --gate        break each rule in turn: every one must be noticed, within --states N each\n"
    "                (400000)\n"
    "  --rules       list the rules\n"
    "\n"
    "Examples:\n"
    "  tests/crash --states 1000000 --seed 7\n"
    "  tests/crash --item 4711 --seed 7\n";

struct options {
    uint64_t states, seed, item;
    unsigned jobs;
    const char *broken;
    bool is_gate, has_states;
};

/* Between the processes. */
struct shared {
    atomic_uint_fast64_t position, states, nested, scenes, recoveries, repairs, faults;
    atomic_uint_fast64_t items[JOBS_MAX]; /* that each process is at */
};

static struct shared *share(void)
{
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    return shared;
}

static void replay_line(char *out, size_t room, uint64_t item, const struct options *options)
{
    snprintf(out, room, "tests/crash --item %" PRIu64 " --seed %" PRIu64 "%s%s", item,
             options->seed, options->broken ? " --break " : "",
             options->broken ? options->broken : "");
}

static void run_item(struct scene_world *world, struct shared *shared, unsigned job, uint64_t item,
                     const struct options *options)
{
    char replay[160];
    replay_line(replay, sizeof(replay), item, options);
    world->replay = replay;
    shared->items[job] = item;
    struct scene_world before = *world;
    workload_run(world, item, options->seed);
    shared->states += world->states - before.states + world->nested - before.nested;
    shared->nested += world->nested - before.nested;
    shared->scenes += world->scenes - before.scenes;
    shared->recoveries += world->recoveries - before.recoveries;
    shared->repairs += world->repairs - before.repairs;
    shared->faults += world->faults - before.faults;
}

/* Standard error of the engine goes nowhere; what a scene finds is told all the same. */
static int silence(void)
{
    int report = dup(STDERR_FILENO), nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
    CHECK(report >= 0 && nothing >= 0 && dup2(nothing, STDERR_FILENO) >= 0);
    close(nothing);
    return report;
}

static void work(struct shared *shared, unsigned job, const struct options *options, bool is_quiet)
{
    struct scene_world world;
    int report = silence();
    if (options->is_gate)
        alarm(GATE_SECONDS); /* a broken engine may go round in circles, which is noticed too */
    scene_world_init(&world);
    world.report_fd = is_quiet ? STDERR_FILENO : report;
    if (options->broken)
        rules_break(options->broken);
    while (shared->states < options->states)
        run_item(&world, shared, job, workload_order(shared->position++), options);
    scene_world_fini(&world);
    fflush(stdout);
    _exit(0);
}

static pid_t start(struct shared *shared, unsigned job, const struct options *options,
                   bool is_quiet)
{
    shared->items[job] = NO_ITEM;
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child)
        work(shared, job, options, is_quiet);
    return child;
}

static double seconds_since(uint64_t began_ns)
{
    return (double)(loop_now_ns() - began_ns) / 1e9;
}

/* True if all processes ended well; the first bad one ends the others. */
static bool wait_for_all(const pid_t *children, unsigned count, const struct shared *shared,
                         const struct options *options)
{
    bool is_good = true;
    for (unsigned left = count; left; left--) {
        int status;
        pid_t child = wait(&status);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        for (unsigned i = 0; i < count && is_good; i++) {
            if (children[i] != child) {
                kill(children[i], SIGKILL);
                continue;
            }
            char replay[160];
            replay_line(replay, sizeof(replay), shared->items[i], options);
            if (!WIFEXITED(status) || WEXITSTATUS(status) != SCENE_FAILED)
                fprintf(stderr, "crash_sim: the engine crashed\n  replay with: %s\n", replay);
        }
        is_good = false;
    }
    return is_good;
}

static int run_all(const struct options *options)
{
    struct shared *shared = share();
    pid_t children[JOBS_MAX];
    uint64_t began_ns = loop_now_ns();
    fflush(stdout);
    for (unsigned i = 0; i < options->jobs; i++)
        children[i] = start(shared, i, options, false);
    if (!wait_for_all(children, options->jobs, shared, options))
        return 1;
    double seconds = seconds_since(began_ns);
    printf("crash_sim: %" PRIu64 " states of %" PRIu64 " workloads, seed %" PRIu64
           ": 0 corruptions, 0 lost flushed sectors, 0 foreign sectors\n"
           "  %s; %" PRIu64 " faults; %" PRIu64 " states opened and written to, %" PRIu64
           " repaired, %" PRIu64 " of the states are cuts during those; %.1f s, %.0f states/s\n",
           (uint64_t)shared->states, (uint64_t)shared->scenes, options->seed,
           workload_coverage(shared->position), (uint64_t)shared->faults,
           (uint64_t)shared->recoveries, (uint64_t)shared->repairs, (uint64_t)shared->nested,
           seconds, (double)shared->states / seconds);
    return 0;
}

static int run_one(const struct options *options)
{
    struct scene_world world;
    struct shared *shared = share();
    scene_world_init(&world);
    world.report_fd = STDERR_FILENO;
    run_item(&world, shared, 0, options->item, options);
    printf("crash_sim: %s: %" PRIu64 " states of %" PRIu64 " workloads: nothing found\n",
           workload_family(options->item), (uint64_t)shared->states, (uint64_t)shared->scenes);
    scene_world_fini(&world);
    return 0;
}

/* --- the mutation gate --- */

struct mutant {
    const char *rule;
    struct shared *shared;
    pid_t child;
    uint64_t began_ns;
};

static void start_mutant(struct mutant *mutant, const char *rule, const struct options *options)
{
    struct options broken = *options;
    broken.broken = rule;
    mutant->rule = rule;
    mutant->shared = share();
    mutant->began_ns = loop_now_ns();
    mutant->child = start(mutant->shared, 0, &broken, true);
}

/* Whether it was noticed: by a finding, or because the engine fell over its own checks. */
static bool finish_mutant(const struct mutant *mutant, int status)
{
    bool is_caught = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    const char *how = WIFEXITED(status) ? "a bad state" : "the engine's own checks";
    printf("  %-22s %s (%" PRIu64 " states, item %" PRIu64 ", %.1f s)\n", mutant->rule,
           is_caught ? how : "NOT NOTICED", (uint64_t)mutant->shared->states,
           (uint64_t)mutant->shared->items[0], seconds_since(mutant->began_ns));
    munmap(mutant->shared, sizeof(*mutant->shared));
    return is_caught;
}

static int run_gate(const struct options *options)
{
    struct mutant running[JOBS_MAX];
    unsigned next = 0, count = 0, caught = 0;
    uint64_t began_ns = loop_now_ns();
    while (count || next < rules_count()) {
        if (count < options->jobs && next < rules_count()) {
            start_mutant(&running[count++], rules_name(next++), options);
            continue;
        }
        int status;
        pid_t child = wait(&status);
        for (unsigned i = 0; i < count; i++) {
            if (running[i].child != child)
                continue;
            caught += finish_mutant(&running[i], status);
            running[i] = running[--count];
            break;
        }
        fflush(stdout);
    }
    printf("crash_sim: %u of %u broken rules noticed, %.1f s\n", caught, rules_count(),
           seconds_since(began_ns));
    return caught == rules_count() && caught ? 0 : 1;
}

/* --- the command line --- */

static uint64_t number_of(const char *option, const char *text)
{
    char *end;
    errno = 0;
    uint64_t value = text ? strtoull(text, &end, 0) : 0;
    if (text && *text && !*end && !errno)
        return value;
    fprintf(stderr, "crash_sim: %s needs a number; see --help\n", option);
    exit(2);
}

static bool parse_number(const char *option, const char *value, struct options *options)
{
    if (!strcmp(option, "--states")) {
        options->states = number_of(option, value);
        options->has_states = true;
    } else if (!strcmp(option, "--seed")) {
        options->seed = number_of(option, value);
    } else if (!strcmp(option, "--item")) {
        options->item = number_of(option, value);
    } else if (!strcmp(option, "--jobs")) {
        options->jobs = (unsigned)MIN(MAX(number_of(option, value), 1), JOBS_MAX);
    } else {
        return false;
    }
    return true;
}

static void parse(int argc, char **argv, struct options *options)
{
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(option, "--help") || !strcmp(option, "-h")) {
            fputs(help, stdout);
            exit(0);
        } else if (!strcmp(option, "--rules")) {
            for (unsigned k = 0; k < rules_count(); k++)
                puts(rules_name(k));
            exit(0);
        } else if (!strcmp(option, "--gate")) {
            options->is_gate = true;
        } else if (!strcmp(option, "--break") && value) {
            options->broken = argv[++i];
        } else if (parse_number(option, value, options)) {
            i++;
        } else {
            fprintf(stderr, "crash_sim: unknown option '%s'; see --help\n", option);
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    struct options options = {.states = STATES, .seed = 1, .item = NO_ITEM, .jobs = 2};
    parse(argc, argv, &options);
    if (options.is_gate && !options.has_states)
        options.states = GATE_STATES;
    if (options.is_gate)
        return run_gate(&options);
    if (options.broken && !rules_break(options.broken)) {
        fprintf(stderr, "crash_sim: no rule '%s' to break; see --rules\n", options.broken);
        return 2;
    }
    return options.item != NO_ITEM ? run_one(&options) : run_all(&options);
}
