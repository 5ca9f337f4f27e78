/* SPDX-License-Identifier: MIT */
#include "netbackends/net.h"

#include <limits.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "netbackends/poll_set.h"
#include "tests/unit/test.h"

static struct loop loop;
static struct net_backend net;
static int answer;
static unsigned sent, resumed, got, ready, links;
static struct net_meta seen;

static int on_send(struct net_backend *backend, const struct net_meta *meta,
                   const struct iovec *iov, size_t iov_count)
{
    assert_ptr_equal(backend, &net);
    assert_int_equal(iov_count, 1);
    assert_int_equal(iov->iov_len, 60);
    seen = *meta;
    sent++;
    return answer;
}

static void on_receive_resume(struct net_backend *backend)
{
    (void)backend;
    resumed++;
}

static int on_receive(void *nic, const struct net_meta *meta, const struct iovec *iov,
                      size_t iov_count)
{
    (void)iov;
    (void)iov_count;
    assert_ptr_equal(nic, &got);
    seen = *meta;
    got++;
    return answer;
}

static void on_send_ready(void *nic)
{
    (void)nic;
    ready++;
}

static void on_link(void *nic, bool up)
{
    (void)nic;
    assert_int_equal(up, net.link_up);
    links++;
}

static const struct net_backend_ops ops = {
    .kind = "test", .send = on_send, .receive_resume = on_receive_resume};
static const struct net_peer_ops nic_ops = {
    .receive = on_receive, .on_send_ready = on_send_ready, .on_link = on_link};
static uint8_t bytes[60];
static const struct iovec iov = {bytes, sizeof(bytes)};

static int set_up(void **state)
{
    (void)state;
    answer = 0;
    sent = resumed = got = ready = links = 0;
    assert_int_equal(loop_init(&loop), 0);
    net_backend_init(&net, &ops, &loop, "net0");
    net_attach(&net, &nic_ops, &got);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    loop_fini(&loop);
    return 0;
}

static void test_frames_are_counted(void **state)
{
    (void)state;
    const struct net_meta meta = {.flags = NET_NEEDS_CSUM, .csum_start = 34};
    assert_int_equal(net_send(&net, &meta, &iov, 1), 0);
    assert_int_equal(seen.csum_start, 34);
    assert_int_equal(net_receive(&net, NULL, &iov, 1), 0);
    assert_int_equal(seen.csum_start, 0); /* no meta is a plain one */
    answer = -EAGAIN;
    assert_int_equal(net_send(&net, NULL, &iov, 1), -EAGAIN);
    assert_int_equal(net_receive(&net, NULL, &iov, 1), -EAGAIN);
    answer = -EINVAL;
    assert_int_equal(net_send(&net, NULL, &iov, 1), -EINVAL);
    assert_int_equal(net_receive(&net, NULL, &iov, 1), -EINVAL);
    const struct net_stats expected = {1, 60, 1, 1, 60, 1};
    assert_memory_equal(&net.stats, &expected, sizeof(expected));
}

static void test_held_frames_wait(void **state)
{
    (void)state;
    net_hold(&net, true);
    assert_int_equal(net_receive(&net, NULL, &iov, 1), -EAGAIN);
    assert_int_equal(got, 0);
    assert_int_equal(net_send(&net, NULL, &iov, 1), 0);
    assert_int_equal(resumed, 0);
    net_hold(&net, false);
    net_hold(&net, false);
    assert_int_equal(resumed, 1);
    assert_int_equal(net_receive(&net, NULL, &iov, 1), 0);
    net_hold(&net, true);
    net_set_link(&net, false); /* without a cable nothing waits */
    assert_int_equal(net_receive(&net, NULL, &iov, 1), -ENETDOWN);
}

static void test_link_down_drops_and_wakes(void **state)
{
    (void)state;
    net_set_link(&net, true);
    assert_int_equal(links, 0);
    net_set_link(&net, false);
    assert_int_equal(links, 1);
    assert_int_equal(ready, 1);
    assert_int_equal(resumed, 1);
    assert_int_equal(net_send(&net, NULL, &iov, 1), -ENETDOWN);
    assert_int_equal(net_receive(&net, NULL, &iov, 1), -ENETDOWN);
    assert_int_equal(sent + got, 0);
    assert_int_equal(net.stats.tx_dropped, 1);
    assert_int_equal(net.stats.rx_dropped, 1);
    net_set_link(&net, true);
    assert_int_equal(net_send(&net, NULL, &iov, 1), 0);
}

static void test_without_a_nic_frames_are_dropped(void **state)
{
    (void)state;
    net_detach(&net);
    assert_int_equal(net_receive(&net, NULL, &iov, 1), -ENETDOWN);
    net_set_link(&net, false);
    assert_int_equal(links, 0);
    assert_int_equal(net_offloads(&net), 0);
    net_set_guest_offloads(&net, NET_OFFLOAD_CSUM);
}

/* Wants each of the `count` descriptors for reading. */
static size_t collect(struct poll_set *set, const int *fds, size_t count)
{
    poll_set_begin(set);
    for (size_t i = 0; i < count; i++)
        poll_set_want(set, fds[i], EPOLLIN);
    poll_set_commit(set);
    return poll_set_collect(set);
}

static void test_poll_set_follows_what_is_wanted(void **state)
{
    (void)state;
    struct poll_set set;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(poll_set_init(&set), 0);
    assert_int_equal(collect(&set, pipes, 1), 0);
    assert_int_equal(write(pipes[1], "x", 1), 1);
    assert_int_equal(collect(&set, pipes, 1), 1);
    assert_int_equal(poll_set_ready(&set, pipes[0]), EPOLLIN);
    assert_int_equal(collect(&set, pipes, 0), 0);
    assert_int_equal(poll_set_ready(&set, pipes[0]), 0);
    assert_int_equal(poll_set_size(&set), 0);
    poll_set_begin(&set);
    assert_true(poll_set_want(&set, pipes[1], EPOLLOUT));
    assert_false(poll_set_want(&set, pipes[1], EPOLLOUT));
    poll_set_commit(&set);
    assert_int_equal(poll_set_collect(&set), 1);
    assert_int_equal(poll_set_ready(&set, pipes[1]), EPOLLOUT);
    poll_set_fini(&set);
    close(pipes[0]);
    close(pipes[1]);
}

/* A number that comes back as another descriptor is watched again. */
static void test_poll_set_survives_reused_numbers(void **state)
{
    (void)state;
    struct poll_set set;
    for (int tells = 0; tells < 2; tells++) {
        int first[2], second[2];
        assert_int_equal(poll_set_init(&set), 0);
        assert_int_equal(pipe(first), 0);
        assert_int_equal(pipe(second), 0);
        assert_int_equal(collect(&set, first, 1), 0);
        if (tells) {
            poll_set_forget(&set, first[0]);
            poll_set_forget(&set, 100000);
            poll_set_forget(&set, -1);
        } else {
            collect(&set, first, 0);
        }
        assert_int_equal(dup2(second[0], first[0]), first[0]);
        assert_int_equal(write(second[1], "x", 1), 1);
        assert_int_equal(collect(&set, first, 1), 1);
        for (int i = 0; i < 2; i++) {
            close(first[i]);
            close(second[i]);
        }
        poll_set_fini(&set);
    }
}

static bool allows_nothing(struct net_observer *observer, const struct iovec *frame,
                           size_t iov_count)
{
    (void)observer;
    assert_ptr_equal(frame, &iov);
    assert_int_equal(iov_count, 1);
    return false;
}

static void test_frames_that_may_not_be_sent_are_dropped(void **state)
{
    (void)state;
    struct net_observer observer = {NULL, allows_nothing};
    net.observer = &observer;
    assert_int_equal(net_send(&net, NULL, &iov, 1), -EPERM);
    assert_int_equal(sent, 0);
    assert_int_equal(net.stats.tx_frames, 0);
    assert_int_equal(net.stats.tx_dropped, 1);
    net_set_link(&net, false); /* the cable comes first */
    assert_int_equal(net_send(&net, NULL, &iov, 1), -ENETDOWN);
}

#define net_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static void test_what_frames_of_a_type_need(void **state)
{
    (void)state;
    assert_int_equal(net_gso_offloads(NET_GSO_NONE), 0);
    assert_int_equal(net_gso_offloads(NET_GSO_TCPV4), NET_OFFLOAD_TSO4);
    assert_int_equal(net_gso_offloads(NET_GSO_TCPV6 | NET_GSO_ECN),
                     NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN);
    assert_int_equal(net_gso_offloads(NET_GSO_ECN), UINT_MAX);
    assert_int_equal(net_gso_offloads(NET_GSO_UDP), UINT_MAX);
    assert_int_equal(net_gso_offloads(0x7f), UINT_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        net_test(test_frames_are_counted),
        net_test(test_held_frames_wait),
        net_test(test_frames_that_may_not_be_sent_are_dropped),
        net_test(test_link_down_drops_and_wakes),
        net_test(test_without_a_nic_frames_are_dropped),
        net_test(test_poll_set_follows_what_is_wanted),
        net_test(test_poll_set_survives_reused_numbers),
        cmocka_unit_test(test_what_frames_of_a_type_need),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
