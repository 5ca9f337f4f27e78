/* SPDX-License-Identifier: MIT */
/*
 * event_throttle: events that a guest can cause as often as it likes, told at most once a second.
 *
 * Of each name and key the first is told at once; of what comes within the second after it only
 * the last, at its end. Loop's thread.
 */
#ifndef VMM_EVENT_THROTTLE_H
#define VMM_EVENT_THROTTLE_H

#include <jansson.h>

#include "base/list.h"
#include "base/loop.h"

struct event_throttle {
    void (*tell)(struct event_throttle *throttle, const char *name, json_t *data);
    /* Private. */
    struct loop_timer timer;
    struct list entries;
    bool is_closing;
    void (*on_closed)(struct event_throttle *throttle);
};

/* `tell` takes over its data. 0 or -errno. */
int must_check event_throttle_init(struct event_throttle *throttle, struct loop *loop,
                                   void (*tell)(struct event_throttle *throttle, const char *name,
                                                json_t *data));
/* `name` must last. Takes `data` over. There must be few keys. */
void event_throttle_emit(struct event_throttle *throttle, const char *name, const char *key,
                         json_t *data);
/* What waits is forgotten, and what comes from now on. */
void event_throttle_close(struct event_throttle *throttle,
                          void (*on_closed)(struct event_throttle *throttle));

#endif
