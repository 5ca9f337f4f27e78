/* SPDX-License-Identifier: MIT */
/* qmp: evctl's end of a machine's control socket: one command at a time, with a time limit. */
#ifndef TOOLS_EVCTL_QMP_H
#define TOOLS_EVCTL_QMP_H

#include <jansson.h>
#include <stdint.h>

#include "tools/evctl/store.h"

#define QMP_TIMEOUT_MS 10000

struct qmp {
    const char *name; /* of the machine, for errors */
    int fd;           /* -1: closed */
    char *buffer;
    size_t length, capacity;
    unsigned timeout_ms; /* for a reply */
    json_t *events;      /* came while a reply was awaited, oldest first */
};

/* Connects, without waiting: the descriptor or -errno. */
int qmp_connect(int folder_fd, const char *socket_name);

int must_check qmp_open(const struct machine *machine, struct qmp *qmp, struct error *err);
void qmp_close(struct qmp *qmp);

/*
 * Runs a command; takes `arguments` (may be NULL). The reply goes to *reply if that is not NULL.
 * An error that evisor reports is its sentence with EPROTO, or ENODEV of the class DeviceNotFound.
 */
int must_check qmp_execute(struct qmp *qmp, const char *command, json_t *arguments, json_t **reply,
                           struct error *err);
/* The text that a command of the human monitor answers; the caller frees it. NULL with err set. */
char *qmp_monitor(struct qmp *qmp, const char *line, struct error *err);

/* The next message of a connection that qmp_connect made: 1 and *message, 0 if none is whole yet,
 * -errno at its end. Does not wait. */
int qmp_receive(struct qmp *qmp, json_t **message);

/* Waits for an event: 0 and *event; -ETIMEDOUT; -ENOTCONN when the machine has ended. */
int qmp_wait_event(struct qmp *qmp, uint64_t until_ns, json_t **event);

#endif
