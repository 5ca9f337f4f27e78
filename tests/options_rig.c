/* SPDX-License-Identifier: MIT */
#include "tests/options_rig.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/test.h"

struct vm_config config;
struct error err;
char *text;

/* Reads a command line that is written as a shell would read it: words, and '...' around some. */
int parse(const char *line)
{
    char *copy = strdup(line), *argv[96] = {"evisor"}, *at = copy;
    int argc = 1;
    while (*(at += strspn(at, " "))) {
        char end = *at == '\'' ? '\'' : ' ';
        at += end == '\'';
        argv[argc++] = at;
        at += strcspn(at, end == ' ' ? " " : "'");
        if (*at)
            *at++ = 0;
    }
    vm_config_fini(&config);
    free(text);
    text = NULL;
    memset(&err, 0, sizeof(err));
    int result = options_parse(argc, argv, &config, &text, &err);
    free(copy);
    return result;
}

int tear_down(void **state)
{
    (void)state;
    vm_config_fini(&config);
    free(text);
    text = NULL;
    return 0;
}

void take(const char *line)
{
    if (parse(line))
        fail_msg("%s\n  %s", line, err.text);
    assert_null(text);
}

/* Refused, with `part` in the sentence, which is one line. */
void refuse(const char *line, const char *part)
{
    if (!parse(line))
        fail_msg("accepted: %s", line);
    if (!strstr(err.text, part))
        fail_msg("%s\n  '%s' lacks '%s'", line, err.text, part);
    assert_null(strchr(err.text, '\n'));
    assert_null(text);
    assert_null(config.kernel);
}

void prints(const char *line, const char *part)
{
    if (parse(line))
        fail_msg("%s\n  %s", line, err.text);
    assert_non_null(text);
    if (!strstr(text, part))
        fail_msg("%s printed '%s'", line, text);
}
