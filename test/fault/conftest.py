# SPDX-License-Identifier: Apache-2.0
"""Servers whose engines are the fake one (a tenth of a second to start, exact counts), and one whose engine is real."""

import contextlib
import os
import pathlib
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import ROOT, FakeEngines, Server  # noqa: E402

CONTEXT = b"llama.context_length"
QUICK = {"deployment.probe_every": "200ms", "deployment.backoff_first": "500ms"}


def small_model(folder):
    """A model that the fake engine never reads: the fuzzer's smallest whole one, trained for 2^20 tokens."""
    bytes_ = bytearray((ROOT / "fuzz" / "corpus" / "gguf" / "ok-llama").read_bytes())
    at = bytes_.index(CONTEXT) + len(CONTEXT) + 4  # behind the value's type
    bytes_[at:at + 4] = (1 << 20).to_bytes(4, "little")
    path = pathlib.Path(folder) / "small.gguf"
    path.write_bytes(bytes_)
    return path


def begin(top, program, model, settings, database=None):
    s = Server(pathlib.Path(top) / "data", database=database)
    s.data.mkdir()
    s.flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
    if program:
        s.flags += ["--deployment.llama_server", str(program)]
    s.start(*s.flags)
    try:
        s.cli("model", "import", "smol", "--file", str(model), "--wait")
        s.use_app()
    except BaseException:
        s.kill()
        raise
    return s


@pytest.fixture
def fake():
    """fake(setting="…", …): a server; its engines are server.engines. Everything ends with the test."""
    with tempfile.TemporaryDirectory(prefix="lathe-fault-") as top, contextlib.ExitStack() as ends:
        def make(folder=None, **settings):
            engines = FakeEngines(top)
            given = {name.replace("__", "."): value for name, value in settings.items()}
            s = begin(folder or top, engines.program, small_model(top), {**QUICK, **given})
            s.engines = engines
            ends.callback(s.end)
            return s
        yield make


@pytest.fixture
def real():
    with tempfile.TemporaryDirectory(prefix="lathe-fault-") as top:
        s = begin(top, None, os.environ["SMOLLM2"], QUICK)
        yield s
        s.end()
