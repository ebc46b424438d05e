"""The client's own services, which we call: logins, secrets, ssh agents."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.grpc.protobuf import Message, raw, text


@dataclass(slots=True)
class CredentialsRequest(Message):
    host: str = text(1)


@dataclass(slots=True)
class CredentialsResponse(Message):
    username: str = text(1)
    secret: str = text(2)


@dataclass(slots=True)
class SecretRequest(Message):
    id: str = text(1)


@dataclass(slots=True)
class SecretResponse(Message):
    data: bytes = raw(1)


@dataclass(slots=True)
class AgentRequest(Message):
    id: str = text(1)
