"""Lines, comments, continuations, directives, heredocs, and where errors point (FEATURES A-1 … A-19, A-79)."""

from __future__ import annotations

import pytest

from builder.dockerfile import DockerfileError, parse_dockerfile
from builder.dockerfile.directives import detect_syntax
from builder.dockerfile.nodes import Node
from builder.dockerfile.reader import LINE_LIMIT, read_nodes


def node_of(text: str) -> Node:
    (node,) = read_nodes(text).nodes
    return node


def error_of(text: str | bytes) -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        parse_dockerfile(text)
    return caught.value


def test_a_byte_order_mark_and_dos_lines_are_accepted() -> None:
    found = read_nodes(b"\xef\xbb\xbfFROM a\r\nRUN b \\\r\n  c\r\n")
    assert [node.args for node in found.nodes] == [("a",), ("b   c",)]


def test_a_heredoc_keeps_its_dos_lines() -> None:
    (heredoc,) = node_of("RUN <<EOF\r\na\r\n\r\nEOF\r\n").heredocs
    assert heredoc.content == "a\r\n\r\n"


def test_comments_and_blank_lines_inside_an_instruction_are_dropped() -> None:
    found = read_nodes("RUN a \\\n# one\n  # two\n\n   \n  b \\  \n c\n")
    assert found.nodes[0].args == ("a   b  c",)
    assert [span.line for span in found.empty_continuations] == [1]


def test_a_hash_elsewhere_is_text() -> None:
    assert node_of("RUN echo a # b").args == ("echo a # b",)


def test_two_escape_characters_do_not_continue() -> None:
    assert [node.args for node in read_nodes("RUN a\\\\\nRUN b\\\\\\\nRUN c\n").nodes] == [
        ("a\\\\",),
        ("b\\\\\\",),
        ("c",),
    ]


def test_the_escape_character_can_be_a_backtick() -> None:
    found = read_nodes("# escape=`\nCOPY a `\n C:\\\nRUN x\n")
    assert [node.args for node in found.nodes] == [("a", "C:\\"), ("x",)]


@pytest.mark.parametrize(
    ("text", "escape"),
    [
        ("# escape=`\nRUN x\n", "`"),
        ("#ESCAPE = ` \nRUN x\n", "`"),
        ("# syntax=a\n# escape=`\nRUN x\n", "`"),
        ("# a comment\n# escape=`\nRUN x\n", "\\"),
        ("\n# escape=`\nRUN x\n", "\\"),
        ("# unknown=1\n# escape=`\nRUN x\n", "\\"),
        ("RUN y\n# escape=`\nRUN x\n", "\\"),
    ],
)
def test_directives_end_with_the_first_line_that_is_none(text: str, escape: str) -> None:
    assert read_nodes(text).directives.escape == escape


def test_wrong_directives_are_errors() -> None:
    assert "invalid escape token 'x'" in error_of("# escape=x\nFROM a\n").message
    assert str(error_of("# syntax=a\n# SYNTAX=b\nFROM a\n").span) == "Dockerfile:2:1"


@pytest.mark.parametrize(
    ("text", "syntax"),
    [
        ("# syntax=docker/dockerfile:1.7-labs extra\nFROM a\n", "docker/dockerfile:1.7-labs"),
        ("#!/usr/bin/env x\n# syntax = a/b\n", "a/b"),
        ("// syntax=a/b\n", "a/b"),
        ('{"syntax": "a/b"}', "a/b"),
        ("FROM a\n# syntax=b\n", ""),
        ("{broken", ""),
    ],
)
def test_the_front_end_a_file_asks_for_is_found(text: str, syntax: str) -> None:
    assert detect_syntax(text) == syntax


def test_flags_end_at_the_first_other_word_or_at_a_bare_double_dash() -> None:
    assert node_of("RUN --network=none x --y").flags == ("--network=none",)
    node = node_of("COPY --link -- --from=a b")
    assert (node.flags, node.args) == (("--link",), ("--from=a", "b"))


def test_quotes_and_escapes_hold_a_flag_together() -> None:
    node = node_of('RUN --mount=\'type=bind,target=/a b\' --x="y\\"z" --q=a\\ b go')
    assert node.flags == ("--mount=type=bind,target=/a b", '--x=y"z', "--q=a b")


def test_several_heredocs_follow_each_other() -> None:
    node = node_of('RUN cat <<A 3<<-"B"\none\nA\n\ttwo\n\tB\n')
    first, second = node.heredocs
    assert (first.name, first.content, first.expand, first.chomp) == ("A", "one\n", True, False)
    assert (second.name, second.content, second.expand, second.chomp, second.descriptor) == (
        "B",
        "\ttwo\n",
        False,
        True,
        3,
    )
    assert second.chomped == "two\n"
    assert node.span.last_line == 5


def test_what_only_looks_like_a_heredoc_is_none() -> None:
    for line in (
        "RUN a <<- b",
        "RUN a<<EOF",
        'RUN ["a", "<<EOF"]',
        "RUN a <<<word",
        "ENV a=<<EOF",
        "CMD <<EOF",
    ):
        assert node_of(line).heredocs == ()


@pytest.mark.parametrize(
    ("delimiter", "name", "expand"),
    [
        ("E", "E", True),
        ("  E", "E", True),
        ("'E'", "E", False),
        (' "E F"', "E F", False),
        ("\\E", "E", True),
        ("E'F'", "EF", False),
        ("$E", "$E", True),
    ],
)
def test_a_delimiter_may_be_quoted_or_stand_apart(delimiter: str, name: str, expand: bool) -> None:
    (heredoc,) = node_of(f"RUN cat <<{delimiter}\nx\n{name}\n").heredocs
    assert (heredoc.name, heredoc.expand, heredoc.content) == (name, expand, "x\n")


def test_an_onbuild_can_have_heredocs() -> None:
    assert node_of("ONBUILD COPY <<a <<b /x/\n1\na\n2\nb\n").heredocs[1].content == "2\n"


def test_an_unterminated_heredoc_points_at_its_instruction() -> None:
    error = error_of("FROM a\nRUN <<EOF\necho\n EOF\n")
    assert (str(error.span), error.message) == ("Dockerfile:2:1", "unterminated heredoc 'EOF'")


def test_a_line_that_is_too_long_is_refused() -> None:
    assert error_of("FROM a\nRUN " + "x" * LINE_LIMIT).span.line == 2  # type: ignore[union-attr]
    parse_dockerfile("FROM a\nRUN " + "x" * (LINE_LIMIT - 4))


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("a\\", "a"),
        ("a\\\\", "a\\\\"),
        ('"a\\', '"a'),
        ("'a\\", "'a\\"),
        ('"a\\\\', '"a\\\\'),
        ("'a'\\", "'a'"),
    ],
)
def test_an_escape_at_the_very_end_is_dropped_unless_it_is_quoted(word: str, kept: str) -> None:
    from builder.dockerfile.nodes import _without_last_escape

    assert _without_last_escape(word, "\\") == kept


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message", "hint", "column"),
    [
        ("  RUUN x", "unknown instruction: RUUN", "did you mean `RUN`?", 3),
        ("COPY --form=a b c", "unknown flag --form for COPY", "did you mean `--from`?", 6),
        ("USER --x=1 me", "unknown flag --x for USER", "USER has no flags", 6),
        ("COPY --from a b", "missing a value for flag --from", "write --from=value", 6),
        ("COPY --link=maybe a b", "--link must be true or false, not 'maybe'", "", 6),
        ("COPY --chown=1 --chown=2 a b", "duplicate flag --chown", "give it once", 6),
        (
            "COPY a",
            "COPY requires at least two arguments, but only 1 was provided",
            "COPY source… destination",
            1,
        ),
        ("COPY a <<b\nb", "COPY cannot accept a heredoc as a destination", "", 8),
        ("COPY --from=$x a b", "variable expansion is not supported for --from", "FROM $image AS name", 6),
        ("RUN --mount=type=cach,target=/x y", "unsupported mount type 'cach'", "did you mean `cache`?", 13),
        (
            "RUN --mount=targt=/x y",
            "unexpected key 'targt' in mount 'targt=/x'",
            "did you mean `target`?",
            13,
        ),
        ("RUN --mount=from=$x,target=/x y", "from=$x does not take variables", "FROM … AS name", 13),
        ("RUN --mount=type=tmpfs,target=/x,mode=7 y", "mode is not allowed for type tmpfs", "", 13),
        ("RUN --mount=type=secret y", "id or target is needed for type secret", "", 13),
        ("RUN --mount=type=cache,target=/x,size=1 y", "size is not allowed", "", 13),
        ("RUN --mount=target y", "want key=value", "", 13),
        ("RUN --network=bridge x", "unsupported network mode 'bridge'", "one of default, none, host", 5),
        ("HEALTHCHECK --interval=1 CMD x", "invalid duration '1'", "", 13),
        ("HEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms", "", 13),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries must be a number", "", 13),
        ("HEALTHCHECK RUN x", "unknown type 'RUN' in HEALTHCHECK", "try CMD", 13),
        ("HEALTHCHECK NONE x", "takes no arguments", "", 1),
        ("HEALTHCHECK CMD", "missing command", "", 1),
        ("SHELL bash", "requires the arguments to be in JSON form", "SHELL [", 1),
        ("CMD [1]", "arrays must be comprised of strings only", "quote every element", 1),
        ("ENV a", "ENV must have two arguments", "write ENV a=value", 1),
        ("ENV a=b c", 'can\'t find = in "c"', "quote values with blanks", 1),
        ("LABEL =x", "LABEL names can not be blank", "", 1),
        ("ARG =x", "ARG names can not be blank", "", 5),
        ("ONBUILD FROM x", "FROM is not allowed as an ONBUILD trigger", "", 9),
        ("ONBUILD ONBUILD RUN x", "chaining ONBUILD", "", 1),
        ("WORKDIR", "WORKDIR requires exactly one argument", "", 1),
        ("EXPOSE", "EXPOSE requires at least one argument", "", 1),
        ('VOLUME [""]', "can not be an empty string", "", 1),
        ("FROM a b", "FROM requires either one or three arguments", "FROM image [AS name]", 1),
        ("FROM a AS 1x", "invalid name for build stage: '1x'", "a name starts with a letter", 11),
    ],
)
def test_a_mistake_is_told_with_its_place_and_a_hint(line: str, message: str, hint: str, column: int) -> None:
    error = error_of(f"FROM scratch\n{line}\n")
    assert message in error.message
    assert hint in error.hint
    assert error.span is not None
    assert (error.span.line, error.span.column) == (2, column)
    assert not error.message.endswith(".")


def test_an_error_shows_the_lines_around_it() -> None:
    error = error_of("FROM scratch\n\nRUN a \\\n  b\nCOPY x\nRUN c\n")
    assert error.span is not None
    assert error.span.excerpt(1).splitlines() == [
        "   4 |       b",
        "   5 | >>> COPY x",
        "   6 |     RUN c",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file with no instructions"),
        ("# only\n\n", "file with no instructions"),
        ("ARG a\n", "contains no stages to build"),
        ("RUN x\nFROM a\n", "no build stage in current context"),
    ],
)
def test_a_file_without_stages_is_told(text: str, message: str) -> None:
    assert message in error_of(text).message


def test_what_is_shown_cannot_move_the_cursor_nor_shift_the_lines() -> None:
    error = error_of(b"FROM scratch\nLABEL 'a=\x0c\xe2\x80\xa8b'\r\n\x1b[2J\xff x\n")
    assert error.span is not None and error.span.line == 3
    assert ">>> \ufffd[2J\ufffd x" in error.span.excerpt()
    assert error.message == "unknown instruction: '\\x1b[2J\\ufffd'"


@pytest.mark.parametrize(
    "line", ["COPY a\0b /x", "ENV A=\0", "RUN echo \0", 'RUN ["a\\u0000"]', "COPY --chown=\0 a /x"]
)
def test_a_nul_byte_in_an_instruction_is_told_with_its_line(line: str) -> None:
    error = error_of(f"# a comment may have one: \0\nFROM a\n{line}\n")
    assert (error.message, error.span and error.span.line) == ("a NUL byte", 3)
