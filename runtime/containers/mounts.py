"""Decide where a container's mounts come from: make its volumes, fill new ones from the image, check binds.

The only part of creating a container that touches the host before it starts. What a spec asks for wins over
`--volumes-from`, and both over the VOLUMEs of the image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from runtime.containers.container import Container, PlacedMount
from runtime.containers.spec import ContainerSpec, Mount
from runtime.errors import InvalidInput, NotFound
from runtime.store.durable import faults_of_the_host
from runtime.store.store import Store
from runtime.volumes import Volume, Volumes

_CLOSED = ("nosuid", "nodev", "noexec")


class Placing:
    """Places the mounts of one container. `other` finds a container, `image` the lower directories of an image."""

    def __init__(
        self,
        store: Store,
        volumes: Volumes,
        container: Container,
        *,
        other: Callable[[str], Container],
        image: Callable[[str], tuple[str, ...]],
    ) -> None:
        self._store, self._volumes, self._container = store, volumes, container
        self._other, self._image = other, image
        self._copies = 0

    def place(self) -> tuple[PlacedMount, ...]:
        spec = self._container.spec
        placed = {mount.target: mount for mount in self._inherited(spec)}
        placed |= {mount.target: self._place(mount) for mount in spec.mounts}
        for target in self._container.image_config.volumes:
            target = os.path.normpath(target)
            if target not in placed:
                placed[target] = self._place(Mount(type="volume", target=target))
        return tuple(placed[target] for target in sorted(placed))

    def _inherited(self, spec: ContainerSpec) -> Iterable[PlacedMount]:
        from registry_client.values import replace

        for text in spec.volumes_from:
            name, _, mode = text.partition(":")
            for mount in self._other(name).mounts:
                if mount.kind in ("bind", "volume"):
                    self._use(mount)
                    readonly = mount.readonly or mode == "ro"
                    options = (
                        (*mount.options, "ro", "rro") if readonly and not mount.readonly else mount.options
                    )
                    yield replace(mount, readonly=readonly, options=options)

    def _use(self, mount: PlacedMount) -> None:
        if mount.volume:
            self._volumes.use(self._container.id, [mount.volume])

    def _place(self, mount: Mount) -> PlacedMount:
        if mount.type == "bind":
            return self._copy_on_write(mount) if mount.copy_on_write else self._bind(mount)
        if mount.type == "tmpfs":
            return _tmpfs(mount)
        if mount.type == "image":
            return self._image_mount(mount)
        return self._volume_mount(mount)

    # --- binds

    def _bind(self, mount: Mount) -> PlacedMount:
        self._check_source(mount)
        readonly = ("ro", "rro") if mount.readonly else ()
        return PlacedMount(
            kind="bind",
            target=mount.target,
            type="bind",
            source=mount.source,
            options=("rbind", mount.propagation, *readonly, *mount.options),
            readonly=mount.readonly,
        )

    def _check_source(self, mount: Mount) -> None:
        if not mount.source.startswith("/"):
            raise InvalidInput(
                f"source {mount.source!r} of the bind on {mount.target} is not an absolute path"
            )
        if os.path.lexists(mount.source):
            return
        if not mount.create_source:
            raise InvalidInput(
                f"bind source {mount.source} does not exist",
                hint="make it, or use -v, which makes a directory",
            )
        with faults_of_the_host(f"cannot make {mount.source}"):
            os.makedirs(mount.source, exist_ok=True)

    def _copy_on_write(self, mount: Mount) -> PlacedMount:
        """The host's directory below, the container's own layer on top: writes never reach the host."""
        self._check_source(mount)
        self._copies += 1
        own = os.path.join(self._container.directory, "copies", str(self._copies))
        upper, work = os.path.join(own, "upper"), os.path.join(own, "work")
        with faults_of_the_host(f"cannot make {own}"):
            if self._store.snapshots.copied_because:
                return self._copied(mount, own)
            os.makedirs(upper)
            os.makedirs(work)
            status = os.stat(mount.source)
            os.chown(upper, status.st_uid, status.st_gid)
            os.chmod(upper, status.st_mode & 0o7777)
        return PlacedMount(
            kind="bind",
            target=mount.target,
            type="overlay",
            source="overlay",
            options=(f"lowerdir+={mount.source}", f"upperdir={upper}", f"workdir={work}", *mount.options),
        )

    def _copied(self, mount: Mount, own: str) -> PlacedMount:
        """The same where overlay is refused: a copy of the host's directory."""
        from runtime.store.merging import Merged

        os.makedirs(own)
        tree = os.path.join(own, "tree")
        os.mkdir(tree, 0o700)
        Merged(tree).add(mount.source)
        return PlacedMount(
            kind="bind",
            target=mount.target,
            type="bind",
            source=tree,
            options=("rbind", "rprivate", *mount.options),
        )

    # --- volumes

    def _volume_mount(self, mount: Mount) -> PlacedMount:
        volume = self._volumes.create(mount.source)
        self._volumes.use(self._container.id, [volume.name])
        if mount.copy_up:
            self._fill(volume, mount)
        kind, source, options = _where(volume)
        if mount.subpath:
            source = _below(source, mount.subpath, volume.name)
        readonly = ("ro", "rro") if mount.readonly and kind == "bind" else ("ro",) if mount.readonly else ()
        return PlacedMount(
            kind="volume",
            target=mount.target,
            type=kind,
            source=source,
            volume=volume.name,
            options=(*options, *readonly, *mount.options),
            readonly=mount.readonly,
        )

    def _fill(self, volume: Volume, mount: Mount) -> None:
        """Only a volume nobody wrote to; the image's directory is reached beneath its own root, whatever links are there."""
        if volume.elsewhere or os.listdir(volume.path):
            return
        from runtime.containers.roots import opened_beneath

        lowers = self._store.snapshots.lowers(self._container.snapshot) if self._container.snapshot else ()
        with opened_beneath(self._store, lowers, mount.target) as directory:
            if directory is not None:
                self._volumes.copy_up(volume.name, directory)

    def _image_mount(self, mount: Mount) -> PlacedMount:
        if mount.subpath:
            raise InvalidInput(
                f"mount of image {mount.source} on {mount.target}: image-subpath is not supported"
            )
        lowers = self._image(mount.source)
        if not lowers:
            raise NotFound(f"image {mount.source} has no files to mount")
        if len(lowers) == 1 or self._store.snapshots.copied_because:
            return PlacedMount(
                kind="image",
                target=mount.target,
                type="bind",
                source=lowers[0] if len(lowers) == 1 else self._linked(lowers),
                options=("bind", "rprivate", "ro"),
                readonly=True,
            )
        options = (*(f"lowerdir+={lower}" for lower in lowers), "ro")
        return PlacedMount(
            kind="image",
            target=mount.target,
            type="overlay",
            source="overlay",
            options=options,
            readonly=True,
        )

    def _linked(self, lowers: Sequence[str]) -> str:
        """The layers of an image as one directory, to be mounted read-only."""
        from runtime.store.merging import Merged

        spec = self._container.spec
        # Hard links are the layers themselves, and with enough capabilities any mount can be made writable.
        link = not (spec.privileged or spec.cap_add)
        self._copies += 1
        own = os.path.join(self._container.directory, "copies", str(self._copies))
        with faults_of_the_host(f"cannot make {own}"):
            os.makedirs(own)
            merged = Merged(own, link=link)
            for layer in reversed(lowers):
                merged.add(layer)
        return own


def _tmpfs(mount: Mount) -> PlacedMount:
    size = (f"size={mount.size}",) if mount.size else ()
    given = mount.options
    closed = tuple(word for word in _CLOSED if word not in given and word[2:] not in given)
    readonly = ("ro",) if mount.readonly else ()
    return PlacedMount(
        kind="tmpfs",
        target=mount.target,
        type="tmpfs",
        source="tmpfs",
        options=(*closed, *given, f"mode={mount.mode:o}", *size, *readonly),
        readonly=mount.readonly,
    )


def _where(volume: Volume) -> tuple[str, str, tuple[str, ...]]:
    """(type, source, options) of a volume's mount: its directory, or what its options say."""
    if not volume.elsewhere:
        return "bind", volume.path, ("rbind", "rprivate")
    words = tuple(word for word in volume.options.get("o", "").split(",") if word)
    kind = volume.options.get("type", "none")
    if kind == "none" or "bind" in words or "rbind" in words:
        return "bind", volume.options["device"], (*(words or ("rbind",)), "rprivate")
    return kind, volume.options.get("device", kind), words


def _below(directory: str, subpath: str, volume: str) -> str:
    """A path in a volume that does not lead out of it."""
    top = os.path.realpath(directory)
    path = os.path.realpath(os.path.join(top, subpath.lstrip("/")))
    if path != top and not path.startswith(top + "/"):
        raise InvalidInput(f"subpath {subpath!r} leads out of volume {volume}")
    if not os.path.exists(path):
        raise NotFound(f"volume {volume} has no {subpath!r}")
    return path
