"""Which checks are wanted: `# check=skip=A,B;error=true;experimental=C` at the top or above an instruction (A-19)."""

from __future__ import annotations

from collections.abc import Iterable

from builder.checks.rules import Rule
from builder.dockerfile.errors import DockerfileError
from builder.dockerfile.nodes import Comment
from registry_client.values import frozen, replace
from runtime.errors import did_you_mean
from runtime.spans import Span

OVERRIDE = "BUILDKIT_DOCKERFILE_CHECK"  # a build argument
_KEYS = ("skip", "error", "experimental")


@frozen
class CheckSettings:
    """`all` stands for every rule. `error`: findings make the build fail."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    def wants(self, rule: Rule) -> bool:
        if "all" in self.skip or rule.name in self.skip:
            return False
        return not rule.experimental or bool(self.experimental & {"all", rule.name})

    def merged(self, comments: Iterable[Comment]) -> CheckSettings:
        """With what comments right above an instruction say about that one."""
        settings = self
        for comment in comments:
            name, equals, value = comment.text.partition("=")
            if not equals or name.strip().lower() != "check":
                continue
            try:
                own = parse_settings(value)
            except DockerfileError:
                continue  # a comment is free to say anything; only the directive at the top is read strictly
            settings = replace(
                settings,
                skip=settings.skip | own.skip,
                experimental=settings.experimental | own.experimental,
            )
        return settings


def parse_settings(text: str, span: Span | None = None) -> CheckSettings:
    """Read the value of a check directive; what follows the first blank is a remark."""
    settings = CheckSettings()
    words = text.split()
    for part in words[0].split(";") if words else ():
        key, equals, value = part.partition("=")
        if not equals or key not in _KEYS:
            raise DockerfileError(
                f"invalid check option {part!r}",
                span,
                hint=did_you_mean(key, _KEYS) or "skip=Rule,…; error=true; experimental=Rule,…",
            )
        if key == "error":
            if value.lower() not in ("true", "false", "1", "0"):
                raise DockerfileError(
                    f"invalid check option {part!r}", span, hint="error=true or error=false"
                )
            settings = replace(settings, error=value.lower() in ("true", "1"))
        else:
            names = frozenset(name.strip() for name in value.split(",") if name.strip())
            settings = (
                replace(settings, skip=names) if key == "skip" else replace(settings, experimental=names)
            )
    return settings
