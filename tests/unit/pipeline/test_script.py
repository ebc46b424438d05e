"""Where a script's commands begin and end, and the marks that tell which one runs."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.script import MarkReader, commands, shell_text, split_commands
from pipeline.spec import Script, ScriptPart
from runtime.spans import Source, Span

TEXT = """echo a
if x; then
  y
fi
for i in 1 2; do echo $i; done
while read l; do
 case $l in
  a) echo "b
c" ;;
  *) : ;;
 esac
done <<END
if foo
END
cat <<-'X' | grep z
\t(unbalanced
\tX
f() {
  echo hi
}
# comment

a && \\
b
c |
d
echo "done"; echo 'it'
echo $(
 ls
)
arr=$((1+2))
[ -n "$x" ] || { echo no; exit 1; }
echo if
echo done
case x in x) echo one;; esac
until false; do
  break
done
last"""


def test_compound_commands_stay_together() -> None:
    pieces = split_commands(TEXT)
    assert [offset + 1 for offset, _ in pieces] == [
        1,
        2,
        5,
        6,
        15,
        18,
        23,
        25,
        27,
        28,
        31,
        32,
        33,
        34,
        35,
        36,
        39,
    ]


def test_no_line_of_the_script_is_lost() -> None:
    joined = "\n".join(text for _, text in split_commands(TEXT))
    kept = [line for line in TEXT.split("\n") if line.strip() and not line.startswith("#")]
    assert [line for line in joined.split("\n") if line.strip() and not line.startswith("#")] == kept


@pytest.mark.parametrize(
    "text",
    ["echo 'it's", "echo $((", "if true", "case x in\n a)\n echo", "cat <<E\nnever closed", "{ echo"],
)
def test_what_is_not_understood_stays_one_piece(text: str) -> None:
    assert [piece for _, piece in split_commands(text)] == [text]


SHELLS = [shell for shell in (["sh"], ["bash"], ["busybox", "sh"]) if shutil.which(shell[0])]


def run(shell: list[str], text: str, after: str = "") -> tuple[int, list[bytes | int]]:
    source = Source("pipe.yaml", text)
    parts = commands(Script((ScriptPart(text, Span(source, 1, 1), True),)))
    ending = commands(Script((ScriptPart(after, Span(source, 1, 1), True),))) if after else ()
    script = shell_text(parts, ending, "n0nce")
    done = subprocess.run([*shell, "-c", script], capture_output=True, check=False, timeout=60)
    return done.returncode, MarkReader("n0nce").feed(done.stdout)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_shell_stops_at_the_first_failure_and_the_mark_names_it(shell: list[str]) -> None:
    code, pieces = run(shell, "echo one\nsh -c 'exit 7'\necho never\n")
    assert code == 7
    assert pieces == [0, b"one\n", 1]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_marks_do_not_change_the_last_status(shell: list[str]) -> None:
    code, pieces = run(
        shell, "[ x = y ] && echo no\necho status $?\nset +e\nsh -c 'exit 9'\necho status $?\n"
    )
    assert code == 0
    assert [piece for piece in pieces if isinstance(piece, bytes)] == [b"status 1\n", b"status 9\n"]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_after_runs_whatever_came_of_the_script_and_keeps_its_code(shell: list[str]) -> None:
    code, pieces = run(shell, "exit 3", "echo after")
    assert code == 3
    assert pieces[-1] == b"after\n"


@pytest.mark.parametrize("shell", [s for s in SHELLS if s != ["sh"]], ids=" ".join)
def test_a_failure_inside_a_pipe_counts(shell: list[str]) -> None:
    code, _ = run(shell, "false | cat\necho never")
    assert code == 1


def test_marks_are_found_whatever_the_chunks() -> None:
    stream = b"a\x1en0nce 0\nbb\x1en0nce 12\n\x1eother 3\ntail\x1e"
    for seed in range(200):
        reader, rng = MarkReader("n0nce"), random.Random(seed)
        pieces: list[bytes | int] = []
        at = 0
        while at < len(stream):
            size = rng.randint(1, 9)
            pieces += reader.feed(stream[at : at + size])
            at += size
        pieces.append(reader.flush())
        assert [piece for piece in pieces if isinstance(piece, int)] == [0, 12]
        assert b"".join(p for p in pieces if isinstance(p, bytes)) == b"abb\x1eother 3\ntail\x1e"


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("value", ["plain", " two words ", "a\nb\n\nc", "$(reboot) `x` \\n 'q\"", "", "-n"])
def test_the_shell_reads_a_secret_into_a_variable_as_it_is(
    shell: list[str], value: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(value + "\n")
    source = Source("pipe.yaml")
    parts = commands(Script((ScriptPart("printf '[%s]' \"$TOKEN\"", Span(source, 1, 1)),)))
    script = shell_text(parts, (), "n0nce", (("TOKEN", str(tmp_path / "secret")),))
    done = subprocess.run([*shell, "-c", script], capture_output=True, check=True, timeout=60)
    assert MarkReader("n0nce").feed(done.stdout)[-1] == f"[{value}]".encode()
