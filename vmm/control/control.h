/* SPDX-License-Identifier: MIT */
/*
 * control: the monitors of a machine: QMP and the human monitor, on sockets, stdio or a pty.
 *
 * Several clients may be connected at once, each with its own session. Requests of one client are
 * answered in order, one at a time; events go to every QMP client that has negotiated. A client
 * that breaks the rules or does not read is dropped; the machine never waits for one. Loop's
 * thread.
 */
#ifndef VMM_CONTROL_CONTROL_H
#define VMM_CONTROL_CONTROL_H

#include "base/error.h"
#include "base/loop.h"
#include "vmm/config.h"
#include "vmm/machine.h"

struct control;

/*
 * Opens the sockets of all monitors of the machine's config and becomes the machine's listener.
 * On return clients can connect; they are served once the loop runs. Blocks: start-up.
 */
int must_check control_create(struct loop *loop, struct machine *machine, struct control **out,
                              struct error *err);

/*
 * Calls on_ready once, later, on the loop: when each monitor that was asked to wait for its first
 * client (wait=on) has had one. The machine should not be started before.
 */
void control_when_ready(struct control *control, void (*on_ready)(void *opaque), void *opaque);

/*
 * Sends what is queued (for at most CONTROL_LINGER_MS), closes clients and sockets, unlinks their
 * paths, frees; then calls on_closed, never from inside. Before machine_close.
 */
void control_close(struct control *control, void (*on_closed)(void *opaque), void *opaque);

#endif
