"""Settings: the four ways to give one, which of them wins, and what a bad value is answered with."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from pathlib import Path
from typing import Any

import pytest

from ssepool.config import SECTIONS, AccessConfig, HubConfig, PoolConfig, ServerConfig, Setting, check, load, settings
from ssepool.errors import ConfigError, SSEPoolError

ALL = list(settings())
BY_KEY = {item.key: item for item in ALL}

ON_THE_COMMAND_LINE = [item for item in ALL if not item.secret]

each_setting = pytest.mark.parametrize("item", ALL, ids=lambda item: item.key)


def other_value(item: Setting) -> Any:
    """A value that the setting takes and that is not its default."""
    if item.type is bool:
        return not item.default
    if typing.get_origin(item.type) is typing.Literal:
        return next(choice for choice in typing.get_args(item.type) if choice != item.default)
    if item.name == "trusted_proxies":
        return ("10.0.0.1", "fd00::/8")
    if item.name == "admin":
        return ("unix:/run/hub.sock", "[::1]:9000")
    if item.name == "allowed_hosts":
        return ("events.example.com", "node-1")
    if item.name == "authorize_url":
        return "http://127.0.0.1:5000/sse-auth"
    if item.name == "topic_rules":
        return ("answers/* events=5000 age=86400", "pattern:orders/:id bytes=1000")
    if typing.get_origin(item.type) is tuple:
        return ("https://a.example", "https://b.example:8443")
    if item.type in (str, str | None):
        return f"{item.default}0"
    return 7 if item.default is None else item.default + 1


def as_text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def as_toml(item: Setting, value: Any) -> str:
    # JSON's numbers, strings, booleans and arrays of them are TOML's too.
    return f"[{item.section}]\n{item.name} = {json.dumps(value)}\n"


def value_of(item: Setting, configs: tuple[HubConfig, ServerConfig]) -> Any:
    hub, server = configs
    return getattr({"pool": hub.pool, "access": hub.access, "hub": hub, "server": server}[item.section], item.name)


def write(folder: Path, text: str) -> Path:
    file = folder / "ssepool.toml"
    file.write_text(text, "utf-8")
    return file


def test_defaults_are_the_documented_ones() -> None:
    hub, server = load()
    assert (hub, server) == (HubConfig(), ServerConfig())
    pool = hub.pool
    assert (pool.size, pool.max_waiting, pool.acquire_timeout) == (1000, 1000, 30)
    assert (pool.on_full, pool.on_drain) == ("wait", "retry")
    assert (pool.heartbeat_interval, pool.ack_timeout, pool.send_timeout) == (15, 30, 20)
    assert (pool.idle_timeout, pool.max_lifetime, pool.reap_interval, pool.announce_queue) == (3600, 0, 1, False)
    assert (pool.max_per_ip, pool.max_per_user, pool.max_per_topic) == (None, None, None)
    assert (pool.max_waiting_per_ip, HubConfig().publish_rate, HubConfig().subscribe_rate) == (None, None, None)
    assert pool.max_patterns == 1000
    assert (hub.history_events, hub.history_bytes, hub.history_age) == (10_000, 64 * 2**20, 3600)
    assert (hub.lag_policy, server.host) == ("skip", "127.0.0.1")


def test_every_field_but_the_pool_is_a_setting_with_help() -> None:
    fields = {(section, field.name) for section, cls in SECTIONS.items() for field in dataclasses.fields(cls)}
    assert {(item.section, item.name) for item in ALL} == fields - {("hub", "pool"), ("hub", "access")}
    assert all(item.help for item in ALL)


def test_names_outside_the_sections_are_unique() -> None:
    assert len(BY_KEY) == len(ALL)


def test_a_setting_has_one_name_everywhere() -> None:
    assert (BY_KEY["pool_size"].flag, BY_KEY["pool_size"].env) == ("--pool-size", "SSEPOOL_POOL_SIZE")
    assert (BY_KEY["max_waiting"].flag, BY_KEY["max_waiting"].env) == ("--max-waiting", "SSEPOOL_MAX_WAITING")


@pytest.mark.parametrize("cls", SECTIONS.values())
def test_configuration_is_frozen(cls: type[Any]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(cls(), dataclasses.fields(cls)[-1].name, None)


@each_setting
def test_a_setting_is_given_in_code(item: Setting) -> None:
    value = other_value(item)
    assert getattr(SECTIONS[item.section](**{item.name: value}), item.name) == value


@each_setting
def test_a_setting_is_given_in_the_environment(item: Setting) -> None:
    value = other_value(item)
    assert value_of(item, load(env={item.env: as_text(value)})) == value


@each_setting
def test_a_setting_is_given_in_the_file(item: Setting, tmp_path: Path) -> None:
    value = other_value(item)
    assert value_of(item, load(file=write(tmp_path, as_toml(item, value)))) == value


@pytest.mark.parametrize("item", ON_THE_COMMAND_LINE, ids=lambda item: item.key)
def test_a_setting_is_given_as_a_flag(item: Setting) -> None:
    value = other_value(item)
    assert value_of(item, load(flags={item.key: value})) == value


def test_what_is_secret_cannot_be_given_as_a_flag() -> None:
    assert [item.key for item in ALL if item.secret] == ["cluster_key"]
    with pytest.raises(ConfigError, match="there is no setting 'cluster_key'"):
        load(flags={"cluster_key": "hunter2"})


def test_what_is_secret_is_never_shown() -> None:
    config = HubConfig(broker="redis://ann:hunter2@host/0", cluster_key="hunter2")
    assert "hunter2" not in repr(config)
    assert "broker='redis://ann:***@host/0'" in repr(config)
    assert "cluster_key='***'" in repr(config)
    assert eval(repr(HubConfig(lag_events=7))) == HubConfig(lag_events=7)
    with pytest.raises(ConfigError, match=r"^HubConfig.cluster_key is not allowed; it takes text$"):
        HubConfig(cluster_key=1234)  # type: ignore[arg-type]


@each_setting
def test_a_setting_leaves_the_others_alone(item: Setting) -> None:
    configs = load(env={item.env: as_text(other_value(item))})
    assert all(value_of(other, configs) == other.default for other in ALL if other != item)


def test_the_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "[pool]\nsize = 1\nmax_waiting = 1\nacquire_timeout = 1\n")
    env = {"SSEPOOL_POOL_SIZE": "2", "SSEPOOL_MAX_WAITING": "2"}
    hub, _ = load(file=file, env=env, flags={"pool_size": 3, "max_waiting": None})
    assert (hub.pool.size, hub.pool.max_waiting, hub.pool.acquire_timeout) == (3, 2, 1)


def test_a_flag_that_says_no_wins_too(tmp_path: Path) -> None:
    hub, _ = load(file=write(tmp_path, "[hub]\ndetach = true\n"), flags={"detach": False})
    assert hub.detach is False


def test_other_variables_of_the_environment_do_not_matter() -> None:
    assert load(env={"PATH": "/bin", "POOL_SIZE": "3"}) == load()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("detach", "1", True),
        ("detach", "Yes", True),
        ("detach", " on ", True),
        ("detach", "0", False),
        ("detach", "NO", False),
        ("detach", "off", False),
        ("acquire_timeout", "2", 2.0),
        ("acquire_timeout", "1e1", 10.0),
        ("history_bytes", "1_000", 1000),
        ("max_per_ip", "", None),
        ("max_per_ip", "none", 0),
        ("max_size", "none", None),
        ("publish_rate", "0.5", 0.5),
        ("publish_rate", "", None),
        ("publish_rate", "none", 0.0),
        ("max_per_ip", "5", 5),
        ("allow_origins", "", ()),
        ("allow_origins", "*", ("*",)),
        ("allow_origins", "https://a.example , https://b.example,", ("https://a.example", "https://b.example")),
    ],
)
def test_text_in_the_environment_is_read_as_the_settings_type(key: str, text: str, value: Any) -> None:
    item = BY_KEY[key]
    read = value_of(item, load(env={item.env: text}))
    assert (read, type(read)) == (value, type(value))


def test_whole_numbers_of_seconds_become_floats() -> None:
    assert isinstance(PoolConfig(idle_timeout=5).idle_timeout, float)


def test_a_list_in_code_becomes_a_tuple() -> None:
    assert HubConfig(allow_origins=["*"]).allow_origins == ("*",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cls", "name", "value", "allowed"),
    [
        (PoolConfig, "size", 0, "a number, from 1 to 1000000"),
        (PoolConfig, "size", -1, "a number, from 1 to 1000000"),
        (PoolConfig, "size", 1_000_001, "a number, from 1 to 1000000"),
        (PoolConfig, "size", 10**400, "a number, from 1 to 1000000"),
        (PoolConfig, "size", 2.0, "a whole number"),
        (PoolConfig, "size", True, "a whole number"),
        (PoolConfig, "size", "10", "a whole number"),
        (PoolConfig, "size", None, "a whole number"),
        (PoolConfig, "max_waiting", -1, "a number, at least 0"),
        (PoolConfig, "acquire_timeout", 0.0, "a number, at least 0.001"),
        (PoolConfig, "acquire_timeout", math.nan, "a number"),
        (PoolConfig, "acquire_timeout", math.inf, "a number, at least 0.001"),
        (PoolConfig, "acquire_timeout", "1", "a number"),
        (PoolConfig, "acquire_timeout", False, "a number"),
        (PoolConfig, "ack_timeout", 2_147_484.0, "a number, from 0.001 to 2000000"),
        (PoolConfig, "idle_timeout", -0.5, "a number, at least 0"),
        (PoolConfig, "on_full", "queue", "'wait', 'retry', 'reject'"),
        (PoolConfig, "on_full", ["wait"], "'wait', 'retry', 'reject'"),
        (PoolConfig, "announce_queue", 1, "true or false"),
        (PoolConfig, "announce_queue", "yes", "true or false"),
        (PoolConfig, "max_per_ip", -1, "a number, at least 0"),
        (PoolConfig, "max_waiting_per_ip", 0.5, "a whole number or nothing"),
        (HubConfig, "publish_rate", -1.0, "a number, at least 0"),
        (HubConfig, "publish_rate", math.inf, "a number, at least 0"),
        (HubConfig, "publish_rate", "3", "a number or nothing"),
        (PoolConfig, "max_per_ip", "3", "a whole number or nothing"),
        (HubConfig, "pool", {"size": 3}, "PoolConfig"),
        (HubConfig, "broker", "", "text"),
        (HubConfig, "broker", 3, "text"),
        (HubConfig, "lag_policy", "drop", "'skip', 'latest', 'disconnect'"),
        (HubConfig, "history_events", -1, "a number, at least 0"),
        (HubConfig, "allow_origins", "https://a.example", "a list of strings"),
        (HubConfig, "allow_origins", (1,), "a list of strings"),
        *(
            (AccessConfig, "allowed_hosts", (name,), "names such as events.example.com, without scheme and port, or *")
            for name in ("https://a.example", "a.example:443", "*.a.example", "a.example/", ".a.example", "", "a b")
        ),
        *(
            (ServerConfig, "admin", given, "unix:PATH, HOST:PORT and auto, or none alone")
            for given in (("9000",), ("unix:",), ("/run/hub.sock",), ("a:65536",), ("::1:9",), ("none", "auto"), ("",))
        ),
        (ServerConfig, "trusted_proxies", ("proxy.example",), "addresses, networks such as 10.0.0.0/8, or *"),
        (ServerConfig, "trusted_proxies", ("10.0.0.1/8",), "addresses, networks such as 10.0.0.0/8, or *"),
        (ServerConfig, "port", 65_536, "a number, from 0 to 65535"),
        (ServerConfig, "host", "", "text"),
        (ServerConfig, "log_level", "loud", "'critical', 'error', 'warning', 'info', 'debug'"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(cls: type[Any], name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as error:
        cls(**{name: value})
    assert str(error.value) == f"{cls.__name__}.{name} = {value!r} is not allowed; it takes {allowed}"


@pytest.mark.parametrize("name", ["allow_origins", "publish_origins"])
@pytest.mark.parametrize(
    "origin",
    [
        *("https://a.example/", "https://a.example/path", "https://*.a.example", "a.example", "a.example:443", "//a"),
        *(
            "https://a.example:443",
            "http://a.example:80",
            "https://A.example",
            "HTTPS://a.example",
            "https://ä.example",
        ),
        *("https://user@a.example", "https://", "https://a..example", "https://a.example:", "https://a.example?b", ""),
        *("**", "NULL", " https://a.example", "https://a.example\n"),
    ],
)
def test_an_origin_that_never_matches_is_not_allowed(name: str, origin: str) -> None:
    with pytest.raises(ConfigError) as error:
        HubConfig(**{name: ("https://b.example", origin)})
    assert f"HubConfig.{name} = " in str(error.value) and f"{origin!r} never matches: it takes" in str(error.value)


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "null", "https://a.example", "http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:8000"),
        *(
            "https://a.example:80",
            "http://a.example:443",
            "https://xn--4ca.example",
            "capacitor://localhost",
            "http://a",
        ),
        "chrome-extension://abcdefghijklmnop",
    ],
)
def test_an_origin_that_a_browser_may_send_is_allowed(origin: str) -> None:
    HubConfig(allow_origins=(origin,), publish_origins=(origin,))


@pytest.mark.parametrize("name", [item.name for item in ALL if item.type is float])
def test_seconds_beyond_all_floats_are_not_allowed(name: str) -> None:
    item = next(item for item in ALL if item.name == name)
    with pytest.raises(ConfigError, match=f"{item.name} = inf is not allowed"):
        SECTIONS[item.section](**{name: 10**400})


def test_a_count_beyond_all_floats_is_compared_all_the_same() -> None:
    assert HubConfig(history_events=10**400).history_events == 10**400


@pytest.mark.parametrize(
    ("key", "text", "allowed"),
    [
        ("pool_size", "many", "a whole number"),
        ("pool_size", "1.5", "a whole number"),
        ("pool_size", "", "a whole number"),
        ("acquire_timeout", "soon", "a number"),
        ("max_per_ip", "few", "a whole number or nothing"),
        ("detach", "perhaps", "true or false"),
        ("detach", "", "true or false"),
    ],
)
def test_a_bad_variable_is_named_with_what_is_allowed(key: str, text: str, allowed: str) -> None:
    variable = BY_KEY[key].env
    with pytest.raises(ConfigError) as error:
        load(env={variable: text})
    assert str(error.value) == f"{variable}={text!r} is not allowed; it takes {allowed}"


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("pool_size", "0", "PoolConfig.size = 0 is not allowed; it takes a number, from 1 to 1000000"),
        ("acquire_timeout", "nan", "PoolConfig.acquire_timeout = nan is not allowed; it takes a number"),
        ("on_full", "queue", "PoolConfig.on_full = 'queue' is not allowed; it takes 'wait', 'retry', 'reject'"),
        ("host", "", "ServerConfig.host = '' is not allowed; it takes text"),
    ],
)
def test_a_variable_that_is_out_of_range_is_named_by_its_setting(key: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(env={BY_KEY[key].env: text})
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pool]\nsizes = 3\n", "[pool] has no setting 'sizes'; there are size, max_size, "),
        ("[pool]\nmax-waiting = 3\n", "[pool] has no setting 'max-waiting'"),
        ("[server]\nsize = 3\n", "[server] has no setting 'size'; there are host, port, "),
        ("[hub]\npool = 3\n", "[hub] has no setting 'pool'; there are broker, "),
        ("[hub.pool]\nsize = 3\n", "[hub] has no setting 'pool'"),
        ("[pools]\nsize = 3\n", "[pools] is not a table of settings; there are pool, access, hub, server"),
        ("size = 3\n", "[size] is not a table of settings"),
        ("[[pool]]\nsize = 3\n", "[pool] is not a table of settings"),
        ("[pool\n", "cannot be read: "),
        ("[pool]\nsize = " + "1" * 5000, "cannot be read: "),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load(file=file)
    assert str(file) in str(error.value)
    assert message in str(error.value)


def test_a_bad_value_in_the_file_is_named_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="size = 'big' is not allowed; it takes a whole number"):
        load(file=write(tmp_path, "[pool]\nsize = 'big'\n"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read"):
        load(file=tmp_path / "nowhere.toml")


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ssepool.toml"
    file.write_bytes(b"[hub]\nbroker = '\xff'\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file=file)


def test_a_flag_that_no_setting_has_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no setting 'size'"):
        load(flags={"size": 3})


def test_a_config_error_is_one_of_ours() -> None:
    assert issubclass(ConfigError, SSEPoolError)


def test_what_was_checked_once_passes_again() -> None:
    check(HubConfig())
    assert dataclasses.replace(PoolConfig(size=2), max_waiting=1) == PoolConfig(size=2, max_waiting=1)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "127.0.0.1:5000/auth",
            "ftp://a.example/auth",
            "http://",
            "http:///auth",
            "http://a.example:99999/",
            "http://a.example:65536",
            "http://a.example:0",
        ),
        *("http://a.example/a b", "http://a.example/\n", "http://a.example/#top", "http://\xe4.example/"),
    ],
)
def test_a_url_that_cannot_be_asked_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="authorize_url"):
        AccessConfig(authorize_url=url)


@pytest.mark.parametrize(
    "url",
    [
        *("http://a", "https://app.example:65535/x?key=1&b=%20", "http://[::1]:5000/auth", "http://127.0.0.1:80?x"),
        "http://app_1.internal./sse/auth/",
    ],
)
def test_a_url_that_can_be_asked_is_taken(url: str) -> None:
    assert AccessConfig(authorize_url=url).authorize_url == url


def test_the_password_of_a_url_that_is_refused_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="without user, password") as error:
        AccessConfig(authorize_url="http://ann:hunter2@a.example/auth")
    assert "hunter2" not in str(error.value)
