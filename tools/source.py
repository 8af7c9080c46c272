# SPDX-License-Identifier: Apache-2.0
"""What the checkers in this folder share: which files there are, C text without comments and
strings, the functions in it, and how an error is said. Leaves every rule to the checkers."""

import os
import re
import sys
from dataclasses import dataclass

SKIP = {".git", "build", "node_modules", "__pycache__", "dist"}


def root():
    """The tree to check: the first argument, else the one that this file is in."""
    if len(sys.argv) > 1:
        return os.path.abspath(sys.argv[1])
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def files(top, folders=("",), ends=(".c", ".h")):
    """Paths relative to `top`, sorted, of the files in `folders` with these endings."""
    found = []
    for folder in folders:
        for here, inner, names in os.walk(os.path.join(top, folder)):
            inner[:] = [d for d in inner if d not in SKIP]
            found += [os.path.relpath(os.path.join(here, n), top)
                      for n in names if n.endswith(ends)]
    return sorted(set(found))


def read(top, path):
    """The text of a file, or None when it is not UTF-8 text. A path that vanished reads empty."""
    try:
        with open(os.path.join(top, path), "rb") as file:
            data = file.read()
        return None if b"\0" in data else data.decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        return None


BLANK = re.compile(
    r'//(?:\\\n|[^\n])*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
DIRECTIVE = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.M)


def spaces(match):
    return re.sub(r"[^\n]", " ", match.group())


def code(text, directives=True):
    """C text with comments, strings and characters turned to spaces; same lines and columns.
    With directives=False preprocessor lines are spaces too."""
    text = BLANK.sub(spaces, text)
    return text if directives else DIRECTIVE.sub(spaces, text)


@dataclass
class Function:
    name: str
    line: int        # of its first word
    lines: int       # to its closing brace
    parameters: int
    body: str
    body_line: int


HEAD = re.compile(r"(\w+)\s*\(")


def group_end(text, start):
    """Index after the bracket that closes the one at `start`; the end of the text if none does."""
    depth = 0
    for match in re.compile(r"[(){}\[\]]").finditer(text, start):
        depth += 1 if match.group() in "({[" else -1
        if depth == 0:
            return match.end()
    return len(text)


def count_parameters(inside):
    flat = re.sub(r"\s+", " ", inside).strip()
    if flat in ("", "void"):
        return 0
    depth = count = 0
    for char in flat:
        depth += (char in "([{") - (char in ")]}")
        count += char == "," and depth == 0
    return count + 1


def functions(text):
    """The functions defined in C text, and what looks like one: TEST(name) { ... }."""
    text, found, at = code(text, directives=False), [], 0
    while True:
        brace = text.find("{", at)
        if brace < 0:
            return found
        end = group_end(text, brace)
        head_from = max(text.rfind(c, 0, brace) for c in ";}") + 1
        head = text[max(head_from, at):brace]
        start = max(head_from, at) + len(head) - len(head.lstrip())
        function = function_of(head.strip(), text, start, brace, end)
        if function:
            found.append(function)
        at = end


def function_of(head, text, start, brace, end):
    head = re.sub(r"__attribute__\s*\(\(.*?\)\)\s*", "", head, flags=re.S)
    match = HEAD.search(head)
    if not match or "=" in head.split("(")[0] or head.startswith(("struct ", "enum ", "union ")):
        return None
    inside = head[match.end():group_end(head, match.end() - 1) - 1]
    return Function(match.group(1), text.count("\n", 0, start) + 1,
                    text.count("\n", start, end) + 1, count_parameters(inside),
                    text[brace:end], text.count("\n", 0, brace) + 1)


class Errors:
    """Collects `file:line: what, and the rule` and ends the program with 1 if there were any."""

    def __init__(self):
        self.lines = []

    def add(self, path, line, what):
        self.lines.append((path, line, what))

    def done(self):
        for path, line, what in sorted(set(self.lines)):
            print(f"{path}:{line}: {what}")
        sys.exit(1 if self.lines else 0)
