"""The client's own services, which we call: logins, secrets, ssh agents."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.grpc.protobuf import TEXT, Message, integer, many, raw, text


@dataclass(slots=True)
class CredentialsRequest(Message):
    host: str = text(1)


@dataclass(slots=True)
class CredentialsResponse(Message):
    username: str = text(1)
    secret: str = text(2)


@dataclass(slots=True)
class FetchTokenRequest(Message):
    client_id: str = text(1)
    host: str = text(2)
    realm: str = text(3)
    service: str = text(4)
    scopes: list[str] = many(5, TEXT)


@dataclass(slots=True)
class FetchTokenResponse(Message):
    """`expires_in` is seconds."""

    token: str = text(1)
    expires_in: int = integer(2)


@dataclass(slots=True)
class SecretRequest(Message):
    id: str = text(1)


@dataclass(slots=True)
class SecretResponse(Message):
    data: bytes = raw(1)


@dataclass(slots=True)
class AgentRequest(Message):
    id: str = text(1)
