/* SPDX-License-Identifier: MIT */
/* fake_nic: the guest's end of a network backend: keeps what it receives, or is full. */
#ifndef TESTS_FAKE_NIC_H
#define TESTS_FAKE_NIC_H

#include "netbackends/net.h"

#define FAKE_NIC_FRAMES_MAX 4096

struct fake_frame {
    struct net_meta meta;
    size_t length;
    uint8_t *bytes;
};

struct fake_nic {
    struct net_backend *net;
    struct fake_frame frames[FAKE_NIC_FRAMES_MAX];
    size_t count, read;
    bool is_full;
    unsigned refused;    /* times it was full */
    unsigned send_ready; /* times it was told so */
    bool link_up;
    size_t lends;      /* bytes that receive_begin finds room for, behind the head */
    bool is_scarce;    /* and says that there may soon be more */
    unsigned begun;    /* how often it was asked */
    unsigned in_place; /* frames that were received that way */
    uint8_t lent[70000];
};

void fake_nic_attach(struct fake_nic *nic, struct net_backend *net);
/* Forgets all frames; detaches from and closes the backend, running the loop until it is closed. */
void fake_nic_close(struct fake_nic *nic);

/* Runs the loop until there is a frame that was not read yet; fails the test after 30 seconds. */
const struct fake_frame *fake_nic_next(struct fake_nic *nic);
/* Makes place for more where a test takes very many: those that were read are gone. */
void fake_nic_forget_read(struct fake_nic *nic);
/* Not full any more. */
void fake_nic_make_room(struct fake_nic *nic);
int fake_nic_send(struct fake_nic *nic, const void *frame, size_t length);

/* Runs the loop until `*flag`, or fails the test. */
void fake_nic_wait(struct loop *loop, const bool *flag);
/* For as long, but for a few turns in any case. */
void fake_nic_run_ms(struct loop *loop, unsigned ms);

#endif
