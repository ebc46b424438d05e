"""Warnings of build checks on the screen: where they come up, and together at the end."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from pipeline.event_log import event_from_json, event_to_json
from pipeline.mask import MaskedEmit, Secrets
from pipeline.ui.stream import choose_renderer
from pipeline.ui.tty import TtyRenderer
from runtime.events import Event, Started, Warned
from runtime.spans import Source, Span

TEXT = "FROM a\nENV b c\nCMD d\n"


def warned(
    rule: str = "LegacyKeyValueFormat", line: int = 2, file: str = "Dockerfile", **more: str
) -> Warned:
    settings = {
        "message": "write it with =",
        "url": "https://example.org/rule/",
        "detail": "about it",
        **more,
    }
    return Warned(node="build", span=Span(Source(file, TEXT), line), rule=rule, **settings)


def shown(*events: Event, kind: str = "plain", expand: bool = False) -> str:
    out = io.StringIO()
    renderer = choose_renderer(kind, out, expand=expand)
    for event in (Started(node="build", name="build ."), *events):
        renderer.update(event)
    renderer.close()
    return out.getvalue()


def test_plain_tells_a_finding_at_once_and_all_of_them_at_the_end() -> None:
    assert shown(warned(), warned("JSONArgsRecommended", 3)) == (
        "#1 build .\n"
        "#1 WARN: LegacyKeyValueFormat: write it with = (line 2)\n"
        "#1 WARN: JSONArgsRecommended: write it with = (line 3)\n"
        "\n"
        "2 warnings found (use --debug to expand):\n"
        " - LegacyKeyValueFormat: write it with = (line 2)\n"
        " - JSONArgsRecommended: write it with = (line 3)\n"
    )


def test_expanded_it_says_what_the_rule_is_about_and_shows_the_lines() -> None:
    text = shown(warned(), expand=True)
    assert "1 warning found:\n" in text
    assert "about it\nMore info: https://example.org/rule/\nDockerfile:2\n" in text
    assert "   2 | >>> ENV b c" in text


def test_of_several_files_each_finding_names_its_own() -> None:
    text = shown(
        warned(file="b/Dockerfile"), warned(line=3, file="a/Dockerfile"), warned(file="a/Dockerfile")
    )
    assert [line[:16] + line[-8:] for line in text.splitlines() if line.startswith(" - ")] == [
        " - a/Dockerfile:(line 2)",
        " - a/Dockerfile:(line 3)",
        " - b/Dockerfile:(line 2)",
    ]


def test_warnings_that_are_no_finding_are_not_counted() -> None:
    assert shown(Warned(node="build", message="unused")) == "#1 build .\n#1 WARN: unused\n"


def test_a_terminal_shows_findings_at_the_end_only_each_on_a_line_of_its_own() -> None:
    out = io.StringIO()
    renderer = TtyRenderer(out, Console(file=out, width=30, color_system=None))
    renderer.update(warned(message="a message that is longer than the terminal is wide"))
    assert "LegacyKeyValueFormat" not in out.getvalue()
    renderer.close()
    line = " - LegacyKeyValueFormat: a message that is longer than the terminal is wide (line 2)"
    assert line in out.getvalue().splitlines()


@pytest.mark.parametrize("kind", ["quiet", "jsonl"])
def test_machines_get_no_summary(kind: str) -> None:
    assert "warning found" not in shown(warned(), kind=kind)


def test_json_lines_and_the_journal_carry_rule_and_page() -> None:
    record = json.loads(shown(warned(), kind="jsonl").splitlines()[1])
    assert (record["rule"], record["url"]) == ("LegacyKeyValueFormat", "https://example.org/rule/")
    back = event_from_json(json.loads(json.dumps(event_to_json(warned()))))
    assert isinstance(back, Warned)
    assert (back.rule, back.url, back.detail) == (
        "LegacyKeyValueFormat",
        "https://example.org/rule/",
        "about it",
    )


def test_a_secret_in_a_finding_is_masked_and_the_rest_of_it_stays() -> None:
    seen: list[Event] = []
    secrets = Secrets()
    secrets.add(b"hunter2hunter2")
    MaskedEmit(seen.append, secrets)(warned(message="WORKDIR `hunter2hunter2` is relative"))
    assert isinstance(seen[0], Warned)
    assert (seen[0].message, seen[0].rule) == ("WORKDIR `***` is relative", "LegacyKeyValueFormat")
