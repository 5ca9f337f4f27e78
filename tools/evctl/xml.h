/* SPDX-License-Identifier: MIT */
/* xml: an XML document as a small tree, read with expat. Names come without their namespace. */
#ifndef TOOLS_EVCTL_XML_H
#define TOOLS_EVCTL_XML_H

#include <stddef.h>

#include "base/error.h"

struct xml_attribute {
    char *name, *value;
};

struct xml_node {
    char *name, *text; /* text: what stands directly in it */
    struct xml_attribute *attributes;
    size_t attribute_count;
    struct xml_node *parent, *first, *last, *next;
};

/* NULL with err set, for what is no XML, too large (4 MiB), too deep (64) or has a DTD. */
struct xml_node *xml_parse(const char *bytes, size_t length, const char *file, struct error *err);
void xml_free(struct xml_node *node);

/* The next node of that name below `root`, in document order after `after` (NULL: the first). */
struct xml_node *xml_find(struct xml_node *root, struct xml_node *after, const char *name);
/* The text of the child of that name, or "". */
const char *xml_child_text(const struct xml_node *node, const char *name);
/* The attribute's value, or "". */
const char *xml_attribute(const struct xml_node *node, const char *name);

#endif
