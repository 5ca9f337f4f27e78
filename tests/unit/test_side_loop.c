/* SPDX-License-Identifier: MIT */
/*
 * side_loop: whoever has the loop runs what is on it; the home gets it whenever it asks, and nobody
 * is forgotten. A wakeup that is lost shows as a test that never ends.
 *
 * What runs beside the home's thread only notes what it finds: asserting is the home's.
 */
#include "base/side_loop.h"

#include <dirent.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/spinner.h"
#include "tests/unit/test.h"

#define ROUNDS 300u
#define TAKES  5000u

/* A side loop with something of each kind on it. */
struct party {
    struct side_loop *side;
    struct loop *loop;
    struct loop_task task;
    struct loop_timer timer;
    struct loop_event event;
    struct loop_job job;
    bool stays;       /* what the home answers */
    bool takes_other; /* and asks the second party's loop about, which it takes */
    bool keeps_busy;  /* the task and the event start themselves again */
    bool calls_home;  /* the task does */
    bool closes;      /* the task closes the loop; it runs at home */
    bool reads_clock; /* the task does, as disks do */
    bool is_quiet;    /* nobody is told of what runs */
    uint64_t a, b;    /* always equal for who has the loop; on purpose not atomic */
    unsigned called;
    bool was_called_right, has_closed, is_open;
    /* Noted by callbacks. */
    atomic_uint runs;
    _Atomic(pthread_t) ran_on;
    atomic_int ran_by;
    atomic_bool has_gone_wrong; /* run by somebody who does not have the loop */
};

struct fixture {
    struct loop home;
    struct loop_event told; /* something has run somewhere */
    struct party first, second;
};

static struct fixture f;

static void on_told(struct loop_event *event)
{
    (void)event;
}

/* --- What runs on a side loop --- */

static void note(struct party *party)
{
    if (!loop_is_on_thread(party->loop) || party->a != party->b)
        atomic_store(&party->has_gone_wrong, true);
    party->a++;
    atomic_store(&party->ran_on, pthread_self());
    atomic_store(&party->ran_by, gettid());
    party->b++;
    atomic_fetch_add(&party->runs, 1);
    if (!party->is_quiet)
        loop_event_signal(&f.told);
}

static void close_contents(struct party *party)
{
    loop_check_thread(party->loop);
    loop_task_cancel(&party->task);
    loop_timer_close(&party->timer, NULL);
    loop_event_close(&party->event, NULL);
    party->is_open = false;
}

static void on_side_closed(void *opaque)
{
    struct party *party = opaque;
    party->has_closed = true;
}

static void on_task(struct loop_task *task)
{
    struct party *party = container_of(task, struct party, task);
    if (party->reads_clock)
        (void)loop_time_ns(party->loop);
    note(party);
    if (party->keeps_busy)
        loop_task_queue(task);
    if (party->calls_home)
        side_loop_call_home(party->side);
    if (!party->closes)
        return;
    close_contents(party);
    side_loop_close(party->side, on_side_closed, party);
}

static void on_expired(struct loop_timer *timer)
{
    note(container_of(timer, struct party, timer));
}

static void on_event(struct loop_event *event)
{
    struct party *party = container_of(event, struct party, event);
    note(party);
    if (party->keeps_busy)
        loop_event_signal(event);
}

static void on_work(struct loop_job *job)
{
    (void)job;
}

static void on_work_done(struct loop_job *job)
{
    note(container_of(job, struct party, job));
}

/* --- The home's --- */

static bool stays(void *opaque)
{
    const struct party *party = opaque;
    if (party->takes_other)
        loop_check_thread(f.second.loop);
    return party->stays;
}

static void on_called(void *opaque)
{
    struct party *party = opaque;
    party->called++;
    party->was_called_right = loop_is_on_thread(&f.home) && loop_is_on_thread(party->loop) &&
                              side_loop_is_taken(party->side);
}

static int create(struct party *party)
{
    const struct side_loop_options options = {
        .name = "a thread of a test", .stays = stays, .on_called = on_called, .opaque = party};
    return side_loop_create(&f.home, &options, &party->side);
}

static void open_party(struct party *party)
{
    *party = (struct party){.job = {.work = on_work, .on_done = on_work_done}};
    assert_int_equal(create(party), 0);
    party->loop = side_loop_of(party->side);
    loop_task_init(party->loop, &party->task, LOOP_STAGE_DRAIN, on_task);
    assert_int_equal(loop_timer_init(party->loop, &party->timer, on_expired), 0);
    assert_int_equal(loop_event_init(party->loop, &party->event, on_event), 0);
    party->is_open = true;
}

static void close_party(struct party *party)
{
    if (party->side && party->is_open) {
        close_contents(party);
        side_loop_close(party->side, on_side_closed, party);
    }
    while (party->side && !party->has_closed)
        loop_run_once(&f.home, true);
    assert_false(party->has_gone_wrong);
    assert_int_equal(party->a, party->b);
    party->side = NULL;
}

/* Lets go of all that does not stay. */
static void turn_home(void)
{
    loop_run_once(&f.home, false);
}

static void start(struct party *party)
{
    assert_int_equal(side_loop_start(party->side), 0);
    turn_home();
    assert_int_equal(side_loop_is_taken(party->side), party->stays);
}

static void wait_for_runs(struct party *party, unsigned count)
{
    while (atomic_load(&party->runs) < count)
        loop_run_once(&f.home, true);
}

static void check_ran_at_home(struct party *party, unsigned count)
{
    wait_for_runs(party, count);
    assert_int_equal(party->runs, count);
    assert_true(pthread_equal(party->ran_on, pthread_self()));
}

static void check_ran_on_thread(struct party *party, unsigned count)
{
    wait_for_runs(party, count);
    assert_int_equal(party->runs, count);
    assert_false(pthread_equal(party->ran_on, pthread_self()));
    assert_int_equal(party->ran_by, side_loop_thread_id(party->side));
}

static int set_up(void **state)
{
    (void)state;
    assert_int_equal(loop_init(&f.home), 0);
    assert_int_equal(loop_event_init(&f.home, &f.told, on_told), 0);
    open_party(&f.first);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    close_party(&f.first);
    close_party(&f.second);
    loop_event_close(&f.told, NULL);
    loop_run(&f.home);
    loop_fini(&f.home);
    return 0;
}

/* --- Tests --- */

static void test_all_is_at_home_before_the_start(void **state)
{
    struct party *party = &f.first;
    (void)state;
    assert_int_equal(side_loop_thread_id(party->side), 0);
    for (unsigned i = 0; i < 3; i++) {
        loop_task_queue(&party->task);
        check_ran_at_home(party, 1 + 4 * i);
        loop_event_signal(&party->event);
        check_ran_at_home(party, 2 + 4 * i);
        loop_timer_arm(&party->timer, loop_now_ns() + 1000000);
        check_ran_at_home(party, 3 + 4 * i);
        loop_job_submit(party->loop, &party->job);
        check_ran_at_home(party, 4 + 4 * i);
        assert_true(side_loop_is_taken(party->side));
    }
}

/* The thread sleeps, or is about to, or is still busy with the last one. */
static void test_what_the_home_queues_runs_on_the_thread(void **state)
{
    struct party *party = &f.first;
    (void)state;
    start(party);
    for (unsigned i = 0; i < ROUNDS; i++) {
        loop_task_queue(&party->task);
        assert_true(side_loop_is_taken(party->side));
        check_ran_on_thread(party, 1 + 4 * i);
        loop_event_signal(&party->event);
        check_ran_on_thread(party, 2 + 4 * i);
        loop_check_thread(party->loop);
        loop_timer_arm(&party->timer, loop_now_ns() + i % 7 * 1000);
        check_ran_on_thread(party, 3 + 4 * i);
        loop_job_submit(party->loop, &party->job);
        check_ran_on_thread(party, 4 + 4 * i);
    }
}

/* What the poll does not know of yet: only the next turn tells it. */
static void test_what_the_home_begins_to_watch_is_watched(void **state)
{
    struct party *party = &f.first;
    (void)state;
    start(party);
    for (unsigned i = 0; i < ROUNDS; i++) {
        loop_check_thread(party->loop);
        loop_watch_set(&party->event.watch, 0);
        turn_home();
        loop_check_thread(party->loop);
        loop_watch_set(&party->event.watch, UV_READABLE);
        turn_home();
        loop_event_signal(&party->event);
        check_ran_on_thread(party, i + 1);
    }
}

static void take_many_times(struct party *party, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned before = atomic_load(&party->runs);
        loop_check_thread(party->loop);
        assert_int_equal(party->a, party->b);
        party->a++;
        party->b++;
        turn_home();
        while (i % 16 == 0 && atomic_load(&party->runs) == before)
            turn_home(); /* the thread must have its turns, too */
    }
}

static void stop_keeping_busy(struct party *party)
{
    loop_check_thread(party->loop);
    party->keeps_busy = false;
}

static void start_busy(struct party *party)
{
    party->keeps_busy = true;
    start(party);
}

static void check_is_interrupted(struct party *party)
{
    take_many_times(party, TAKES);
    assert_false(pthread_equal(party->ran_on, pthread_self()));
    stop_keeping_busy(party);
}

static void test_a_task_that_never_ends_is_interrupted(void **state)
{
    (void)state;
    start_busy(&f.first);
    loop_task_queue(&f.first.task);
    check_is_interrupted(&f.first);
}

static void test_an_event_that_never_ends_is_interrupted(void **state)
{
    (void)state;
    start_busy(&f.first);
    loop_event_signal(&f.first.event);
    check_is_interrupted(&f.first);
}

static void test_a_task_that_never_ends_is_cancelled(void **state)
{
    struct party *party = &f.first;
    (void)state;
    party->keeps_busy = true;
    start(party);
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned before = atomic_load(&party->runs);
        loop_task_queue(&party->task);
        wait_for_runs(party, before + 1);
        loop_task_cancel(&party->task);
        assert_true(side_loop_is_taken(party->side));
        before = atomic_load(&party->runs);
        turn_home();
        loop_check_thread(party->loop);
        assert_int_equal(party->runs, before);
    }
}

struct source {
    struct spinner spinner;
    atomic_uint polls;
};

static bool poll_source(struct spinner *spinner)
{
    atomic_fetch_add(&container_of(spinner, struct source, spinner)->polls, 1);
    return true;
}

static void test_a_thread_that_waits_actively_is_interrupted(void **state)
{
    struct party *party = &f.first;
    struct source source = {0};
    (void)state;
    start(party);
    loop_check_thread(party->loop);
    party->loop->host_cpus = 2;
    spinner_init(&source.spinner, party->loop, poll_source, NULL);
    while (!source.spinner.is_on) {
        source.spinner.signalled_ns = loop_now_ns();
        spinner_signalled(&source.spinner);
    }
    for (unsigned i = 0; i < TAKES; i++) {
        unsigned before = atomic_load(&source.polls);
        turn_home();
        while (i % 16 == 0 && atomic_load(&source.polls) == before)
            turn_home();
        loop_check_thread(party->loop);
        assert_true(source.spinner.is_on);
    }
    spinner_fini(&source.spinner);
}

struct other {
    pthread_t thread;
    struct party *party;
    sem_t go_on;
    unsigned count;
};

/* Each time after the home has slept: it waits for nothing else. */
static void *signal_events(void *opaque)
{
    struct other *other = opaque;
    for (unsigned i = 0; i < other->count; i++) {
        sem_wait(&other->go_on);
        loop_event_signal(&other->party->event);
    }
    return NULL;
}

static void test_what_stays_is_turned_at_home(void **state)
{
    struct party *party = &f.first;
    struct other other = {.party = party, .count = ROUNDS};
    (void)state;
    party->stays = true;
    start(party);
    assert_int_equal(sem_init(&other.go_on, 0, 0), 0);
    assert_int_equal(pthread_create(&other.thread, NULL, signal_events, &other), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        sem_post(&other.go_on);
        check_ran_at_home(party, i + 1);
    }
    pthread_join(other.thread, NULL);
    sem_destroy(&other.go_on);
    loop_task_queue(&party->task);
    check_ran_at_home(party, ROUNDS + 1);
    loop_timer_arm(&party->timer, loop_now_ns() + 1000000);
    check_ran_at_home(party, ROUNDS + 2);
    loop_job_submit(party->loop, &party->job);
    check_ran_at_home(party, ROUNDS + 3);
}

/* Back and forth, each time with work for who comes next. */
static void test_it_comes_home_and_goes_again(void **state)
{
    struct party *party = &f.first;
    (void)state;
    start(party);
    for (unsigned i = 0; i < ROUNDS; i++) {
        party->stays = true;
        loop_task_queue(&party->task);
        check_ran_at_home(party, 4 * i + 1);
        loop_event_signal(&party->event);
        check_ran_at_home(party, 4 * i + 2);
        assert_true(side_loop_is_taken(party->side));
        loop_task_queue(&party->task);
        party->stays = false;
        check_ran_on_thread(party, 4 * i + 3);
        loop_event_signal(&party->event);
        check_ran_on_thread(party, 4 * i + 4);
    }
}

static void test_the_thread_calls_home(void **state)
{
    struct party *party = &f.first;
    (void)state;
    party->calls_home = true;
    start(party);
    for (unsigned i = 0; i < ROUNDS; i++) {
        loop_task_queue(&party->task);
        while (party->called < i + 1)
            loop_run_once(&f.home, true);
        assert_true(party->was_called_right);
        check_ran_on_thread(party, i + 1);
        assert_int_equal(party->called, i + 1);
    }
}

static void test_two_of_one_home(void **state)
{
    struct party *first = &f.first, *second = &f.second;
    (void)state;
    open_party(second);
    first->keeps_busy = second->keeps_busy = true;
    start(first);
    start(second);
    loop_task_queue(&first->task);
    loop_event_signal(&second->event);
    for (unsigned i = 0; i < TAKES; i++) {
        second->stays = i / 64 % 2;
        loop_check_thread(first->loop);
        loop_check_thread(second->loop);
        uint64_t a = first->a;
        first->a = first->b = second->a;
        second->a = second->b = a;
        turn_home();
    }
    second->stays = false;
    take_many_times(first, ROUNDS);
    take_many_times(second, ROUNDS);
    assert_false(pthread_equal(first->ran_on, second->ran_on));
    stop_keeping_busy(first);
    stop_keeping_busy(second);
}

/* Whoever is asked may look at another loop, which would be nobody's if the home slept now. */
static void test_one_that_was_taken_by_asking_goes_again(void **state)
{
    struct party *first = &f.first, *second = &f.second;
    (void)state;
    open_party(second);
    start(first);
    start(second);
    first->takes_other = true;
    for (unsigned i = 1; i <= ROUNDS; i++) {
        loop_check_thread(first->loop);
        loop_run_once(&f.home, true);
        loop_event_signal(&second->event);
        check_ran_on_thread(second, i);
    }
    first->takes_other = false;
}

static uint64_t cpu_ns_of(pthread_t thread)
{
    clockid_t clock;
    struct timespec time;
    assert_int_equal(pthread_getcpuclockid(thread, &clock), 0);
    assert_int_equal(clock_gettime(clock, &time), 0);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void check_thread_sleeps(pthread_t thread)
{
    uint64_t before_ns = cpu_ns_of(thread);
    usleep(100000);
    assert_in_range(cpu_ns_of(thread) - before_ns, 0, 30000000);
}

static void test_who_has_nothing_to_do_sleeps(void **state)
{
    struct party *party = &f.first;
    (void)state;
    start(party);
    loop_task_queue(&party->task);
    check_ran_on_thread(party, 1);
    pthread_t thread = party->ran_on;
    loop_event_signal(&party->event);
    check_ran_on_thread(party, 2);
    check_thread_sleeps(thread);
    /* There is something, but the home has the loop. */
    loop_check_thread(party->loop);
    loop_event_signal(&party->event);
    check_thread_sleeps(thread);
    party->stays = true;
    check_ran_at_home(party, 3);
    check_thread_sleeps(thread);
    /* A home that waits for what the other loop waits for does not turn meanwhile. */
    uint64_t turns = f.home.turns;
    loop_timer_arm(&party->timer, loop_now_ns() + 50000000);
    check_ran_at_home(party, 4);
    assert_in_range(f.home.turns - turns, 1, 10);
}

static void on_awake(struct loop_timer *timer)
{
    *(bool *)timer->opaque = true;
}

/* What it watched while it had the loop is the thread's again. */
static void test_the_home_sleeps_while_the_thread_works(void **state)
{
    struct party *party = &f.first;
    struct loop_timer timer;
    bool is_awake = false;
    (void)state;
    turn_home();
    assert_int_equal(loop_timer_init(&f.home, &timer, on_awake), 0);
    timer.opaque = &is_awake;
    party->keeps_busy = party->is_quiet = true;
    loop_event_signal(&party->event);
    start(party);
    uint64_t turns = f.home.turns;
    unsigned runs = atomic_load(&party->runs);
    loop_timer_arm(&timer, loop_now_ns() + 50000000);
    while (!is_awake)
        loop_run_once(&f.home, true);
    assert_in_range(f.home.turns - turns, 1, 10);
    while (atomic_load(&party->runs) == runs)
        usleep(1000);
    stop_keeping_busy(party);
    loop_timer_close(&timer, NULL);
    turn_home();
}

/* Else the time of a request would count from the last thing that happened before it. */
static void test_who_takes_it_knows_the_time(void **state)
{
    struct party *party = &f.first;
    (void)state;
    party->reads_clock = true;
    start(party);
    loop_task_queue(&party->task);
    check_ran_on_thread(party, 1);
    uint64_t before_ns = loop_now_ns();
    loop_check_thread(party->loop);
    assert_true(loop_time_ns(party->loop) >= before_ns);
    party->stays = true;
    loop_task_queue(&party->task);
    check_ran_at_home(party, 2);
    (void)loop_time_ns(party->loop);
    turn_home(); /* waits for the host's events in it: time passes */
    before_ns = loop_now_ns();
    (void)loop_time_ns(party->loop);
    turn_home();
    assert_true(loop_time_ns(party->loop) >= before_ns);
}

static void test_closing_from_inside_at_home(void **state)
{
    struct party *party = &f.first;
    (void)state;
    party->closes = party->stays = true;
    start(party);
    loop_task_queue(&party->task);
    while (!party->has_closed)
        loop_run_once(&f.home, true);
    assert_int_equal(party->runs, 1);
}

static void test_closing_while_the_thread_is_busy(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        open_party(&f.second);
        f.second.keeps_busy = true;
        if (i % 2)
            loop_event_signal(&f.second.event);
        else
            loop_task_queue(&f.second.task);
        start(&f.second);
        if (i % 3)
            wait_for_runs(&f.second, 1);
        close_party(&f.second);
    }
}

struct newcomer {
    struct loop_task task;
    struct loop_event event;
    int result;
    unsigned signals;
};

static void on_newcomer(struct loop_event *event)
{
    container_of(event, struct newcomer, event)->signals++;
}

static void on_newcomer_task(struct loop_task *task)
{
    struct newcomer *newcomer = container_of(task, struct newcomer, task);
    newcomer->result = loop_event_init(&f.home, &newcomer->event, on_newcomer);
}

/* Its descriptors' numbers are used again at once. */
static void check_descriptors_after_closing(struct party *party)
{
    struct newcomer newcomers[8];
    close_contents(party);
    side_loop_close(party->side, on_side_closed, party);
    for (unsigned i = 0; i < ARRAY_SIZE(newcomers); i++) {
        newcomers[i].signals = 0;
        loop_task_init(&f.home, &newcomers[i].task, LOOP_STAGE_DRAIN, on_newcomer_task);
        loop_task_queue(&newcomers[i].task);
    }
    for (unsigned i = 0; i < 10; i++)
        turn_home();
    assert_true(party->has_closed);
    for (unsigned i = 0; i < ARRAY_SIZE(newcomers); i++) {
        assert_int_equal(newcomers[i].result, 0);
        loop_event_signal(&newcomers[i].event);
    }
    turn_home();
    for (unsigned i = 0; i < ARRAY_SIZE(newcomers); i++) {
        assert_int_equal(newcomers[i].signals, 1);
        loop_event_close(&newcomers[i].event, NULL);
    }
    turn_home();
}

static void test_closing_leaves_the_descriptors_of_others(void **state)
{
    (void)state;
    turn_home(); /* it stays, so its descriptor is watched */
    check_descriptors_after_closing(&f.first);
    open_party(&f.second);
    start(&f.second);
    check_descriptors_after_closing(&f.second);
}

static unsigned count_descriptors(void)
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static int create_within(struct party *party, rlim_t descriptors)
{
    struct rlimit before, few;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = (struct rlimit){descriptors, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    int result = create(party);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    return result;
}

/* The leak checker looks for the rest. */
static void test_too_few_descriptors_leave_nothing(void **state)
{
    struct party *party = &f.second;
    unsigned descriptors = count_descriptors(), failures = 0;
    (void)state;
    for (rlim_t limit = 0; create_within(party, limit); limit++) {
        failures++;
        assert_null(party->side);
        turn_home();
        assert_int_equal(count_descriptors(), descriptors);
    }
    assert_in_range(failures, 4, 1000);
    side_loop_close(party->side, on_side_closed, party);
    party->has_closed = false;
    close_party(party);
    assert_int_equal(count_descriptors(), descriptors);
}

#define side_test(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        side_test(test_all_is_at_home_before_the_start),
        side_test(test_what_the_home_queues_runs_on_the_thread),
        side_test(test_what_the_home_begins_to_watch_is_watched),
        side_test(test_a_task_that_never_ends_is_interrupted),
        side_test(test_a_task_that_never_ends_is_cancelled),
        side_test(test_an_event_that_never_ends_is_interrupted),
        side_test(test_a_thread_that_waits_actively_is_interrupted),
        side_test(test_what_stays_is_turned_at_home),
        side_test(test_it_comes_home_and_goes_again),
        side_test(test_the_thread_calls_home),
        side_test(test_two_of_one_home),
        side_test(test_one_that_was_taken_by_asking_goes_again),
        side_test(test_who_has_nothing_to_do_sleeps),
        side_test(test_the_home_sleeps_while_the_thread_works),
        side_test(test_who_takes_it_knows_the_time),
        side_test(test_closing_from_inside_at_home),
        side_test(test_closing_while_the_thread_is_busy),
        side_test(test_closing_leaves_the_descriptors_of_others),
        side_test(test_too_few_descriptors_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
