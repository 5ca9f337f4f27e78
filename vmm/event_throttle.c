/* SPDX-License-Identifier: MIT */
/* event_throttle: one entry for each name and key, one timer for all of them. */
#include "vmm/event_throttle.h"

#include <stdlib.h>
#include <string.h>

#define PERIOD_NS UINT64_C(1000000000)

struct entry {
    struct list node;
    const char *name;
    char *key;
    uint64_t told_ns;
    json_t *waiting; /* NULL: nothing came since */
};

static void tell(struct event_throttle *throttle, struct entry *entry, json_t *data)
{
    entry->told_ns = loop_now_ns();
    throttle->tell(throttle, entry->name, data);
}

static void arm(struct event_throttle *throttle)
{
    uint64_t next_ns = UINT64_MAX;
    list_for_each(node, &throttle->entries)
    {
        const struct entry *entry = list_entry(node, struct entry, node);
        if (entry->waiting)
            next_ns = MIN(next_ns, entry->told_ns + PERIOD_NS);
    }
    if (next_ns != UINT64_MAX)
        loop_timer_arm(&throttle->timer, next_ns);
}

static void on_timer(struct loop_timer *timer)
{
    struct event_throttle *throttle = container_of(timer, struct event_throttle, timer);
    uint64_t now_ns = loop_now_ns();
    list_for_each(node, &throttle->entries)
    {
        struct entry *entry = list_entry(node, struct entry, node);
        json_t *waiting = entry->waiting;
        if (!waiting || now_ns < entry->told_ns + PERIOD_NS)
            continue;
        entry->waiting = NULL;
        tell(throttle, entry, waiting);
    }
    arm(throttle);
}

int event_throttle_init(struct event_throttle *throttle, struct loop *loop,
                        void (*tell_one)(struct event_throttle *throttle, const char *name,
                                         json_t *data))
{
    *throttle = (struct event_throttle){.tell = tell_one};
    list_init(&throttle->entries);
    return loop_timer_init(loop, &throttle->timer, on_timer);
}

static struct entry *find(struct event_throttle *throttle, const char *name, const char *key)
{
    list_for_each(node, &throttle->entries)
    {
        struct entry *entry = list_entry(node, struct entry, node);
        if (strcmp(entry->name, name) == 0 && strcmp(entry->key, key) == 0)
            return entry;
    }
    struct entry *entry = calloc(1, sizeof(*entry));
    CHECK(entry);
    entry->name = name;
    entry->key = strdup(key);
    CHECK(entry->key);
    list_push_back(&throttle->entries, &entry->node);
    return entry;
}

void event_throttle_emit(struct event_throttle *throttle, const char *name, const char *key,
                         json_t *data)
{
    if (throttle->is_closing) {
        json_decref(data);
        return;
    }
    struct entry *entry = find(throttle, name, key);
    if (!entry->waiting && (!entry->told_ns || loop_now_ns() >= entry->told_ns + PERIOD_NS)) {
        tell(throttle, entry, data);
        return;
    }
    json_decref(entry->waiting);
    entry->waiting = data;
    arm(throttle);
}

static void on_timer_closed(struct loop_timer *timer)
{
    struct event_throttle *throttle = container_of(timer, struct event_throttle, timer);
    throttle->on_closed(throttle);
}

void event_throttle_close(struct event_throttle *throttle,
                          void (*on_closed)(struct event_throttle *throttle))
{
    throttle->is_closing = true;
    throttle->on_closed = on_closed;
    while (!list_is_empty(&throttle->entries)) {
        struct entry *entry = list_entry(list_pop_front(&throttle->entries), struct entry, node);
        json_decref(entry->waiting);
        free(entry->key);
        free(entry);
    }
    loop_timer_close(&throttle->timer, on_timer_closed);
}
