"""Settings: one frozen dataclass a section, checked once, named alike everywhere.

A setting `max_waiting` of the section `pool` is `PoolConfig.max_waiting` in code, `--max-waiting` on the command
line, `SSEPOOL_MAX_WAITING` in the environment and `max_waiting` under `[pool]` in `ssepool.toml`. Only `size`, too
short a word to stand alone, is `--pool-size` and `SSEPOOL_POOL_SIZE`, and what is secret is not on the command line.
The command line wins over the environment, which wins over the file.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ssepool.errors import ConfigError
from ssepool.topic_rules import PATTERN_PREFIX, topic_rule
from ssepool.urls import host_port, is_network, is_origin, without_password

OnFull = Literal["wait", "retry", "reject"]
"""What a full pool does with a request; see `PoolConfig.on_full`."""
OnDrain = Literal["retry", "reject"]
"""What a draining pool does with a request; see `PoolConfig.on_drain`."""
OnDuplicate = Literal["ignore", "refuse"]
"""What becomes of an event whose id is in the history already."""
LagPolicy = Literal["skip", "latest", "disconnect"]
"""What becomes of a client that is too far behind."""
LogLevel = Literal["critical", "error", "warning", "info", "debug"]
"""The least serious messages that are logged."""

KiB = 1024
"""Bytes of a kibibyte."""
MiB = 1024 * KiB
"""Bytes of a mebibyte."""

_PORT = r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
_ASKED = re.compile(rf"https?://(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(?:{_PORT}))?(?:[/?][!-\"$-~]*)?")

TOKEN_COOKIE = "__Secure-ssepool_token"
"""The cookie that a token comes in by default. Browsers take it over TLS alone (RFC 6265bis, 4.1.3)."""
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
IGNORED_PARAMETERS = ("_", "datastar", "org.htmx.cache-buster", "evs_*", "utm_*", "fbclid", "gclid", "msclkid", "_gl")
"""Query parameters that libraries (jQuery, Datastar, htmx, a polyfill) and those who count visitors add to URLs."""
OPEN = "Default: none on loopback"
"""Ends the help of a limit that `server/defaults.py` sets where others than this machine reach the hub."""

MAX_ACK_TIMEOUT_SECONDS = 2_000_000
"""Seconds: the kernel takes the milliseconds of `TCP_USER_TIMEOUT` as a C int."""


def setting(default: Any, help: str, *, min: float = 0, max: float = math.inf, secret: bool = False) -> Any:
    """A field with its help text and, for numbers, the range that is allowed (both ends included).

    What is `secret` is never shown, may be empty, and has no flag: whoever may list processes reads those.
    """
    return field(default=default, metadata={"help": help, "min": min, "max": max, "secret": secret})


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """The pool: its size, its waiting queue, its limits and what the reaper does. Times in seconds."""

    size: int = setting(1000, "slots in the pool", min=1, max=1_000_000)
    max_size: int | None = setting(
        None, "slots that the pool may be resized to; none = what file descriptors allow", min=1, max=1_000_000
    )
    max_waiting: int = setting(1000, "requests that may wait for a slot; 0 = none")
    acquire_timeout: float = setting(30.0, "seconds that a request waits for a slot", min=0.001)
    on_full: OnFull = setting("wait", "what a full pool does: wait, retry (200 and come back later) or reject (503)")
    on_drain: OnDrain = setting("retry", "what a draining pool does: retry (200 and come back later) or reject (503)")
    announce_queue: bool = setting(False, "tell waiting clients their position with ssepool.queued events")
    heartbeat_interval: float = setting(15.0, "seconds between heartbeats on a quiet connection", min=0.01)
    ack_timeout: float = setting(
        30.0, "seconds without acknowledgement until a peer is dead", min=0.001, max=MAX_ACK_TIMEOUT_SECONDS
    )
    send_timeout: float = setting(20.0, "seconds that a socket buffer may stay full", min=0.001)
    idle_timeout: float = setting(3600.0, "seconds without any event until a client is let go; 0 = never")
    max_lifetime: float = setting(0.0, "seconds that a connection may last, less up to 5 % jitter; 0 = no limit")
    reap_interval: float = setting(1.0, "seconds between two looks of the reaper", min=0.01)
    max_per_ip: int | None = setting(None, f"connections and waiters of one address at most; 0 = any number. {OPEN}")
    max_waiting_per_ip: int | None = setting(None, f"waiters of one address at most; 0 = any number. {OPEN}")
    max_per_user: int | None = setting(None, "connections and waiters of one user at most; 0 = any number")
    max_per_topic: int | None = setting(None, "connections and waiters of one topic or pattern at most; 0 = any number")
    max_patterns: int = setting(1000, "different patterns of all clients of GET /events at most; each takes 100 KB")

    def __post_init__(self) -> None:
        check(self)

    def check_resize(self, size: int) -> None:
        """Raise `ConfigError` for a number of slots to which a pool with these settings may not be resized."""
        PoolConfig(size=size)
        if self.max_size is not None and size > self.max_size:
            raise ConfigError(f"size = {size} is not allowed; max_size is {self.max_size}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessConfig:
    """Who may do what. Nothing is open unless something here, or `Hub(authorize=...)`, says so."""

    public_topics: tuple[str, ...] = setting(
        (), "topics that everybody may read: names, patterns as pattern:news/*, or * for all"
    )
    token_keys: tuple[str, ...] = setting(
        (),
        "keys of tokens: files (PEM, JWK, a secret), env:NAME, an https address; ISSUER=... with several issuers",
    )
    token_issuers: tuple[str, ...] = setting((), "whose tokens count: the values of iss")
    token_audience: str | None = setting(None, "this hub's name in tokens: the value of aud")
    max_token_age: float = setting(86_400.0, "seconds ahead that a token may end at most", min=1)
    cookie_name: str = setting(TOKEN_COOKIE, "cookie that a token may come in")
    authorize_url: str | None = setting(None, "URL of your application, which is asked who may do what")
    authorize_timeout: float = setting(5.0, "seconds that authorize_url may take to answer", min=0.01)
    allowed_hosts: tuple[str, ...] = setting(
        (), "names under which the hub is reached, beside addresses and localhost; * = any"
    )

    max_grant_age: float = setting(
        1800.0, "seconds after which a stream's client is asked again who it is, less up to 10 % jitter", min=0.1
    )

    def __post_init__(self) -> None:
        check(self)
        if (url := self.authorize_url) is not None and not _ASKED.fullmatch(url):
            allowed = "it takes a URL such as http://127.0.0.1:5000/sse-auth, without user, password and fragment"
            raise ConfigError(f"AccessConfig.authorize_url = {without_password(url)!r} is not allowed; {allowed}")
        for name in self.allowed_hosts:
            if name != "*" and not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", name):
                allowed = "it takes names such as events.example.com, without scheme and port, or *"
                raise ConfigError(f"AccessConfig.allowed_hosts = {self.allowed_hosts!r} is not allowed; {allowed}")
        for topic in self.public_topics:
            if not topic.startswith(PATTERN_PREFIX) and topic != "*" and re.search(r"[*{(]", topic):
                raise ConfigError(
                    f"AccessConfig.public_topics = {self.public_topics!r} is not allowed; {topic!r} stands for exactly "
                    f"this name: write {PATTERN_PREFIX + topic!r} for a pattern, or * for all topics"
                )
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", self.cookie_name):
            raise ConfigError(
                f"AccessConfig.cookie_name = {self.cookie_name!r} is not allowed; it takes a cookie's name"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class HubConfig:
    """The hub: its pool, what it keeps for replay, and how it treats clients that lag."""

    pool: PoolConfig = field(default_factory=PoolConfig)
    """The settings of the pool."""
    access: AccessConfig = field(default_factory=AccessConfig)
    """Who may do what."""
    broker: str = setting("memory://", "where events are kept and shared: a URL")
    cluster_key: str = setting("", "secret by which nodes know each other; empty = the broker's password", secret=True)
    broker_timeout: float = setting(5.0, "seconds that the broker may take until a publish fails", min=0.01)
    on_duplicate: OnDuplicate = setting("ignore", "for an id that is in the history already: ignore or refuse (409)")
    history_events: int = setting(10_000, "events kept for replay")
    history_bytes: int = setting(64 * MiB, "bytes of memory of the events kept for replay")
    history_age: float = setting(3600.0, "seconds that events are kept for replay")
    topic_events: int | None = setting(None, "events of one topic that are kept at most; none = no bound of its own")
    topic_bytes: int | None = setting(None, "bytes of memory of one topic's events at most; none = no bound of its own")
    topic_age: float | None = setting(None, "seconds that events of a topic are kept; none = history_age")
    topic_rules: tuple[str, ...] = setting((), "bounds for some topics, as 'answers/* events=5000 age=86400'")
    window_bytes: int = setting(64 * MiB, "bytes of the history at most that are at hand in memory, for each process")
    lag_policy: LagPolicy = setting("skip", "for a client too far behind: skip, latest (per topic) or disconnect")
    lag_events: int = setting(10_000, "events that a client may be behind", min=1)
    lag_bytes: int = setting(16 * MiB, "bytes of memory of the events that a client may be behind", min=1)
    max_event_size: int = setting(MiB, "bytes of one event on the wire at most", min=128)
    max_body: int = setting(8 * MiB, "bytes of a request's body at most", min=1)
    subscribe_rate: float | None = setting(
        None, f"requests for GET /events a second that one address may send; 0 = any number. {OPEN}"
    )
    publish_rate: float | None = setting(
        None, f"events a second that one address may send to POST /events; 0 = any number. {OPEN}"
    )
    message_rate: float | None = setting(
        None, f"messages of clients a second that one address may send; 0 = any number. {OPEN}"
    )
    failure_rate: float | None = setting(
        None, f"refused requests a second until an address gets 429; 0 = any number. {OPEN}"
    )
    max_runs: int = setting(1000, "generators with a topic that may run at a time, for each process", min=1)
    run_grace: float = setting(0.0, "seconds that a generator with a topic runs on without a client; 0 = to its end")
    retry: float = setting(3.0, "seconds after which a client that is sent away comes back, plus jitter", min=0.001)
    detach: bool = setting(True, "take sockets over from the server where that is possible")
    handle_signals: bool = setting(True, "end all streams on SIGTERM and SIGINT, before the server waits for them")
    allow_regexp: bool = setting(False, "let clients of GET /events use regular expressions in patterns: (...)")
    allow_origins: tuple[str, ...] = setting(
        (), "origins of other sites whose pages may stream and send messages; * = all"
    )
    publish_origins: tuple[str, ...] = setting((), "origins of other sites whose pages may publish; * = all")
    ignore_parameters: tuple[str, ...] = setting(
        IGNORED_PARAMETERS, "query parameters that count for nothing; utm_* = all that begin so"
    )

    def __post_init__(self) -> None:
        check(self)
        for rule in self.topic_rules:
            topic_rule(rule)
        _check_origins("allow_origins", self.allow_origins)
        _check_origins("publish_origins", self.publish_origins)
        for name in self.ignore_parameters:
            if "*" in name[:-1]:
                allowed = "it takes names of parameters, and beginnings of names as utm_*"
                raise ConfigError(f"HubConfig.ignore_parameters = {self.ignore_parameters!r} is not allowed; {allowed}")

    def __repr__(self) -> str:
        """As of any dataclass, without passwords and keys."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        values |= {"broker": without_password(self.broker), "cluster_key": "***" if self.cluster_key else ""}
        return f"HubConfig({', '.join(f'{name}={value!r}' for name, value in values.items())})"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """The stand-alone server around a hub."""

    host: str = setting("127.0.0.1", "address to listen on")
    port: int = setting(8000, "port to listen on; 0 = any that is free", max=65535)
    uds: str | None = setting(None, "Unix socket to listen on instead, a path; for its user and group (0660)")
    fd: int | None = setting(
        None, "socket to listen on instead that was inherited: its descriptor; systemd's needs no word"
    )
    workers: int = setting(1, "processes on one port; 2 or more take a broker that they share", min=1, max=256)
    admin: tuple[str, ...] = setting(
        ("auto",),
        "where administration is: unix:PATH, for its user alone (0600); HOST:PORT, with rights; auto = a Unix socket "
        "where commands find it by the port; none",
    )
    audit_log: str = setting("none", "file for the audit log, a JSON object a line; - = standard output, none")
    dev: bool = setting(False, "open everything to programs of this machine, with the demo: for development alone")
    trusted_proxies: tuple[str, ...] = setting(
        ("127.0.0.1", "::1"),
        "proxies whose X-Forwarded-For is believed: addresses, networks such as 10.0.0.0/8, or *",
    )
    backlog: int = setting(16_384, "connections that the kernel holds until they are accepted", min=1, max=65535)
    head_timeout: float = setting(10.0, "seconds that a client may take to send a request's head", min=0.01)
    shutdown_timeout: float = setting(5.0, "seconds that shutting down may take", min=0.1)
    log_level: LogLevel = setting("info", "how much is logged")

    def __post_init__(self) -> None:
        check(self)
        if self.fd is not None and self.uds is not None:
            raise ConfigError(
                f"ServerConfig.fd = {self.fd} and uds = {self.uds!r} are two places to listen; it takes one"
            )
        if not all(proxy == "*" or is_network(proxy) for proxy in self.trusted_proxies):
            allowed = "it takes addresses, networks such as 10.0.0.0/8, or *"
            raise ConfigError(f"ServerConfig.trusted_proxies = {self.trusted_proxies!r} is not allowed; {allowed}")
        for entry in self.admin:
            is_place = entry == "auto" or (entry.startswith("unix:") and entry != "unix:") or host_port(entry)
            if not is_place and self.admin != ("none",):
                allowed = "it takes unix:PATH, HOST:PORT and auto, or none alone"
                raise ConfigError(f"ServerConfig.admin = {self.admin!r} is not allowed; {allowed}")


SECTIONS: dict[str, type[Any]] = {
    "pool": PoolConfig,
    "access": AccessConfig,
    "hub": HubConfig,
    "server": ServerConfig,
}
"""The tables of `ssepool.toml`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as the command line, the environment and the file know it."""

    section: str
    """The table of `ssepool.toml`: pool, access, hub or server."""
    name: str
    """The field of the section's dataclass."""
    type: Any
    """The annotation of the field."""
    default: Any
    """The value where nobody gives one."""
    help: str
    """One line for people."""
    secret: bool = False
    """Whether it must never be shown; then it is not on the command line."""
    min: float = 0
    """The smallest number that is allowed."""

    @property
    def key(self) -> str:
        """The name outside its section, in snake case: `pool_size`, `max_waiting`."""
        return "pool_size" if (self.section, self.name) == ("pool", "size") else self.name

    @property
    def flag(self) -> str:
        """The option on the command line, unless this is a secret."""
        return "--" + self.key.replace("_", "-")

    @property
    def env(self) -> str:
        """The environment variable."""
        return "SSEPOOL_" + self.key.upper()


def settings() -> Iterator[Setting]:
    """All settings, section by section, in the order in which they are declared."""
    for section, cls in SECTIONS.items():
        hints = _hints(cls)
        for item in dataclasses.fields(cls):
            if "help" in item.metadata:
                help, secret, min = (item.metadata[name] for name in ("help", "secret", "min"))
                yield Setting(section, item.name, hints[item.name], item.default, help, secret, min)


def load(
    *,
    file: Path | None = None,
    tables: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> tuple[HubConfig, ServerConfig]:
    """Merge a file (or its `tables`), the environment and flags (by `Setting.key`; `None` = not given) into checked
    configurations.

    Raises `ConfigError` for an unreadable file, an unknown table or setting, or a value that is not allowed.
    """
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    where = file or "settings"
    for section, table in (_read(file) if tables is None else tables).items():
        if section not in SECTIONS or not isinstance(table, dict):
            raise ConfigError(f"{where}: [{section}] is not a table of settings; there are {', '.join(SECTIONS)}")
        known = [item.name for item in settings() if item.section == section]
        if unknown := [name for name in table if name not in known]:
            raise ConfigError(f"{where}: [{section}] has no setting {unknown[0]!r}; there are {', '.join(known)}")
        values[section].update(table)
    if unknown := sorted(set(flags or ()) - {item.key for item in settings() if not item.secret}):
        raise ConfigError(f"there is no setting {unknown[0]!r}")
    for item in settings():
        if env and item.env in env:
            values[item.section][item.name] = _parse(item, env[item.env])
        if flags and flags.get(item.key) is not None:
            values[item.section][item.name] = flags[item.key]
    pool, access = PoolConfig(**values["pool"]), AccessConfig(**values["access"])
    return HubConfig(pool=pool, access=access, **values["hub"]), ServerConfig(**values["server"])


def check(config: Any) -> None:
    """Raise `ConfigError` for the first field of a configuration that has a wrong type or is out of range."""
    hints = _hints(type(config))
    for item in dataclasses.fields(config):
        value, hint = getattr(config, item.name), hints[item.name]
        if float in (hint, *typing.get_args(hint)) and isinstance(value, int) and not isinstance(value, bool):
            value = _as_float(value)
            object.__setattr__(config, item.name, value)
        if typing.get_origin(hint) is tuple and isinstance(value, list):
            value = tuple(value)
            object.__setattr__(config, item.name, value)
        name = f"{type(config).__name__}.{item.name}"
        if item.metadata.get("secret"):
            if not isinstance(value, str):
                raise ConfigError(f"{name} is not allowed; it takes {_describe(hint)}")
        elif not _fits(value, hint):
            raise ConfigError(f"{name} = {value!r} is not allowed; it takes {_describe(hint)}")
        if isinstance(value, (int, float)) and "min" in item.metadata:
            lowest, highest = item.metadata["min"], item.metadata["max"]
            if not lowest <= value <= highest or value == math.inf:
                limit = f"at least {lowest:.15g}" if math.isinf(highest) else f"from {lowest:.15g} to {highest:.15g}"
                raise ConfigError(f"{name} = {value!r} is not allowed; it takes a number, {limit}")


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _HINTS:  # evaluating the text of all annotations takes most of a configuration's time
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]


def _check_origins(name: str, origins: tuple[str, ...]) -> None:
    """Raise `ConfigError` for an origin that no browser sends, and that would never match (RFC 6454, section 6.2)."""
    for origin in origins:
        if origin not in ("*", "null") and not is_origin(origin):
            raise ConfigError(
                f"HubConfig.{name} = {origins!r} is not allowed; {origin!r} never matches: it takes origins as "
                "browsers send them, such as https://www.example.com or http://localhost:3000, in small letters, "
                "without path, wildcard and usual port, or * for all"
            )


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, not TOML, or a number of thousands of digits
        raise ConfigError(f"{file} cannot be read: {error}") from error


def _parse(item: Setting, text: str) -> Any:
    """A setting's value from the text of an environment variable."""
    kinds = typing.get_args(item.type) if isinstance(item.type, types.UnionType) else (item.type,)
    if type(None) in kinds and text.strip().lower() in ("", "none"):
        # "none" is said by somebody; nothing is what is left to the defaults.
        return 0 if text.strip() and item.min == 0 else None
    kind = kinds[0]
    if kind is bool:
        word = text.strip().lower()
        if word not in (*_TRUE, *_FALSE):
            raise ConfigError(f"{item.env}={text!r} is not allowed; it takes true or false")
        return word in _TRUE
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ConfigError(f"{item.env}={text!r} is not allowed; it takes {_describe(item.type)}") from None
    if typing.get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is str:
        return isinstance(value, str) and value != ""
    return isinstance(value, hint) and not (isinstance(value, float) and math.isnan(value))


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf  # which no setting takes


def _describe(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_describe(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return ", ".join(repr(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return "a list of strings"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "nothing"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))
