/* SPDX-License-Identifier: MIT */
/*
 * hmp_qmp: the commands of the human monitor that do what a QMP command does. A table says how the
 * words become arguments; what a word of the one means to the other is in `complete`.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/control/commands.h"
#include "vmm/control/hmp_private.h"
#include "vmm/options/keyval.h"

#define PARAMETERS_MAX 8

enum kind {
    FLAG,   /* -x */
    DEVICE, /* a text, but called a device where it is missing */
    TEXT,
    NUMBER,
    MIB, /* a size; MiB without a suffix */
};

struct parameter {
    const char *name; /* NULL: no more */
    enum kind kind;
    bool is_optional;
    char letter; /* of a flag */
};

struct translation {
    const char *name;
    const char *command; /* of QMP; NULL: the same name */
    void (*complete)(json_t *arguments);
    struct parameter parameters[PARAMETERS_MAX + 1];
};

/* --- what the words mean --- */

static bool take(json_t *arguments, const char *name)
{
    bool is_set = json_object_get(arguments, name);
    json_object_del(arguments, name);
    return is_set;
}

static void set_mode(json_t *arguments)
{
    json_object_set_new(arguments, "mode",
                        json_string(take(arguments, "reuse") ? "existing" : "absolute-paths"));
}

static void complete_copy(json_t *arguments)
{
    set_mode(arguments);
    json_object_set_new(arguments, "sync", json_string(take(arguments, "full") ? "full" : "top"));
}

static void complete_mirror(json_t *arguments)
{
    complete_copy(arguments);
    json_object_set_new(arguments, "unmap", json_true());
}

static void complete_removal(json_t *arguments)
{
    json_object_set_new(arguments, "mode", json_string(take(arguments, "force") ? "hard" : "safe"));
}

static const struct translation table[] = {
    {"block_job_cancel",
     "block-job-cancel",
     NULL,
     {{"force", FLAG, true, 'f'}, {"device", DEVICE, false, 0}}},
    {"block_job_complete", "block-job-complete", NULL, {{"device", DEVICE, false, 0}}},
    {"block_job_pause", "block-job-pause", NULL, {{"device", DEVICE, false, 0}}},
    {"block_job_resume", "block-job-resume", NULL, {{"device", DEVICE, false, 0}}},
    {"block_job_set_speed",
     "block-job-set-speed",
     NULL,
     {{"device", DEVICE, false, 0}, {"speed", MIB, false, 0}}},
    {"block_resize", NULL, NULL, {{"device", DEVICE, false, 0}, {"size", MIB, false, 0}}},
    {"block_set_io_throttle",
     NULL,
     NULL,
     {{"device", DEVICE, false, 0},
      {"bps", NUMBER, false, 0},
      {"bps_rd", NUMBER, false, 0},
      {"bps_wr", NUMBER, false, 0},
      {"iops", NUMBER, false, 0},
      {"iops_rd", NUMBER, false, 0},
      {"iops_wr", NUMBER, false, 0}}},
    {"block_stream",
     "block-stream",
     NULL,
     {{"device", DEVICE, false, 0}, {"speed", MIB, true, 0}, {"base", TEXT, true, 0}}},
    {"chardev-send-break", NULL, NULL, {{"id", TEXT, false, 0}}},
    {"drive_backup",
     "drive-backup",
     complete_copy,
     {{"reuse", FLAG, true, 'n'},
      {"full", FLAG, true, 'f'},
      {"compress", FLAG, true, 'c'},
      {"device", DEVICE, false, 0},
      {"target", TEXT, false, 0},
      {"format", TEXT, true, 0}}},
    {"drive_mirror",
     "drive-mirror",
     complete_mirror,
     {{"reuse", FLAG, true, 'n'},
      {"full", FLAG, true, 'f'},
      {"device", DEVICE, false, 0},
      {"target", TEXT, false, 0},
      {"format", TEXT, true, 0}}},
    {"nbd_server_add",
     "nbd-server-add",
     NULL,
     {{"writable", FLAG, true, 'w'}, {"device", DEVICE, false, 0}, {"name", TEXT, true, 0}}},
    {"nbd_server_remove",
     "nbd-server-remove",
     complete_removal,
     {{"force", FLAG, true, 'f'}, {"name", TEXT, false, 0}}},
    {"nbd_server_start",
     NULL,
     NULL,
     {{"all", FLAG, true, 'a'}, {"writable", FLAG, true, 'w'}, {"uri", TEXT, false, 0}}},
    {"nbd_server_stop", "nbd-server-stop", NULL, {{0}}},
    {"nmi", "inject-nmi", NULL, {{0}}},
    {"ringbuf_read",
     "ringbuf-read",
     NULL,
     {{"device", TEXT, false, 0}, {"size", NUMBER, false, 0}}},
    {"ringbuf_write",
     "ringbuf-write",
     NULL,
     {{"device", TEXT, false, 0}, {"data", TEXT, false, 0}}},
    {"snapshot_blkdev",
     "blockdev-snapshot-sync",
     set_mode,
     {{"reuse", FLAG, true, 'n'},
      {"device", DEVICE, false, 0},
      {"snapshot-file", TEXT, true, 0},
      {"format", TEXT, true, 0}}},
    {"snapshot_blkdev_internal",
     "blockdev-snapshot-internal-sync",
     NULL,
     {{"device", DEVICE, false, 0}, {"name", TEXT, false, 0}}},
    {"snapshot_delete_blkdev_internal",
     "blockdev-snapshot-delete-internal-sync",
     NULL,
     {{"device", DEVICE, false, 0}, {"name", TEXT, false, 0}, {"id", TEXT, true, 0}}},
};

static const struct translation *find(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    CHECK(false);
    return NULL;
}

/* --- reading --- */

static bool refuse(struct hmp_call *call, const char *what, const char *word)
{
    fprintf(call->out, what, word);
    fprintf(call->out, "\r\nTry \"help %s%s\" for more information\r\n", call->prefix,
            call->words[0]);
    return false;
}

bool hmp_read_number(struct hmp_call *call, const char *word, int64_t *out)
{
    char *end, odd[2] = "";
    if (!word)
        return refuse(call, "unexpected end of expression%s", "");
    errno = 0;
    *out = (int64_t)strtoll(word, &end, 0);
    if (!*end && end != word && !errno)
        return true;
    odd[0] = errno ? *word : *end;
    return refuse(call, "invalid char '%s' in expression", odd);
}

static bool read_value(struct hmp_call *call, const struct parameter *parameter, const char *word,
                       json_t *arguments)
{
    json_t *value = NULL;
    uint64_t bytes;
    int64_t number;
    switch (parameter->kind) {
    case FLAG:
        value = json_true();
        break;
    case DEVICE:
        if (!word)
            return refuse(call, "%s: block device name expected", call->words[0]);
        value = json_string(word);
        break;
    case TEXT:
        if (!word)
            return refuse(call, "%s: string expected", call->words[0]);
        value = json_string(word);
        break;
    case NUMBER:
        if (!hmp_read_number(call, word, &number))
            return false;
        value = json_integer(number);
        break;
    case MIB:
        if (!word || !keyval_text_to_size(word, 1 << 20, &bytes) || bytes > INT64_MAX)
            return refuse(call, "invalid size%s", "");
        value = json_integer((json_int_t)bytes);
        break;
    }
    return json_object_set_new(arguments, parameter->name, value) == 0 ||
           refuse(call, "%s: the text is not UTF-8", call->words[0]);
}

/* Flags come first, in any order. */
static bool read_flags(struct hmp_call *call, const struct parameter *parameters, unsigned *at,
                       json_t *arguments)
{
    for (; *at < call->word_count && call->words[*at][0] == '-' && call->words[*at][1]; (*at)++) {
        const char *word = call->words[*at];
        const struct parameter *found = parameters;
        while (found->name && (found->kind != FLAG || word[1] != found->letter || word[2]))
            found++;
        if (!found->name && parameters->kind != FLAG)
            return true; /* a command without flags: a value that begins so */
        if (!found->name) {
            fprintf(call->out, "%s: unsupported option %s\r\n", call->words[0], word);
            fprintf(call->out, "Try \"help %s\" for more information\r\n", call->words[0]);
            return false;
        }
        json_object_set_new(arguments, found->name, json_true());
    }
    return true;
}

/* NULL: said what is wrong. */
static json_t *read_arguments(struct hmp_call *call, const struct parameter *parameters)
{
    json_t *arguments = json_object();
    unsigned at = 1;
    bool ok = read_flags(call, parameters, &at, arguments);
    for (const struct parameter *parameter = parameters; ok && parameter->name; parameter++) {
        const char *word = at < call->word_count ? call->words[at] : NULL;
        if (parameter->kind == FLAG || (!word && parameter->is_optional))
            continue;
        ok = read_value(call, parameter, word, arguments);
        at++;
    }
    if (ok)
        return arguments;
    json_decref(arguments);
    return NULL;
}

/* --- running --- */

static void on_done(void *opaque, const json_t *value, const char *error)
{
    struct hmp_call *call = opaque;
    (void)value;
    if (error)
        fprintf(call->out, "Error: %s\r\n", error);
    hmp_finish(call);
}

/* What is not printed as it is stands as "\xNN". */
static void on_ring(void *opaque, const json_t *value, const char *error)
{
    struct hmp_call *call = opaque;
    const char *text = json_string_value(value);
    for (; text && *text; text++) {
        if (*text == '\\')
            fprintf(call->out, "\\\\");
        else if (((unsigned char)*text < 0x20 && *text != '\n') || *text == 0x7f)
            fprintf(call->out, "\\x%02X", (unsigned char)*text);
        else
            fputs(*text == '\n' ? "\r\n" : (char[]){*text, 0}, call->out);
    }
    if (text)
        fprintf(call->out, "\r\n");
    on_done(call, value, error);
}

static void run(struct hmp_call *call, commands_done_fn *done)
{
    const struct translation *translation = find(call->words[0]);
    json_t *arguments = read_arguments(call, translation->parameters);
    if (!arguments)
        return;
    if (translation->complete)
        translation->complete(arguments);
    call->is_pending = true;
    commands_run(call->control, translation->command ? translation->command : translation->name,
                 arguments, done, call);
    json_decref(arguments);
}

void hmp_by_qmp(struct hmp_call *call)
{
    run(call, on_done);
}

void hmp_ringbuf_read(struct hmp_call *call)
{
    run(call, on_ring);
}

/* --- nbd_server_start, which may export all disks --- */

struct exporting {
    struct hmp_call *call;
    bool is_writable;
    unsigned next;
};

static void export_next(struct exporting *exporting);

static void end_exporting(struct exporting *exporting)
{
    hmp_finish(exporting->call);
    free(exporting);
}

static void on_stopped(void *opaque, const json_t *value, const char *error)
{
    (void)value, (void)error;
    end_exporting(opaque);
}

/* All disks or none: a server that serves some of them is stopped. */
static void on_exported(void *opaque, const json_t *value, const char *error)
{
    struct exporting *exporting = opaque;
    (void)value;
    if (!error) {
        export_next(exporting);
        return;
    }
    fprintf(exporting->call->out, "Error: %s\r\n", error);
    json_t *none = json_object();
    commands_run(exporting->call->control, "nbd-server-stop", none, on_stopped, exporting);
    json_decref(none);
}

static void export_next(struct exporting *exporting)
{
    struct machine *machine = exporting->call->control->machine;
    const struct vm_config *config = machine_config(machine);
    unsigned i = exporting->next;
    while (i < config->disk_count && !(machine_disk(machine, i) && !config->disks[i].is_node))
        i++;
    exporting->next = i + 1;
    if (i >= config->disk_count) {
        end_exporting(exporting);
        return;
    }
    json_t *arguments =
        json_pack("{s:s,s:b}", "device", config->disks[i].id, "writable", exporting->is_writable);
    commands_run(exporting->call->control, "nbd-server-add", arguments, on_exported, exporting);
    json_decref(arguments);
}

static void on_started(void *opaque, const json_t *value, const char *error)
{
    struct exporting *exporting = opaque;
    (void)value;
    if (error)
        fprintf(exporting->call->out, "Error: %s\r\n", error);
    if (error || exporting->next)
        end_exporting(exporting);
    else
        export_next(exporting);
}

/* "unix:PATH" or "HOST:PORT", or NULL. */
static json_t *read_address(const char *uri)
{
    const char *colon = strrchr(uri, ':');
    if (strncmp(uri, "unix:", 5) == 0 && uri[5])
        return json_pack("{s:s,s:{s:s}}", "type", "unix", "data", "path", uri + 5);
    if (!colon || !colon[1])
        return NULL;
    return json_pack("{s:s,s:{s:s#,s:s}}", "type", "inet", "data", "host", uri, (int)(colon - uri),
                     "port", colon + 1);
}

void hmp_nbd_server_start(struct hmp_call *call)
{
    json_t *arguments = read_arguments(call, find(call->words[0])->parameters);
    if (!arguments)
        return;
    bool has_all = take(arguments, "all"), is_writable = take(arguments, "writable");
    const char *uri = json_string_value(json_object_get(arguments, "uri"));
    json_t *address = read_address(uri);
    if (is_writable && !has_all) {
        fprintf(call->out, "Error: -w only valid together with -a\r\n");
    } else if (!address) {
        fprintf(call->out, "Error: error parsing address '%s'\r\n", uri);
    } else {
        struct exporting *exporting = calloc(1, sizeof(*exporting));
        CHECK(exporting);
        *exporting = (struct exporting){call, is_writable, has_all ? 0 : 1};
        call->is_pending = true;
        json_t *start = json_pack("{s:O}", "addr", address);
        commands_run(call->control, "nbd-server-start", start, on_started, exporting);
        json_decref(start);
    }
    json_decref(address);
    json_decref(arguments);
}
