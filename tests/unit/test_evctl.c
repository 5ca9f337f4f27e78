/* SPDX-License-Identifier: MIT */
/* test_evctl: the parts of evctl that need no machine: command line, rules, descriptions, XML,
 * seed. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/unit/random.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/model.h"
#include "tools/evctl/portable.h"
#include "tools/evctl/seed.h"
#include "tools/evctl/store.h"
#include "tools/evctl/xml.h"

static int parse(struct evctl_call *call, struct error *err, const char *line)
{
    static char copy[1024];
    char *words[32], *rest = copy;
    int count = 0;
    snprintf(copy, sizeof(copy), "%s", line);
    *err = (struct error){0};
    while ((words[count] = strsep(&rest, "|")))
        count++;
    return parse_call(count, words, call, err);
}

static void test_options_anywhere_and_in_any_form(void **state)
{
    (void)state;
    struct evctl_call call;
    struct error err;
    uint64_t number = 0;
    assert_int_equal(parse(&call, &err, "create|-c|2|web|--memory=1.5G|--disk|1G|-d2G|--json"), 0);
    assert_string_equal(call.command->name, "create");
    assert_string_equal(call.arguments[0], "web");
    assert_int_equal(call.argument_count, 1);
    assert_true(call.json);
    assert_int_equal(call_uint(&call, "cpus", 1, 8, &number, &err), 0);
    assert_int_equal(number, 2);
    assert_int_equal(call_size(&call, "memory", &number, &err), 0);
    assert_int_equal(number, 3 * GIB / 2);
    assert_string_equal(call_nth(&call, "disk", 0), "1G");
    assert_string_equal(call_nth(&call, "disk", 1), "2G");
    assert_null(call_nth(&call, "disk", 2));
    assert_string_equal(call_get(&call, "disk"), "2G");
    assert_int_equal(parse(&call, &err, "create|--|--web"), 0);
    assert_string_equal(call.arguments[0], "--web");
    assert_int_equal(parse(&call, &err, "ssh|web|-v|ls|-l"), 0);
    assert_int_equal(call.argument_count, 4);
}

static void test_wrong_command_lines_are_named(void **state)
{
    (void)state;
    static const char *const lines[][2] = {
        {"creat|web", "'create'"},
        {"start", "NAME"},
        {"start|a|b", "'b'"},
        {"start|--pasued|a", "--paused"},
        {"start|-z|a", "'-z'"},
        {"start|a|--paused=yes", "no value"},
        {"start|a|--timeout", "SECONDS"},
        {"disk", "create, resize, flatten, info"},
        {"disk|resise|a", "'disk resize'"},
        {"modifyvm|a", "'set'"},
        {"", "evctl help"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        struct evctl_call call;
        struct error err;
        assert_int_equal(parse(&call, &err, lines[i][0]), -EINVAL);
        if (!strstr(err.text, lines[i][1]))
            fail_msg("'%s' gave: %s", lines[i][0], err.text);
    }
}

static void test_sizes(void **state)
{
    (void)state;
    uint64_t bytes;
    assert_true(parse_size("512", MIB, &bytes) && bytes == 512 * MIB);
    assert_true(parse_size("2g", MIB, &bytes) && bytes == 2 * GIB);
    assert_true(parse_size("1.5GiB", MIB, &bytes) && bytes == 3 * GIB / 2);
    assert_true(parse_size("1TB", MIB, &bytes) && bytes == TIB);
    static const char *const wrong[] = {"",  "-1",   "G",   "1X",    "1GG",
                                        "0", "1e99", "nan", "0x10Q", " 1"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_false(parse_size(wrong[i], MIB, &bytes));
}

/* Completion, help and manual hang on these. */
static void test_the_table_is_whole(void **state)
{
    (void)state;
    for (unsigned i = 0; i < evctl_command_count; i++) {
        const struct evctl_command *command = &evctl_commands[i];
        assert_non_null(command->run);
        assert_true(command->min_arguments <= command->max_arguments);
        assert_true(!command->summary || command->example);
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(command->name, evctl_commands[k].name);
        for (const struct evctl_option *a = command->options; a && a->name; a++)
            for (const struct evctl_option *b = command->options; b != a; b++)
                assert_true(strcmp(a->name, b->name) != 0 &&
                            (!a->letter || a->letter != b->letter));
    }
}

static void test_forward_rules(void **state)
{
    (void)state;
    static const char *const good[][2] = {
        {"2222:22", "tcp:127.0.0.1:2222-:22"},
        {"udp:53:5353", "udp:127.0.0.1:53-:5353"},
        {"0.0.0.0:80:8080", "tcp:0.0.0.0:80-:8080"},
        {"tcp:127.0.0.1:1-10.0.2.15:2", "tcp:127.0.0.1:1-10.0.2.15:2"},
        {"tcp::2222-:22", "tcp:127.0.0.1:2222-:22"},
    };
    static const char *const wrong[] = {"",        "22",      "a:b",          "0:1",  "1:65536",
                                        "x:1:2",   "1:2:3:4", "tcp:1",        "-",    "1-",
                                        "1.2.3:1", "::",      "tcp:1.2.3.4:", "1 :2", "1:2,x"};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        char *rule = model_read_forward(good[i][0], NULL);
        assert_non_null(rule);
        assert_string_equal(rule, good[i][1]);
        free(rule);
    }
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct error err = {0};
        char *rule = model_read_forward(wrong[i], &err);
        if (rule)
            fail_msg("'%s' was taken as %s", wrong[i], rule);
        assert_int_equal(err.code, EINVAL);
    }
}

static void test_names(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(store_check_name("web 1, \xc3\xbc", &err), 0);
    static const char *const wrong[] = {"", ".", "..", "-x", "a/b", "a\tb", "\xff", "x\x7f"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_int_equal(store_check_name(wrong[i], &err), -EINVAL);
}

static void test_descriptions(void **state)
{
    (void)state;
    struct error err = {0};
    json_t *config = model_new("web", "linux");
    assert_int_equal(model_add_nic(config, "user,mac=52:54:00:00:00:01,forward=1:2", &err), 0);
    assert_int_equal(model_add_nic(config, "bridge=br0", &err), 0);
    model_add_disk(config, "disk", "disk0.qcow2", "qcow2");
    assert_int_equal(model_check(config, &err), 0);
    assert_int_equal(model_add_nic(config, "user,mac=01:00:00:00:00:00", &err), -EINVAL);
    assert_int_equal(model_add_nic(config, "user,speed=1", NULL), -EINVAL);
    assert_int_equal(json_array_size(json_object_get(config, "nics")), 2);
    char *uuid = strdup(model_text(config, "uuid"));
    model_renew(config, "copy");
    assert_string_not_equal(uuid, model_text(config, "uuid"));
    assert_string_not_equal("52:54:00:00:00:01",
                            model_text(model_find(config, "nics", "net0"), "mac"));
    assert_int_equal(model_remove(config, "nics", "net0", &err), 0);
    assert_int_equal(model_remove(config, "nics", "net0", &err), -ENODEV);
    free(uuid);
    json_decref(config);
}

/* Documents with random damage: refused or read, never more. */
static void test_damaged_documents(void **state)
{
    (void)state;
    static const char whole[] =
        "<?xml version=\"1.0\"?><Envelope xmlns:o=\"u\"><References><File o:id=\"f\" o:href=\"d\"/>"
        "</References><DiskSection><Disk o:diskId=\"d\" o:fileRef=\"f\"/></DiskSection>"
        "<VirtualSystem o:id=\"x\"><Item><ResourceType>17</ResourceType><HostResource>ovf:/disk/d"
        "</HostResource></Item><Item><ResourceType>4</ResourceType><AllocationUnits>byte * 2^20"
        "</AllocationUnits><VirtualQuantity>64</VirtualQuantity></Item></VirtualSystem></Envelope>";
    static const char *const suffixes[] = {"ovf", "vbox", "vmx"};
    char folder[] = "/tmp/evctl-test-XXXXXX", path[64];
    struct random random = {1};
    assert_non_null(mkdtemp(folder));
    for (int round = 0; round < 600; round++) {
        char text[sizeof(whole)];
        memcpy(text, whole, sizeof(whole));
        for (int i = 0; i < round % 5; i++)
            text[random_below(&random, sizeof(whole) - 1)] = (char)random_next(&random);
        snprintf(path, sizeof(path), "%s/x.%s", folder, suffixes[round % 3]);
        FILE *file = fopen(path, "we");
        fwrite(text, 1, sizeof(text) - 1, file);
        fclose(file);
        struct error err = {0};
        json_t *plan = portable_read(path, &err);
        assert_true(plan || err.code);
        if (round == 0) {
            assert_int_equal(model_number(plan, "memory-mib"), 64);
            assert_int_equal(json_array_size(json_object_get(plan, "disks")), 1);
        }
        json_decref(plan);
        unlink(path);
    }
    rmdir(folder);
}

static void test_an_export_reads_back(void **state)
{
    (void)state;
    char path[] = "/tmp/evctl-test-XXXXXX.ovf";
    struct portable_disk disks[] = {{.file = "disk0.vmdk", .capacity_bytes = 5}};
    json_t *config = model_new("a <b> & \"c\"", "linux");
    assert_int_equal(model_add_nic(config, "user", NULL), 0);
    int fd = mkstemps(path, 4);
    FILE *file = fdopen(fd, "we");
    portable_write_ovf(file, config, disks, 1);
    fclose(file);
    struct error err = {0};
    json_t *plan = portable_read(path, &err);
    assert_non_null(plan);
    assert_string_equal(model_text(plan, "name"), "a <b> & \"c\"");
    assert_int_equal(model_number(plan, "memory-mib"), model_number(config, "memory-mib"));
    assert_string_equal(model_text(json_array_get(json_object_get(plan, "disks"), 0), "file"),
                        "disk0.vmdk");
    json_decref(plan);
    json_decref(config);
    unlink(path);
}

/* By the offsets of ECMA-119, which a reader follows. */
static void test_the_seed_is_an_iso_image(void **state)
{
    (void)state;
    char path[] = "/tmp/evctl-test-XXXXXX";
    static uint8_t image[64 * 2048];
    char *big = calloc(1, 5001);
    memset(big, 'x', 5000);
    const struct seed_file files[] = {{(char *)"meta-data", (char *)"instance-id: 1\n"},
                                      {(char *)"user-data", big}};
    struct error err = {0};
    close(mkstemp(path));
    assert_int_equal(seed_write(path, files, 2, &err), 0);
    FILE *file = fopen(path, "re");
    size_t length = fread(image, 1, sizeof(image), file);
    fclose(file);
    const uint8_t *joliet = image + 17 * 2048, *folder = image + load_le32(joliet + 156 + 2) * 2048;
    assert_memory_equal(image + 16 * 2048, "\1CD001\1", 7);
    assert_memory_equal(image + 18 * 2048, "\377CD001\1", 7);
    assert_int_equal(load_le32(joliet + 80) * 2048, length);
    for (int i = 0; i < 2; i++)
        folder += folder[0];
    for (int i = 0; i < 2; i++, folder += folder[0]) {
        assert_int_equal(folder[32], 18);
        for (int c = 0; c < 9; c++)
            assert_int_equal(load_be16(folder + 33 + 2 * c), files[i].name[c]);
        assert_int_equal(load_le32(folder + 10), strlen(files[i].text));
        assert_int_equal(load_be32(folder + 14), strlen(files[i].text));
        assert_memory_equal(image + load_le32(folder + 2) * 2048, files[i].text,
                            strlen(files[i].text));
    }
    assert_int_equal(folder[0], 0);
    unlink(path);
    free(big);
}

static void put_file(const char *path, const uint8_t *bytes, size_t length)
{
    FILE *file = fopen(path, "we");
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    fclose(file);
}

/* Whole images read back; of broken ones it takes what it can, or nothing. */
static void test_seeds_read_back_and_may_be_anything(void **state)
{
    (void)state;
    char path[] = "/tmp/evctl-test-XXXXXX";
    static uint8_t image[64 * 2048];
    const struct seed_file files[] = {{(char *)"meta-data", (char *)"instance-id: 1\n"},
                                      {(char *)"user-data", (char *)""}};
    struct seed_file read[SEED_FILES_MAX];
    struct error err = {0};
    close(mkstemp(path));
    assert_int_equal(seed_write(path, files, 2, &err), 0);
    assert_int_equal(seed_read(path, read), 2);
    for (int i = 0; i < 2; i++)
        assert_string_equal(seed_find(read, 2, files[i].name)->text, files[i].text);
    assert_null(seed_find(read, 2, "vendor-data"));
    seed_free(read, 2);
    FILE *file = fopen(path, "re");
    size_t length = fread(image, 1, sizeof(image), file);
    fclose(file);
    unsigned seed = 1;
    for (int round = 0; round < 3000; round++) {
        /* Where numbers are: the Joliet descriptor and its folder. */
        size_t at = (round % 2 ? 17 : 24) * 2048 + (size_t)rand_r(&seed) % 256;
        uint8_t was = image[at];
        image[at] = (uint8_t)rand_r(&seed);
        put_file(path, image, round % 5 ? length : length - (size_t)rand_r(&seed) % 4096);
        seed_free(read, seed_read(path, read));
        image[at] = was;
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_anywhere_and_in_any_form),
        cmocka_unit_test(test_wrong_command_lines_are_named),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_the_table_is_whole),
        cmocka_unit_test(test_forward_rules),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_descriptions),
        cmocka_unit_test(test_damaged_documents),
        cmocka_unit_test(test_an_export_reads_back),
        cmocka_unit_test(test_the_seed_is_an_iso_image),
        cmocka_unit_test(test_seeds_read_back_and_may_be_anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
