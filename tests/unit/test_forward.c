/* SPDX-License-Identifier: MIT */
/* Rules of forwards as people write them, read and written again. */
#include "vmm/options/forward.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/unit/test.h"

/* What the rule reads as, written again; NULL if it is refused. */
static char *again(const char *rule, bool has_guest)
{
    struct config_forward forward;
    char *text = NULL;
    if (forward_parse(rule, has_guest, &forward)) {
        const struct net_forward net = forward_for_net(&forward);
        text = forward_text(&net);
    }
    forward_fini(&forward);
    return text;
}

static char *again_guest(const char *rule, bool has_target)
{
    struct config_guest_forward forward;
    char *text = NULL;
    if (forward_parse_guest(rule, has_target, &forward)) {
        const struct net_guest_forward net = forward_guest_for_net(&forward);
        text = forward_text_guest(&net);
    }
    forward_fini_guest(&forward);
    return text;
}

static void check(char *text, const char *wanted)
{
    if (!text)
        fail_msg("'%s' was refused", wanted);
    assert_string_equal(text, wanted);
    free(text);
}

static void test_rules_of_the_host(void **state)
{
    (void)state;
    check(again("tcp::2222-:22", true), "tcp:127.0.0.1:2222-:22");
    check(again("::2222-:22", true), "tcp:127.0.0.1:2222-:22");
    check(again("udp:0.0.0.0:53-10.0.2.16:5353", true), "udp:0.0.0.0:53-10.0.2.16:5353");
    check(again("tcp:[::1]:2222-[fec0::15]:22", true), "tcp:[::1]:2222-[fec0::15]:22");
    check(again("unix:/run/a-b.sock-:22", true), "unix:/run/a-b.sock-:22");
    check(again("unix:/run/a.sock-10.0.2.16:22", true), "unix:/run/a.sock-10.0.2.16:22");
    check(again("tcp::2222", false), "tcp:127.0.0.1:2222-:0");
    check(again("unix:/run/a-b.sock", false), "unix:/run/a-b.sock-:0");
}

static void test_rules_that_are_none(void **state)
{
    (void)state;
    static const char *const rules[] = {
        "",
        "tcp",
        "tcp:",
        "2222-:22",
        "tcp::2222",
        "tcp::2222-",
        "tcp::2222-22",
        "tcp::0-:22",
        "tcp::65536-:22",
        "tcp::2222-:22x",
        "tcp:host:2222-:22",
        "tcp:::1:2222-:22",
        "tcp:[::1:2222-:22",
        "tcp:[]:2222-:22",
        "tcp:[127.0.0.1]:2222-:22",
        "sctp::2222-:22",
        "unix:-:22",
        "unix:/run/a.sock",
        "unix:/run/a.sock-22",
    };
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
        if (again(rules[i], true))
            fail_msg("'%s' was taken", rules[i]);
    assert_null(again("tcp::2222-:22", false));
}

static void test_rules_of_the_guest(void **state)
{
    (void)state;
    check(again_guest("tcp:10.0.2.100:80-cmd:sh -c 'nc a-b 1'", true),
          "tcp:10.0.2.100:80-cmd:sh -c 'nc a-b 1'");
    check(again_guest(":10.0.2.100:80-tcp:127.0.0.1:8080", true),
          "tcp:10.0.2.100:80-tcp:127.0.0.1:8080");
    check(again_guest("tcp::80-tcp:localhost:8080", true), "tcp::80-tcp:127.0.0.1:8080");
    check(again_guest("tcp::80-tcp:[::1]:8080", true), "tcp::80-tcp:[::1]:8080");
    check(again_guest("tcp:10.0.2.100:80-unix:/run/a-b", true), "tcp:10.0.2.100:80-unix:/run/a-b");
    static const char *const rules[] = {
        "",
        "udp:10.0.2.100:80-cmd:x",
        "tcp:10.0.2.100:80",
        "tcp:10.0.2.100:80-",
        "tcp:10.0.2.100:80-cmd:",
        "tcp:10.0.2.100:80-unix:",
        "tcp:10.0.2.100:80-tcp:8080",
        "tcp:10.0.2.100:80-tcp:name:8080",
        "tcp:10.0.2.100:80-pipe:x",
        "tcp:10.0.2.100-cmd:x",
    };
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
        if (again_guest(rules[i], true))
            fail_msg("'%s' was taken", rules[i]);
    assert_null(again_guest("tcp:10.0.2.100:80-cmd:x", false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules_of_the_host),
        cmocka_unit_test(test_rules_that_are_none),
        cmocka_unit_test(test_rules_of_the_guest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
