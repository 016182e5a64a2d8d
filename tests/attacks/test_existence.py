"""Nobody learns from an answer whether something is there that is not theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from live import LiveServer, Stream, serve


@pytest.fixture(scope="module", params=["detached", "plain"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve(request.param, size=10) as server:
        yield server


def send(server: LiveServer, id: str, token: str) -> tuple[int, object]:
    return server.request("POST", f"/connections/{id}/messages", 1, {"Authorization": f"Bearer {token}"})


def test_a_wrong_token_says_nothing_of_the_connection(server: LiveServer) -> None:
    with Stream(server, "a") as stream:
        opened = stream.opened().of_type("ssepool.open")[0]
        id, token = opened["connection"], opened["token"]
        node, slot, life = id.split("-")
        others = [f"{node}-{slot}-{int(life) + 1}", f"{node}-9-0", f"{node}-99999-0", f"{node}-x-0", node, f"{id}0"]
        answers = {repr(send(server, other, wrong)) for other in (id, *others) for wrong in ("0" * len(token), "", "x")}
        answers |= {repr(send(server, other, token)) for other in others}
        assert len(answers) == 1, answers
        assert answers.pop().startswith("(401")
        assert send(server, id, token)[0] == 202


def test_whose_client_has_left_is_told(server: LiveServer) -> None:
    stream = Stream(server, "a")
    opened = stream.opened().of_type("ssepool.open")[0]
    stream.close()
    server.wait_pool(open=0, closing=0)
    assert send(server, opened["connection"], opened["token"])[0] == 404
    assert send(server, opened["connection"], "0" * 32)[0] == 401


def test_a_publisher_does_not_learn_whether_anybody_listens(server: LiveServer) -> None:
    with Stream(server, "heard") as stream:
        stream.opened()
        heard, unheard = (server.request("POST", "/events", {"topic": topic, "data": ""}) for topic in ("heard", "no"))
        assert heard[0] == unheard[0] == 201
        assert set(heard[1]) == set(unheard[1]) == {"ids"}
