"""What a config was after one of its layers."""

from __future__ import annotations

import pytest

from builder.history import config_at
from registry_client.oci.config import ContainerConfig, History, ImageConfig
from registry_client.oci.digest import Digest
from registry_client.oci.platform import Platform

BASE = ("/bin/sh -c #(nop) ADD file:1 in / ", "/bin/sh -c #(nop)  ENV PATH=/bin LANG=C")
OWN = (
    "ENV GREETING=hello to you SHORT=a",
    "WORKDIR /srv",
    "RUN /bin/sh -c make # buildkit",
    "ENV GREETING=bye for now LATE=x y",
    "USER app",
    "SHELL [/bin/bash -c]",
    "COPY . /srv # buildkit",
)
LAYERS = ("ADD", "WORKDIR", "RUN", "COPY")
FINAL = ("PATH=/bin", "LANG=C", "UNTOLD=by anybody", "GREETING=bye for now", "SHORT=a", "LATE=x y")


def image(user: str = "app") -> ImageConfig:
    texts = (*BASE, *OWN)
    history = tuple(
        History(created_by=text, empty_layer=not any(word in text for word in LAYERS)) for text in texts
    )
    count = sum(not entry.empty_layer for entry in history)
    config = ContainerConfig(env=FINAL, working_dir="/srv", user=user)
    diff_ids = tuple(Digest(f"sha256:{n:064x}") for n in range(count))
    return ImageConfig(platform=Platform("linux", "amd64"), config=config, diff_ids=diff_ids, history=history)


@pytest.mark.parametrize(
    ("layer", "env", "cwd", "user", "shell"),
    [
        (1, "PATH=/bin|LANG=C|UNTOLD=by anybody|GREETING=hello to you|SHORT=a", "/", "", "/bin/sh"),
        (2, "PATH=/bin|LANG=C|UNTOLD=by anybody|GREETING=hello to you|SHORT=a", "/srv", "", "/bin/sh"),
        (3, "|".join(FINAL), "/srv", "app", "/bin/bash"),
        (4, "|".join(FINAL), "/srv", "app", "/bin/bash"),
    ],
)
def test_after_a_layer_counts_what_was_said_until_the_next(
    layer: int, env: str, cwd: str, user: str, shell: str
) -> None:
    found = config_at(image(), layer, "label")
    assert "|".join(found.env) == env
    assert (found.cwd, found.user, found.shell) == (cwd, user, shell)
    assert len(found.diff_ids) == layer


def test_without_history_everything_came_with_the_base() -> None:
    config = ImageConfig(
        platform=Platform("linux", "amd64"),
        config=ContainerConfig(env=("A=b",), working_dir="/w", user="me"),
        diff_ids=(Digest(f"sha256:{1:064x}"),),
    )
    found = config_at(config, 1, "")
    assert (found.env, found.cwd, found.user) == (("A=b",), "/w", "me")
