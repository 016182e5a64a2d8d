"""The simulation of docs/scale, small: what must hold whatever the figures are."""

from __future__ import annotations

from typing import Any

import pytest

from simulation import costs
from simulation.fleet import Fleet
from simulation.outage import Outage
from simulation.scenarios import SCENARIOS, play
from simulation.setup import Setup

CLIENTS, NODES = 2_000, 5


def run(scenario: str, **settings: Any) -> tuple[Fleet, dict[str, Any]]:
    """Play a scenario on a small fleet with room for the loss of a node. `play` checks every sum at its end."""
    fleet = Fleet(Setup(clients=CLIENTS, nodes=NODES, size=600))
    return fleet, play(fleet, scenario, **settings)


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_everybody_is_back_at_the_end_and_nobody_is_in_two_places(scenario: str) -> None:
    fleet, found = run(scenario)
    assert found["still_away"] == 0
    assert sum(slot is not None for slot in fleet.slots) == CLIENTS
    assert len({id(slot) for slot in fleet.slots}) == CLIENTS
    assert sum(node.connections for node in fleet.nodes) == CLIENTS
    assert found["back"] >= CLIENTS / NODES


def test_a_rolling_restart_sends_every_client_away_and_brings_all_nodes_back() -> None:
    fleet, found = run("rolling")
    assert found["back"] >= CLIENTS
    assert all(node.up for node in fleet.nodes)
    assert len(fleet.balancer.ready) == NODES


def test_more_jitter_means_a_lower_peak() -> None:
    peaks = [run("cut", told=True, jitter=jitter)[1]["peak"] for jitter in (0, 0.5, 1, 2)]
    assert peaks[0] == CLIENTS
    assert peaks == sorted(set(peaks), reverse=True)


def test_a_longer_drain_means_a_lower_peak_and_nobody_is_away_for_longer() -> None:
    found = [run("three", drain=drain)[1] for drain in (0, 10, 60)]
    peaks = [one["peak"] for one in found]
    assert peaks == sorted(set(peaks), reverse=True)
    assert max(one["max"] for one in found) < 3 * 2 + 0.5


def test_clients_that_were_told_nothing_come_back_in_two_lots() -> None:
    """Chromium's after 3 s and Firefox's after 5 s, each lot within what its ways differ."""
    _, found = run("killed")
    times = {int(when) for when, rate in found["per_second"] if rate}
    assert times == {3, 5}


def test_nodes_in_turn_fill_up_those_that_wait_for_their_restart() -> None:
    most = {
        balancer: run("rolling", balancer=balancer, size=2_000)[1]["most_on_a_node"] for balancer in ("least", "robin")
    }
    share = CLIENTS / NODES
    assert most["least"] < 1.3 * share
    assert most["robin"] > 1.7 * share


def test_a_pool_without_room_has_clients_wait_and_come_again() -> None:
    _, found = run("three", size=420)
    assert found["queued"] > 0
    assert found["timed_out"] > 0
    assert found["refused"] >= found["timed_out"]


def test_a_full_kernel_queue_has_clients_knock_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "SUBSCRIPTION", 0.005)
    _, found = run("cut", told=True, jitter=0, backlog=64)
    assert found["dropped"] > 0
    assert found["max"] > 3.2 + 1
    assert found["still_away"] == 0


def test_a_replay_that_looks_at_every_event_does_not_catch_up_where_an_indexed_one_does() -> None:
    busy = {"told": True, "jitter": 0.0, "events": 20_000.0, "history": 1_000_000, "limit": 20.0}
    assert run("cut", **busy)[1]["still_away"] > CLIENTS / 2
    assert run("cut", **busy, scanned=0.0)[1]["still_away"] == 0


def test_a_history_that_is_too_short_is_noticed() -> None:
    settings = {"events": 100.0, "told": True}
    assert run("killed", **settings, history=1_000)[1]["gaps"] == 0
    assert run("killed", **settings, history=300)[1]["gaps"] >= CLIENTS / NODES


def test_the_same_seed_gives_the_same_run() -> None:
    assert run("rolling", balancer="two")[1] == run("rolling", balancer="two")[1]


def test_an_outage_of_the_broker_is_made_up_for() -> None:
    outage = Outage(5.0, connections=1_000)
    found = outage.play(60.0)
    assert found["held_events"] == pytest.approx(150, abs=2)
    assert set(outage.cursors) == {outage.feed.head}
    assert outage.sent == outage.feed.head * 200 * 1_000
    assert 0 < found["caught_up"] < 5
