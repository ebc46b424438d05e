from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping

import pytest

from registry_client.auth import Authorizer, merge_scopes, parse_challenges, repository_scope
from registry_client.credentials import Credential, FixedCredentials
from registry_client.endpoint import Endpoint
from registry_client.errors import Denied, Invalid, Unauthorized

HOST = "registry.example.com"
REALM = "https://auth.example.com/token"
BEARER = f'Bearer realm="{REALM}",service="reg",scope="repository:shop/app:pull"'
SCOPE = repository_scope("shop/app", "pull")


class TokenServer:
    """Answers with numbered tokens and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, list[str]], dict[str, str]]] = []
        self.answer: dict[str, object] = {}
        self.statuses: dict[str, int] = {}

    def __call__(
        self,
        method: str,
        url: str,
        *,
        query: list[tuple[str, str]] | None = None,
        form: list[tuple[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        fields: dict[str, list[str]] = {}
        for key, value in query or form or []:
            fields.setdefault(key, []).append(value)
        self.asked.append((method, url, fields, dict(headers or {})))
        status = self.statuses.get(method, 200)
        body = self.answer or {"token": f"token-{len(self.asked)}"}
        return status, {}, json.dumps(body).encode()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def authorizer(
    server: TokenServer, credential: Credential | None = None, clock: Clock | None = None, **endpoint: object
) -> Authorizer:
    logins = FixedCredentials({HOST: credential} if credential else {})
    return Authorizer(Endpoint(HOST, **endpoint), logins, server, clock or Clock())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a/t?x=1,2", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        ('Basic realm="Registry Realm"', [("basic", {"realm": "Registry Realm"})]),
        ("Basic realm=plain", [("basic", {"realm": "plain"})]),
        (
            'Basic realm="a", Bearer realm="b",service="c"',
            [("basic", {"realm": "a"}), ("bearer", {"realm": "b", "service": "c"})],
        ),
        ('BEARER Realm = "a" , Service = "b"', [("bearer", {"realm": "a", "service": "b"})]),
        (r'Basic realm="quoted \" and \\ inside"', [("basic", {"realm": r'quoted " and \ inside'})]),
        ("Negotiate", [("negotiate", {})]),
        ("", []),
        ("===", []),
    ],
)
def test_challenges_are_read_in_all_their_spellings(
    text: str, expected: list[tuple[str, dict[str, str]]]
) -> None:
    assert [(c.scheme, dict(c.parameters)) for c in parse_challenges([text])] == expected


def test_scopes_of_one_resource_are_merged() -> None:
    merged = merge_scopes(
        ["repository:b:push", "repository:a:pull", "repository:b:pull", "repository:b:push"]
    )
    assert merged == ("repository:a:pull", "repository:b:pull,push")


def test_a_resource_may_have_a_colon_in_its_name() -> None:
    assert merge_scopes(["repository:host:5000/app:push,pull"]) == ("repository:host:5000/app:pull,push",)


def test_nothing_is_sent_before_the_registry_asks() -> None:
    assert authorizer(TokenServer(), Credential("u", "p")).header([SCOPE]) is None


def test_a_challenge_is_answered_with_a_token_for_our_scopes_and_its_own() -> None:
    server = TokenServer()
    header = authorizer(server).challenged([BEARER], [repository_scope("shop/app", "push")])
    assert header == "Bearer token-1"
    method, url, fields, headers = server.asked[0]
    assert (method, url) == ("GET", REALM)
    assert fields == {"service": ["reg"], "scope": ["repository:shop/app:pull,push"]}
    assert headers == {}


def test_several_resources_are_asked_for_one_by_one() -> None:
    server = TokenServer()
    authorizer(server).challenged([BEARER], [SCOPE, repository_scope("base", "pull")])
    assert server.asked[0][2]["scope"] == ["repository:base:pull", "repository:shop/app:pull"]


def test_a_password_goes_to_the_token_server_and_not_to_the_registry() -> None:
    server = TokenServer()
    header = authorizer(server, Credential("u", "p:w")).challenged([BEARER, 'Basic realm="x"'], [SCOPE])
    assert header == "Bearer token-1"
    assert server.asked[0][3]["Authorization"] == "Basic " + base64.b64encode(b"u:p:w").decode()


def test_basic_is_answered_with_the_password() -> None:
    basic = authorizer(TokenServer(), Credential("u", "p")).challenged(['Basic realm="x"'], [SCOPE])
    assert basic == "Basic " + base64.b64encode(b"u:p").decode()


def test_without_a_login_basic_cannot_be_answered() -> None:
    assert authorizer(TokenServer()).challenged(['Basic realm="x"'], [SCOPE]) is None


def test_a_registry_token_is_sent_as_it_is() -> None:
    server = TokenServer()
    login = authorizer(server, Credential(registry_token="given"))
    assert login.challenged([BEARER], [SCOPE]) == "Bearer given"
    assert server.asked == []


def test_a_token_is_used_again_for_the_same_scopes_only() -> None:
    server = TokenServer()
    login = authorizer(server)
    assert login.challenged([BEARER], [SCOPE]) == "Bearer token-1"
    assert login.header([SCOPE]) == "Bearer token-1"
    assert login.header([repository_scope("other", "pull")]) == "Bearer token-2"
    assert login.header([SCOPE]) == "Bearer token-1"


def test_a_token_lives_sixty_seconds_unless_it_says_otherwise() -> None:
    server, clock = TokenServer(), Clock()
    login = authorizer(server, clock=clock)
    login.challenged([BEARER], [SCOPE])
    clock.now += 50
    assert login.header([SCOPE]) == "Bearer token-1"
    clock.now += 10
    assert login.header([SCOPE]) == "Bearer token-2"


def test_a_token_is_renewed_shortly_before_it_expires() -> None:
    server, clock = TokenServer(), Clock()
    server.answer = {"token": "t", "expires_in": 300}
    login = authorizer(server, clock=clock)
    login.challenged([BEARER], [SCOPE])
    clock.now += 294
    login.header([SCOPE])
    assert len(server.asked) == 1
    clock.now += 2
    login.header([SCOPE])
    assert len(server.asked) == 2


def test_the_age_of_a_token_counts() -> None:
    server, clock = TokenServer(), Clock()
    issued = time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime(time.time() - 200))
    server.answer = {"access_token": "t", "expires_in": 300, "issued_at": issued}
    login = authorizer(server, clock=clock)
    assert login.challenged([BEARER], [SCOPE]) == "Bearer t"
    clock.now += 110
    login.header([SCOPE])
    assert len(server.asked) == 2


def test_a_refused_token_is_fetched_anew_although_it_is_not_old() -> None:
    server = TokenServer()
    login = authorizer(server)
    login.challenged([BEARER], [SCOPE])
    assert login.challenged([BEARER], [SCOPE]) == "Bearer token-2"


def test_an_identity_token_is_posted_as_refresh_token() -> None:
    server = TokenServer()
    authorizer(server, Credential(identity_token="idt")).challenged([BEARER], [SCOPE])
    method, _, fields, headers = server.asked[0]
    assert method == "POST"
    assert fields["grant_type"] == ["refresh_token"]
    assert fields["refresh_token"] == ["idt"]
    assert fields["scope"] == [SCOPE]
    assert headers == {}


@pytest.mark.parametrize("status", [404, 405])
def test_a_token_server_without_post_is_asked_with_get(status: int) -> None:
    server = TokenServer()
    server.statuses["POST"] = status
    credential = Credential("u", "p", identity_token="idt")
    assert authorizer(server, credential).challenged([BEARER], [SCOPE]) == "Bearer token-2"
    assert [asked[0] for asked in server.asked] == ["POST", "GET"]


@pytest.mark.parametrize("answer", [{"nothing": 1}, {"token": 5}, {"token": "t", "expires_in": "soon"}])
def test_a_token_server_that_gives_no_token_is_reported(answer: dict[str, object]) -> None:
    server = TokenServer()
    server.answer = answer
    with pytest.raises(Invalid, match=r"token server https://auth\.example\.com/token"):
        authorizer(server).challenged([BEARER], [SCOPE])


def test_a_refused_login_says_what_to_do() -> None:
    server = TokenServer()
    server.statuses["GET"] = 401
    with pytest.raises(Unauthorized) as caught:
        authorizer(server, Credential("u", "secret")).challenged([BEARER], [SCOPE])
    assert f"pipe login {HOST}" in caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("realm", ["", "ftp://x/", "https://u:p@evil.example/", "/token"])
def test_an_unusable_realm_is_refused(realm: str) -> None:
    with pytest.raises(Invalid, match="no usable token server"):
        authorizer(TokenServer()).challenged([f'Bearer realm="{realm}"'], [SCOPE])


def test_a_password_is_not_sent_unencrypted_because_the_registry_says_so() -> None:
    server = TokenServer()
    with pytest.raises(Denied, match="unencrypted"):
        authorizer(server, Credential("u", "p")).challenged(
            ['Bearer realm="http://auth.example.com/"'], [SCOPE]
        )
    assert server.asked == []


def test_an_insecure_registry_may_have_an_unencrypted_token_server() -> None:
    login = authorizer(TokenServer(), Credential("u", "p"), insecure=True)
    assert login.challenged(['Bearer realm="http://auth.example.com/"'], [SCOPE]) == "Bearer token-1"


def test_secrets_do_not_show_in_repr() -> None:
    assert "geheim" not in repr(Credential("u", "geheim", "geheim", "geheim"))
