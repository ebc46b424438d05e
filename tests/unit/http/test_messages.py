from __future__ import annotations

import pytest

from runtime.http.messages import Headers, Request, Response, json_response, parse_range
from runtime.http.router import Router, compile_pattern


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=5-", (5, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=0-1000", (0, 100)),
        ("bytes=99-99", (99, 100)),
        ("bytes=100-", (100, 100)),  # an empty range: 416
        ("bytes=-0", (100, 100)),
        ("bytes=9-5", None),
        ("bytes=a-b", None),
        ("bytes=1-2,4-5", None),
        ("bytes=-", None),
        ("lines=1-2", None),
        ("bytes", None),
    ],
)
def test_ranges_are_read_as_the_standard_says(text: str, expected: tuple[int, int] | None) -> None:
    assert parse_range(text, 100) == expected


def test_header_names_compare_without_case_and_repeated_ones_are_joined() -> None:
    headers = Headers([("Accept", "a"), ("ACCEPT", "b"), ("X-Y", "z")])
    assert headers.get("accept") == "a, b"
    assert headers.all("Accept") == ["a", "b"]
    assert "x-y" in headers and "nothing" not in headers
    assert headers.get("nothing", "default") == "default"


class NoBody:
    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(())

    def read(self, limit: int) -> bytes:
        return b""


def request(method: str, path: str, target: str = "") -> Request:
    return Request(method, target or path, Headers([]), NoBody(), path)


def test_query_arguments_keep_their_order_and_blanks() -> None:
    asked = request("GET", "/x", "/x?tag=a&tag=b&n=")
    assert asked.query == {"tag": ["a", "b"], "n": [""]}
    assert asked.argument("tag") == "a"
    assert asked.argument("other", "default") == "default"


def test_the_first_route_that_fits_answers() -> None:
    router = Router()
    router.add("GET", "/a/{name:path}/list", lambda asked: json_response({"list": asked.params["name"]}))
    router.add("GET", "/a/{rest:path}", lambda asked: json_response({"rest": asked.params["rest"]}))
    assert router(request("GET", "/a/b/c/list")).body == b'{"list":"b/c"}'
    assert router(request("GET", "/a/b/c")).body == b'{"rest":"b/c"}'


def test_patterns_take_dots_and_brackets_as_they_are() -> None:
    assert compile_pattern("/a.b/{x}").fullmatch("/axb/1") is None
    assert compile_pattern("/a.b/{x}").fullmatch("/a.b/1/2") is None


def test_a_body_that_is_not_sent_is_closed() -> None:
    closed = []

    def body():  # type: ignore[no-untyped-def]
        try:
            yield b"x"
        finally:
            closed.append(True)

    chunks = body()
    next(chunks)
    Response(200, {}, chunks).close()
    assert closed == [True]
