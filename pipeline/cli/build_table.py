"""The flags of `pipe build`: one table, from which come the quick reading of a command line and click's command.

`parse` reads what is written correctly, without click. Whatever it refuses, and `--help` and completion, go to the click
command (`build_command`), made of the same table, whose messages people see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.cli.flags import Flag, Flags
from pipeline.settings import PROGRESS
from runtime.errors import InvalidInput

# `docker build` takes these and does nothing about them, or has another way since BuildKit.
IGNORED = (
    Flag("builder", "one", "There is one builder."),
    Flag("compress", "switch", "Contexts are not sent anywhere."),
    Flag("disable-content-trust", "switch", "Images are checked by digest."),
    Flag("force-rm", "switch", "No containers are left."),
    Flag("isolation", "one", "A technology of Windows."),
    Flag("memory-swap", "one", "Give --memory."),
    Flag("rm", "switch", "No containers are left."),
    Flag("security-opt", "many", "Use RUN --security=insecure."),
    Flag("squash", "switch", "Copy from a stage into FROM scratch."),
)  # fmt: skip
_WARNED = ("isolation", "memory-swap", "security-opt", "squash")

TABLE = (
    Flag("add-host", "many", "Add NAME:ADDRESS to /etc/hosts of build steps."),
    Flag("allow", "many", "Allow network.host or security.insecure."),
    Flag("annotation", "many", "Annotate the manifest, or [manifest|index|manifest-descriptor|index-descriptor]:KEY=VALUE."),
    Flag("attest", "many", "Attest the result: type=provenance[,mode=max] or type=sbom."),
    Flag("build-arg", "many", "Set a build argument: NAME=VALUE, or NAME from the environment."),
    Flag("build-context", "many", "A further context: NAME=PATH, URL, docker-image://REF or oci-layout://DIR."),
    Flag("cache-from", "many", "Look for steps in type=registry,ref=REF or type=local,src=DIR."),
    Flag("cache-to", "many", "Write the cache: type=registry,ref=REF[,mode=max], type=local,dest=DIR or type=inline."),
    Flag("call", "one", "check, outline or targets: say something about the Dockerfile instead of building."),
    Flag("check", "switch", "Check the Dockerfile; the same as --call=check."),
    Flag("cgroup-parent", "one", "The control group build steps run below."),
    Flag("cpu-period", "number", "Length of a CPU period in microseconds."),
    Flag("cpu-quota", "number", "CPU time per period in microseconds."),
    Flag("cpu-shares", "number", "CPU weight.", "c"),
    Flag("cpuset-cpus", "one", "The CPUs build steps may use."),
    Flag("cpuset-mems", "one", "The memory nodes build steps may use."),
    Flag("debug", "switch", "Say all there is about warnings; log to stderr.", "D"),
    Flag("file", "one", "The Dockerfile, or - for standard input.", "f"),
    Flag("iidfile", "one", "Write the image id to a file."),
    Flag("label", "many", "Set a label of the image."),
    Flag("load", "switch", "Put the image into the store (the default)."),
    Flag("memory", "one", "Memory limit of build steps.", "m"),
    Flag("metadata-file", "one", "Write what is known of the result to a JSON file."),
    Flag("network", "one", "Network of build steps: default, none or host."),
    Flag("no-cache", "switch", "Run every step again."),
    Flag("no-cache-filter", "many", "Run every step of these stages again."),
    Flag("on-failure", "one", "Open a shell in the sandbox of a step that failed.", choices=("shell",)),
    Flag("output", "many", "Where the result goes: type=oci,dest=FILE or a directory.", "o"),
    Flag("pin-lock", "one", "Write what came from elsewhere to a file, as a --source-policy-file that pins it."),
    Flag("platform", "many", "Build for a platform, for example linux/arm64."),
    Flag("progress", "one", "How work is shown.", choices=PROGRESS),
    Flag("provenance", "one", "Say how it was built beside the result: true, false, mode=min or mode=max."),
    Flag("pull", "switch", "Ask the registry for the base images, also when they are here."),
    Flag("push", "switch", "Push the image under its tags."),
    Flag("quiet", "switch", "Print the image id only.", "q"),
    Flag("sbom", "one", "Say which software is in it beside the result: true, false or generator=IMAGE."),
    Flag("secret", "many", "A secret for build steps: id=NAME[,src=FILE|,env=VARIABLE]."),
    Flag("shm-size", "one", "Size of /dev/shm in build steps."),
    Flag("source-policy-file", "one", "Rules that allow, deny or exchange images and downloads, as JSON."),
    Flag("ssh", "many", "An ssh agent for build steps: default or NAME[=SOCKET|KEY[,KEY]]."),
    Flag("tag", "many", "Name the image.", "t"),
    Flag("target", "one", "The stage to build."),
    Flag("ulimit", "many", "A resource limit of build steps: NAME=SOFT[:HARD]."),
    Flag("verify-reproducible", "switch", "Build twice as if on two machines, and compare."),
    Flag("format", "one", "text or json, with --call and --check."),
)  # fmt: skip

_FLAGS = Flags("pipe build", (*TABLE, *IGNORED))


def parameter(flag: Flag) -> str:
    """What a flag is called among the values."""
    return flag.name.replace("-", "_")


def parse(arguments: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The words and the value of every flag: a tuple, a truth, a number or a string, None if not given. Else InvalidInput."""
    many: dict[str, list[str]] = {parameter(flag): [] for flag in (*TABLE, *IGNORED) if flag.kind == "many"}
    values: dict[str, Any] = {
        parameter(flag): False if flag.kind == "switch" else None for flag in (*TABLE, *IGNORED)
    }

    given: dict[str, tuple[Flag, str]] = {}

    def take(flag: Flag, text: str) -> None:
        name = parameter(flag)
        if flag.kind == "many":
            many[name].append(text)
        else:
            given[name] = flag, text

    names = _FLAGS.read(arguments, take, mixed=True)
    # Of a flag that is given twice the last one counts, and only that has to make sense, as with click.
    values |= {name: _value(flag, text) for name, (flag, text) in given.items()}
    return names, {**values, **{name: tuple(texts) for name, texts in many.items()}}


def without_effect(values: Mapping[str, Any]) -> list[str]:
    """What is to be said of flags that were given and of which somebody might expect something."""
    given = [flag for flag in IGNORED if flag.name in _WARNED and values.get(parameter(flag))]
    return [f"--{flag.name} has no effect: {flag.help[0].lower()}{flag.help[1:-1]}" for flag in given]


def _value(flag: Flag, text: str) -> Any:
    if flag.kind == "switch":
        return text == "true"
    if flag.kind == "number":
        try:
            return int(text)
        except ValueError as error:
            raise InvalidInput(f"--{flag.name} {text!r} is not a whole number") from error
    if flag.choices and text not in flag.choices:
        raise InvalidInput(f"--{flag.name} {text!r} is not one of {', '.join(flag.choices)}")
    return text
