"""Find out what a file system can do, by doing it: in a directory of our own, gone afterwards.

Lists of file systems would be wrong: the same one differs by its options, its server, the kernel and our privileges.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from registry_client.values import frozen
from runtime.errors import Unsupported
from runtime.linux import mounts
from runtime.store.durable import faults_of_the_host, remove_tree
from runtime.store.hiding import OVERLAY, PLAIN, Form
from runtime.store.owners import own_token

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@frozen
class Probed:
    """`holds`: overlay's marks can be made. `refusal`: why no overlay can be mounted and written to, or "".

    `kind` names the file system. `lasting`: the answer is the place's own, not one of the privileges we lack.
    """

    holds: bool
    refusal: str
    kind: str
    lasting: bool = True


def probe(directory: str) -> Probed:
    """Look at the file system of an existing directory; Unsupported when it cannot hold a root file system at all."""
    place = os.path.join(directory, f"{os.urandom(8).hex()}.{own_token()}")
    kind = kind_of(directory)
    if os.geteuid() != 0:
        return Probed(True, "", kind, lasting=False)  # it would be our own privileges that we find out about
    with faults_of_the_host(f"cannot write to {directory}"):
        os.mkdir(place, 0o700)
        try:
            _check_files(place, kind)
            if not _holds(place):
                return Probed(False, f"{kind} cannot carry an overlay", kind)
            return _mounted(place, kind)
        finally:
            remove_tree(place)


# --- what every store needs -----------------------------------------------------------------------------------------


def _check_files(place: str, kind: str) -> None:
    """Owners, modes and links: without them an image's files would come out wrong."""
    file = os.path.join(place, "file")
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    needs: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("owners", lambda: _keeps_owner(file)),
        ("modes", lambda: _keeps_mode(file)),
        ("symbolic links", lambda: _did(os.symlink, "nowhere", os.path.join(place, "link"))),
        ("names that differ in case", lambda: not os.path.lexists(os.path.join(place, "FILE"))),
        ("special files", lambda: _did(os.mkfifo, os.path.join(place, "fifo"))),
    )
    missing = [name for name, is_there in needs if not is_there()]
    if missing:
        raise Unsupported(
            f"{place.rpartition('/')[0]} is on {kind}, which cannot keep {', '.join(missing)} of files",
            hint="put the store on a file system of Unix, such as ext4 or xfs, with PIPE_ROOT",
        )


def _keeps_owner(file: str) -> bool:
    return _did(os.chown, file, 1, 1) and os.stat(file).st_uid == 1 and _did(os.chown, file, 0, 0)


def _keeps_mode(file: str) -> bool:
    return _did(os.chmod, file, 0o4751) and stat.S_IMODE(os.stat(file).st_mode) == 0o4751


def _did(call: Callable[..., object], *arguments: object) -> bool:
    try:
        call(*arguments)
    except OSError as error:
        if error.errno in _FULL:
            raise
        return False
    return True


# --- overlay --------------------------------------------------------------------------------------------------------


def _holds(place: str) -> bool:
    """Whether a whiteout and an opaque mark can be made, and are seen again."""
    directory, name = os.path.join(place, "opaque"), os.path.join(place, "hiding", "whiteout")
    os.mkdir(directory)
    os.mkdir(os.path.dirname(name))  # fuse-overlayfs shows nothing any more where one was refused
    if not (_did(OVERLAY.hide, name) and _did(OVERLAY.set_opaque, directory)):
        return False
    return OVERLAY.is_whiteout(os.lstat(name)) and OVERLAY.is_opaque(directory)


def _mounted(place: str, kind: str) -> Probed:
    """Mount one that nobody sees, remove a file of the lower directory and put a directory in its place."""
    lower, upper, work = (os.path.join(place, name) for name in ("lower", "upper", "work"))
    for each in (lower, upper, work):
        os.mkdir(each)
    os.close(os.open(os.path.join(lower, "name"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        tree = _mount(lower, upper, work)
        try:
            os.unlink("name", dir_fd=tree)
            os.mkdir("name", dir_fd=tree)
        finally:
            os.close(tree)
    except OSError as error:
        if error.errno in _FULL:
            raise
        reason = f"an overlay on {kind} is refused: {os.strerror(error.errno or 0)}"
        return Probed(True, reason, kind, lasting=error.errno != errno.EPERM)
    return Probed(True, "", kind)


def _mount(lower: str, upper: str, work: str) -> int:
    context = mounts.fsopen("overlay")
    try:
        for key, value in (("lowerdir", lower), ("upperdir", upper), ("workdir", work)):
            mounts.fsconfig(context, mounts.FSCONFIG_SET_STRING, key, value)
        mounts.fsconfig(context, mounts.FSCONFIG_CMD_CREATE)
        return mounts.fsmount(context)
    finally:
        os.close(context)


def kind_of(path: str) -> str:
    """The type of the file system a path is on, as /proc/self/mountinfo names it (proc_pid_mountinfo(5))."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                return after.split()[0]
    return "this file system"


# --- stores that were there before ----------------------------------------------------------------------------------


def adopt_form(root: str, holds: bool) -> Form:
    """The form for a store without a record, by what is in it and what its file system holds.

    Layers that an older pipe unpacked where no marks can be have none, and are in plain form once they have its name.
    """
    snapshots = os.path.join(root, "snapshots")
    places = [os.path.join(snapshots, each) for each in os.listdir(snapshots)]
    if any(os.path.isdir(os.path.join(each, PLAIN.directory)) for each in places):
        return PLAIN
    if holds:
        return OVERLAY
    for each in places:
        with suppress(FileNotFoundError):
            os.rename(os.path.join(each, OVERLAY.directory), os.path.join(each, PLAIN.directory))
    return PLAIN
