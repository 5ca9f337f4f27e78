/* SPDX-License-Identifier: MIT */
/*
 * control_private: what the files of the control room share: the listening monitors, their
 * clients, and how a client is joined to its protocol (qmp.c or hmp.c).
 */
#ifndef VMM_CONTROL_CONTROL_PRIVATE_H
#define VMM_CONTROL_CONTROL_PRIVATE_H

#include <jansson.h>

#include "base/list.h"
#include "base/telnet.h"
#include "devices/char.h"
#include "vmm/control/control.h"

#define CONTROL_INPUT_BYTES 4096
#define CONTROL_FDS_MAX     16 /* that came with one message */

struct control_client;

/* One protocol of monitors. `session` is the protocol's own. */
struct control_protocol {
    void *(*open)(struct control_client *client);
    /* Says hello: when the client comes, on a shared terminal when it first gets the input. */
    void (*greet)(struct control_client *client);
    /* Optional: the client of a shared terminal has the input again. */
    void (*on_focus)(struct control_client *client);
    /*
     * Takes input and returns how much of it. Fewer bytes than there are: a command is under way,
     * and control_client_resume follows.
     */
    size_t (*on_input)(struct control_client *client, const char *bytes, size_t length);
    /* Optional. */
    void (*on_event)(struct control_client *client, enum machine_event event,
                     enum machine_shutdown_cause cause);
    void (*on_block_error)(struct control_client *client, const struct machine_block_error *error);
    void (*on_nic_addresses)(struct control_client *client, unsigned nic);
    void (*on_named_event)(struct control_client *client, const char *name, json_t *data);
    /* The client is gone: commands under way finish without it. Frees the session. */
    void (*close)(struct control_client *client);
};

extern const struct control_protocol qmp_protocol, hmp_protocol;

/* A listening socket. */
struct control_listener {
    struct control *control;
    const struct config_monitor *monitor;
    int fd; /* -1: this monitor is on a chardev of the machine */
    char *path;
    bool is_waiting; /* for its first client, and the machine with it */
    struct loop_watch watch;
};

/* How the human monitor prints numbers where a command does not say it. */
struct hmp_format {
    char letter;
    unsigned size;
};

struct control {
    struct loop *loop;
    struct machine *machine;
    struct control_listener listeners[CONFIG_MONITOR_MAX];
    unsigned listener_count;
    struct list clients;
    unsigned client_count;
    struct loop_task resume; /* clients with is_resumed go on with their input */
    struct loop_task flush;  /* output leaves once a turn */
    struct list quits;       /* calls of quit that wait for the SHUTDOWN event */
    struct hmp_format format;
    struct loop_task ready;
    void (*on_ready)(void *opaque);
    void *ready_opaque;
    /* While closing. */
    bool is_closing, has_dropped_all;
    struct loop_timer linger;
    unsigned open_handles;
    void (*on_closed)(void *opaque);
    void *closed_opaque;
};

struct control_client {
    struct list node;
    struct control *control;
    const struct config_monitor *monitor;
    const struct control_protocol *protocol;
    void *session;
    /* A socket, or else the chardev's backend. */
    int fd;
    struct loop_watch watch;
    struct char_backend *backend;
    bool is_telnet; /* at the other end of the socket */
    struct telnet telnet;
    /* Descriptors that came with the last message that had any, and wait for getfd or add-fd. */
    int fds[CONTROL_FDS_MAX];
    unsigned fd_count;
    /* Input that the protocol has not taken. */
    char input[CONTROL_INPUT_BYTES];
    size_t input_at, input_end;
    bool is_greeted;
    bool has_input; /* of several users of one terminal */
    bool is_resumed;
    bool is_busy;       /* a command is under way */
    bool has_ended;     /* the peer sends no more */
    bool has_no_reader; /* the peer takes no more */
    bool is_dropped;    /* its handle closes; memory follows */
    /* Output on its way. */
    char *output;
    size_t output_at, output_end, output_capacity;
};

/* control_client.c */
void control_client_open_socket(struct control *control, const struct config_monitor *monitor,
                                int fd);
int must_check control_client_open_chardev(struct control *control,
                                           const struct config_monitor *monitor, struct error *err);
/* Queues bytes; drops the client if more than CONTROL_OUTPUT_MAX_BYTES would wait. */
void control_client_write(struct control_client *client, const char *bytes, size_t length);
/* The command that stopped the input is done: the next turn goes on with it. */
void control_client_resume(struct control_client *client);
void control_client_go_on(struct control_client *client);
void control_client_drop(struct control_client *client);
/* The next descriptor that the peer passed, the caller's from now on; -1: there is none. */
int control_client_take_fd(struct control_client *client);
/* Writes what the peer takes now. */
void control_client_flush(struct control_client *client);
bool control_client_has_output(const struct control_client *client);

/* control.c */
void control_on_handle_closed(struct control *control);

#endif
