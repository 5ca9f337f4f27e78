/* SPDX-License-Identifier: MIT */
/* commands_fd: the QMP commands about descriptors that clients pass over their socket. */
#include <ctype.h>
#include <unistd.h>

#include "base/fdset.h"
#include "vmm/control/commands.h"

static const char no_fd[] = "No file descriptor supplied via SCM_RIGHTS";

static int take_fd(struct qmp_call *call)
{
    int fd = call->client ? control_client_take_fd(call->client) : -1;
    if (fd < 0)
        qmp_call_fail(call, QMP_GENERIC, "%s", no_fd);
    return fd;
}

void qmp_getfd(struct qmp_call *call)
{
    const char *name = json_string_value(json_object_get(call->arguments, "fdname"));
    int fd = take_fd(call);
    if (fd < 0)
        return;
    if (isdigit((unsigned char)*name) || !*name) {
        close(fd);
        qmp_call_fail(call, QMP_GENERIC,
                      "Parameter 'fdname' expects a name not starting with a digit");
        return;
    }
    fdset_name(name, fd);
    qmp_call_return(call, NULL);
}

void qmp_closefd(struct qmp_call *call)
{
    const char *name = json_string_value(json_object_get(call->arguments, "fdname"));
    int fd = fdset_take(name);
    if (fd < 0) {
        qmp_call_fail(call, QMP_GENERIC, "File descriptor named '%s' not found", name);
        return;
    }
    close(fd);
    qmp_call_return(call, NULL);
}

void qmp_add_fd(struct qmp_call *call)
{
    const json_t *id = json_object_get(call->arguments, "fdset-id");
    int64_t set_id = id ? json_integer_value(id) : -1;
    int fd = take_fd(call);
    if (fd < 0)
        return;
    if (id && set_id < 0) {
        close(fd);
        qmp_call_fail(call, QMP_GENERIC, "Parameter 'fdset-id' expects a non-negative value");
        return;
    }
    fdset_add(&set_id, fd, json_string_value(json_object_get(call->arguments, "opaque")));
    qmp_call_return(call, json_pack("{s:i,s:I}", "fd", fd, "fdset-id", (json_int_t)set_id));
}

void qmp_remove_fd(struct qmp_call *call)
{
    json_int_t set_id = json_integer_value(json_object_get(call->arguments, "fdset-id"));
    const json_t *member = json_object_get(call->arguments, "fd");
    json_int_t fd = member ? json_integer_value(member) : -1;
    bool is_there = (!member || (fd >= 0 && fd <= INT32_MAX)) && !fdset_remove(set_id, (int)fd);
    if (is_there)
        qmp_call_return(call, NULL);
    else if (member)
        qmp_call_fail(call, QMP_GENERIC,
                      "File descriptor named 'fdset-id:%" JSON_INTEGER_FORMAT
                      ", fd:%" JSON_INTEGER_FORMAT "' not found",
                      set_id, fd);
    else
        qmp_call_fail(call, QMP_GENERIC,
                      "File descriptor named 'fdset-id:%" JSON_INTEGER_FORMAT "' not found",
                      set_id);
}

/* Members of one set come in a row. */
static void add_member(void *opaque, const struct fdset_member *member)
{
    json_t *list = opaque;
    json_t *set = json_array_get(list, json_array_size(list) - 1);
    if (!set || json_integer_value(json_object_get(set, "fdset-id")) != member->set_id) {
        set = json_pack("{s:I,s:[]}", "fdset-id", (json_int_t)member->set_id, "fds");
        json_array_append_new(list, set);
    }
    json_array_append_new(json_object_get(set, "fds"),
                          json_pack("{s:i,s:s*}", "fd", member->fd, "opaque", member->opaque));
}

void qmp_query_fdsets(struct qmp_call *call)
{
    json_t *list = json_array();
    fdset_for_each(add_member, list);
    qmp_call_return(call, list);
}
