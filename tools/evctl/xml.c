/* SPDX-License-Identifier: MIT */
/* xml: expat's events become a tree. Documents with a DTD are refused: none of ours has one. */
#include "tools/evctl/xml.h"

#include <errno.h>
#include <expat.h>
#include <stdlib.h>
#include <string.h>

#define DOCUMENT_MAX_BYTES (4u << 20)
#define DEPTH_MAX          64

struct reader {
    XML_Parser parser;
    struct xml_node *root, *current;
    unsigned depth;
    const char *refused; /* why */
};

static char *copy(const char *text, size_t length)
{
    char *result = strndup(text, length);
    CHECK(result);
    return result;
}

/* "ovf:href" is href. */
static char *local_name(const char *name)
{
    const char *colon = strrchr(name, ':');
    name = colon ? colon + 1 : name;
    return copy(name, strlen(name));
}

static void refuse(struct reader *reader, const char *why)
{
    reader->refused = why;
    XML_StopParser(reader->parser, XML_FALSE);
}

static void add_attributes(struct xml_node *node, const char **attributes)
{
    while (attributes[2 * node->attribute_count])
        node->attribute_count++;
    node->attributes = calloc(node->attribute_count + 1, sizeof(*node->attributes));
    CHECK(node->attributes);
    for (size_t i = 0; i < node->attribute_count; i++) {
        node->attributes[i].name = local_name(attributes[2 * i]);
        node->attributes[i].value = copy(attributes[2 * i + 1], strlen(attributes[2 * i + 1]));
    }
}

static void on_start(void *opaque, const char *name, const char **attributes)
{
    struct reader *reader = opaque;
    struct xml_node *node = calloc(1, sizeof(*node)), *parent = reader->current;
    CHECK(node);
    node->name = local_name(name);
    node->text = copy("", 0);
    node->parent = parent;
    add_attributes(node, attributes);
    if (!parent)
        reader->root = node;
    else if (parent->last)
        parent->last->next = node;
    else
        parent->first = node;
    if (parent)
        parent->last = node;
    reader->current = node;
    if (++reader->depth > DEPTH_MAX)
        refuse(reader, "it is nested too deeply");
}

static void on_end(void *opaque, const char *name)
{
    struct reader *reader = opaque;
    (void)name;
    reader->depth--;
    reader->current = reader->current->parent;
}

static void on_text(void *opaque, const char *text, int length)
{
    struct reader *reader = opaque;
    struct xml_node *node = reader->current;
    size_t old = strlen(node->text);
    char *longer = realloc(node->text, old + (size_t)length + 1);
    CHECK(longer);
    memcpy(longer + old, text, (size_t)length);
    longer[old + (size_t)length] = '\0';
    node->text = longer;
}

static void on_doctype(void *opaque, const char *name, const char *system, const char *public,
                       int has_internal)
{
    (void)name, (void)system, (void)public, (void)has_internal;
    refuse(opaque, "it has a document type definition");
}

struct xml_node *xml_parse(const char *bytes, size_t length, const char *file, struct error *err)
{
    struct reader reader = {.parser = XML_ParserCreate(NULL)};
    CHECK(reader.parser);
    if (length > DOCUMENT_MAX_BYTES) {
        error_set(err, EFBIG, "%s: it has more than 4 MiB, too much for a description", file);
        XML_ParserFree(reader.parser);
        return NULL;
    }
    XML_SetUserData(reader.parser, &reader);
    XML_SetElementHandler(reader.parser, on_start, on_end);
    XML_SetCharacterDataHandler(reader.parser, on_text);
    XML_SetStartDoctypeDeclHandler(reader.parser, on_doctype);
    if (XML_Parse(reader.parser, bytes, (int)length, 1) != XML_STATUS_OK) {
        error_set(err, EBADMSG, "%s, line %lu: %s", file,
                  (unsigned long)XML_GetCurrentLineNumber(reader.parser),
                  reader.refused ? reader.refused
                                 : XML_ErrorString(XML_GetErrorCode(reader.parser)));
        xml_free(reader.root);
        reader.root = NULL;
    }
    XML_ParserFree(reader.parser);
    return reader.root;
}

void xml_free(struct xml_node *node)
{
    if (!node)
        return;
    for (struct xml_node *child = node->first, *next; child; child = next) {
        next = child->next;
        xml_free(child);
    }
    for (size_t i = 0; i < node->attribute_count; i++) {
        free(node->attributes[i].name);
        free(node->attributes[i].value);
    }
    free(node->attributes);
    free(node->name);
    free(node->text);
    free(node);
}

/* The next node in document order that is not outside `root`. */
static struct xml_node *step(struct xml_node *root, struct xml_node *node)
{
    if (node->first)
        return node->first;
    while (node != root && !node->next)
        node = node->parent;
    return node == root ? NULL : node->next;
}

struct xml_node *xml_find(struct xml_node *root, struct xml_node *after, const char *name)
{
    struct xml_node *node = after ? step(root, after) : root;
    while (node && strcmp(node->name, name) != 0)
        node = step(root, node);
    return node;
}

const char *xml_child_text(const struct xml_node *node, const char *name)
{
    for (const struct xml_node *child = node->first; child; child = child->next)
        if (strcmp(child->name, name) == 0)
            return child->text;
    return "";
}

const char *xml_attribute(const struct xml_node *node, const char *name)
{
    for (size_t i = 0; node && i < node->attribute_count; i++)
        if (strcmp(node->attributes[i].name, name) == 0)
            return node->attributes[i].value;
    return "";
}
