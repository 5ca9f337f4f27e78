/* SPDX-License-Identifier: MIT */
/* slirp_library: the functions of libslirp, which is loaded for the first network that needs it. */
#ifndef NETBACKENDS_SLIRP_LIBRARY_H
#define NETBACKENDS_SLIRP_LIBRARY_H

#include <slirp/libslirp.h>

#include "base/error.h"

#define SLIRP_LIBRARY_FUNCTIONS(FUNCTION)                                                          \
    FUNCTION(add_exec)                                                                             \
    FUNCTION(add_hostxfwd)                                                                         \
    FUNCTION(add_unix)                                                                             \
    FUNCTION(cleanup)                                                                              \
    FUNCTION(connection_info)                                                                      \
    FUNCTION(handle_timer)                                                                         \
    FUNCTION(input)                                                                                \
    FUNCTION(new)                                                                                  \
    FUNCTION(pollfds_fill)                                                                         \
    FUNCTION(pollfds_poll)                                                                         \
    FUNCTION(remove_guestfwd)                                                                      \
    FUNCTION(remove_hostxfwd)

/* libslirp.input is slirp_input, and so on. */
struct slirp_library {
#define SLIRP_LIBRARY_MEMBER(name) __typeof__(slirp_##name) *name;
    SLIRP_LIBRARY_FUNCTIONS(SLIRP_LIBRARY_MEMBER)
#undef SLIRP_LIBRARY_MEMBER
};

extern struct slirp_library libslirp;

/* Before the first use of `libslirp`; on the loop's thread. */
int must_check slirp_library_load(struct error *err);

#endif
