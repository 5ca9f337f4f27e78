/* SPDX-License-Identifier: MIT */
/*
 * control_rig: a control plane on a real socket with a fake machine behind it, and QMP clients to
 * talk to it. One rig a test: rig_set_up and rig_tear_down are cmocka's.
 */
#ifndef TESTS_CONTROL_RIG_H
#define TESTS_CONTROL_RIG_H

#include <jansson.h>

#include "tests/fake_machine.h"
#include "vmm/control/control.h"

struct rig_client {
    int fd;
    char *text;
    size_t length, capacity, read_at;
    bool has_ended;
};

struct rig {
    struct loop loop;
    struct machine machine;
    struct control *control;
    struct vm_config config;
    struct config_disk disks[2];
    struct config_nic nic;
    char folder[64], path[80];
    bool is_closed;
};

extern struct rig rig;

int rig_set_up(void **state);
int rig_tear_down(void **state);
void rig_turn(void);
void rig_turns(unsigned count);

/* Turns the loop until `condition` holds; fails after 20 s. For what crosses the host's network. */
#define rig_until(condition)                                                                       \
    do {                                                                                           \
        uint64_t rig_deadline_ns = loop_now_ns() + UINT64_C(20000000000);                          \
        while (!(condition)) {                                                                     \
            if (loop_now_ns() > rig_deadline_ns)                                                   \
                fail_msg("in vain: %s", #condition);                                               \
            rig_turn();                                                                            \
        }                                                                                          \
    } while (0)
void rig_close_control(void);

/* A connection that has read nothing yet. */
struct rig_client rig_connect(void);
/* A client that has been greeted; negotiated too, if asked. */
struct rig_client rig_open(bool negotiate);
void rig_leave(struct rig_client *client);
void rig_say(struct rig_client *client, const char *text);
void rig_receive(struct rig_client *client);
/* The next line, without its "\r\n"; NULL if the connection ends before. */
char *rig_line(struct rig_client *client);
void rig_expect(struct rig_client *client, const char *request, const char *reply);
void rig_expect_error(struct rig_client *client, const char *request, const char *class,
                      const char *part);
/* `data` as text, "" for none. */
void rig_expect_event(struct rig_client *client, const char *name, const char *data);
/* The return of a command, which must succeed. The caller gives it back. */
json_t *rig_ask(struct rig_client *client, const char *command);

#endif
