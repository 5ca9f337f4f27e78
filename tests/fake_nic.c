/* SPDX-License-Identifier: MIT */
#include "tests/fake_nic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/iov.h"
#include "tests/unit/test.h"

/* Tests run on busy machines: waiting is long, and counted in turns where it is short. */
#define GIVE_UP_NS UINT64_C(30000000000)
enum { TURNS_MIN = 30 };

static void keep(struct fake_nic *nic, const struct net_meta *meta, const struct iovec *iov,
                 size_t iov_count, size_t length)
{
    assert_true(nic->count < FAKE_NIC_FRAMES_MAX);
    struct fake_frame *frame = &nic->frames[nic->count++];
    frame->meta = *meta;
    frame->length = length;
    frame->bytes = malloc(frame->length);
    iov_read(iov, iov_count, 0, frame->bytes, frame->length);
}

static int on_receive(void *opaque, const struct net_meta *meta, const struct iovec *iov,
                      size_t iov_count)
{
    struct fake_nic *nic = opaque;
    if (nic->is_full) {
        nic->refused++;
        return -EAGAIN;
    }
    keep(nic, meta, iov, iov_count, iov_size(iov, iov_count));
    return 0;
}

static int on_receive_begin(void *opaque, struct net_room *room)
{
    static struct iovec iov[2];
    struct fake_nic *nic = opaque;
    nic->begun++;
    if (!nic->lends || nic->is_full)
        return -EAGAIN;
    iov[0] = (struct iovec){nic->lent, nic->lends / 3};
    iov[1] = (struct iovec){nic->lent + nic->lends / 3, nic->lends - nic->lends / 3};
    *room = (struct net_room){
        .iov = iov, .iov_count = 2, .bytes = nic->lends, .is_scarce = nic->is_scarce};
    return 0;
}

static int on_receive_end(void *opaque, const struct net_meta *meta, const uint8_t *head,
                          size_t bytes)
{
    struct fake_nic *nic = opaque;
    assert_true(bytes > NET_HEAD_BYTES && bytes <= NET_HEAD_BYTES + nic->lends);
    if (!meta)
        return 0;
    const struct iovec iov[] = {{(void *)head, NET_HEAD_BYTES}, {nic->lent, nic->lends}};
    keep(nic, meta, iov, 2, bytes);
    nic->in_place++;
    return 0;
}

static void on_receive_release(void *opaque)
{
    (void)opaque;
}

static void on_send_ready(void *opaque)
{
    ((struct fake_nic *)opaque)->send_ready++;
}

static void on_link(void *opaque, bool up)
{
    ((struct fake_nic *)opaque)->link_up = up;
}

void fake_nic_attach(struct fake_nic *nic, struct net_backend *net)
{
    static const struct net_peer_ops ops = {.receive = on_receive,
                                            .receive_begin = on_receive_begin,
                                            .receive_end = on_receive_end,
                                            .receive_release = on_receive_release,
                                            .on_send_ready = on_send_ready,
                                            .on_link = on_link};
    memset(nic, 0, sizeof(*nic));
    nic->net = net;
    nic->link_up = net->link_up;
    net_attach(net, &ops, nic);
}

static void on_closed(void *opaque)
{
    *(bool *)opaque = true;
}

void fake_nic_close(struct fake_nic *nic)
{
    bool is_closed = false;
    if (!nic->net)
        return;
    struct loop *loop = nic->net->loop;
    net_detach(nic->net);
    nic->net->ops->close(nic->net, on_closed, &is_closed);
    assert_false(is_closed);
    fake_nic_wait(loop, &is_closed);
    for (size_t i = 0; i < nic->count; i++)
        free(nic->frames[i].bytes);
    memset(nic, 0, sizeof(*nic));
}

static void turn(struct loop *loop)
{
    loop_run_once(loop, false);
    usleep(100);
}

const struct fake_frame *fake_nic_next(struct fake_nic *nic)
{
    uint64_t give_up_ns = loop_now_ns() + GIVE_UP_NS;
    while (nic->read == nic->count && loop_now_ns() < give_up_ns)
        turn(nic->net->loop);
    if (nic->read == nic->count)
        fail_msg("no frame came");
    return &nic->frames[nic->read++];
}

void fake_nic_forget_read(struct fake_nic *nic)
{
    for (size_t i = 0; i < nic->read; i++)
        free(nic->frames[i].bytes);
    nic->count -= nic->read;
    memmove(nic->frames, nic->frames + nic->read, nic->count * sizeof(*nic->frames));
    nic->read = 0;
}

void fake_nic_make_room(struct fake_nic *nic)
{
    nic->is_full = false;
    nic->net->ops->receive_resume(nic->net);
}

int fake_nic_send(struct fake_nic *nic, const void *frame, size_t length)
{
    const struct iovec iov = {(void *)frame, length};
    return net_send(nic->net, NULL, &iov, 1);
}

void fake_nic_wait(struct loop *loop, const bool *flag)
{
    uint64_t give_up_ns = loop_now_ns() + GIVE_UP_NS;
    while (!*flag && loop_now_ns() < give_up_ns)
        turn(loop);
    if (!*flag)
        fail_msg("waited in vain");
}

void fake_nic_run_ms(struct loop *loop, unsigned ms)
{
    uint64_t end_ns = loop_now_ns() + ms * UINT64_C(1000000);
    for (unsigned turns = 0; turns < TURNS_MIN || loop_now_ns() < end_ns; turns++)
        turn(loop);
}
