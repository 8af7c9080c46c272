# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL dies, is restarted, or a standby takes its place: Lathe goes on within seconds and nothing acknowledged is lost."""

import tempfile

import pytest

from conftest import QUICK, begin, small_model
from harness import FakeEngines, rounds, wait_for
from postgres import Address, clusters, within
from test_postgres_away import Administrator, Load, check_settled

SECONDS = 10


@pytest.fixture
def place():
    """place(address): a server on that database; place.cluster(name): a PostgreSQL."""
    begun = []
    with tempfile.TemporaryDirectory(prefix="lathe-failover-") as top, clusters() as cluster:
        def make(address):
            engines = FakeEngines(top)
            s = begin(top, engines.program, small_model(top), QUICK, address)
            begun.append(s)
            engines.set(token_ms=10, token_jitter_ms=6)
            s.deploy("chat", model="smol", context=512, slots=6, replicas=2)
            return s
        make.cluster = cluster
        try:
            yield make
            for s in begun:
                s.end()
        finally:
            for s in begun:
                if s.process.poll() is None:
                    s.kill()


def under_load(server, hurt, name="r0"):
    """hurt() while streams and creations run; how long until both go on."""
    load, admin = Load(server, 4, name), Administrator(server, name)
    with load.background, admin.background:
        wait_for("answers", 20, lambda: True if load.ended() > 5 and len(admin.made) > 5 else None)
        hurt()
        made = len(admin.made)
        back = within(SECONDS, "creations again", lambda: True if len(admin.made) > made + 3 else None)
    return back, check_settled(server, load, admin), len(load.all), len(admin.made)


def test_it_dies_and_comes_back(place):
    main = place.cluster("main", fsync="on").make().start()
    server = place(main.database())
    pids = [r["pid"] for r in server.deployment("chat")["replicas_status"]]

    def die():
        main.kill()
        main.start()
    for n in range(rounds(1, 6)):
        back, slowest, answers, made = under_load(server, die if n % 2 == 0 else main.restart, f"r{n}")
        print(f"{'killed' if n % 2 == 0 else 'restarted'}: back after {back:.1f} s, slowest call {slowest:.1f} s, {answers} answers, {made} made")
    assert [r["pid"] for r in server.ready("chat")["replicas_status"]] == pids


@pytest.fixture
def pair(place):
    """A server on a primary with a synchronous standby; it knows both addresses."""
    main = place.cluster("main").make().start()
    standby = place.cluster("standby").copy_of(main).start()
    main.database().run("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
    main.database().run("SELECT pg_reload_conf()")
    wait_for("the standby", 20, lambda: main.database().rows("SELECT 1 x FROM pg_stat_replication WHERE sync_state = 'sync'") or None)
    hosts = f"postgres://lathe@127.0.0.1:{main.port},127.0.0.1:{standby.port}/postgres?target_session_attrs=read-write"
    return place(Address(hosts, hosts)), main, standby


def test_a_standby_takes_its_place(pair):
    server, main, standby = pair

    def fail_over():
        main.kill()
        standby.promote()
    back, slowest, answers, made = under_load(server, fail_over)
    print(f"promoted: back after {back:.1f} s, slowest call {slowest:.1f} s, {answers} answers, {made} made")


def test_who_does_not_lead_any_more_is_not_written_to(pair):
    """A switch without a death: sessions with the old primary stay open, and it refuses writes only."""
    server, main, standby = pair

    def switch():
        main.database().run("ALTER SYSTEM SET default_transaction_read_only = on")
        main.database().run("SELECT pg_reload_conf()")
        standby.promote()
    back, slowest, answers, made = under_load(server, switch)
    a = server.make("service_accounts", name="after", roles=["viewer"])["id"]
    look = "SELECT id FROM service_accounts WHERE id = ?"
    assert standby.database().rows(look, a) and not main.database().rows(look, a)
    sessions = "SELECT count(*) n FROM pg_stat_activity WHERE application_name = 'lathe'"
    wait_for("the last session with the old one", 10, lambda: True if main.database().rows(sessions)[0]["n"] == 0 else None)
    print(f"switched: back after {back:.1f} s, slowest call {slowest:.1f} s, {answers} answers, {made} made")
