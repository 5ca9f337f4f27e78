/* SPDX-License-Identifier: MIT */
/* slirp_library: which of libslirp's functions go where, and where they come from. */
#include "netbackends/slirp_library.h"

#include "base/library.h"

struct slirp_library libslirp;

#define FUNCTION(function) {"slirp_" #function, &libslirp.function},

int slirp_library_load(struct error *err)
{
    static const struct library_function functions[] = {SLIRP_LIBRARY_FUNCTIONS(FUNCTION)};
    static struct library library = {
        .file = "libslirp.so.0",
        .package = "libslirp0",
        .functions = functions,
        .function_count = ARRAY_SIZE(functions),
    };
    return library_load(&library, err);
}
