"""Clients of language models, against a real server: OpenAI's of Python and npm, `ai` (the transport of useChat) and
AG-UI. docs/clients.md says what is seen here."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from live import TESTS, LiveServer, serve_app, wait_for
from source import END, Source
from tools import require
from written import PROTOCOLS, blocks, serve_code

HERE = Path(__file__).parent
CLIENTS = ("openai", "openai of Python", "ai", "ag-ui")


@pytest.fixture(scope="module", params=["detached", "plain"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve_app("stream_app:app", request.param, heartbeat_interval=0.1) as server:
        yield server


class Answer:
    """A source that answers in the words of a client's protocol, and the client."""

    def __init__(self, client: str, source: Source, start: Callable[..., Any]) -> None:
        self.client = client
        self.source = source
        self._start = start
        self._program: Any = None

    @property
    def url(self) -> str:
        query = {"openai": "", "ai": "?chat&final=[DONE]", "ag-ui": "?"}[self.client.split()[0]]
        return f"{self.source.server.url}/ask/{self.source.name}{query}"

    def ask(self, client: str = "") -> Answer:
        """Another client of the same answer, or the same after a reload."""
        asked = Answer(client or self.client, self.source, self._start)
        if asked.client == "openai of Python":
            asked._program = self._start(sys.executable, str(HERE / "openai_client.py"), asked.url)
        else:
            require({"ag-ui": "@ag-ui/client"}.get(self.client, self.client))
            asked._program = self._start(require("node"), str(HERE / "models.mjs"), asked.client, asked.url)
        return asked

    def begin(self) -> None:
        self.source.feed(*{"ai": AI_BEGIN, "ag-ui": AG_BEGIN}.get(self.client, []))

    def say(self, *words: str) -> None:
        word = {"ai": ai_word, "ag-ui": ag_word}.get(self.client, openai_word)
        self.source.feed(*map(word, words))

    def finish(self) -> None:
        self.source.feed(*{"ai": AI_END, "ag-ui": AG_END}.get(self.client, []), END)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self._program.lines) if line.startswith("{")]

    @property
    def text(self) -> str:
        return "".join(line.get("text") or "" for line in self.lines)

    def wait_text(self, text: str) -> None:
        wait_for(lambda: self.text == text, what=f"{text!r} in {self._program.lines}")

    def end(self) -> dict[str, Any]:
        """How it ended, once its process has: nothing more is asked for then."""
        assert self._program.wait_end() == 0, self._program.lines
        return self.lines[-1]


AI_BEGIN = [{"data": {"type": "start", "messageId": "a1"}}, {"data": {"type": "text-start", "id": "t"}}]
AI_END = [{"data": {"type": "text-end", "id": "t"}}, {"data": {"type": "finish"}}]
AG_BEGIN = [
    {"data": {"type": "RUN_STARTED", "threadId": "c1", "runId": "r1"}},
    {"data": {"type": "TEXT_MESSAGE_START", "messageId": "a1", "role": "assistant"}},
]
AG_END = [
    {"data": {"type": "TEXT_MESSAGE_END", "messageId": "a1"}},
    {"data": {"type": "RUN_FINISHED", "threadId": "c1", "runId": "r1"}},
]


def ai_word(word: str) -> dict[str, Any]:
    return {"data": {"type": "text-delta", "id": "t", "delta": word}}


def ag_word(word: str) -> dict[str, Any]:
    return {"data": {"type": "TEXT_MESSAGE_CONTENT", "messageId": "a1", "delta": word}}


def openai_word(word: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
    return {"data": {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}}


@pytest.fixture
def answer(server: LiveServer, start: Callable[..., Any]) -> Callable[[str], Answer]:
    return lambda client: Answer(client, Source(server), start)


def test_all_of_them_read_every_word_as_it_comes_and_ask_for_nothing_after_the_end(
    answer: Callable[[str], Answer],
) -> None:
    answers = [answer(client).ask() for client in CLIENTS]
    for each in answers:
        each.begin()
        each.say("one ", "two ")
    for each in answers:
        each.wait_text("one two ")  # while heartbeats, and what the hub says itself, stand in between
        each.say("three")
        each.finish()
    for each in answers:
        assert each.end() == {"end": "completed"}, each.client
        assert each.text == "one two three"
        each.source.wait(made=1, begun=1, closed=1)


def test_a_page_of_use_chat_that_is_reloaded_gets_all_of_the_answer(answer: Callable[[str], Answer]) -> None:
    first = answer("ai").ask()
    first.begin()
    first.say("one ", "two ")
    first.wait_text("one two ")
    first._program.stop()
    first.say("three ")
    second = first.ask("ai resume")
    second.wait_text("one two three ")
    first.say("four")
    first.finish()
    assert second.end() == {"end": "completed"}
    late = first.ask("ai resume")
    assert late.end() == {"end": "completed"}
    assert second.text == late.text == "one two three four"
    first.source.wait(begun=1, made=3)


@pytest.mark.parametrize("path", ["detached", "plain"])
def test_at_a_cut_they_have_what_came_before_it_and_nobody_asks_again_by_itself(
    path: str, start: Callable[..., Any]
) -> None:
    with serve_app("stream_app:app", path) as server:
        answers = [Answer(client, Source(server), start).ask() for client in CLIENTS]
        for each in answers:
            each.begin()
            each.say("one ")
        for each in answers:
            each.wait_text("one ")
        server.stop(signal.SIGKILL)
    ends = {each.client: each.end()["end"] for each in answers}
    assert [each.text for each in answers] == ["one "] * len(CLIENTS)
    assert ends == dict.fromkeys(CLIENTS, "failed")


@pytest.mark.parametrize("http", PROTOCOLS)
def test_the_token_stream_of_the_documentation_is_one(http: str, tmp_path: Path, start: Callable[..., Any]) -> None:
    text = (TESTS.parent / "docs" / "clients.md").read_text("utf-8")
    for client in "openai", "ai":
        require(client)
    with serve_code("\n\n".join(blocks(text, "A token stream", "python")), tmp_path, http) as server:
        node, models, chat = require("node"), str(HERE / "models.mjs"), f"{server.url}/api/chat"
        assert server.request("GET", "/api/chat/nobody/stream")[0] == 204
        programs = [
            start(sys.executable, str(HERE / "openai_client.py"), f"{server.url}/v1"),
            start(node, models, "openai", f"{server.url}/v1"),
            start(node, models, "ai", chat),
        ]
        for program in programs:
            assert said(program) == "You ask: hello Because it is so. "
        assert said(start(node, models, "ai resume", f"{chat}/c1/stream")) == "You ask: hello Because it is so. "


def said(program: Any) -> str:
    """All that a client has read of an answer that is complete."""
    assert program.wait_end() == 0, program.lines
    *words, end = [json.loads(line) for line in program.lines]
    assert end == {"end": "completed"}
    return "".join(word["text"] for word in words)
