"""What an event's data becomes, beside what FastAPI makes of the same objects."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import ipaddress
import itertools
import json
import pathlib
import re
import subprocess
import sys
import types
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest
from fastapi.encoders import jsonable_encoder

from ssepool import Event, EventTooLarge, InvalidEvent
from ssepool.core.data import DataEncoder


class Item(pydantic.BaseModel):
    name: str = pydantic.Field(alias="itemName")
    price: Decimal = Decimal("1.10")
    at: dt.datetime = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    secret: pydantic.SecretStr = pydantic.SecretStr("x")
    hidden: int = pydantic.Field(default=1, exclude=True)

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def upper(self) -> str:
        return self.name.upper()


class Order(pydantic.BaseModel):
    items: list[Item]
    by_name: dict[str, Item]
    took: dt.timedelta = dt.timedelta(seconds=90)


class Names(pydantic.RootModel[list[str]]):
    pass


@pydantic.dataclasses.dataclass
class Checked:
    size: int


@dataclasses.dataclass
class Place:
    name: str
    seen: dt.datetime
    item: Item | None = None
    _inner: int = 3
    made: list[int] = dataclasses.field(default_factory=lambda: [1], init=False)


class Level(enum.Enum):
    HIGH = 3
    LOW = "low"


class Number(enum.IntEnum):
    ONE = 1


class Word(str):
    pass


class Whole(int):
    pass


class Pair(NamedTuple):
    left: int
    right: Any


ITEM = Item(itemName="pen")
NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)

SAME: list[Any] = [
    ITEM,
    [ITEM, ITEM],
    (ITEM,),
    {"item": ITEM, "more": {"items": [ITEM]}},
    Order(items=[ITEM], by_name={"pen": ITEM}),
    Names(["a", "b"]),
    Checked(size="3"),  # type: ignore[arg-type]
    Place("here", NOON),
    {"places": [Place("here", NOON, ITEM)]},
    collections.deque([1, ITEM]),
    {"set": {1}, "frozen": frozenset({"a"})},
    Level.HIGH,
    {"level": Level.LOW, Level.LOW: 1, "n": Number.ONE},
    NOON,
    {"at": NOON, "text": "2026-01-02T03:04:05Z", "P": "Paris"},
    {"at": NOON.replace(tzinfo=None), "day": NOON.date(), "time": NOON.timetz(), "micro": NOON.replace(microsecond=5)},
    {"east": NOON.astimezone(dt.timezone(dt.timedelta(hours=2)))},
    {"took": dt.timedelta(days=1, seconds=3), "back": [dt.timedelta(seconds=-1)]},
    uuid.UUID(int=5),
    {uuid.UUID(int=5): 1},
    [Decimal("1.10"), Decimal("3"), Decimal("1E+2"), Decimal("-0.001")],
    {"d": Decimal("2"), "at": NOON},
    Pair(1, ITEM),
    [Word("x"), Whole(5)],
    {1.5: "b", True: "c", None: "d", Word("w"): "e"},
    collections.OrderedDict(b=1, a=2),
    collections.defaultdict(list, a=[NOON]),
    [ipaddress.ip_address("::1"), ipaddress.ip_network("10.0.0.0/8")],
    pathlib.PurePosixPath("/a/b"),
    re.compile("a+"),
    [pydantic.SecretStr("s"), pydantic.AnyUrl("http://a.example/")],
    "Z",
    ["Z", 'Z"', "P1D"],
    {"deep": [[[{"at": NOON}]]]},
    [10**30, -1, 1.5, None, True],
]


@pytest.mark.parametrize("data", SAME, ids=lambda data: type(data).__name__)
def test_is_json_as_fastapi_makes_it(data: Any) -> None:
    wanted = json.loads(json.dumps(jsonable_encoder(data)))
    found = Event(data).data
    assert (json.loads(found) if not isinstance(data, str) else found) == wanted


@pytest.mark.parametrize("wrap", [list, lambda items: {"items": items}, lambda items: [[items]]])
def test_a_generator_is_an_array(wrap: Any) -> None:
    def items() -> Iterator[Any]:
        yield ITEM
        yield (n for n in range(3))

    found = json.loads(Event(wrap(items())).data)
    assert found == json.loads(json.dumps(jsonable_encoder(wrap(items()))))


def test_views_and_mappings_of_any_kind_are_arrays_and_objects() -> None:
    data = {
        "keys": {"a": 1}.keys(),
        "values": {"a": 1}.values(),
        "map": types.MappingProxyType({"b": 2}),
        "r": range(2),
    }
    assert Event(data).data == '{"keys":["a"],"values":[1],"map":{"b":2},"r":[0,1]}'


def test_a_number_keeps_its_digits() -> None:
    assert Event({"a": Decimal("1.10"), "b": Decimal("123456789.123456789123")}).data == (
        '{"a":1.10,"b":123456789.123456789123}'
    )


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "sNaN"])
def test_what_is_no_number_is_null_as_in_json(number: str) -> None:
    assert Event({"a": Decimal(number), "b": float("nan"), "c": "NaN"}).data == '{"a":null,"b":null,"c":"NaN"}'


def test_structs_of_msgspec_stay_as_msgspec_writes_them() -> None:
    class Point(msgspec.Struct, rename="camel", tag=True):
        x_y: int
        more: Any = None

    assert Event(Point(1)).data == '{"type":"Point","xY":1,"more":null}'
    assert json.loads(Event([Point(1, ITEM), ITEM]).data)[0]["more"] == jsonable_encoder(ITEM)
    assert Event({"raw": msgspec.Raw(b"1.10"), "q": collections.deque()}).data == '{"raw":1.10,"q":[]}'


class Unknown:
    def __init__(self, value: Any) -> None:
        self.value = value


def test_an_object_that_is_not_known_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidEvent, match=r"test_data\.Unknown are not known, and no json_encoder= says"):
        Event({"a": Unknown(1)})


def test_a_hook_says_what_stands_for_an_object_that_is_not_known() -> None:
    encoder = DataEncoder(lambda unknown: {"value": unknown.value})
    assert encoder.text([Unknown(Unknown(NOON)), ITEM]).startswith(
        '[{"value":{"value":"2026-01-02T12:00:00+00:00"}},{"itemName":"pen"'
    )


def test_a_hook_is_asked_about_nothing_that_is_known() -> None:
    def refuse(data: object) -> object:
        raise AssertionError(data)

    for data in SAME:
        DataEncoder(refuse).text(data)


def test_a_hook_that_fails_says_why() -> None:
    def encode(data: object) -> object:
        raise TypeError("it is not mine")

    with pytest.raises(InvalidEvent, match="it is not mine"):
        DataEncoder(encode).text(Unknown(1))


def _cyclic_list() -> Any:
    found: list[Any] = [collections.deque()]
    found[0].append(found)
    return found


def _cyclic_dict() -> Any:
    found: dict[str, Any] = {}
    found["self"] = [found]
    return found


def _cyclic_place() -> Any:
    place = Place("here", NOON)
    place.item = place  # type: ignore[assignment]
    return place


class Node(pydantic.BaseModel):
    next: Any = None


def _cyclic_model() -> Any:
    node = Node()
    node.next = [node]
    return node


def _cyclic_generators() -> Any:
    return (_cyclic_generators() for _ in itertools.count())


@pytest.mark.parametrize("make", [_cyclic_list, _cyclic_dict, _cyclic_place, _cyclic_model, _cyclic_generators])
def test_data_that_holds_itself_is_refused(make: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"holds itself|[Cc]ircular"):
        Event(make())
    with pytest.raises(InvalidEvent, match="holds itself"):
        DataEncoder(lambda unknown: [unknown]).text(Unknown(1))


@pytest.mark.parametrize(
    "endless",
    [
        lambda: (n for n in itertools.count()),
        lambda: ("x" * 1000 for _ in itertools.count()),
        lambda: ("" for _ in itertools.count()),
        lambda: ([] for _ in itertools.count()),
        lambda: (10**5000 for _ in itertools.count()),
        lambda: [{"a": (ITEM for _ in itertools.count())}],
        lambda: ((n for n in range(10)) for _ in itertools.count()),
    ],
)
def test_endless_data_ends_with_the_size_of_the_largest_event(endless: Any) -> None:
    with pytest.raises(EventTooLarge, match="data is more than 20000 bytes of JSON"):
        DataEncoder(max_bytes=20_000).text(endless())


def test_what_just_fits_is_not_refused() -> None:
    data = [10**100, "x" * 100, {"a": collections.deque([1, 2])}, 1.5, None]
    text = DataEncoder().text(data)
    assert DataEncoder(max_bytes=len(text)).text(data) == text


def test_strings_and_dictionaries_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[object] = []
    monkeypatch.setattr("ssepool.core.data._Walk.plain", lambda self, data: walked.append(data))
    for data in ("text", {"a": [1, "2026-01-02T03:04:05Z", {"b": None}]}, [1.5, "Paris", {"c": "P"}], b"bytes"):
        Event(data)
    assert walked == []


def test_nothing_of_pydantic_or_fastapi_is_loaded() -> None:
    code = "import sys, ssepool.hub; print([name for name in sys.modules if name in ('pydantic', 'fastapi')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
