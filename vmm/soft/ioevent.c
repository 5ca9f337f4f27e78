/* SPDX-License-Identifier: MIT */
/* ioevent: the table of doorbells. */
#include "vmm/soft/ioevent.h"

#include <errno.h>
#include <unistd.h>

#include "base/check.h"

void ioevent_init(struct ioevent_table *table)
{
    pthread_rwlock_init(&table->lock, NULL);
    atomic_init(&table->count, 0);
}

void ioevent_fini(struct ioevent_table *table)
{
    pthread_rwlock_destroy(&table->lock);
}

static bool is_same(const struct ioevent *a, const struct ioevent *b)
{
    return a->fd == b->fd && a->is_pio == b->is_pio && a->any == b->any && a->size == b->size &&
           a->address == b->address && (a->any || a->value == b->value);
}

int ioevent_add(struct ioevent_table *table, const struct ioevent *event)
{
    int result = 0;

    pthread_rwlock_wrlock(&table->lock);
    for (unsigned i = 0; i < table->count; i++)
        if (is_same(&table->events[i], event))
            result = -EEXIST;
    if (!result && table->count == IOEVENT_MAX)
        result = -ENOSPC;
    if (!result)
        table->events[table->count++] = *event;
    pthread_rwlock_unlock(&table->lock);
    return result;
}

void ioevent_del(struct ioevent_table *table, const struct ioevent *event)
{
    pthread_rwlock_wrlock(&table->lock);
    for (unsigned i = 0; i < table->count; i++) {
        if (!is_same(&table->events[i], event))
            continue;
        table->events[i] = table->events[--table->count];
        break;
    }
    pthread_rwlock_unlock(&table->lock);
}

static bool matches(const struct ioevent *event, bool is_pio, uint64_t address, unsigned size,
                    uint64_t value)
{
    return event->is_pio == is_pio && event->address == address &&
           (!event->size || event->size == size) && (event->any || event->value == value);
}

bool ioevent_signal(struct ioevent_table *table, bool is_pio, uint64_t address, unsigned size,
                    uint64_t value)
{
    bool found = false;

    if (!atomic_load_explicit(&table->count, memory_order_relaxed))
        return false;
    pthread_rwlock_rdlock(&table->lock);
    for (unsigned i = 0; i < table->count && !found; i++) {
        if (!matches(&table->events[i], is_pio, address, size, value))
            continue;
        uint64_t one = 1;

        unused_result(write(table->events[i].fd, &one, sizeof(one)) < 0);
        found = true;
    }
    pthread_rwlock_unlock(&table->lock);
    return found;
}
