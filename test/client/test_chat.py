# SPDX-License-Identifier: Apache-2.0
"""`lathe chat` as a person uses it: at a terminal, in one line, in a pipe; on the real model."""

import os
import pty
import select
import subprocess
import time

import pytest

from harness import LATHE, SLOWER, wait_for


class Terminal:
    """A program at a terminal of its own; what it shows grows in .text."""

    def __init__(self, server, *words, key=None):
        self.here, there = pty.openpty()
        env = {**server.env, "LATHE_URL": server.url, "LATHE_API_KEY": key or server.app_key}
        self.process = subprocess.Popen([LATHE, *words], env=env, stdin=there, stdout=there, stderr=there, start_new_session=True,
                                        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0))
        os.close(there)
        self.text, self.at = "", 0

    def type(self, text):
        os.write(self.here, text.encode())

    def until(self, what, seconds=30):
        """Reads on until `what` stands behind all that was awaited before; gives the text between."""
        end = time.monotonic() + seconds * SLOWER
        while what not in self.text[self.at:]:
            left = end - time.monotonic()
            assert left > 0 and self._read(left), (what, self.text)
        begun, self.at = self.at, self.text.index(what, self.at) + len(what)
        return self.text[begun:self.at]

    def in_a_long_answer(self):
        """Asks for a long story; False when the model, which is free to, has told a short one."""
        self.type("Tell a very long story of a king, a queen and a dragon, with many chapters.\n")
        self.until("chapters.")
        wait_for("a long answer", 60, lambda: self._read(1) and (len(self.text) > self.at + 300 or "> " in self.text[self.at:]) or None)
        under_way = "> " not in self.text[self.at:]
        if not under_way:
            self.until("> ")
        return under_way

    def _read(self, seconds):
        if not select.select([self.here], [], [], seconds)[0]:
            return True
        try:
            self.text += os.read(self.here, 65536).decode(errors="replace")
        except OSError:  # it has closed its terminal
            return False
        return True

    def ends(self, status):
        end = time.monotonic() + 20 * SLOWER
        while self._read(1):
            assert time.monotonic() < end, self.text
        assert self.process.wait(10 * SLOWER) == status, self.text
        os.close(self.here)


def test_a_talk_at_a_terminal(server):
    t = Terminal(server, "chat", "chat", "--system", "You are brief.", "--max-tokens", "400")
    hint = t.until("> ")
    assert "/exit" in hint and "Ctrl-C" in hint
    t.type("Name the capital city of France.\n")
    said = t.until("> ")
    assert "France" in said and "TTFT" in said and "tokens/s" in said and "request req_" in said
    assert any(t.in_a_long_answer() for _ in range(5))
    t.type("\x03")
    t.until("[cancelled]", 5)
    t.until("> ", 5)

    def settled():
        server.folded()
        rows = server.rows("SELECT outcome, status FROM usage ORDER BY id DESC LIMIT 1")
        return rows[0] if rows and rows[0]["outcome"] == "cancelled" else None
    assert wait_for("its usage", 10, settled) == {"outcome": "cancelled", "status": 499}
    t.type("/clear\n")
    t.until("> ")
    t.type("Name the capital city of France.\n")
    assert "TTFT" in t.until("> ")
    t.type("/nonsense\n")
    t.until("/clear begins")
    t.type("/exit\n")
    t.ends(0)


def test_ctrl_c_between_answers_ends_it(server):
    t = Terminal(server, "chat", "chat")
    t.until("> ")
    t.type("\x03")
    t.ends(-2)


def test_a_failure_at_a_terminal_is_told_and_the_talk_goes_on(server):
    t = Terminal(server, "chat", "nobody")
    t.until("> ")
    for _ in range(2):
        t.type("hello\n")
        said = t.until("> ")
        assert "lathe: there is no model nobody in this project" in said and "request req_" in said
    t.type("\x04")
    t.ends(0)


def run(server, *words, key=None, given=None):
    env = {**server.env, "LATHE_URL": server.url, "LATHE_API_KEY": key or server.app_key}
    return subprocess.run([LATHE, *words], env=env, input=given, capture_output=True, text=True, timeout=120 * SLOWER, check=False)


def test_one_question(server):
    r = run(server, "chat", "chat", "Name the capital city of France.", "--max-tokens", "20", "--temperature", "0")
    assert r.returncode == 0 and "Paris" in r.stdout and r.stdout.endswith("\n") and "TTFT" in r.stderr, r
    wrong = run(server, "chat", "chat", "Hi", "--temperature", "warm")
    assert wrong.returncode == 2 and "--temperature" in wrong.stderr and "warm" in wrong.stderr, wrong
    r = run(server, "chat", "chat", "Tell a story.", "--max-tokens", "3")
    assert "3 tokens" in r.stderr and "cut at the length limit" in r.stderr


def test_a_pipe(server):
    r = run(server, "chat", "chat", "--temperature", "0", given="Name the capital city of France.\n\nSay it again.\n")
    assert r.returncode == 0 and "Paris" in r.stdout and r.stderr.count("TTFT") == 2 and "> " not in r.stderr, r


@pytest.mark.parametrize("words,part", [
    (["chat"], "NAME is missing"), (["chat", "chat", "hi", "--max-tokens", "0"], "at least 1"), (["chat", "chat", "hi", "--max-tokens", "x"], "at least 1"),
    (["chat", "nobody", "hi"], "it has: "), (["chat", "embed", "hi"], "deployed for embedding"), (["chat", "chat", "hi", "there"], "not expected"),
])
def test_failures_are_one_line_and_a_status(server, words, part):
    r = run(server, *words)
    assert r.returncode and part in r.stderr and r.stderr.count("\n") == 1 and r.stdout == "", r
    r = run(server, "chat", "chat", "hi", key="lathe_no")
    assert r.returncode and "API key is not known" in r.stderr and r.stderr.count("\n") == 1


def test_a_question_longer_than_the_context(server):
    r = run(server, "chat", "chat", given="word " * 3000 + "\n")
    assert r.returncode and "the context of model chat is 1024" in r.stderr and r.stdout == "", r
