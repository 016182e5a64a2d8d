"""The table of refusals: status, code and body of every error."""

from __future__ import annotations

import msgspec

import ssepool.errors
from ssepool.core.refusal import ANSWERS, DEFECT, reason_code, refusal_body, status_and_code
from ssepool.errors import EventTooLarge, PoolClosed, PoolFull, PoolTimeout, RequestError, SSEPoolError


def test_every_error_of_the_package_is_in_the_table() -> None:
    errors = {cls for cls in vars(ssepool.errors).values() if isinstance(cls, type) and issubclass(cls, SSEPoolError)}
    assert errors - {SSEPoolError, RequestError} == set(ANSWERS)


def test_no_two_errors_share_a_code() -> None:
    codes = [code for _, code in (*ANSWERS.values(), DEFECT)]
    assert len({*codes}) == len(codes)


def test_an_error_that_is_not_listed_has_the_answer_of_its_base_class() -> None:
    class Mine(EventTooLarge):
        pass

    assert status_and_code(Mine("x")) == (413, "event_too_large")
    assert status_and_code(SSEPoolError("x")) == DEFECT


def test_the_errors_of_a_request_without_a_slot_have_the_words_of_its_close_event() -> None:
    errors = (PoolFull("x"), PoolTimeout("x"), PoolClosed("x"))
    assert [reason_code(error) for error in errors] == ["pool_full", "timed_out", "pool_closed"]
    assert {status_and_code(error)[0] for error in errors} == {503}


def test_a_message_that_json_cannot_carry_is_still_sent() -> None:
    body = msgspec.json.encode(refusal_body("x", "a\udc80"))
    assert msgspec.json.decode(body) == {"error": {"code": "x", "message": "a\\udc80"}}
