/* SPDX-License-Identifier: MIT */
/* store: folders, locks and states of machines. */
#include "tools/evctl/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/evctl/interrupt.h"
#include "tools/evctl/model.h"
#include "tools/evctl/scratch.h"
#include "tools/evctl/tell.h"
#include "base/suggest.h"

#define LOCK_PATIENCE_MS 5000
#define LOCK_LOOK_MS     20

/* --- where --- */

static int make_folders(char *path, struct error *err)
{
    for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash)
            *slash = '\0';
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
            return error_set_errno(err, errno, "cannot make the folder %s for machines", path);
        if (!slash)
            return 0;
        *slash = '/';
    }
}

char *store_path(const char *name, struct error *err)
{
    const char *base = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    const char *slash = name ? "/" : "";
    char *path = NULL;
    name = name ? name : "";
    if (base && *base == '/')
        CHECK(asprintf(&path, "%s/evisor%s%s", base, slash, name) > 0);
    else if (home && *home == '/')
        CHECK(asprintf(&path, "%s/.local/share/evisor%s%s", home, slash, name) > 0);
    else
        error_set(err, ENOENT,
                  "there is no home folder to keep machines in; set HOME or XDG_DATA_HOME");
    return path;
}

char *store_root(struct error *err)
{
    char *path = store_path(NULL, err);
    if (path && make_folders(path, err)) {
        free(path);
        return NULL;
    }
    return path;
}

int store_check_name(const char *name, struct error *err)
{
    static const char rule[] =
        "use 1 to 64 bytes without '/' and control characters, and neither '.' nor '-' first";
    size_t length = strlen(name);
    json_t *text = json_string(name); /* NULL if it is not UTF-8 */
    bool ok = text && length >= 1 && length <= STORE_NAME_MAX && !strchr(".-", name[0]) &&
              !strchr(name, '/');
    json_decref(text);
    for (size_t i = 0; ok && i < length; i++)
        ok = (unsigned char)name[i] >= 0x20 && name[i] != 0x7f;
    return ok ? 0 : error_set(err, EINVAL, "'%s' cannot be a machine's name: %s", name, rule);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(json_string_value(*(json_t *const *)a), json_string_value(*(json_t *const *)b));
}

static json_t *sorted(json_t *names)
{
    size_t count = json_array_size(names);
    json_t **list = calloc(count + 1, sizeof(*list)), *result = json_array();
    CHECK(list && result);
    for (size_t i = 0; i < count; i++)
        list[i] = json_array_get(names, i);
    qsort(list, count, sizeof(*list), compare_names);
    for (size_t i = 0; i < count; i++)
        json_array_append(result, list[i]);
    free(list);
    json_decref(names);
    return result;
}

/* A folder, one that may not be entered too, or a link to where a folder may be again. */
static bool may_be_machine(int root_fd, const struct dirent *entry)
{
    struct stat status;
    if (store_check_name(entry->d_name, NULL) || entry->d_type == DT_REG)
        return false;
    if (entry->d_type == DT_DIR)
        return true;
    return fstatat(root_fd, entry->d_name, &status, 0) < 0
               ? errno != ENOENT || entry->d_type == DT_LNK
               : S_ISDIR(status.st_mode);
}

json_t *store_names(struct error *err)
{
    char *root = store_root(err);
    DIR *folder = root ? opendir(root) : NULL;
    if (root && !folder)
        error_set_errno(err, errno, "cannot look into %s", root);
    free(root);
    if (!folder)
        return NULL;
    json_t *names = json_array();
    for (struct dirent *entry; (entry = readdir(folder));)
        if (may_be_machine(dirfd(folder), entry))
            json_array_append_new(names, json_string(entry->d_name));
    closedir(folder);
    return sorted(names);
}

const char *store_nearest(const json_t *names, const char *wanted)
{
    struct suggest suggest;
    const json_t *known;
    size_t i;
    suggest_init(&suggest, wanted);
    json_array_foreach(names, i, known) suggest_offer(&suggest, json_string_value(known));
    return suggest.best;
}

/* --- opening --- */

static int not_found(const char *name, struct error *err)
{
    json_t *names = store_names(NULL);
    const char *nearest = store_nearest(names, name);
    if (nearest)
        error_set(err, ENODEV, "there is no machine '%s'; did you mean '%s'?", name, nearest);
    else
        error_set(err, ENODEV,
                  "there is no machine '%s'; 'evctl list' shows those that are, 'evctl create' "
                  "makes one",
                  name);
    json_decref(names);
    return -ENODEV;
}

static int set_broken(struct machine *machine, const char *why, int line, struct error *err)
{
    return error_set(err, EBADMSG,
                     "the machine '%s' cannot be read: %s/%s, line %d: %s; repair that file, or "
                     "remove the machine with: evctl delete --force",
                     machine->name, machine->folder, STORE_CONFIG_FILE, line, why);
}

/* What of it does not open, and why. */
static int set_closed(const struct machine *machine, const char *file, int code, struct error *err)
{
    const char *advice = code == EACCES
                             ? "let yourself in, with chmod or chown"
                             : "mend it, or remove the machine with: evctl delete --force";
    return error_set(err, EBADMSG, "the machine '%s' cannot be read: %s%s: %s; %s", machine->name,
                     machine->folder, file, strerror(code), advice);
}

static int load(struct machine *machine, struct error *err)
{
    json_error_t where;
    struct error why = {0};
    int fd = openat(machine->folder_fd, STORE_CONFIG_FILE, O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "re");
    int code = errno;
    if (!file && access(machine->folder, F_OK) < 0)
        return not_found(machine->name, err); /* deleted or renamed in between */
    if (!file)
        return set_closed(machine, "/" STORE_CONFIG_FILE, code, err);
    machine->config = json_loadf(file, JSON_REJECT_DUPLICATES, &where);
    fclose(file);
    if (!machine->config)
        return set_broken(machine, where.text, where.line, err);
    if (model_check(machine->config, &why) == 0)
        return 0;
    json_decref(machine->config);
    machine->config = NULL;
    return set_broken(machine, why.text, 1, err);
}

static int take_lock(struct machine *machine, struct error *err)
{
    int fd = openat(machine->folder_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return set_closed(machine, "/lock", errno, err);
    for (unsigned waited_ms = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; waited_ms += LOCK_LOOK_MS) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            break;
        if (waited_ms >= LOCK_PATIENCE_MS) {
            close(fd);
            return error_set(err, EBUSY,
                             "another evctl command is changing the machine '%s'; try again when "
                             "it has ended",
                             machine->name);
        }
        if (waited_ms == 1000)
            tell_note("waiting for another evctl command that is changing '%s'", machine->name);
        usleep(LOCK_LOOK_MS * 1000);
        if (interrupt_is_pending()) {
            close(fd);
            return interrupt_check(err);
        }
    }
    machine->lock_fd = fd;
    return 0;
}

static int check_state(const struct machine *machine, unsigned flags, struct error *err)
{
    bool is_running =
        (flags & (MACHINE_STOPPED | MACHINE_RUNNING)) && machine_pid(machine->folder_fd) != 0;
    if ((flags & MACHINE_STOPPED) && is_running)
        return error_set(err, EISCONN, "the machine '%s' is running; stop it first: evctl stop",
                         machine->name);
    if ((flags & MACHINE_RUNNING) && !is_running)
        return error_set(err, ENOTCONN, "the machine '%s' is not running; start it: evctl start",
                         machine->name);
    return 0;
}

static int open_folder(const char *name, struct machine *machine, struct error *err)
{
    *machine = (struct machine){.folder_fd = -1, .lock_fd = -1};
    int result = store_check_name(name, err);
    if (result)
        return result;
    machine->folder = store_path(name, err);
    if (!machine->folder)
        return -ENOENT;
    machine->name = strdup(name);
    machine->folder_fd = open(machine->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (machine->folder_fd >= 0)
        return 0;
    struct stat status;
    int code = errno;
    bool is_link = lstat(machine->folder, &status) == 0 && S_ISLNK(status.st_mode);
    if ((code == ENOENT && !is_link) || code == ENOTDIR)
        return not_found(name, err);
    return set_closed(machine, is_link && code == ENOENT ? ", a link" : "", code, err);
}

static int load_as_asked(struct machine *machine, unsigned flags, struct error *err)
{
    int result = load(machine, &machine->problem);
    if (!result || (result == -EBADMSG && (flags & MACHINE_BROKEN_OK)))
        return 0;
    return error_set(err, machine->problem.code, "%s", machine->problem.text);
}

int machine_open(const char *name, unsigned flags, struct machine *machine, struct error *err)
{
    int result = open_folder(name, machine, err);
    if (!result && (flags & MACHINE_LOCK))
        result = take_lock(machine, err);
    if (!result)
        result = load_as_asked(machine, flags, err);
    if (!result)
        result = check_state(machine, flags, err);
    if (result)
        machine_close(machine);
    return result;
}

/* ROOT/.NAME.KIND, which is no machine's name. NULL with err set. */
static char *hidden_path(const char *name, const char *kind, struct error *err)
{
    char *root = store_root(err), *path = NULL;
    if (root)
        CHECK(asprintf(&path, "%s/.%s.%s", root, name, kind) > 0);
    free(root);
    return path;
}

static int set_taken(const char *name, struct error *err)
{
    return error_set(err, EEXIST,
                     "there is a machine '%s' already; choose another name, or remove it: evctl "
                     "delete",
                     name);
}

static int make_folder(struct machine *machine, struct error *err)
{
    char *final = store_path(machine->name, err), *root = final ? store_root(err) : NULL;
    int result = root ? 0 : -err->code;
    if (!result && access(final, F_OK) == 0)
        result = set_taken(machine->name, err);
    free(final);
    if (result) {
        free(root);
        return result;
    }
    scratch_sweep(root);
    free(root);
    machine->folder = hidden_path(machine->name, "new", err);
    machine->lock_fd = machine->folder ? scratch_make(machine->folder, err) : -err->code;
    if (machine->lock_fd >= 0)
        return 0;
    result = machine->lock_fd;
    machine->lock_fd = -1;
    return result == -EBUSY ? error_set(err, EBUSY,
                                        "another evctl command is making a machine '%s'; choose "
                                        "another name, or wait for it",
                                        machine->name)
                            : result;
}

int machine_make(const char *name, struct machine *machine, struct error *err)
{
    *machine = (struct machine){.folder_fd = -1, .lock_fd = -1};
    int result = store_check_name(name, err);
    if (result)
        return result;
    machine->name = strdup(name);
    result = make_folder(machine, err);
    if (result)
        return result;
    machine->is_new = true;
    machine->config = json_object();
    machine->folder_fd = open(machine->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (machine->folder_fd < 0)
        return error_set_errno(err, errno, "cannot open %s", machine->folder);
    return 0;
}

int machine_publish(struct machine *machine, struct error *err)
{
    char *folder = store_path(machine->name, err);
    int result = folder ? machine_save(machine, err) : -err->code;
    if (!result && renameat2(AT_FDCWD, machine->folder, AT_FDCWD, folder, RENAME_NOREPLACE) < 0)
        result = errno == EEXIST ? set_taken(machine->name, err)
                                 : error_set_errno(err, errno, "cannot make %s", folder);
    if (result) {
        free(folder);
        return result;
    }
    free(machine->folder);
    machine->folder = folder;
    machine->is_new = false;
    return 0;
}

void machine_unlock(struct machine *machine)
{
    if (machine->lock_fd >= 0)
        close(machine->lock_fd);
    machine->lock_fd = -1;
}

void machine_close(struct machine *machine)
{
    machine_unlock(machine);
    if (machine->folder_fd >= 0)
        close(machine->folder_fd);
    json_decref(machine->config);
    free(machine->name);
    free(machine->folder);
    *machine = (struct machine){.folder_fd = -1, .lock_fd = -1};
}

/* Without its name it is no machine any more, whatever happens to what is left. */
int machine_remove(struct machine *machine, struct error *err)
{
    char *gone = machine->is_new ? NULL : hidden_path(machine->name, "gone", err);
    int result = 0;
    if (gone) {
        unused_result(scratch_remove_tree(gone));
        if (rename(machine->folder, gone) < 0)
            result = -errno;
        else
            free(machine->folder), machine->folder = strdup(gone);
    }
    if (!result)
        result = scratch_remove_tree(machine->folder);
    free(gone);
    return result ? error_set_errno(err, -result, "cannot remove all of %s", machine->folder) : 0;
}

/* --- state --- */

pid_t machine_pid(int folder_fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char text[32] = "";
    int fd = openat(folder_fd, "pid", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return 0;
    bool is_held = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    ssize_t length = is_held ? read(fd, text, sizeof(text) - 1) : 0;
    close(fd);
    if (!is_held)
        return 0;
    long pid = length > 0 ? strtol(text, NULL, 10) : 0;
    return pid > 1 ? (pid_t)pid : 1; /* it has the lock, and has not written its number yet */
}

/* --- machine.json --- */

static int write_config(struct machine *machine, int fd, struct error *err)
{
    char *text = json_dumps(machine->config, JSON_INDENT(2));
    CHECK(text);
    size_t length = strlen(text);
    text[length] = '\n';
    errno = 0;
    int result = 0;
    if (write(fd, text, length + 1) != (ssize_t)(length + 1) || fsync(fd) < 0)
        result = error_set_errno(err, errno ? errno : ENOSPC,
                                 "cannot write %s/" STORE_CONFIG_FILE "; it is as it was",
                                 machine->folder);
    free(text);
    return result;
}

int machine_save(struct machine *machine, struct error *err)
{
    static const char fresh[] = STORE_CONFIG_FILE ".new";
    CHECK(machine->lock_fd >= 0 && model_check(machine->config, NULL) == 0);
    int fd = openat(machine->folder_fd, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(err, errno, "cannot write %s/%s", machine->folder, fresh);
    int result = write_config(machine, fd, err);
    close(fd);
    if (!result && renameat(machine->folder_fd, fresh, machine->folder_fd, STORE_CONFIG_FILE) < 0)
        result =
            error_set_errno(err, errno, "cannot replace %s/" STORE_CONFIG_FILE, machine->folder);
    if (result)
        unlinkat(machine->folder_fd, fresh, 0);
    return result;
}

char *machine_path(const struct machine *machine, const char *file)
{
    char *path = NULL;
    if (*file == '/')
        path = strdup(file);
    else
        CHECK(asprintf(&path, "%s/%s", machine->folder, file) > 0);
    return path;
}

char *store_read_file(const char *path, size_t max_bytes, size_t *length, struct error *err)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        error_set_errno(err, errno, "%s", path);
        return NULL;
    }
    char *text = calloc(1, max_bytes + 2);
    CHECK(text);
    size_t got = fread(text, 1, max_bytes + 1, file);
    int code = ferror(file) ? errno : got > max_bytes ? EFBIG : 0;
    fclose(file);
    if (length)
        *length = got;
    if (!code)
        return text;
    free(text);
    error_set(err, code, "%s: %s", path,
              code == EFBIG ? "it is too large for what it should be" : strerror(code));
    return NULL;
}
