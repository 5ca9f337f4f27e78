/* SPDX-License-Identifier: MIT */
/* job_private: what the files of the room of jobs share. */
#ifndef DISK_JOBS_JOB_PRIVATE_H
#define DISK_JOBS_JOB_PRIVATE_H

#include "disk/jobs/job.h"

void job_set_status(struct job *job, enum job_status status);
void job_fail(struct job *job, int result, const char *what);
/* job_copy.c */
void job_copy_init(struct job *job);
void job_copy_kick(struct job *job);
/* A backup copies what a guest is about to change. */
bool job_copy_intercept(void *opaque, struct disk_request *request);
bool job_copy_is_idle(const struct job *job);
bool job_has_work(const struct job *job);
/* Its progress is that of going through all of the disk, not only of what is copied. */
bool job_counts_all(const struct job *job);
bool job_overlaps_active(const struct job *job, uint64_t offset, uint64_t bytes);
void job_op_finish(struct job_op *op, bool again);
void job_op_failed(struct job_op *op, bool is_read, int result);
/* job_active.c: writes of a guest that go to both. */
bool job_active_intercept(struct job *job, struct disk_request *request);
void job_active_serve(struct job *job);
void job_active_done(void *opaque, struct disk_request *request, int result);
/* job_group.c */
void job_group_join(struct job *job);
void job_group_leave(struct job *job);
/* True if the others of the group are as far as this one, or there is none. */
bool job_group_is_waiting(const struct job *job);
bool job_group_is_prepared(const struct job *job);
/* Each of the group, or the job alone. `action` may end them. */
void job_group_each(struct job *job, void (*action)(struct job *job));
bool job_group_is_manual(const struct job *job);
void job_group_cancel_others(struct job *job);
/* job_end.c: all is copied, or it is over otherwise. */
void job_end(struct job *job);
void job_finish_pending(struct job *job);

#endif
