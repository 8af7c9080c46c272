# SPDX-License-Identifier: Apache-2.0
"""What a newcomer meets: nothing that was given goes, or is taken, without a word."""

import json
import re

import pytest

from harness import chat


def good(answer):
    code, out, err = answer
    assert code == 0, err
    return out


# ---- an account and its keys


def test_an_account_does_not_take_its_keys_along(server, lathe):
    good(lathe("service_account", "create", "new-shop", "--roles", "application"))
    good(lathe("api_key", "create", "new-till", "--service_account", "new-shop"))
    code, _, err = lathe("service_account", "delete", "new-shop")
    assert code != 0 and "service_account new-shop is used by api_key new-till: delete that first" in err
    assert json.loads(good(lathe("api_key", "get", "new-till", "-o", "json")))["name"] == "new-till"
    good(lathe("api_key", "delete", "new-till"))
    good(lathe("service_account", "delete", "new-shop"))


def test_prune_takes_first_what_was_named_last(lathe):
    keep = "kind: service_account\nname: app\nroles: [application]\n---\nkind: api_key\nname: app\nservice_account: app\n"
    more = keep.replace("app\n", "gone\n")
    good(lathe("project", "create", "new-prune"))
    good(lathe("apply", "-f", "-", "--project", "new-prune", text=keep + "---\n" + more))
    out = good(lathe("apply", "-f", "-", "--prune", "--project", "new-prune", text=keep))
    assert out.index("- api_key gone") < out.index("- service_account gone")


# ---- a key is shown once, whichever way it was asked for


def secret_in(text):
    found = re.findall(r"lathe_[0-9a-z]{26}_[0-9a-z]{32}", text)
    assert len(found) == 1, text
    return found[0]


def works(server, key):
    return server.call("GET", "/v1/models", key=key).status == 200


@pytest.mark.parametrize("form", ["table", "json", "yaml", "name"])
def test_a_new_key_is_shown_in_every_form(server, lathe, form):
    docs = f"kind: api_key\nname: new-{form}\nservice_account: app\n"
    code, out, err = lathe("diff", "-f", "-", "-o", form, text=docs)
    assert code == 0 and "lathe_" not in re.sub("lathe_[0-9a-z]+…", "", out + err), "nothing was made yet"
    for line in (["apply", "-f", "-"], ["api_key", "rotate", f"new-{form}"], ["api_key", "delete", f"new-{form}"],
                 ["api_key", "create", f"new-{form}", "--service_account", "app"]):
        code, out, err = lathe(*line, "-o", form, text=docs if line[0] == "apply" else None)
        assert code == 0, err
        if line[1] == "delete":
            continue
        assert works(server, secret_in(out + err))
        assert form != "name" or "lathe_" not in out and "shown this once" in err
    good(lathe("api_key", "delete", f"new-{form}"))


def test_a_dry_run_shows_no_key(lathe):
    out = good(lathe("api_key", "create", "new-dry", "--service_account", "app", "--dry-run", "-o", "json"))
    assert json.loads(out)["result"]["key"] is None


# ---- documents


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_what_is_got_can_be_applied(server, lathe, form):
    for kind, name in (("deployment", "chat"), ("service_account", "app"), ("api_key", "app"), ("model", "smol"), ("project", "default"),
                       ("role", "application"), ("organisation", "default"), ("user", "admin")):
        got = good(lathe(kind, "get", name, "-o", form))
        assert good(lathe("apply", "-f", "-", text=got)) == f"= {kind} {name}\n"
    page = good(lathe("service_account", "list", "-o", form))
    assert "= service_account app\n" in good(lathe("apply", "-f", "-", text=page))
    good(lathe("route", "create", "new-back", "--targets", '[{"deployment":"chat"}]', "--spill_ms", "5"))
    got = good(lathe("route", "get", "new-back", "-o", form))
    good(lathe("route", "delete", "new-back"))
    assert "+ route new-back" in good(lathe("apply", "-f", "-", text=got))
    assert json.loads(good(lathe("route", "get", "new-back", "-o", "json")))["spill_ms"] == 5
    good(lathe("route", "delete", "new-back"))


def test_apply_answers_in_the_form_that_is_asked_for(lathe):
    docs = json.dumps([{"kind": "service_account", "name": "new-a"}, {"kind": "service_account", "name": "new-b"}])
    assert good(lathe("diff", "-f", "-", "-o", "name", text=docs)) == "service_account/new-a\nservice_account/new-b\n"
    done = json.loads(good(lathe("apply", "-f", "-", "-o", "json", text=docs)))["data"]
    assert [(d["kind"], d["name"], d["done"], d["result"]["name"]) for d in done] \
        == [("service_account", n, "created", n) for n in ("new-a", "new-b")]
    done = json.loads(good(lathe("apply", "-f", "-", "-o", "json", text=docs)))["data"]
    assert [d["done"] for d in done] == ["unchanged", "unchanged"]
    code, out, err = lathe("apply", "-f", "-", "-o", "json", text=json.dumps(
        [{"kind": "service_account", "name": "new-a", "title": "A"}, {"kind": "service_account", "name": "new-b", "titel": "B"}]))
    assert code == 2 and "document 2, service_account new-b: titel" in err
    assert [d["done"] for d in json.loads(out)["data"]] == ["changed"], "what was done is told all the same"
    for name in ("new-a", "new-b"):
        good(lathe("service_account", "delete", name))


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "---\n---\n", "null"])
def test_a_file_without_documents_is_an_error(lathe, text):
    code, out, err = lathe("apply", "-f", "-", text=text)
    assert code == 2 and out == "" and "there is no document in it" in err


# ---- lists


def test_a_filter_named_key_is_no_key_to_act_with(server, lathe):
    assert lathe("rollup", "list", "--key", "nobody")[0] == 0
    assert "lacks the permission" in lathe("--key", server.app_key, "rollup", "list")[2]
    code, _, err = lathe("trace", "list", "--key", "nobody")
    assert code == 2 and "a list is filtered by --key_id" in err


def test_lists_are_sorted_as_they_say(server, lathe):
    def names(*words):
        return good(lathe("role", "list", "-o", "name", *words)).split()
    assert names("--sort", "-name") == names("--sort=-name") == sorted(names("--sort", "name"), reverse=True)
    for noun in ("trace", "usage", "audit_entry"):
        ids = good(lathe(noun, "list", "-o", "name")).split()
        assert ids == sorted(ids, reverse=True) and (len(ids) > 1 or noun != "audit_entry")
        assert good(lathe(noun, "list", "-o", "name", "--sort", "id", "--limit", "2")).split() <= sorted(ids)
    said = good(lathe("help", "trace"))
    assert "--sort -FIELD: downwards" in said and "started_at" in said and "trace content ID" in said
    said = good(lathe("help", "route"))
    assert '\'[{"deployment": …, "weight": …}]\'' in said and "--FIELD null" in said


# ---- a person's key


def test_a_persons_key_may_what_the_person_may(server, lathe):
    good(lathe("user", "create", "new-bob"))
    member = good(lathe("member", "create", "--user", "new-bob", "--role", "viewer", "-o", "name")).strip()
    key = secret_in(good(lathe("api_key", "create", "new-bob", "--user", "new-bob")))
    who = json.loads(good(lathe("--key", key, "whoami", "-o", "json")))
    assert (who["name"], who["permissions"]) == ("new-bob", ["*.read"])
    code, _, err = lathe("--key", key, "api_key", "create", "new-more", "--user", "admin")
    assert code != 0 and "lacks the permission" in err
    code, _, err = lathe("api_key", "create", "new-two", "--user", "new-bob", "--service_account", "app")
    assert code != 0 and "not both" in err
    code, _, err = lathe("user", "delete", "new-bob")
    assert code != 0 and "used by api_key new-bob" in err
    good(lathe("member", "delete", member))
    assert not works(server, key), "the key follows the person's roles"
    good(lathe("api_key", "delete", "new-bob"))
    good(lathe("user", "delete", "new-bob"))
    assert "it may do everything all the same" in good(lathe("help", "admin_key"))


# ---- prices and budgets


def warned(answer):
    code, _, err = answer
    assert code == 0, err
    return err.removeprefix("lathe: warning: ").strip()


def test_which_of_several_prices_counts(server, lathe):
    def active():
        return {p["name"]: p["active"] for p in server.call("GET", "/lathe/v1/prices?q=new-").json["data"]}
    assert warned(lathe("price", "create", "new-old", "--model", "smol", "--input", "1")) == ""
    assert "new-old is for model smol too, and is asked no longer" in warned(lathe("price", "create", "new-now", "--model", "smol"))
    assert active() == {"new-old": False, "new-now": True}
    assert "new-now for model smol is newer" in warned(lathe("price", "set", "new-old", "--input", "2"))
    good(lathe("price", "set", "new-now", "--model", "smollest"))
    assert active() == {"new-old": True, "new-now": True}
    good(lathe("price", "set", "new-now", "--model", "smol"))
    assert active() == {"new-old": False, "new-now": True}
    good(lathe("price", "delete", "new-now"))
    assert active() == {"new-old": True}
    code, _, err = lathe("price", "create", "new-cny", "--model", "other", "--currency", "CNY")
    assert code == 2 and "price new-old is in USD" in err, "a budget has one currency"
    code, _, err = lathe("price", "create", "new-odd", "--model", "other", "--currency", "usd")
    assert code == 2 and "ISO 4217" in err
    good(lathe("price", "set", "new-old", "--currency", "CNY"))
    good(lathe("price", "delete", "new-old"))


def test_what_costs_nothing_is_said(server, lathe):
    said = warned(lathe("price", "create", "new-typo", "--model", "smoll"))
    assert "there is no model smoll, and no deployment serves one; served are:" in said and "smol" in said.split("served are:")[1]
    good(lathe("model", "create", "new-soon"))
    assert warned(lathe("price", "create", "new-soon", "--model", "new-soon")) == "", "it may be deployed yet"
    good(lathe("price", "delete", "new-soon"))
    good(lathe("model", "delete", "new-soon"))
    got = server.call("PATCH", "/lathe/v1/prices/new-typo", {"input": "1"}, headers={"Accept-Language": "zh"}).json
    assert [w["reason"] for w in got["warnings"]] == ["price_idle"] and "没有部署" in got["warnings"][0]["message"]
    limits = ("--limits.money_per_day", "5")
    free = r"money_per_day does not limit requests for what has no price: (.*, )?smol\b"
    assert re.search(free, warned(lathe("api_key", "create", "new-poor", "--service_account", "app", *limits)))
    for kind in ("project", "organisation"):
        assert re.search(free, warned(lathe(kind, "set", "default", *limits)))
        assert warned(lathe(kind, "set", "default", "--limits.money_per_day", "null")) == ""
    assert warned(lathe("price", "set", "new-typo", "--model", "smol")) == ""
    assert "smol" not in warned(lathe("api_key", "set", "new-poor", "--limits.money_per_day", "6"))
    assert "warnings" not in server.call("GET", "/lathe/v1/api_keys/new-poor").json
    good(lathe("price", "delete", "new-typo"))
    good(lathe("api_key", "delete", "new-poor"))


def test_an_engines_own_members_are_passed_on(server):
    own = {"top_k": 40, "min_p": 0.1, "repeat_penalty": 1.1, "cache_prompt": True, "timings_per_token": False, "nobody_knows_it": 1}
    body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "temperature": None, "seed": -1, **own}
    assert server.call("POST", "/v1/chat/completions", body, key=server.app_key).status == 200


# ---- what is refused says why, and leaves nothing behind


def test_an_import_of_no_file_leaves_no_model(lathe, tmp_path):
    (tmp_path / "empty.gguf").touch()
    for file in ("none.gguf", "empty.gguf"):
        assert lathe("model", "import", "new-none", "--file", str(tmp_path / file))[0] != 0
        assert "there is no model new-none" in lathe("model", "get", "new-none")[2]


def test_a_failed_version_is_not_deployed(server, lathe, tmp_path):
    (tmp_path / "odd.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    assert lathe("model", "import", "new-odd", "--file", str(tmp_path / "odd.gguf"))[0] != 0
    for model in ("new-odd:1", "new-odd"):
        code, _, err = lathe("deployment", "create", "new-odd", "--model", model)
        assert code != 0 and "is not ready: " in err and ("its import failed" in err or model == "new-odd")
    assert "导入失败" in lathe("deployment", "create", "new-odd", "--model", "new-odd:1", lang="zh_CN.UTF-8")[2]
    good(lathe("model", "delete", "new-odd"))


def test_a_missing_key_is_told_as_such(server, lathe):
    code, _, err = lathe("model", "list", LATHE_API_KEY="")
    assert code != 0 and f"no API key for {server.url}: set LATHE_API_KEY" in err


def test_limits_and_disabled_keys_say_what_frees_them(server, lathe):
    key = secret_in(good(lathe("api_key", "create", "new-slow", "--service_account", "app", "--limits.concurrency", "1")))
    held = chat(server, "chat", max_tokens=400, key=key)
    assert held.head() and held.status == 200
    try:
        answer = server.call("POST", "/v1/chat/completions", {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}, key=key)
        assert answer.status == 429 and "it frees when one of its requests ends" in answer.json["error"]["message"]
    finally:
        held.close()
    good(lathe("api_key", "set", "new-slow", "--disabled", "true", "--limits.concurrency", "null"))
    assert json.loads(good(lathe("api_key", "get", "new-slow", "-o", "json")))["limits"]["concurrency"] is None
    assert "or it or its owner is disabled" in lathe("--key", key, "whoami")[2]
    good(lathe("api_key", "delete", "new-slow"))


def test_a_developer_makes_routes(lathe):
    good(lathe("service_account", "create", "new-dev", "--roles", "developer"))
    key = secret_in(good(lathe("api_key", "create", "new-dev", "--service_account", "new-dev")))
    good(lathe("--key", key, "route", "create", "new-devs", "--targets", '[{"deployment":"chat"}]'))
    good(lathe("--key", key, "route", "delete", "new-devs"))
    good(lathe("api_key", "delete", "new-dev"))
    good(lathe("service_account", "delete", "new-dev"))


# ---- Chinese


CHINESE = [["apply", "-f", "/nix.yaml"], ["backup", "list"], ["model", "import", "x"], ["model", "import", "x", "--file", "/nix"],
           ["api_key", "create", "q", "--disabled", "perhaps"], ["trace", "list", "--started_at", "x"], ["api_key", "list", "--limit", "0"],
           ["price", "create", "p", "--model", "m", "--input", "much"], ["service_account", "delete", "nobody"], ["route", "list"]]


@pytest.mark.parametrize("line", CHINESE, ids=" ".join)
def test_no_english_among_the_chinese(lathe, line):
    _, out, err = lathe(*line, lang="zh_CN.UTF-8")
    said = re.sub(r"`[^`]*`|\(request [^)]*\)|--\w+|req_\w+", "", out + err)
    assert said and not re.search(r"[A-Za-z]+ [a-z]+ [a-z]+|(?<![A-Za-z_])(cannot|none|such|must)(?![a-z_])", said), said


def test_one_word_for_token(lathe):
    for noun in ("api_key", "deployment", "route", "trace", "price"):
        said = good(lathe("help", noun, lang="zh_CN.UTF-8"))
        assert "词元" not in said and "令牌" not in said
