/* SPDX-License-Identifier: MIT */
/* closing: whom to tell that a thing has closed, which is later than the call that closes it. */
#ifndef BASE_CLOSING_H
#define BASE_CLOSING_H

struct closing {
    void (*on_closed)(void *opaque); /* NULL: nobody */
    void *opaque;
};

/* A copy, because the thing that held it may be freed by now, or in the callback. */
static inline void closing_tell(struct closing closing)
{
    if (closing.on_closed)
        closing.on_closed(closing.opaque);
}

#endif
