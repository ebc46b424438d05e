"""Shapes of what a container shares with its host: volumes, tmpfs, published ports; short and long forms."""

from __future__ import annotations

import re
from typing import Any

from pipeline.config.document import Node
from pipeline.config.ports import UNSAID, bindings, parse_port
from pipeline.config.scalars import Choice, Flag, Size, Text
from pipeline.config.shapes import Convert, Either, Json, Key, ListOf, Reader, Record, Shape
from pipeline.config.units import parse_size
from runtime.containers.spec import Mount, PortBinding
from runtime.errors import InvalidInput

_TYPES = ("bind", "volume", "tmpfs")


def parse_volume(text: str) -> Mount:
    """The short form `[SOURCE:]TARGET[:OPTIONS]`; a source that looks like a path is a bind."""
    parts = text.split(":")
    if len(parts) == 1:
        return _volume_mount("", parts[0], ())
    if len(parts) > 3:
        raise ValueError(f"invalid volume {text!r}: write `SOURCE:TARGET[:ro]`")
    options = tuple(parts[2].split(",")) if len(parts) == 3 else ()
    unknown = [
        option
        for option in options
        if option not in ("ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent")
    ]
    unknown = [option for option in unknown if option.lstrip("r") not in ("private", "shared", "slave")]
    if unknown:
        raise ValueError(f"unknown volume option {unknown[0]!r} in {text!r}")
    return _volume_mount(parts[0], parts[1], options)


def _volume_mount(source: str, target: str, options: tuple[str, ...]) -> Mount:
    if not target.startswith("/"):
        raise ValueError(f"volume target {target!r} is not an absolute path")
    is_path = source.startswith(("/", ".", "~"))
    if source and not is_path and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", source):
        raise ValueError(f"{source!r} is neither a path (start it with `./`) nor a volume name")
    propagation = [option for option in options if option.lstrip("r") in ("private", "shared", "slave")]
    return Mount(
        type="bind" if is_path else "volume",
        target=target,
        source=source,
        readonly="ro" in options,
        copy_up="nocopy" not in options,
        create_source=is_path,
        propagation=propagation[0] if propagation else "rprivate",
    )


def _long_mount(**given: Any) -> Mount:
    kind = given.get("type", "volume")
    target = given.get("target", "")
    if kind == "bind" and not given.get("source"):
        raise ValueError(f"bind mount on {target} needs a `source`")
    if not target.startswith("/"):
        raise ValueError(f"volume target {target!r} is not an absolute path")
    bind = dict(given.pop("bind", ()))
    return Mount(create_source=kind == "bind" and bind.pop("create_source", True), **bind, **given)


def as_pairs(**given: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(given.items())


class _Built(Shape[Any]):
    """A record whose builder may refuse with a ValueError."""

    def __init__(self, record: Record[Any]) -> None:
        self.record = record

    def parse(self, node: Node, reader: Reader) -> Any:
        try:
            return self.record.parse(node, reader)
        except ValueError as error:
            raise InvalidInput(str(error), node.span) from error

    def schema(self) -> Json:
        return self.record.schema()

    def expects(self) -> str:
        return self.record.expects()


_BIND = Record(
    as_pairs,
    {
        "create_host_path": Key(Flag(), "make a missing host directory", "create_source"),
        "propagation": Key(
            Choice(("rprivate", "private", "rshared", "shared", "rslave", "slave")), "mount propagation"
        ),
    },
)
_LONG_VOLUME = _Built(
    Record(
        lambda *, volume=(), tmpfs=(), **given: _long_mount(**dict(volume), **dict(tmpfs), **given),
        {
            "type": Key(Choice(_TYPES), "kind of mount", required=True),
            "source": Key(Text(), "host path or volume name"),
            "target": Key(Text(later=False), "path in the container", required=True),
            "read_only": Key(Flag(), "no writes", "readonly"),
            "bind": Key(_BIND, "options of a bind"),
            "volume": Key(
                Record(
                    lambda **given: tuple(given.items()),
                    {
                        "nocopy": Key(
                            Convert(Flag(), lambda flag: not flag),
                            "do not fill a new volume from the image",
                            "copy_up",
                        ),
                        "subpath": Key(Text(), "path inside the volume"),
                    },
                ),
                "options of a volume",
            ),
            "tmpfs": Key(
                Record(
                    lambda **given: tuple(given.items()),
                    {
                        "size": Key(Size(), "most bytes"),
                        "mode": Key(Convert(Text(), lambda text: int(text, 8)), "permission bits, octal"),
                    },
                ),
                "options of a tmpfs",
            ),
        },
        what="a volume",
    )
)
VOLUMES: Shape[Any] = ListOf(Either(Convert(Text(), parse_volume), _LONG_VOLUME))


def parse_tmpfs(text: str) -> Mount:
    target, _, options = text.partition(":")
    given = dict(option.partition("=")[::2] for option in options.split(",") if option)
    if not target.startswith("/"):
        raise ValueError(f"tmpfs target {target!r} is not an absolute path")
    return Mount(
        type="tmpfs",
        target=target,
        size=parse_size(given["size"]) if "size" in given else 0,
        mode=int(given.get("mode", "1777"), 8),
        readonly="ro" in given,
    )


_LONG_PORT = _Built(
    Record(
        lambda *, target, published="", host_ip=UNSAID, protocol="tcp", **_: bindings(
            target, published, host_ip, protocol
        ),
        {
            "target": Key(Text(later=False), "container port", required=True),
            "published": Key(Text(later=False), "host port or range"),
            "host_ip": Key(Text(later=False), "address to listen on; 127.0.0.1 unless written"),
            "protocol": Key(Choice(("tcp", "udp", "sctp")), "protocol"),
            "mode": Key(Choice(("host", "ingress")), "accepted; both mean host here"),
            "name": Key(Text(), "for people"),
            "app_protocol": Key(Text(), "for people"),
        },
        what="a port",
    )
)


def _flatten(groups: tuple[tuple[PortBinding, ...], ...]) -> tuple[PortBinding, ...]:
    return tuple(binding for group in groups for binding in group)


PORTS: Shape[tuple[PortBinding, ...]] = Convert(
    ListOf(Either(Convert(Text(later=False), parse_port), _LONG_PORT)), _flatten
)
