/* SPDX-License-Identifier: MIT */
/*
 * qmp_framer: cuts a stream of bytes into JSON texts, wherever the stream is broken up.
 *
 * It knows brackets and strings only; whether a text is JSON is found out by who parses it. What
 * it hands out has at most CONTROL_REQUEST_MAX_BYTES and is nested at most CONTROL_JSON_DEPTH_MAX
 * deep, so a parser that recurses is safe with it. Strings in single quotes, which QEMU takes, come
 * out in double ones. After an error it goes on with the next text or the next line.
 */
#ifndef VMM_CONTROL_QMP_FRAMER_H
#define VMM_CONTROL_QMP_FRAMER_H

#include <stdbool.h>
#include <stddef.h>

enum qmp_frame {
    QMP_FRAME_MORE,  /* all bytes taken, no text complete */
    QMP_FRAME_TEXT,  /* `text` is complete: read it before the next call */
    QMP_FRAME_ERROR, /* `error` says what is wrong */
};

struct qmp_framer {
    char *text;
    size_t length;
    const char *error;
    /* Private. */
    size_t capacity;
    size_t depth;
    char quote; /* of the string that we are in, or 0 */
    bool is_escaped;
    bool is_skipping; /* after an error inside a text */
    bool is_junk;     /* after an error outside of any */
};

void qmp_framer_init(struct qmp_framer *framer);
void qmp_framer_fini(struct qmp_framer *framer);

/* Takes bytes up to the end of one text or to an error; returns how many it took. */
size_t qmp_framer_feed(struct qmp_framer *framer, const char *bytes, size_t length,
                       enum qmp_frame *frame);

#endif
