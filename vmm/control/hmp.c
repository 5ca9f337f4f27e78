/* SPDX-License-Identifier: MIT */
/* hmp: lines in, text out: the session of the human monitor and the life of one command. */
#include "vmm/control/hmp.h"

#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "build/config.h"
#include "vmm/control/hmp_private.h"
#include "vmm/options/keyval.h"

#define PROMPT "(qemu) " /* scripts wait for these very letters */

struct hmp_session {
    char line[HMP_LINE_MAX];
    size_t length;
    bool is_too_long;
    bool has_seen_cr;
    unsigned cpu;          /* as the command `cpu` chose it */
    struct hmp_call *call; /* under way */
};

/* The end of a call, in a turn of its own, so that nobody is called back from inside. */
static void run_done(struct loop_task *task)
{
    struct hmp_call *call = container_of(task, struct hmp_call, done);
    CHECK(fclose(call->out) == 0);
    call->on_done(call->opaque, call->output);
    free(call->output);
    free(call->line);
    free(call->typed);
    free(call);
}

void hmp_finish(struct hmp_call *call)
{
    loop_task_queue(&call->done);
}

void hmp_call_done(void *opaque, int result, const struct error *err)
{
    struct hmp_call *call = opaque;
    if (result)
        fprintf(call->out, "Error: %s\r\n", err && *err->text ? err->text : strerror(-result));
    hmp_finish(call);
}

/* A text in quotes, unescaped in its place; *rest goes on after it. False if it does not end. */
static bool unquote(char **rest)
{
    char *from = *rest + 1, *to = *rest;
    for (; *from && *from != '"'; from++) {
        if (*from == '\\' && from[1])
            from++;
        else {
            *to++ = *from;
            continue;
        }
        *to++ = *from == 'n' ? '\n' : *from == 'r' ? '\r' : *from;
    }
    bool is_whole = *from == '"';
    *to = 0;
    *rest = from + is_whole;
    return is_whole;
}

static const char *after_word(const char *text)
{
    text += strspn(text, " \t");
    text += strcspn(text, " \t");
    return text + strspn(text, " \t");
}

/* "xp/8x 0" and "xp /8x 0" have a format, as in QEMU. */
static void take_format(struct hmp_call *call)
{
    char *slash = call->word_count ? strchr(call->words[0], '/') : NULL;
    call->rest = after_word(call->typed);
    if (slash) {
        *slash = 0;
        call->format = slash + 1;
    } else if (*call->rest == '/' && call->word_count > 1) {
        call->rest = after_word(call->rest);
        call->format = call->words[1] + 1;
    }
}

/* By blanks; what begins with a quote goes to the next one, JSON to the end of the line. */
static bool split_words(struct hmp_call *call)
{
    char *rest = call->line;
    while (call->word_count < HMP_WORDS && *(rest += strspn(rest, " \t"))) {
        call->words[call->word_count++] = rest;
        if (*rest == '"') {
            if (!unquote(&rest))
                return false;
            continue;
        }
        rest += strcspn(rest, *rest == '{' ? "" : " \t");
        if (*rest)
            *rest++ = 0;
    }
    take_format(call);
    return true;
}

/* What is too much may be a typing error: it is not obeyed. */
static bool check_words(struct hmp_call *call)
{
    const struct hmp_command *command = call->command;
    unsigned limit = 1;
    for (const char *at = command->arguments; at; at = strchr(at, ' '), at += at != NULL)
        limit++;
    if (call->word_count <= limit || strstr(command->arguments ? command->arguments : "", "expr"))
        return true;
    fprintf(call->out,
            "%s: extraneous characters at the end of line\r\n"
            "Try \"help %s%s\" for more information\r\n",
            command->names, call->prefix, call->words[0]);
    return false;
}

void hmp_dispatch(struct hmp_call *call, const struct hmp_command *table, unsigned count,
                  const char *what)
{
    struct suggest suggest;
    call->prefix = table == hmp_infos ? "info " : "";
    suggest_init(&suggest, call->words[0]);
    for (unsigned i = 0; i < count; i++) {
        if (keyval_name_index(table[i].names, call->words[0]) >= 0) {
            call->command = &table[i];
            if (check_words(call))
                table[i].run(call);
            return;
        }
        if (!strchr(table[i].names, '|'))
            suggest_offer(&suggest, table[i].names);
    }
    const char *why = hmp_why_absent(call->words[0], *call->prefix);
    if (why) {
        fprintf(call->out, "%s%s: %s\r\n", call->prefix, call->words[0], why);
        return;
    }
    fprintf(call->out, "unknown %s: '%s'%s%s%s\r\n", what, call->words[0],
            suggest.best ? "; did you mean '" : "", suggest.best ? suggest.best : "",
            suggest.best ? "'?" : "; type 'help'");
}

static struct hmp_call *start_call(struct control *control, const char *line, unsigned cpu,
                                   hmp_done_fn *on_done, void *opaque)
{
    struct hmp_call *call = calloc(1, sizeof(*call));
    CHECK(call);
    call->control = control;
    call->on_done = on_done;
    call->opaque = opaque;
    call->cpu = cpu;
    call->line = strdup(line);
    call->typed = strdup(line);
    CHECK(call->line && call->typed);
    call->out = open_memstream(&call->output, &call->output_size);
    CHECK(call->out);
    loop_task_init(control->loop, &call->done, LOOP_STAGE_COMPLETE, run_done);
    return call;
}

static void run_call(struct hmp_call *call)
{
    machine_take_io_threads(call->control->machine);
    if (!split_words(call))
        fprintf(call->out, "unterminated string\r\n");
    else if (call->word_count)
        hmp_dispatch(call, hmp_commands, hmp_command_count, "command");
    if (!call->is_pending)
        hmp_finish(call);
}

void hmp_run(struct control *control, const char *line, unsigned cpu, hmp_done_fn *on_done,
             void *opaque)
{
    run_call(start_call(control, line, cpu, on_done, opaque));
}

static void write_text(struct control_client *client, const char *text)
{
    control_client_write(client, text, strlen(text));
}

static void *open_session(struct control_client *client)
{
    (void)client;
    struct hmp_session *session = calloc(1, sizeof(*session));
    CHECK(session);
    return session;
}

static void greet(struct control_client *client)
{
    write_text(client,
               "evisor " EVISOR_VERSION " monitor - type 'help' for more information\r\n" PROMPT);
}

static void on_focus(struct control_client *client)
{
    write_text(client, "\r\n" PROMPT);
}

static void ignore_done(void *opaque, const char *output)
{
    (void)opaque, (void)output;
}

static void close_session(struct control_client *client)
{
    struct hmp_session *session = client->session;
    if (session->call)
        session->call->on_done = ignore_done;
    free(session);
    client->session = NULL;
}

static void on_command_done(void *opaque, const char *output)
{
    struct control_client *client = opaque;
    struct hmp_session *session = client->session;
    session->cpu = session->call->cpu;
    session->call = NULL;
    control_client_resume(client);
    write_text(client, output);
    write_text(client, PROMPT);
}

static void run_line(struct control_client *client)
{
    struct hmp_session *session = client->session;
    session->line[session->length] = 0;
    session->length = 0;
    if (session->is_too_long) {
        session->is_too_long = false;
        write_text(client, "the line is too long\r\n" PROMPT);
        return;
    }
    session->call =
        start_call(client->control, session->line, session->cpu, on_command_done, client);
    client->is_busy = true;
    run_call(session->call);
}

/* A person at a terminal that leaves echo to us sees what was typed. */
static void echo(struct control_client *client, const char *text)
{
    if (client->backend || client->is_telnet)
        write_text(client, text);
}

static void take_byte(struct control_client *client, char byte)
{
    struct hmp_session *session = client->session;
    bool is_end = byte == '\r' || (byte == '\n' && !session->has_seen_cr);
    session->has_seen_cr = byte == '\r';
    if (is_end) {
        echo(client, "\r\n");
        run_line(client);
    } else if ((byte == '\b' || byte == 0x7f) && session->length) {
        session->length--;
        echo(client, "\b \b");
    } else if (byte == 0x15) { /* Ctrl-U */
        for (; session->length; session->length--)
            echo(client, "\b \b");
    } else if (session->length == sizeof(session->line) - 1) {
        session->is_too_long = true;
    } else if ((unsigned char)byte >= ' ' || byte == '\t') {
        session->line[session->length++] = byte;
        echo(client, (char[]){byte, 0});
    }
}

static size_t on_input(struct control_client *client, const char *bytes, size_t length)
{
    size_t taken = 0;
    while (taken < length && !client->is_busy && !client->is_dropped)
        take_byte(client, bytes[taken++]);
    return taken;
}

const struct control_protocol hmp_protocol = {
    .open = open_session,
    .greet = greet,
    .on_focus = on_focus,
    .on_input = on_input,
    .close = close_session,
};
