# SPDX-License-Identifier: Apache-2.0
"""What a newcomer meets: nothing that was given goes, or is taken, without a word."""

import json
import subprocess

import pytest

from conftest import LATHE, SLOWER


@pytest.fixture
def lathe(server):
    def run(*args, text=None, lang="C", **env):
        here = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "LC_ALL": lang, "LATHE_URL": server.url,
                "LATHE_API_KEY": server.key, **env}
        done = subprocess.run([LATHE, *args], input=text, capture_output=True, text=True, env=here, timeout=60 * SLOWER)
        return done.returncode, done.stdout, done.stderr
    return run


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
