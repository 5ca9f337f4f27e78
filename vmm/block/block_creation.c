/* SPDX-License-Identifier: MIT */
/* block_creation: starts the making of files and images, tells of its states, keeps its end. */
#include "vmm/block/block_creation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/block_new_image.h"

struct block_creation {
    struct list node; /* block->creations */
    struct block *block;
    struct aside *aside; /* NULL: it is over */
    char *id;
    char *held; /* the node of the file, or NULL */
    enum job_status status;
    bool is_paused, is_cancelled;
    int result;
    struct error err;
};

static void set_status(struct block_creation *creation, enum job_status status)
{
    struct block *block = creation->block;
    creation->status = status;
    block->host.emit(block->host.opaque, "JOB_STATUS_CHANGE",
                     json_pack("{s:s,s:s}", "status", job_status_name(status), "id", creation->id));
}

static void let_file_go(struct block_creation *creation)
{
    if (creation->held)
        creation->block->host.release_file(creation->block->host.opaque, creation->held);
    free(creation->held);
    creation->held = NULL;
}

static void destroy(struct block_creation *creation)
{
    CHECK(!creation->aside);
    let_file_go(creation);
    list_remove(&creation->node);
    free(creation->id);
    free(creation);
}

static void dismiss(struct block_creation *creation)
{
    set_status(creation, JOB_NULL);
    destroy(creation);
}

static void on_made(void *opaque, int result, const struct error *err)
{
    struct block_creation *creation = opaque;
    struct block *block = creation->block;
    creation->aside = NULL;
    creation->result = result;
    if (result)
        creation->err = *err;
    else if (creation->is_cancelled)
        creation->result = error_set(&creation->err, ECANCELED, "%s", strerror(ECANCELED));
    let_file_go(creation);
    if (creation->result) {
        set_status(creation, JOB_ABORTING);
    } else {
        set_status(creation, JOB_WAITING);
        set_status(creation, JOB_PENDING);
    }
    set_status(creation, JOB_CONCLUDED);
    if (!block->is_closing)
        return;
    dismiss(creation);
    block_check_closed(block);
}

/* --- starting --- */

/* From here to its end nothing else uses the file by its node. What speaks against it, the job
 * tells: so does QEMU. */
static void hold_file(struct block_creation *creation, struct block_new_image *image)
{
    struct block *block = creation->block;
    struct error ignored = {0};
    struct node *node;
    const char *path;
    if (block_find(block, image->node, &node, &ignored)) {
        error_set(&image->refusal, EINVAL,
                  "Node '%s' is an image's: blockdev-create needs one of driver file", image->node);
        return;
    }
    if (block->host.hold_file(block->host.opaque, image->node, &path, &image->refusal))
        return;
    creation->held = strdup(image->node);
    image->path = strdup(path);
    CHECK(creation->held && image->path);
}

static int start(struct block_call *call, struct block_new_image *image, struct error *err)
{
    const struct aside_work work = {block_new_image_make, block_new_image_free, image};
    struct block_creation *creation = calloc(1, sizeof(*creation));
    CHECK(creation);
    creation->block = call->block;
    creation->id = strdup(block_text(call->args, "job-id"));
    CHECK(creation->id);
    list_push_back(&call->block->creations, &creation->node);
    if (image->node)
        hold_file(creation, image);
    int result = aside_start(call->block->loop, &work, on_made, creation, &creation->aside, err);
    if (result) {
        destroy(creation);
        return result;
    }
    set_status(creation, JOB_CREATED);
    set_status(creation, JOB_RUNNING);
    return 0;
}

void block_create_image(struct block_call *call)
{
    struct error err = {0};
    struct block_new_image *image;
    int result = block_new_image_read(json_object_get(call->args, "options"), &image, &err);
    if (result) {
        block_finish(call, result, &err);
        return;
    }
    result = block_job_check_id(call->block, block_text(call->args, "job-id"), &err);
    if (!result)
        result = start(call, image, &err);
    if (result)
        block_new_image_free(image);
    block_finish(call, result, &err);
}

/* --- looking and steering --- */

struct block_creation *block_creation_find(const struct block *block, const char *id)
{
    list_for_each(node, &block->creations)
    {
        struct block_creation *creation = list_entry(node, struct block_creation, node);
        if (!strcmp(creation->id, id))
            return creation;
    }
    return NULL;
}

void block_creation_list(const struct block *block, json_t *list)
{
    list_for_each(node, &block->creations)
    {
        const struct block_creation *creation = list_entry(node, struct block_creation, node);
        json_t *entry = json_pack("{s:i,s:s,s:i,s:s,s:s}", "current-progress", !creation->aside,
                                  "status", job_status_name(creation->status), "total-progress", 1,
                                  "type", BLOCK_CREATION_TYPE, "id", creation->id);
        if (creation->result)
            json_object_set_new(entry, "error", json_string(creation->err.text));
        json_array_append_new(list, entry);
    }
}

static int resume(struct block_creation *creation, struct error *err)
{
    if (!creation->is_paused)
        return error_set(err, EPERM, "Can't resume a job that was not paused");
    creation->is_paused = false;
    return 0;
}

static int pause_work(struct block_creation *creation, struct error *err)
{
    if (creation->is_paused)
        return error_set(err, EPERM, "Job is already paused");
    creation->is_paused = true;
    return 0;
}

/* The thread goes on whatever is said to its job, as in QEMU; a cancelled one fails at its end. */
void block_creation_verb(struct block_call *call, struct block_creation *creation, const char *verb)
{
    bool is_running = creation->status == JOB_RUNNING;
    struct error err = {0};
    int result = 0;
    if (!strcmp(verb, "resume"))
        result = resume(creation, &err);
    else if (!strcmp(verb, "pause") && is_running)
        result = pause_work(creation, &err);
    else if (!strcmp(verb, "cancel") && is_running)
        creation->is_cancelled = true;
    else if (!strcmp(verb, "dismiss") && !is_running)
        dismiss(creation);
    else
        result = error_set(&err, EPERM, "Job '%s' in state '%s' cannot accept command verb '%s'",
                           creation->id, job_status_name(creation->status), verb);
    block_finish(call, result, &err);
}

void block_creation_end_all(struct block *block)
{
    list_for_each(node, &block->creations)
    {
        struct block_creation *creation = list_entry(node, struct block_creation, node);
        if (creation->aside)
            aside_cancel(creation->aside);
        else
            dismiss(creation);
    }
}
