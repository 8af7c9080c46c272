# SPDX-License-Identifier: Apache-2.0
"""An upgrade replaces the program's file under a running server: what it starts from then on is still of its own version, and works."""

import shutil

import harness
from harness import LATHE, chat, wait_for


def test_a_server_whose_file_is_gone_still_starts_children(fake, tmp_path, monkeypatch):
    copy = tmp_path / "lathe"
    shutil.copy(LATHE, copy)
    monkeypatch.setattr(harness, "LATHE", str(copy))
    s = fake()
    copy.unlink()
    monkeypatch.undo()
    s.cli("model", "import", "again", "--file", "fuzz/corpus/gguf/ok-llama", "--wait")  # read in a child
    s.deploy("chat", model="again", task="chat", slots=2)                               # held by a shim
    assert chat(s, "chat", max_tokens=4).read().ok
    pid = s.deployment("chat")["replicas_status"][0]["pid"]
    s.kill()
    s.start(*s.flags)                                                                    # the new one takes it over
    wait_for("the replica", 20, lambda: s.ready("chat")["replicas_status"][0]["pid"] == pid or None)
    assert chat(s, "chat", max_tokens=4).read().ok
