"""The flags of `pipe build`: what the table reads is what click reads, and click says what is wrong."""

from __future__ import annotations

from typing import Any

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.cli import build as building
from pipeline.cli import main as cli
from pipeline.cli.build_command import build as command
from pipeline.cli.build_table import TABLE, parse
from pipeline.cli.flags import Flag
from runtime.errors import InvalidInput

# No `=` at the front: docker's reader drops it after a short flag, click does not.
VALUES = st.text("ab1.,:/ -=x", max_size=6).filter(lambda text: not text.startswith("="))
WORDS = st.sampled_from([".", "-", "a/b", "ctx", "https://example.org/x.git"])


def by_click(arguments: list[str]) -> dict[str, Any] | None:
    """What click makes of a command line; None when it refuses."""
    try:
        with command.make_context("build", list(arguments), help_option_names=["-h", "--help"]) as context:
            return dict(context.params)
    except click.ClickException:
        return None


def spellings(flag: Flag, value: str) -> st.SearchStrategy[list[str]]:
    names = [f"--{flag.name}"] + ([f"-{flag.short}"] if flag.short else [])
    if flag.kind == "switch":
        return st.sampled_from([[name] for name in names])
    ways = [[name, value] for name in names] + [[f"--{flag.name}={value}"]]
    return st.sampled_from(ways + ([[f"-{flag.short}{value}"]] if flag.short and value else []))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    words: list[str] = []
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.integers(0, 3)) == 0:
            words.append(draw(WORDS))
            continue
        flag = draw(st.sampled_from(TABLE))
        if flag.choices:
            value = draw(st.sampled_from(flag.choices) | VALUES)
        else:
            value = str(draw(st.integers(-5, 10**6))) if flag.kind == "number" else draw(VALUES)
        words.extend(draw(spellings(flag, value)))
    if draw(st.integers(0, 5)) == 0:
        words.append(draw(st.sampled_from(["--", "--nothing", "-Z", "--tag", "-qf", "--cpu-quota=x"])))
    return words


@example([".", "--on-failure", "", "--on-failure", "shell"])
@given(command_lines())
def test_the_table_reads_a_command_line_as_click_does(words: list[str]) -> None:
    try:
        names, flags = parse(words)
    except InvalidInput:
        assert by_click(words) is None
        return
    assert by_click(words) == {"names": names, **flags}


def test_a_switch_can_be_said_to_be_off_and_an_equals_sign_follows_a_letter_as_in_docker() -> None:
    names, flags = parse(["--no-cache=false", "--pull=true", "-t=shop:1", "-qf", "x", "."])
    assert (flags["no_cache"], flags["pull"], flags["tag"]) == (False, True, ("shop:1",))
    assert (flags["quiet"], flags["file"], names) == (True, "x", (".",))


@pytest.mark.parametrize(
    "words, said",
    [
        (["--taag", "x"], "--taag"),
        (["-t"], "Option '-t' requires an argument"),
        (["--cpu-quota", "much"], "'much' is not a valid integer"),
        (["--on-failure", "cry"], "'cry' is not 'shell'"),
    ],
)
def test_click_says_what_is_wrong_with_a_flag(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["build", *words]) == 2
    assert said in capsys.readouterr().err


def test_help_of_build_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("-h", "--help"):
        assert cli.run(["build", word]) == 0
        text = capsys.readouterr().out
        assert all(f"--{flag.name}" in text and flag.help.split()[0] in text for flag in TABLE)


def test_flags_before_the_command_reach_it_without_click(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def build(session: Any, names: tuple[str, ...], flags: dict[str, Any]) -> int:
        seen.append((session.settings.root, session.settings.progress, names, flags["tag"]))
        return 0

    monkeypatch.setattr(building, "build", build)
    monkeypatch.setattr("pipeline.cli.root.pipe", None)  # whoever asks click fails
    assert cli.run(["--root=/s", "--progress", "plain", "build", "-t", "a", "."]) == 0
    assert seen == [("/s", "plain", (".",), ("a",))]


def test_completion_knows_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import BashComplete

    from pipeline.cli.root import pipe

    complete = BashComplete(pipe, {}, "pipe", "_PIPE_COMPLETE")
    offered = {item.value for item in complete.get_completions(["build"], "--no-")}
    assert offered == {"--no-cache", "--no-cache-filter"}
    assert {item.value for item in complete.get_completions(["build", "--on-failure"], "")} == {"shell"}
