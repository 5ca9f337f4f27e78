/* SPDX-License-Identifier: MIT */
/*
 * hmp: the monitor for people: one command a line, answers as text.
 *
 * Programs use it too (Nomad, vagrant-qemu, and human-monitor-command of QMP), so names and texts
 * are QEMU's where evisor has the thing. hmp_protocol, declared in control_private.h, serves it.
 */
#ifndef VMM_CONTROL_HMP_H
#define VMM_CONTROL_HMP_H

struct control;

typedef void hmp_done_fn(void *opaque, const char *output);

/*
 * Runs one line, which looks at that CPU. Answers through on_done, once, later, on the loop, after
 * the events that the command caused; lines of `output` end with "\r\n".
 */
void hmp_run(struct control *control, const char *line, unsigned cpu, hmp_done_fn *on_done,
             void *opaque);

#endif
