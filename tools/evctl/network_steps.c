/* SPDX-License-Identifier: MIT */
/* network_steps: the steps are iproute2's, nft's and dnsmasq's command lines, and /proc/sys. */
#include "tools/evctl/network_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/evctl/model.h"
#include "tools/evctl/run.h"
#include "tools/evctl/store.h"

enum { END_TRIES = 200, END_WAIT_US = 20000 };

json_t *steps_words(const char *first, ...)
{
    json_t *words = json_array();
    va_list rest;
    va_start(rest, first);
    for (const char *word = first; word; word = va_arg(rest, const char *))
        json_array_append_new(words, json_string(word));
    va_end(rest);
    return words;
}

char *steps_find(const char *program, struct error *err)
{
    static const struct {
        const char *program, *package;
    } packages[] = {{"ip", "iproute2"}, {"nft", "nftables"}, {"dnsmasq", "dnsmasq-base"}};
    const char *path = getenv("PATH"), *package = program;
    char *copy, *rest, *folder, *found = NULL;
    CHECK(asprintf(&copy, "%s:/usr/sbin:/sbin:/usr/bin:/bin", path ? path : "") > 0);
    for (rest = copy; !found && (folder = strsep(&rest, ":"));) {
        CHECK(asprintf(&found, "%s/%s", folder, program) > 0);
        if (*folder == '/' && access(found, X_OK) == 0)
            break;
        free(found);
        found = NULL;
    }
    free(copy);
    for (size_t i = 0; i < ARRAY_SIZE(packages); i++)
        if (strcmp(packages[i].program, program) == 0)
            package = packages[i].package;
    if (!found)
        error_set(err, ENOENT, "the program %s is not there: as root, apt-get install %s", program,
                  package);
    return found;
}

/* "ip link add ...", for errors; of a long text only its beginning. */
static void show_words(const json_t *words, char *text, size_t size)
{
    size_t at = 0, i;
    json_t *word;
    *text = '\0';
    json_array_foreach(words, i, word) if (at < size) at +=
        (size_t)snprintf(text + at, size - at, "%s%.60s", i ? " " : "", json_string_value(word));
    text[strcspn(text, "\n{")] = '\0';
}

/* Takes words. */
static int run(json_t *words, char **output, struct error *err)
{
    char shown[160];
    char *program = steps_find(json_string_value(json_array_get(words, 0)), err);
    show_words(words, shown, sizeof(shown));
    if (!program) {
        json_decref(words);
        return -ENOENT;
    }
    json_array_remove(words, 0);
    int result = run_program(program, words, NULL, output, err);
    if (result)
        error_prefix(err, "'%s'", shown);
    free(program);
    return result;
}

int steps_run(json_t *undo, json_t *words, json_t *reverse, struct error *err)
{
    int result = run(words, NULL, err);
    if (!result && reverse)
        json_array_append_new(undo, json_pack("{s:O}", "run", reverse));
    json_decref(reverse);
    return result;
}

json_t *steps_ask(json_t *words, struct error *err)
{
    char *output = NULL;
    json_t *answer = NULL;
    if (run(words, &output, err) == 0) {
        answer = json_loads(output && *output ? output : "[]", 0, NULL);
        if (!answer)
            error_set(err, EBADMSG, "'ip -json' gave something else than JSON");
    }
    free(output);
    return answer;
}

static int write_text(const char *path, const char *value, struct error *err)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t written = fd < 0 ? -1 : write(fd, value, strlen(value));
    int code = errno;
    if (fd >= 0)
        close(fd);
    return written < 0 ? error_set_errno(err, code, "cannot write %s", path) : 0;
}

int steps_write(json_t *undo, const char *path, const char *value, struct error *err)
{
    size_t length;
    char *before = store_read_file(path, 4096, &length, err);
    if (!before)
        return -err->code;
    before[strcspn(before, "\n")] = '\0';
    int result = strcmp(before, value) == 0 ? 0 : write_text(path, value, err);
    if (!result && strcmp(before, value) != 0)
        json_array_append_new(undo, json_pack("{s:s, s:s}", "path", path, "value", before));
    free(before);
    return result;
}

void steps_end_process(json_t *undo, const char *program, const char *pid_file)
{
    json_array_append_new(undo, json_pack("{s:s, s:s}", "program", program, "pid-file", pid_file));
}

void steps_keep(json_t *undo, const char *path)
{
    char *now = store_read_file(path, 4096, NULL, NULL);
    if (now) {
        now[strcspn(now, "\n")] = '\0';
        json_array_append_new(undo, json_pack("{s:s, s:s}", "path", path, "value", now));
    }
    free(now);
}

void steps_boot_id(char out[64])
{
    char *text = store_read_file("/proc/sys/kernel/random/boot_id", 4096, NULL, NULL);
    snprintf(out, 64, "%.*s", text ? (int)strcspn(text, "\n") : 0, text ? text : "");
    free(text);
}

/* The process of that number, if it is what we started and has not ended. */
static pid_t find_process(const char *program, const char *pid_file)
{
    char path[64], comm[32] = "", state = 'Z';
    char *text = store_read_file(pid_file, 64, NULL, NULL);
    pid_t pid = text ? (pid_t)strtol(text, NULL, 10) : 0;
    free(text);
    if (pid <= 1)
        return 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    text = store_read_file(path, 4096, NULL, NULL);
    bool is_it = text && sscanf(text, "%*d (%31[^)]) %c", comm, &state) == 2 &&
                 strncmp(comm, program, strlen(program)) == 0 && state != 'Z' && state != 'X';
    free(text);
    return is_it ? pid : 0;
}

bool steps_is_alive(const char *program, const char *pid_file)
{
    return find_process(program, pid_file) != 0;
}

void steps_stop_process(const char *program, const char *pid_file)
{
    pid_t pid = find_process(program, pid_file);
    if (pid && kill(pid, SIGTERM) == 0)
        for (int i = 0; i < END_TRIES && find_process(program, pid_file) == pid; i++)
            usleep(END_WAIT_US);
    unlink(pid_file);
}

static void reverse_one(const json_t *entry)
{
    json_t *words = json_object_get(entry, "run");
    if (words)
        unused_result(run(json_deep_copy(words), NULL, NULL));
    else if (json_object_get(entry, "pid-file"))
        steps_stop_process(model_text(entry, "program"), model_text(entry, "pid-file"));
    else
        unused_result(write_text(model_text(entry, "path"), model_text(entry, "value"), NULL));
}

void steps_undo(json_t *undo)
{
    for (size_t i = json_array_size(undo); i-- > 0;)
        reverse_one(json_array_get(undo, i));
    json_array_clear(undo);
}

void steps_shield(void)
{
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
}

bool steps_interface_exists(const char *name)
{
    return if_nametoindex(name) != 0;
}
