/* SPDX-License-Identifier: MIT */
/* evctl: reads the command line, runs the command, and turns its result into an exit status. */
#include "tools/evctl/evctl.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <string.h>

#include "config.h"
#include "tools/evctl/interrupt.h"
#include "tools/evctl/tell.h"

static enum evctl_status status_of(int code)
{
    switch (code < 0 ? -code : code) {
    case 0:
        return EVCTL_OK;
    case EINVAL:
        return EVCTL_USAGE;
    case ENODEV:
        return EVCTL_NOT_FOUND;
    case ENOTCONN:
    case EISCONN:
        return EVCTL_WRONG_STATE;
    case EBUSY:
        return EVCTL_BUSY;
    case ETIMEDOUT:
        return EVCTL_TIMEOUT;
    case ENOTSUP:
        return EVCTL_UNSUPPORTED;
    default:
        return EVCTL_FAILED;
    }
}

static int fail(int result, const struct error *err)
{
    int status = (int)status_of(result);
    tell_error("%s", err->text);
    if (tell_is_json())
        tell_json(json_pack("{s:{s:i, s:s}}", "error", "status", status, "message", err->text));
    return status;
}

static int run(int argc, char **argv, struct error *err)
{
    static struct evctl_call call;
    int result = parse_call(argc, argv, &call, err);
    tell_set_mode(call.json, call.quiet);
    if (result)
        return result;
    if (call.help) {
        help_print_command(stdout, call.command);
        return 0;
    }
    result = call.command->run(&call, err);
    if (!result && (fflush(stdout) || ferror(stdout)))
        result = error_set(err, EIO, "cannot write to standard output");
    return result;
}

int main(int argc, char **argv)
{
    struct error err = {0};
    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN);
    interrupt_catch();
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help_print_all(argc < 2 ? stderr : stdout);
        return argc < 2 ? EVCTL_USAGE : EVCTL_OK;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("evctl version %s\n", EVISOR_VERSION);
        return EVCTL_OK;
    }
    /* --json before the command is understood too. */
    int first = 1;
    char *words[EVCTL_ARGUMENTS_MAX + 2];
    if (strcmp(argv[1], "--json") == 0 && argc > 2 && argc <= EVCTL_ARGUMENTS_MAX) {
        first = 2;
        words[argc - 2] = argv[1];
    }
    if (argc - first > EVCTL_ARGUMENTS_MAX) {
        tell_error("more than %d words; use a shorter command line", EVCTL_ARGUMENTS_MAX);
        return EVCTL_USAGE;
    }
    memcpy(words, argv + first, (size_t)(argc - first) * sizeof(*words));
    int result = run(argc - 1, words, &err);
    int status = result ? fail(result, &err) : EVCTL_OK;
    if (result && interrupt_is_pending()) {
        fflush(NULL);
        interrupt_end();
    }
    return status;
}
