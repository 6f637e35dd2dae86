"""Settings: one frozen Config, from the environment, every name with its unit."""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

PREFIX = "PASSBOOK_"
_MAPPED_BITS = 96


class ConfigError(Exception):
    """One or more variables are wrong. The text names each of them and what it takes."""


class Config(Struct, frozen=True, kw_only=True):
    """All settings of a running service. The variable of a field is PASSBOOK_ and its name in capitals.

    The descriptions are those of docs/operating.md: `passbook config --markdown` prints its table.
    """

    database: Annotated[str, Meta(min_length=1, description="path of the SQLite database; on a local disk")] = (
        "data/passbook.db"
    )
    host: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 takes a free one")] = 8000
    body_bytes_max: Annotated[
        int,
        Meta(
            ge=4096,
            le=2**30,
            description="largest request body; larger ones get 413 (batches of balance changes: 4 MiB)",
        ),
    ] = 65536
    bodies_bytes_max: Annotated[
        int,
        Meta(
            ge=8 * 2**20,
            le=2**40,
            description="most bytes of the bodies of all requests under way; more get 503, and more than half of it "
            "from one key 429",
        ),
    ] = 32 * 2**20
    key_requests_max: Annotated[
        int,
        Meta(
            ge=0, le=10**6, description="requests of one API key under way at the same time; more get 429; 0: no limit"
        ),
    ] = 1024
    key_writes_per_s: Annotated[
        int,
        Meta(ge=0, le=10**9, description="POST requests of one API key a second; more get 429; 0: no limit"),
    ] = 20_000
    refused_keys_per_s: Annotated[
        int,
        Meta(
            ge=0,
            le=10**6,
            description="requests a second without a valid API key that one client address (of IPv6, /64) may send; "
            "more get 429 in place of 401; 0: no limit",
        ),
    ] = 100
    write_queue_max: Annotated[
        int,
        Meta(
            ge=1,
            le=10**6,
            description="writes that may wait for a commit, of one key at most half of them; more get 503 with "
            "Retry-After",
        ),
    ] = 8192
    write_queue_bytes_max: Annotated[
        int, Meta(ge=2**20, le=2**34, description="bytes of the bodies of the writes that wait, shared in the same way")
    ] = 32 * 2**20
    write_batch_max: Annotated[
        int,
        Meta(
            ge=1,
            le=10**5,
            description="most operations in one commit, a balance change counted as one; a larger batch of them has a "
            "commit of its own",
        ),
    ] = 256
    write_stall_s: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="how long a commit may take before `/readyz` says 503 and new writes are refused at once",
        ),
    ] = 10
    write_timeout_s: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="how long a write may wait for its commit; then it gets 503, which says whether it was begun",
        ),
    ] = 30
    write_restart_s: Annotated[
        int,
        Meta(
            ge=0,
            le=86_400,
            description="how long a commit, or a start of the writing process, may take before that process is "
            "killed and replaced (if the service itself is starting, it ends); 0: never",
        ),
    ] = 60
    readers: Annotated[
        int,
        Meta(ge=1, le=64, description="connections that read at the same time, and as many again for the audit log"),
    ] = 2
    busy_timeout_ms: Annotated[
        int, Meta(ge=0, le=600_000, description="how long to wait for another process that holds the database")
    ] = 5000
    match_window_s: Annotated[
        int,
        Meta(
            ge=86_400,
            le=2_678_400,
            description="how far a bank transfer and its announcement may lie apart, either way, to be matched",
        ),
    ] = 86_400
    bank_name_width: Annotated[
        int,
        Meta(
            ge=4,
            le=100,
            description="width of the field in which banks print a depositor's name: a Hangul letter counts 2, a Latin "
            "one 1; a name that fills it may have been cut",
        ),
    ] = 14
    deposit_expiry_s: Annotated[
        int, Meta(ge=1, le=31_536_000, description="how long an announced deposit waits for its money")
    ] = 86_400
    hold_expiry_s: Annotated[
        int, Meta(ge=1, le=31_536_000, description="how long a domain name is held before its money goes back")
    ] = 3600
    expiry_interval_s: Annotated[
        int, Meta(ge=1, le=86_400, description="how often the service looks for what has expired")
    ] = 30
    audit_key: Annotated[
        str,
        Meta(
            description="file of the key that signs the audit log's checkpoints, made when it is not there; empty: "
            "the database's path and `.audit-key`"
        ),
    ] = ""
    audit_origin: Annotated[
        str,
        Meta(
            max_length=200,
            description="name of the audit log in its checkpoints, when its key is made; empty: `passbook-` and a "
            "random number",
        ),
    ] = ""
    request_timeout_s: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="how long a client may take to send a request, head and body; then it is cut off with 408",
        ),
    ] = 60
    answer_timeout_s: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="how long a client may take nothing of an answer that waits for it; then it is cut off",
        ),
    ] = 60
    connections_max: Annotated[
        int,
        Meta(
            ge=8,
            le=65_000,
            description="connections at once, or fewer if the limit of open files requires it; then the longest idle "
            "ones are closed, and if none is idle, new ones get 503",
        ),
    ] = 4096
    shutdown_delay_s: Annotated[
        int,
        Meta(
            ge=0,
            le=3600,
            description="how long everything goes on after SIGTERM while `/readyz` says 503, so that a load balancer "
            "sees it",
        ),
    ] = 0
    shutdown_grace_s: Annotated[
        int, Meta(ge=1, le=3600, description="how long requests under way may take after SIGTERM, and after that delay")
    ] = 10
    log_format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="`json`: a JSON object a line; `text`: for people; `auto`: `text` on a terminal, else `json`"),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="the least severe lines of the log: `debug`, `info`, `warning` or `error`"),
    ] = "info"
    access_log: Annotated[bool, Meta(description="whether each request is a line of the log: `true` or `false`")] = (
        False
    )

    trusted_proxies: Annotated[
        str,
        Meta(description="addresses and networks, with commas between, whose `X-Forwarded-For` is believed"),
    ] = ""

    @property
    def database_path(self) -> Path:
        """The database as a path."""
        return Path(self.database)

    @property
    def audit_key_path(self) -> Path:
        """The key of the audit log as a path."""
        return Path(self.audit_key) if self.audit_key else Path(f"{self.database}.audit-key")

    @property
    def retention_path(self) -> Path:
        """What is locked while rows are archived or erased: one such work at a time."""
        return Path(f"{self.database}.retention")

    @property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`trusted_proxies` as networks; mapped IPv4 is IPv4. Raises ValueError naming the one that is none."""
        given = [text.strip() for text in self.trusted_proxies.split(",")]
        return tuple(_unmapped(ip_network(text)) for text in given if text)

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **overrides: str | int | None) -> "Config":
        """The settings in `environ`, then `overrides` that are not None. Raises ConfigError naming every bad variable.

        A PASSBOOK_ variable that is no setting is an error too: it is a typing error that would go unnoticed.
        """
        fields = {field.name: field for field in msgspec.structs.fields(cls)}
        given: dict[str, str | int] = {
            name.removeprefix(PREFIX).lower(): value for name, value in environ.items() if name.startswith(PREFIX)
        }
        given.update({name: value for name, value in overrides.items() if value is not None})
        errors = [f"{PREFIX}{name.upper()} is no setting" for name in given if name not in fields]
        values = {}
        for name, value in given.items():
            if name in fields:
                try:
                    values[name] = msgspec.convert(value, fields[name].type, strict=False)
                except msgspec.ValidationError as error:
                    errors.append(f"{PREFIX}{name.upper()}={value!r}: {error}")
        config = cls(**values)
        if 2 * config.body_bytes_max > config.bodies_bytes_max:
            errors.append(
                f"{PREFIX}BODIES_BYTES_MAX={config.bodies_bytes_max}: must be at least twice {PREFIX}BODY_BYTES_MAX, "
                f"which is {config.body_bytes_max}"
            )
        try:
            config.trusted_networks  # noqa: B018  what cannot be read is told at the start
        except ValueError as error:
            errors.append(f"{PREFIX}TRUSTED_PROXIES={config.trusted_proxies!r}: {error}")
        if errors:
            raise ConfigError("; ".join(sorted(errors)))
        return config


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


class Setting(Struct, frozen=True, kw_only=True):
    """A setting as documents name it; `default` as a variable would spell it, `what` in words."""

    name: str
    variable: str
    default: str
    what: str

    def spelt(self, config: Config) -> str:
        """Its value in `config`, as a variable would spell it."""
        return _spelt(getattr(config, self.name))


def settings() -> list[Setting]:
    """All settings, in their order."""
    return [
        Setting(
            name=field.name,
            variable=f"{PREFIX}{field.name.upper()}",
            default=_spelt(field.default),
            what=str(get_args(field.type)[1].description),
        )
        for field in msgspec.structs.fields(Config)
    ]


def _spelt(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
