/* SPDX-License-Identifier: MIT */
/*
 * block_transaction: several actions at one moment, or none of them.
 *
 * Theory of operation. Files are made, or looked at, while the disks go on. Then the disks of all
 * actions go quiet, one after the other. Then each action
 * prepares: everything that can be refused is done or checked here, and can be undone. Then those
 * that take time run (an image is written back, a snapshot is made), one by one. Then all commit,
 * where only memory can still be short. Whatever fails, what went before is undone in reverse. A
 * command for one action is a transaction of one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/block_private.h"

#define ACTIONS_MAX 64

struct transaction {
    struct block_call *call;
    struct list actions;
    struct disk *quiet[ACTIONS_MAX];
    unsigned disk_count, quiet_count, action_count;
    struct list *running;
    struct job_group *group; /* completion-mode grouped; the jobs' as soon as there is one */
    int result;
    struct error err;
};

static int refuse(struct block_action *action, struct error *err)
{
    (void)action;
    return error_set(err, ECANCELED, "Transaction aborted using Abort action");
}

static const struct block_action_type abort_action = {.name = "abort", .prepare = refuse};

static const struct block_action_type *find_type(const char *name)
{
    const struct block_action_type *const tables[] = {block_snapshot_actions, block_bitmap_actions,
                                                      block_backup_actions};
    if (!strcmp(name, "abort"))
        return &abort_action;
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
        for (const struct block_action_type *type = tables[i]; type->name; type++)
            if (!strcmp(type->name, name))
                return type;
    return NULL;
}

bool block_action_has_twin(const struct block_action *action)
{
    list_for_each(node, &action->transaction->actions)
    {
        const struct block_action *other = list_entry(node, struct block_action, node);
        if (other != action && other->disk == action->disk &&
            !strncmp(other->type->name, "blockdev-snapshot", 17))
            return true;
    }
    return false;
}

struct job_group *block_action_group(const struct block_action *action)
{
    return action->transaction->group;
}

static void finish(struct transaction *transaction)
{
    bool is_good = !transaction->result;
    struct block_call *call = transaction->call;
    for (struct list *node = transaction->actions.prev; node != &transaction->actions;
         node = node->prev) {
        struct block_action *action = list_entry(node, struct block_action, node);
        if (!is_good && action->has_begun && action->type->abort)
            action->type->abort(action);
        if (is_good && action->type->clean)
            action->type->clean(action);
    }
    for (unsigned i = 0; i < transaction->quiet_count; i++)
        graph_resume(transaction->quiet[i]);
    for (struct list *node; (node = list_pop_front(&transaction->actions));) {
        struct block_action *action = list_entry(node, struct block_action, node);
        block_making_end(action->making);
        free(action->backing_name);
        free(action);
    }
    if (transaction->group && list_is_empty(&transaction->group->members))
        free(transaction->group);
    block_finish(call, transaction->result, &transaction->err);
    free(transaction);
}

static void commit_all(struct transaction *transaction)
{
    list_for_each(node, &transaction->actions)
    {
        struct block_action *action = list_entry(node, struct block_action, node);
        if (!transaction->result && action->type->commit)
            transaction->result = action->type->commit(action, &transaction->err);
    }
    finish(transaction);
}

static void run_next(struct transaction *transaction)
{
    while (transaction->running != &transaction->actions && !transaction->result) {
        struct block_action *action = list_entry(transaction->running, struct block_action, node);
        transaction->running = transaction->running->next;
        if (action->type->run) {
            action->type->run(action);
            return;
        }
    }
    if (transaction->result)
        finish(transaction);
    else
        commit_all(transaction);
}

void block_action_done(struct block_action *action, int result, const struct error *err)
{
    struct transaction *transaction = action->transaction;
    transaction->result = result;
    if (result)
        error_set(&transaction->err, -result, "%s",
                  err && err->code ? err->text : strerror(-result));
    run_next(transaction);
}

static void prepare_all(struct transaction *transaction)
{
    list_for_each(node, &transaction->actions)
    {
        struct block_action *action = list_entry(node, struct block_action, node);
        if (transaction->result)
            break;
        transaction->result = action->type->prepare(action, &transaction->err);
        action->has_begun = !transaction->result;
    }
    transaction->running = transaction->actions.next;
    run_next(transaction);
}

static void make_quiet(struct transaction *transaction);

static void on_quiet(void *opaque)
{
    struct transaction *transaction = opaque;
    transaction->quiet_count++;
    if (transaction->call->block->is_closing)
        transaction->result = error_set(&transaction->err, ECANCELED, "the machine ends");
    if (transaction->result)
        finish(transaction);
    else
        make_quiet(transaction);
}

static void make_quiet(struct transaction *transaction)
{
    if (transaction->quiet_count == transaction->disk_count) {
        prepare_all(transaction);
    } else if (graph_quiesce(transaction->quiet[transaction->quiet_count], on_quiet, transaction)) {
        transaction->result = -ENOMEM;
        finish(transaction);
    }
}

static void note_disk(struct transaction *transaction, struct disk *disk)
{
    for (unsigned i = 0; i < transaction->disk_count; i++)
        if (transaction->quiet[i] == disk)
            return;
    transaction->quiet[transaction->disk_count++] = disk;
}

/* Disks may have come and gone while files were made. */
static int find_disk(struct block_action *action, struct error *err)
{
    const char *key = action->type->disk_key;
    if (!key)
        return 0;
    const char *name = block_text(action->data, key);
    if (!name)
        name = block_text(action->data, "node-name");
    if (!name)
        return error_set(err, EINVAL, "Parameter '%s' is missing", key);
    action->disk = block_find(action->block, name, &action->chain_node, err);
    return action->disk ? 0 : -ENODEV;
}

static void find_disks(struct transaction *transaction)
{
    list_for_each(node, &transaction->actions)
    {
        struct block_action *action = list_entry(node, struct block_action, node);
        if (!transaction->result)
            transaction->result = find_disk(action, &transaction->err);
        if (!transaction->result && action->type->needs_quiet)
            note_disk(transaction, action->disk);
    }
    if (transaction->result)
        finish(transaction);
    else
        make_quiet(transaction);
}

static void make_files(struct transaction *transaction);

static void on_made(void *opaque, int result, const struct error *err)
{
    struct transaction *transaction = opaque;
    transaction->result = result;
    if (result)
        transaction->err = *err;
    make_files(transaction);
}

static void make_files(struct transaction *transaction)
{
    struct error *err = &transaction->err;
    while (transaction->running != &transaction->actions && !transaction->result) {
        struct block_action *action = list_entry(transaction->running, struct block_action, node);
        struct block_image image = {0};
        transaction->running = transaction->running->next;
        if (!action->type->describe)
            continue;
        transaction->result = find_disk(action, err);
        if (!transaction->result)
            transaction->result = action->type->describe(action, &image, err);
        if (!transaction->result)
            transaction->result = block_making_start(action->block, &image, on_made, transaction,
                                                     &action->making, err);
        if (!transaction->result)
            return;
    }
    if (transaction->result)
        finish(transaction);
    else
        find_disks(transaction);
}

static int add_action(struct transaction *transaction, const char *name, const json_t *data,
                      struct error *err)
{
    const struct block_action_type *type = find_type(name);
    if (!type)
        return error_set(err, EINVAL, "Parameter 'type' does not accept value '%.64s'", name);
    if (transaction->action_count == ACTIONS_MAX)
        return error_set(err, E2BIG, "at most %d actions are done at once", ACTIONS_MAX);
    struct block_action *action = calloc(1, sizeof(*action));
    if (!action)
        return error_set(err, ENOMEM, "no memory for a transaction");
    *action = (struct block_action){
        .block = transaction->call->block, .type = type, .data = data, .transaction = transaction};
    list_push_back(&transaction->actions, &action->node);
    transaction->action_count++;
    return find_disk(action, err);
}

static struct transaction *create(struct block_call *call)
{
    struct transaction *transaction = calloc(1, sizeof(*transaction));
    CHECK(transaction);
    transaction->call = call;
    list_init(&transaction->actions);
    return transaction;
}

static void begin(struct transaction *transaction, int result)
{
    transaction->result = result;
    transaction->running = transaction->actions.next;
    make_files(transaction);
}

void block_single_action(struct block_call *call)
{
    struct transaction *transaction = create(call);
    begin(transaction,
          add_action(transaction, block_text(call->args, ""), call->args, &transaction->err));
}

/* The data says of which action it is, as a command's arguments do. */
static int add_listed(struct transaction *transaction, json_t *entry)
{
    const char *type = block_text(entry, "type");
    json_t *data = json_object_get(entry, "data");
    if (!type || !json_is_object(data))
        return error_set(&transaction->err, EINVAL, "Parameter 'actions[%u].%s' is missing",
                         transaction->action_count, type ? "data" : "type");
    json_object_set_new(data, "", json_string(type));
    return add_action(transaction, type, data, &transaction->err);
}

static int set_mode(struct transaction *transaction, const json_t *properties)
{
    unsigned mode;
    int result = block_choice(properties, "completion-mode", "individual|grouped", 0, &mode,
                              &transaction->err);
    if (result || !mode)
        return result;
    transaction->group = malloc(sizeof(*transaction->group));
    if (!transaction->group)
        return error_set(&transaction->err, ENOMEM, "no memory for a transaction");
    list_init(&transaction->group->members);
    return 0;
}

void block_transaction(struct block_call *call)
{
    struct transaction *transaction = create(call);
    json_t *list = json_object_get(call->args, "actions"), *entry;
    size_t index;
    int result = set_mode(transaction, json_object_get(call->args, "properties"));
    json_array_foreach(list, index, entry) if (!result) result = add_listed(transaction, entry);
    begin(transaction, result);
}
