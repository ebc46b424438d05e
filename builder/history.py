"""What an image's config was after one of its layers, read from its history (image-spec config.md).

History has the instructions' texts, of BuildKit (`ENV a=b`, `# buildkit`), of the builder before it (`/bin/sh -c #(nop)  ENV a=b`)
and of ours, which are BuildKit's. ENV has no quotes there; where a value ends is known by the names the finished config has,
as ENV takes no variable away. What is in the config and in no text came with the first layer.
"""

from __future__ import annotations

import re

from builder.failed import Situation
from registry_client.oci.config import ImageConfig

_OLD = re.compile(r"/bin/sh -c #\(nop\)\s+")
_SHELL = "/bin/sh"


def config_at(config: ImageConfig, number: int, label: str) -> Situation:
    """The environment, directory, user and shell after layer `number` (from 1)."""
    done, later = _split(config, number)
    final = config.config
    variables = dict(entry.partition("=")[::2] for entry in final.env)
    shell = _last(done, "SHELL")
    return Situation(
        label,
        config.diff_ids[:number],
        tuple(f"{name}={value}" for name, value in _environment(variables, done, later).items()),
        _value(done, later, "WORKDIR", final.working_dir, "/"),
        _value(done, later, "USER", final.user, ""),
        _first_word(shell) if shell else _SHELL,
    )


def _split(config: ImageConfig, number: int) -> tuple[list[str], list[str]]:
    """The instructions up to layer `number` with those of metadata right behind it, and the rest."""
    texts, layers = [], 0
    cut = len(config.history)
    for position, entry in enumerate(config.history):
        layers += not entry.empty_layer
        if layers > number:
            cut = position
            break
    for entry in config.history:
        texts.append(_OLD.sub("", entry.created_by).removesuffix("# buildkit").strip())
    return texts[:cut], texts[cut:]


def _arguments(texts: list[str], instruction: str) -> list[str]:
    return [text[len(instruction) :].strip() for text in texts if text.startswith(f"{instruction} ")]


def _last(texts: list[str], instruction: str) -> str:
    found = _arguments(texts, instruction)
    return found[-1] if found else ""


def _value(done: list[str], later: list[str], instruction: str, final: str, fallback: str) -> str:
    """The last that was said; nothing said yet but later means that nothing was set; never said, it came with the base."""
    found = _last(done, instruction)
    return found or (fallback if _arguments(later, instruction) else final)


def _environment(variables: dict[str, str], done: list[str], later: list[str]) -> dict[str, str]:
    names = "|".join(re.escape(name) for name in sorted(variables, key=len, reverse=True))
    if not names:
        return {}
    start = re.compile(rf"(?:^| )({names})[= ]")
    said = _assignments(_arguments(done, "ENV"), start)
    told_later = _assignments(_arguments(later, "ENV"), start)
    return {
        # Where it was never changed again, the config has the value to the letter.
        name: said[name] if name in said and name in told_later else value
        for name, value in variables.items()
        if name in said or name not in told_later
    }


def _assignments(texts: list[str], start: re.Pattern[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        places = list(start.finditer(text))
        for place, following in zip(places, [*places[1:], None]):
            found[place[1]] = text[place.end() : following.start() if following else None]
    return found


def _first_word(shell: str) -> str:
    """Of `[/bin/bash -c]` or `["/bin/bash", "-c"]`."""
    return shell.strip("[]").replace('"', "").replace(",", " ").split(" ")[0] or _SHELL
