/* SPDX-License-Identifier: MIT */
/* portable_plan: what the readers of descriptions share: filling the plan of portable.h. */
#ifndef TOOLS_EVCTL_PORTABLE_PLAN_H
#define TOOLS_EVCTL_PORTABLE_PLAN_H

#include <jansson.h>

#include "base/error.h"
#include "tools/evctl/xml.h"

/* A count, times `scale`. What is no number above 0 is told, and leaves the usual value. */
void plan_number(json_t *plan, const char *key, const char *text, double scale);
/* kind "disk" or "iso"; a missing file is no disk. */
void plan_disk(json_t *plan, const char *file, const char *kind);
/* An empty disk, which the description has without a file. */
void plan_empty_disk(json_t *plan, double bytes);
/* mode "user", "internal", "bridged" or "hostonly"; name "" if there is none. */
void plan_nic(json_t *plan, const char *mode, const char *name);
/* The cable of the last NIC is out. */
void plan_unplug(json_t *plan);
/* From another program's word for the guest's system, as "debian10_64Guest". */
void plan_os(json_t *plan, const char *text);
/* Tells that firmware is wanted which evisor does not have. */
void plan_firmware(const char *text);

/* A descendant of that name whose attribute has that value, or NULL. */
struct xml_node *plan_find_with(struct xml_node *root, const char *name, const char *attribute,
                                const char *value);

/* portable_ovf.c, portable_vbox.c, portable_vmx.c: false with err set. */
bool must_check portable_read_ovf(json_t *plan, struct xml_node *root, const char *path,
                                  struct error *err);
bool must_check portable_read_vbox(json_t *plan, struct xml_node *root, const char *path,
                                   struct error *err);
/* Changes the text. */
bool must_check portable_read_vmx(json_t *plan, char *text, const char *path, struct error *err);

#endif
