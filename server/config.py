"""Settings: the only reader of the environment (OPERATIONS.md documents each one).

Read by the composition roots (server/cli.py, server/web/app.py, server/orders/app.py); all other
modules are given values. `LIVESALE_<NAME>` in the environment sets `<name>`; `REDIS_URL`,
`DATABASE_URL` and `PORT` are honoured under their customary names too.
"""

import os
import re
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server import limits
from server.errors import Misconfigured

SECRET_BYTES_MIN = 32


class Settings(BaseSettings):
    """All settings with their units, bounds and defaults. Unknown names are ignored."""

    model_config = SettingsConfigDict(env_prefix="LIVESALE_", extra="ignore", frozen=True)

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias=AliasChoices("LIVESALE_REDIS_URL", "REDIS_URL", "redis_url"),
        description="Redis >= 7.0 or Valkey >= 7.2: redis://, rediss:// or unix://; "
        "redis+sentinel://host,host/service; redis+cluster://host,host",
    )
    database_url: str = Field(
        "postgresql://127.0.0.1:5432/livesale",
        validation_alias=AliasChoices("LIVESALE_DATABASE_URL", "DATABASE_URL", "database_url"),
        description="PostgreSQL >= 15: postgresql://user:password@host/database",
    )
    durability: Literal["fast", "strict", "none"] = Field(
        "fast",
        description="What Redis must keep (docs/GUARANTEES.md): fast, strict, or none (demo only)",
    )
    durability_vouched: bool = Field(
        False,
        description="The Redis service forbids CONFIG GET, but keeps what durability asks",
    )
    secret: SecretStr = Field(
        SecretStr(""), description="Signs tokens and receipts; at least 32 bytes"
    )
    host: str = Field("127.0.0.1", description="Address the web process listens on")
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("LIVESALE_PORT", "PORT", "port"),
        description="Port the web process listens on; 0 picks a free one",
    )
    tls_cert: str = Field(
        "", description="PEM file with the certificate chain: TLS on the public port; empty: none"
    )
    tls_key: str = Field(
        "", validate_default=True, description="PEM file with the key of LIVESALE_TLS_CERT"
    )
    internal_host: str = Field(
        "127.0.0.1", description="Address of the internal port, which asks nobody who he is"
    )
    internal_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port for /livez, /readyz and /metrics of one web process in plain HTTP; the "
        "next of several has the next port; 0: none, or free ones if there are several",
    )
    demo: bool = Field(
        False,
        description="Demo mode: viewers may name themselves and get a token; never in production",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins allowed besides the page's own host, comma-separated, exact"
    )
    media_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins that viewers' pages may fetch video from besides a show's playback "
        "URL's, comma-separated, exact; for playlists that name another host",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Proxy addresses or networks whose X-Forwarded-For is believed"
    )
    tick_ms: int = Field(
        100,
        ge=limits.TICK_MS_MIN,
        le=limits.TICK_MS_MAX,
        description="Flush interval of a room, ms",
    )
    io_uring: bool = Field(
        True, description="Write to viewers through io_uring where the kernel allows it"
    )
    compression: bool = Field(
        False, description="Deflate what rooms show for viewers who offer permessage-deflate"
    )
    viewers_max: int = Field(18_000, ge=1, description="Viewers one web process admits, then 503")
    viewers_per_address_max: int = Field(
        2_000, ge=1, description="Viewers from one address (carrier NAT shares addresses), then 503"
    )
    viewers_per_user_max: int = Field(
        10, ge=1, description="Connections of one signed-in user on one process"
    )
    joins_per_second_max: int = Field(
        5_000, ge=1, description="Handshakes one web process accepts per second, then 503"
    )
    ping_seconds: int = Field(20, ge=1, le=300, description="Interval of pings to viewers, s")
    pong_seconds: int = Field(
        20, ge=1, le=300, description="A viewer silent for longer is closed, s"
    )
    chat_per_10s: int = Field(8, ge=1, description="Chat lines one viewer may send in 10 s")
    like_taps_per_second: int = Field(20, ge=1, description="Like taps one viewer may send per s")
    claims_per_second: int = Field(10, ge=1, description="Claims one viewer may send per s")
    worker_batch_claims: int = Field(
        2_048,
        ge=1,
        le=limits.WORKER_BATCH_CLAIMS_MAX,
        description="Claims the order worker merges into one transaction",
    )
    public_url: str = Field(
        "",
        pattern=r"^(https?://[^\s/]+(/[^\s]*)?)?$",
        description="How buyers reach this server, for links in payments; empty: its own pages",
    )
    payment_provider: Literal["", "demo", "stripe"] = Field(
        "", description="Who takes payments; empty: demo in demo mode, else nobody"
    )
    stripe_secret_key: SecretStr = Field(
        SecretStr(""), description="Stripe's secret key (sk_...); needs the extra `stripe`"
    )
    stripe_webhook_secret: SecretStr = Field(
        SecretStr(""), description="Signing secret (whsec_...) of the webhook endpoint at Stripe"
    )
    webhook_allow_private: bool = Field(
        False,
        description="Webhooks may go to private and loopback addresses; only where every host is "
        "trusted",
    )
    metrics_token: SecretStr = Field(
        SecretStr(""), description="Bearer token for /metrics; empty: only from loopback"
    )
    worker_metrics_port: int = Field(
        0, ge=0, le=65535, description="Loopback port of the order worker's /metrics; 0: none"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Log level")
    log_json: bool = Field(False, description="Log lines as JSON objects")
    drain_seconds: float = Field(
        6.0, ge=0, le=60, description="Time over which viewers are told to reconnect at a stop, s"
    )

    @field_validator("allowed_origins", "media_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("media_origins")
    @classmethod
    def _require_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            if not re.fullmatch(limits.ORIGIN_PATTERN, part):
                raise ValueError(f"no origin as https://host or https://host:port: {part}")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _require_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            ip_network(part, strict=False)
        return value

    @field_validator("tls_key")
    @classmethod
    def _require_pair(cls, value: str, info: ValidationInfo) -> str:
        if bool(value) != bool(info.data.get("tls_cert")):
            raise ValueError("LIVESALE_TLS_CERT and LIVESALE_TLS_KEY: both or none")
        return value

    def require_secret(self) -> bytes:
        """The signing secret. Raises Misconfigured when shorter than 32 bytes."""
        secret = self.secret.get_secret_value().encode()
        if len(secret) < SECRET_BYTES_MIN:
            raise Misconfigured(
                f"LIVESALE_SECRET must have at least {SECRET_BYTES_MIN} bytes; "
                "make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
            )
        return secret


def load(**overrides: object) -> Settings:
    """Settings from the environment, `overrides` first. Raises Misconfigured naming each fault."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise Misconfigured(f"bad settings: {faults}") from None


def environment(settings: Settings) -> dict[str, str]:
    """The environment for a process of ours that is to work on the same servers."""
    return {
        **os.environ,
        "LIVESALE_REDIS_URL": settings.redis_url,
        "LIVESALE_DATABASE_URL": settings.database_url,
    }


# --- What whoever started us says, as systemd does ----------------------------------------------

_LISTEN_FDS_START = 3


def handed_sockets() -> dict[str, int]:
    """Descriptors of listening sockets that we were handed, by name (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    names += [str(number) for number in range(len(names), count)]
    return {name: _LISTEN_FDS_START + n for n, name in enumerate(names[:count])}


def notify_socket() -> str:
    """Where we say READY=1 (sd_notify(3)); empty: nowhere."""
    return os.environ.get("NOTIFY_SOCKET", "")
