/* SPDX-License-Identifier: MIT */
/* library: opens a shared library and looks its functions up. */
#include "base/library.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

/* Functions are bound when they are first called: few of a library's are. */
static int open_library(const struct library *library, void **handle, struct error *err)
{
    *handle = dlopen(library->file, RTLD_LAZY | RTLD_LOCAL);
    if (*handle)
        return 0;
    return error_set(err, ENOENT, "cannot load %s (%s): apt-get install %s", library->file,
                     dlerror(), library->package);
}

int library_load(struct library *library, struct error *err)
{
    void *handle;
    if (library->is_loaded)
        return 0;
    int result = open_library(library, &handle, err);
    if (result)
        return result;
    for (size_t i = 0; i < library->function_count; i++) {
        const struct library_function *function = &library->functions[i];
        void *found = dlsym(handle, function->name);
        if (!found) {
            dlclose(handle);
            return error_set(err, ENOSYS, "%s has no %s: it is too old: apt-get install a newer %s",
                             library->file, function->name, library->package);
        }
        memcpy(function->address, &found, sizeof(found));
    }
    library->is_loaded = true;
    return 0;
}
