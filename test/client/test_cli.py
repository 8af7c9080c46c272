# SPDX-License-Identifier: Apache-2.0
"""The command line as a person meets it: what it says of a wrong line, help of everything, documents applied."""

import re

import pytest


WRONG = [
    (["deplyment", "list"], "there is no `lathe deplyment`; the nearest is `lathe deployment`; see `lathe help`"),
    (["usage", "totl"], "the nearest is `lathe usage total`; see `lathe help usage`"),
    (["setting", "lst"], "the nearest is `lathe setting list`; see `lathe help setting`"),
    (["deployment", "create", "d", "--modl", "m"], "there is no flag --modl here; the nearest is --model; see `lathe help deployment`"),
    (["deployment", "set", "chat", "--endpoint.ur", "x"], "the nearest is --endpoint.url"),
    (["deployment", "set", "chat", "--model"], "--model needs a value after it"),
    (["deployment", "get"], "NAME is missing; see `lathe help deployment`"),
    (["--frob", "deployment"], "--frob is not expected here; see `lathe help deployment`"),
    (["metrics", "more"], "more is not expected here; see `lathe help metrics`"),
    (["apply", "-f"], "-f needs a value after it"),
    (["deployment", "list", "-o", "xml"], "-o must be one of table, json, yaml, name, not xml"),
    (["--server", "ftp://x", "whoami"], "ftp://x is not the address of a server: http(s)://HOST:PORT or unix:PATH"),
]


@pytest.mark.parametrize("line, said", WRONG, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_a_wrong_line_is_told_in_one_line(lathe, line, said):
    code, out, err = lathe(*line)
    assert code == 2 and out == "" and err.count("\n") == 1 and said in err


def test_a_server_that_is_not_there(lathe):
    code, _, err = lathe("whoami", LATHE_URL="http://127.0.0.1:1")
    assert code == 9 and "no server answers at http://127.0.0.1:1 (refused)" in err


def test_help_of_everything(lathe):
    code, out, _ = lathe("--help")
    names = re.findall(r"^  ([a-z_]+)", out, re.M)
    assert code == 0 and {"serve", "apply", "diff", "completion", "deployment", "audit", "chat"} <= set(names)
    lines = re.findall(r"^  ([a-z_]+(?: [a-z_]+)?)  ", out, re.M)
    assert len(lines) == len(set(lines)), "one line each"
    for name in set(names):
        for ask in (["help", name], [name, "--help"]):
            code, out, err = lathe(*ask)
            assert code == 0 and f"lathe {name}" in out and not err, ask
    assert "--serve.listen" in lathe("serve", "--help")[1]


def test_chinese(lathe):
    assert "没有 `lathe deplyment`" in lathe("deplyment", lang="zh_CN.UTF-8")[2]
    assert "没有" in lathe("deployment", "get", "nobody", lang="zh_CN.UTF-8")[2]


def test_a_failed_document_is_named(lathe):
    docs = "kind: model\nname: cli-a\n---\nkind: model\nname: cli-b\ndescripton: x\n"
    code, out, err = lathe("apply", "-f", "-", text=docs)
    assert code == 2 and "+ model cli-a" in out
    assert err.startswith("lathe: -, document 2, model cli-b: descripton is not a field here; the nearest is description (request req_")
    assert lathe("model", "delete", "cli-a")[0] == 0
    code, _, err = lathe("apply", "-f", "-", text="kind: modle\nname: x\n")
    assert code == 2 and "document 1: there is no kind modle; the nearest is model" in err


def test_diff_of_documents_that_need_each_other(lathe):
    docs = "kind: service_account\nname: cli-s\n---\nkind: api_key\nname: cli-k\nservice_account: cli-s\n"
    code, out, _ = lathe("diff", "-f", "-", text=docs)
    assert code == 0 and "+ service_account cli-s" in out
    assert "+ api_key cli-k\n    (cannot be checked before the above is there: " in out
    assert lathe("apply", "-f", "-", text=docs)[0] == 0
    assert lathe("diff", "-f", "-", text=docs)[1] == "= service_account cli-s\n= api_key cli-k\n"
    assert lathe("api_key", "delete", "cli-k")[0] == 0 and lathe("service_account", "delete", "cli-s")[0] == 0
