"""Keys: which nodes have the same ones."""

from __future__ import annotations

import pytest

from ssepool.config import HubConfig
from ssepool.core.keys import message_key, token_key

WITH_PASSWORD = HubConfig(broker="redis://ann:hunter2@host:6379/0")
WITHOUT = HubConfig(broker="redis://host:6379/0")


@pytest.mark.parametrize(
    ("config", "same"),
    [
        (HubConfig(broker="redis://ann:hunter2@host:6379/0", lag_events=7), True),
        (HubConfig(broker="rediss://bob:hunter%32@another.name/0"), True),  # the same broker by another name
        (HubConfig(broker="redis://ann:hunter3@host:6379/0"), False),
        (WITHOUT, False),
        (HubConfig(broker=WITH_PASSWORD.broker, cluster_key="hunter3"), False),
    ],
)
def test_nodes_have_the_same_keys_by_the_password_of_their_broker(config: HubConfig, same: bool) -> None:
    assert (message_key(config) == message_key(WITH_PASSWORD)) is same
    assert (token_key(config) == token_key(WITH_PASSWORD)) is same


def test_the_setting_wins_over_the_broker() -> None:
    configs = [HubConfig(broker=broker, cluster_key="k") for broker in (WITH_PASSWORD.broker, WITHOUT.broker)]
    assert message_key(configs[0]) == message_key(configs[1]) != message_key(WITHOUT)
    assert token_key(configs[0]) == token_key(configs[1])


@pytest.mark.parametrize("broker", ["memory://", "sqlite:///events.db", WITHOUT.broker])
def test_without_a_secret_nodes_share_no_key_for_tokens(broker: str) -> None:
    config = HubConfig(broker=broker)
    assert token_key(config) is None
    assert len(message_key(config)) == 32


def test_each_purpose_has_a_key_of_its_own() -> None:
    assert message_key(WITH_PASSWORD) != token_key(WITH_PASSWORD)
    assert b"hunter2" not in message_key(WITH_PASSWORD)


def test_any_text_makes_a_key() -> None:
    assert token_key(HubConfig(cluster_key="\ud800")) != token_key(HubConfig(cluster_key="\u00e4"))
