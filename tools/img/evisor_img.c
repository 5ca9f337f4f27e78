/* SPDX-License-Identifier: MIT */
/* evisor_img: finds the subcommand, prints help, and otherwise stays out of the way. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "config.h"
#include "tools/img/img.h"

static const struct img_command *const commands[] = {
    &img_amend_command,  &img_bench_command,   &img_bitmap_command,  &img_check_command,
    &img_commit_command, &img_compare_command, &img_convert_command, &img_create_command,
    &img_dd_command,     &img_info_command,    &img_map_command,     &img_measure_command,
    &img_rebase_command, &img_resize_command,  &img_serve_command,   &img_snapshot_command,
};

static const struct img_command *running;

int img_help(void)
{
    printf("usage: evisor-img %s %s\n\n%s", running->name, running->synopsis, running->help);
    return 0;
}

static void print_version(void)
{
    printf("evisor-img version %s\n", EVISOR_VERSION);
}

static void print_help(void)
{
    print_version();
    puts("usage: evisor-img [standard options] command [command options]\n"
         "Makes, looks into, checks and converts disk images, with the words of qemu-img.\n"
         "\n"
         "    '-h', '--help'       display this help and exit\n"
         "    '-V', '--version'    output version information and exit\n"
         "\n"
         "Commands ('evisor-img COMMAND --help' tells more about each):");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        printf("  %s %s\n", commands[i]->name, commands[i]->synopsis);
    puts("\n"
         "Sizes are in bytes, or with a suffix k, M, G, T, P or E (powers of 1024).\n"
         "Formats: raw, qcow2, vdi, vmdk, vpc, vhdx. See also: evisor-img(1).");
}

static const struct img_command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (!strcmp(commands[i]->name, name))
            return commands[i];
    return NULL;
}

static int run_command(int argc, char **argv)
{
    struct loop loop;
    running = find_command(argv[0]);
    if (!running)
        return img_usage("Command not found: %s", argv[0]);
    if (loop_init(&loop))
        return img_error("cannot set up an event loop; are file descriptors exhausted?");
    int status = running->run(&loop, argc, argv);
    loop_fini(&loop);
    if (fflush(stdout) || ferror(stdout))
        return img_error("cannot write to standard output");
    return status;
}

int main(int argc, char **argv)
{
    log_set_program("evisor-img");
    if (argc)
        img_set_program(argv[0]);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* too large a file is an error, not the end */
    if (argc < 2)
        return img_usage("Not enough arguments");
    if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help")) {
        print_help();
        return 0;
    }
    if (!strcmp(argv[1], "-V") || !strcmp(argv[1], "--version")) {
        print_version();
        return 0;
    }
    if (argv[1][0] == '-')
        return img_bad_option('?', argv[1]);
    return run_command(argc - 1, argv + 1);
}
