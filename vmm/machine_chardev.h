/* SPDX-License-Identifier: MIT */
/* machine_chardev: terminals and sockets that come and go while the machine exists. */
#ifndef VMM_MACHINE_CHARDEV_H
#define VMM_MACHINE_CHARDEV_H

#include "vmm/machine.h"
#include "vmm/options/keyval.h"

/* The words of -chardev, with "id". 0 or -errno with QEMU's sentence. */
int must_check machine_chardev_add(struct machine *machine, struct keyval *list, struct error *err);
/* on_done, later, when it is closed; or a failure at once: it is in use, or not there. */
int must_check machine_chardev_remove(struct machine *machine, const char *id,
                                      machine_done_fn *on_done, void *opaque, struct error *err);
/* NULL: there is none of that name, or a monitor has it. */
/* Where guestfwd=...-chardev:ID leads; a rule without a chardev stays as it is. */
struct config_guest_forward;
int must_check machine_guest_forward_target(struct machine *machine,
                                            struct config_guest_forward *forward,
                                            struct error *err);
struct chardev *machine_find_chardev(const struct machine *machine, const char *id);

#endif
