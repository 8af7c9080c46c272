// SPDX-License-Identifier: Apache-2.0
// xml.h - private to blob: the XML that S3 answers with, read strictly: elements and text (XML 1.0
// without DOCTYPE, CDATA, comments and processing instructions; attributes are skipped). What is
// not of that form, not whole, or nested deeper than XML_DEPTH is bad as a whole.
// Owner: names point into the text, texts with entities into the arena. Threads: one at a time.
#ifndef LATHE_BLOB_XML_H
#define LATHE_BLOB_XML_H
#include "base/arena.h"

enum { XML_DEPTH = 16 };
typedef struct Xml {
    Arena *mem;
    str all;
    size_t at, from; // from: where the text since the last tag begins
    str open[XML_DEPTH];
    int depth;
    bool leaf;   // nothing but text since the last opening tag
    bool closes; // the last tag was <NAME/>
    bool ended, bad;
} Xml;
typedef enum {
    XML_OPEN,
    XML_CLOSE, // text: of an element without children; "" for others
    XML_END,   // all was read and good
    XML_BAD
} XmlKind;
Xml xml_of(Arena *mem, str text);
XmlKind xml_next(Xml *x, str *out_name, str *out_text); // x->depth: elements that are open now
// Text of the first element on that path below the root: "Code", "Contents/Key"; absent: none, or
// the XML is bad.
str xml_find(Arena *mem, str text, const char *path);
#endif
