/* SPDX-License-Identifier: MIT */
/* options_rig: command lines for tests: taken, refused with a sentence, or answered with text. */
#ifndef TESTS_OPTIONS_RIG_H
#define TESTS_OPTIONS_RIG_H

#include "vmm/options/options.h"

/* What the last command line came to. */
extern struct vm_config config;
extern struct error err;
extern char *text;

/* Reads a command line that is written as a shell would read it: words, and '...' around some. */
int parse(const char *line);
void take(const char *line);
/* Refused, with `part` in the sentence, which is one line. */
void refuse(const char *line, const char *part);
void prints(const char *line, const char *part);
/* Of each test. */
int tear_down(void **state);

#endif
