/* SPDX-License-Identifier: MIT */
/* commands_chardev: the QMP commands about terminals and sockets. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/chardev/chardev.h"
#include "vmm/control/base64.h"
#include "vmm/control/commands.h"
#include "vmm/machine_chardev.h"
#include "vmm/machine_guest.h"

static const char *argument(const struct qmp_call *call, const char *name)
{
    return json_string_value(json_object_get(call->arguments, name));
}

/* What the members of QMP's ChardevBackend are called on the command line; NULL: nothing. */
static const char *word_of(const char *key)
{
    static const char *const words[][2] = {
        {"backend.type", "backend"},
        {"backend.data.addr.type", NULL},
        {"backend.data.addr.data.path", "path"},
        {"backend.data.addr.data.host", "host"},
        {"backend.data.addr.data.port", "port"},
        {"backend.data.out", "path"},
        {"backend.data.device", "path"},
    };
    static const char prefix[] = "backend.data.";
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (strcmp(words[i][0], key) == 0)
            return words[i][1];
    return strncmp(key, prefix, strlen(prefix)) == 0 ? key + strlen(prefix) : key;
}

/* QMP's words become those of -chardev; a server does not wait unless it is told to. */
static void translate(struct keyval *list)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < list->count; i++) {
        struct keyval_pair pair = list->pairs[i];
        const char *word = word_of(pair.key);
        char *key = word ? strdup(word) : NULL;
        CHECK(key || !word);
        free(pair.key);
        pair.key = key;
        if (key)
            list->pairs[kept++] = pair;
        else
            free(pair.value);
    }
    list->count = kept;
    const char *server = keyval_get(list, "server"), *backend = keyval_get(list, "backend");
    bool is_server =
        backend && strcmp(backend, "socket") == 0 && (!server || strcmp(server, "on") == 0);
    if (is_server && !keyval_get(list, "wait") && list->count + 2 <= KEYVAL_MAX) {
        list->pairs[list->count++] = (struct keyval_pair){strdup("wait"), strdup("off")};
        if (!server)
            list->pairs[list->count++] = (struct keyval_pair){strdup("server"), strdup("on")};
    }
}

/* A new pty tells where it is. */
static json_t *describe(struct qmp_call *call)
{
    struct chardev *chardev = machine_find_chardev(call->control->machine, argument(call, "id"));
    const char *name = chardev ? chardev_filename(chardev) : "";
    return strncmp(name, "pty:", 4) == 0 ? json_pack("{s:s}", "pty", name + 4) : json_object();
}

void qmp_chardev_add(struct qmp_call *call)
{
    struct keyval list;
    struct error err = {0};
    int result = qmp_arguments_to_keyval(call, &list, &err);
    if (!result) {
        translate(&list);
        result = machine_chardev_add(call->control->machine, &list, &err);
    }
    keyval_fini(&list);
    if (result)
        qmp_call_done(call, result, &err);
    else
        qmp_call_return(call, describe(call));
}

void qmp_chardev_remove(struct qmp_call *call)
{
    struct error err = {0};
    int result = machine_chardev_remove(call->control->machine, argument(call, "id"), qmp_call_done,
                                        call, &err);
    if (result)
        qmp_call_done(call, result, &err);
}

void qmp_chardev_send_break(struct qmp_call *call)
{
    const char *id = argument(call, "id");
    struct chardev *chardev = machine_find_chardev(call->control->machine, id);
    if (!chardev) {
        qmp_call_fail(call, QMP_GENERIC, "Chardev '%s' not found", id);
        return;
    }
    chardev_send_break(chardev);
    qmp_call_return(call, NULL);
}

/* Not QEMU's: the window of the terminal at the other end, for a virtio console on it. */
void qmp_chardev_resize(struct qmp_call *call)
{
    const char *id = argument(call, "id");
    json_int_t columns = json_integer_value(json_object_get(call->arguments, "cols"));
    json_int_t rows = json_integer_value(json_object_get(call->arguments, "rows"));
    if (columns < 1 || columns > UINT16_MAX || rows < 1 || rows > UINT16_MAX)
        qmp_call_fail(call, QMP_GENERIC, "Parameters 'cols' and 'rows' are from 1 to %d",
                      UINT16_MAX);
    else if (!machine_resize_console(call->control->machine, id, (unsigned)columns, (unsigned)rows))
        qmp_call_fail(call, QMP_GENERIC, "There is no virtconsole on the chardev '%.64s'", id);
    else
        qmp_call_return(call, NULL);
}

/* NULL: the call has failed. */
static struct chardev *find_ringbuf(struct qmp_call *call, bool *is_base64)
{
    const char *id = argument(call, "device"), *format = argument(call, "format");
    struct chardev *chardev = machine_find_chardev(call->control->machine, id);
    *is_base64 = format && strcmp(format, "base64") == 0;
    if (format && !*is_base64 && strcmp(format, "utf8") != 0)
        qmp_call_fail(call, QMP_GENERIC, "Parameter 'format' does not accept value '%.64s'",
                      format);
    else if (!chardev)
        qmp_call_fail(call, QMP_GENERIC, "Device '%.64s' not found", id);
    else if (!chardev_is_ringbuf(chardev))
        qmp_call_fail(call, QMP_GENERIC, "%.64s is not a ringbuf device", id);
    else
        return chardev;
    return NULL;
}

void qmp_ringbuf_write(struct qmp_call *call)
{
    bool is_base64;
    struct chardev *chardev = find_ringbuf(call, &is_base64);
    if (!chardev)
        return;
    char *data = strdup(argument(call, "data"));
    CHECK(data);
    size_t length = strlen(data);
    if (is_base64 && !base64_decode(data, &length)) {
        qmp_call_fail(call, QMP_GENERIC, "Base64 data '%.64s' is not valid", data);
    } else {
        chardev_ringbuf_write(chardev, data, length);
        qmp_call_return(call, NULL);
    }
    free(data);
}

/* What is no UTF-8 can only be asked for as base64. */
static json_t *as_text(const uint8_t *bytes, size_t length)
{
    json_t *text = json_stringn((const char *)bytes, length);
    return text ? text : json_string("");
}

void qmp_ringbuf_read(struct qmp_call *call)
{
    bool is_base64;
    json_int_t size = json_integer_value(json_object_get(call->arguments, "size"));
    struct chardev *chardev = find_ringbuf(call, &is_base64);
    if (!chardev)
        return;
    if (size <= 0) {
        qmp_call_fail(call, QMP_GENERIC, "size must be greater than zero");
        return;
    }
    /* An answer must fit into what a client may leave unread. */
    size_t most = MIN((size_t)size, CONTROL_OUTPUT_MAX_BYTES / 8);
    uint8_t *bytes = malloc(most);
    CHECK(bytes);
    size_t length = chardev_ringbuf_read(chardev, bytes, most);
    char *encoded = is_base64 ? base64_encode(bytes, length) : NULL;
    qmp_call_return(call, encoded ? json_string(encoded) : as_text(bytes, length));
    free(encoded);
    free(bytes);
}

void qmp_query_chardev_backends(struct qmp_call *call)
{
    static const char *const names[] = {"file", "memory",  "null",   "pipe",
                                        "pty",  "ringbuf", "socket", "stdio"};
    json_t *list = json_array();
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        json_array_append_new(list, json_pack("{s:s}", "name", names[i]));
    qmp_call_return(call, list);
}
