/* SPDX-License-Identifier: MIT */
/*
 * qmp_framer: a counter of brackets and a flag for strings; no stack, so depth costs nothing.
 *
 * Brackets are counted, not matched: "{]" is a complete text here, and the parser's to refuse.
 */
#include "vmm/control/qmp_framer.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/limits.h"

#define STRINGIFY(x) #x
#define TEXT_OF(x)   STRINGIFY(x)

void qmp_framer_init(struct qmp_framer *framer)
{
    memset(framer, 0, sizeof(*framer));
}

void qmp_framer_fini(struct qmp_framer *framer)
{
    free(framer->text);
    memset(framer, 0, sizeof(*framer));
}

/* False if the text would get too long. */
static bool append(struct qmp_framer *framer, char byte)
{
    if (framer->is_skipping)
        return true;
    if (framer->length == CONTROL_REQUEST_MAX_BYTES)
        return false;
    if (framer->length == framer->capacity) {
        framer->capacity = MAX(framer->capacity * 2, 1024);
        framer->text = realloc(framer->text, framer->capacity);
        CHECK(framer->text);
    }
    framer->text[framer->length++] = byte;
    return true;
}

/* Inside a string; the quotes that come out are always double ones. */
static bool take_string_byte(struct qmp_framer *framer, char byte)
{
    if (framer->is_escaped) {
        framer->is_escaped = false;
        return byte == '\'' ? append(framer, byte) : append(framer, '\\') && append(framer, byte);
    }
    if (byte == '\\') {
        framer->is_escaped = true;
        return true;
    }
    if (byte == framer->quote) {
        framer->quote = 0;
        return append(framer, '"');
    }
    if (byte == '"')
        return append(framer, '\\') && append(framer, '"');
    return append(framer, byte);
}

static bool take_plain_byte(struct qmp_framer *framer, char byte)
{
    if (byte == '"' || byte == '\'') {
        framer->quote = byte;
        return append(framer, '"');
    }
    if (byte == '{' || byte == '[')
        framer->depth++;
    else if (byte == '}' || byte == ']')
        framer->depth--;
    return append(framer, byte);
}

static void fail(struct qmp_framer *framer, const char *error, enum qmp_frame *frame)
{
    framer->error = error;
    *frame = QMP_FRAME_ERROR;
}

/* Between texts. */
static void take_outside(struct qmp_framer *framer, char byte, enum qmp_frame *frame)
{
    if (byte == '{' || byte == '[') {
        framer->is_junk = false;
        framer->length = 0;
        framer->depth = 1;
        append(framer, byte);
    } else if (byte == '\n') {
        framer->is_junk = false;
    } else if (!framer->is_junk && !strchr(" \t\r", byte)) {
        framer->is_junk = true;
        fail(framer, "JSON parse error, expecting an object", frame);
    }
}

static void take_inside(struct qmp_framer *framer, char byte, enum qmp_frame *frame)
{
    bool fits = framer->quote ? take_string_byte(framer, byte) : take_plain_byte(framer, byte);
    bool is_resynced = framer->is_skipping && byte == '\n';
    if (!fits || (!framer->is_skipping && framer->depth > CONTROL_JSON_DEPTH_MAX)) {
        framer->is_skipping = true;
        fail(framer,
             fits ? "JSON parse error, nested deeper than " TEXT_OF(CONTROL_JSON_DEPTH_MAX)
                  : "QMP input is longer than 64 KiB",
             frame);
    }
    if (framer->depth && !is_resynced)
        return;
    if (!framer->is_skipping)
        *frame = QMP_FRAME_TEXT;
    framer->is_skipping = framer->is_escaped = false;
    framer->quote = 0;
    framer->depth = 0;
}

size_t qmp_framer_feed(struct qmp_framer *framer, const char *bytes, size_t length,
                       enum qmp_frame *frame)
{
    *frame = QMP_FRAME_MORE;
    size_t taken = 0;
    while (taken < length && *frame == QMP_FRAME_MORE) {
        char byte = bytes[taken++];
        if (framer->depth)
            take_inside(framer, byte, frame);
        else
            take_outside(framer, byte, frame);
    }
    return taken;
}
