"""Base images for the cases, made on the spot: a busybox whose package managers and compilers are stand-ins.

A stand-in is one shell script under many names (`apt-get`, `pip`, `npm`, `go`, ...). It appends how it was called, by whom, where
and with which environment to /var/log/stand-in, and makes the files a Dockerfile goes on with. So the Dockerfiles of real projects
run without a network, in a second, and tell exactly what their builder gave to each command.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.builder import build_text, busybox_context, run_pipe
from tests.support.builds.case import age

NAMES = (
    "base:1", "debian:bookworm-slim", "alpine:3.22", "ubuntu:24.04", "golang:1.24", "node:22-alpine", "python:3.13-slim",
    "rust:1-slim", "php:8.4-fpm-alpine", "composer:2", "ruby:3.4-slim", "maven:3-eclipse-temurin-21", "eclipse-temurin:21-jre",
    "nginx:1.29-alpine", "distroless/static:nonroot", "gcc:14", "fedora:42", "hexpm/elixir:1.18", "busybox:stable",
)  # fmt: skip
IMAGES = tuple(f"stand.in/{name}" for name in NAMES)
CALLED = """
apt-get apt apk dnf microdnf dpkg gpg curl git gcc cc g++ cmake ninja go cargo rustup npm npx yarn pnpm corepack node
pip pip3 python3 python uv poetry composer php docker-php-ext-install docker-php-ext-enable pecl bundle gem ruby rake
rails mvn java gradle gosu tini mix elixir useradd groupadd usermod adduser addgroup install update-ca-certificates
ldconfig localedef pg_ctl redis-server nginx setcap strip upx protoc helm kubectl terraform
"""
STAND_IN = r"""#!/bin/busybox sh
set -eu
name=${0##*/} log=/var/log/stand-in/$(id -u)
mkdir -p /var/log/stand-in 2>/dev/null || true
{
    echo "$name $*"
    echo "  in $(pwd) as $(id -u):$(id -g) $(id -G)"
    env | grep -Ev '^(SHLVL|_|OLDPWD|HOSTNAME|name|log)=|=/tmp/tmp\.' | sort | sed 's/^/  /'
} >>"$log" 2>/dev/null || true
made() { mkdir -p "$(dirname "$1")"; { echo "#!/bin/sh"; echo "echo $name made this"; } >"$1"; chmod "${2:-755}" "$1"; }
packages() {
    for word; do case $word in -*|install|add|update|upgrade|i) ;; *) mkdir -p /usr/share/packages && echo "$name" >"/usr/share/packages/${word%%[=<>]*}" ;; esac; done
}
out=
previous=
for word; do case $previous in -o|-O|--output|--out) out=$word ;; esac; previous=$word; done
[ -z "$out" ] || [ "$out" = /dev/null ] || made "$out"
case "$name $*" in
    "apt-get update"*|"apt update"*|"apt-get -q update"*) mkdir -p /var/lib/apt/lists; echo list >/var/lib/apt/lists/main ;;
    apt*install*) packages "$@"; mkdir -p /var/cache/apt/archives; echo deb >/var/cache/apt/archives/packages.deb ;;
    apk*add*|dnf*install*|microdnf*install*|gem*install*|pecl*install*|"docker-php-ext-install"*) packages "$@" ;;
    pip*install*|uv*install*|poetry*install*)
        made "${VIRTUAL_ENV:-/usr/local}/lib/python3/site-packages/installed.py" 644
        made "${VIRTUAL_ENV:-/usr/local}/bin/gunicorn"; mkdir -p "${HOME:-/root}/.cache/pip"; echo c >"${HOME:-/root}/.cache/pip/c" ;;
    pip*wheel*) made /wheels/app-1.0-py3-none-any.whl 644 ;;
    python*venv*) for place; do :; done; made "$place/bin/python"; made "$place/bin/pip"; echo home=/usr/bin >"$place/pyvenv.cfg" ;;
    python*collectstatic*) made staticfiles/admin.css 644 ;;
    npm*ci*|npm*install*|yarn*install*|pnpm*install*) mkdir -p node_modules/.bin node_modules/left-pad; cat package.json >node_modules/left-pad/package.json; ln -sf ../left-pad/package.json node_modules/.bin/left-pad ;;
    npm*build*|yarn*build*|pnpm*build*) made dist/assets/main.js 644; echo '<html>' >dist/index.html ;;
    go*mod*download*) mkdir -p "${GOMODCACHE:-/go/pkg/mod}/cache"; sha256sum go.mod >"${GOMODCACHE:-/go/pkg/mod}/cache/sum" ;;
    cargo*chef*prepare*) sha256sum Cargo.toml >recipe.json ;;
    cargo*chef*cook*) mkdir -p target/release/deps; cp recipe.json target/release/deps/ ;;
    cargo*build*) made target/release/app ;;
    mvn*package*|gradle*build*) made target/app.jar 644; made target/dependency/BOOT-INF/lib/dep.jar 644 ;;
    java*extract*) for part in dependencies spring-boot-loader snapshot-dependencies application; do made "$part/$part.txt" 644; done ;;
    composer*install*) made vendor/autoload.php 644; mkdir -p vendor/bin; ln -sf ../autoload.php vendor/bin/autoload ;;
    bundle*install*) mkdir -p "${BUNDLE_PATH:-vendor/bundle}/ruby/3.4.0/cache"; echo gem >"${BUNDLE_PATH:-vendor/bundle}/ruby/3.4.0/rack.rb" ;;
    *assets:precompile*) made public/assets/app.css 644 ;;
    mix*release*) made _build/prod/rel/app/bin/app ;;
    mix*deps.get*) made deps/phoenix/mix.exs 644 ;;
    cmake*) mkdir -p build; made build/CMakeCache.txt 644 ;;
    ninja*) made build/app; made build/libapp.so.1.2.3; ln -sf libapp.so.1.2.3 build/libapp.so.1; ln -sf libapp.so.1 build/libapp.so ;;
    git*clone*) for place; do :; done; mkdir -p "$place/.git"; echo ref: refs/heads/main >"$place/.git/HEAD"; echo readme >"$place/README" ;;
    install*)
        for place; do :; done
        mkdir -p "$place"; previous=
        for word; do case $previous in -m) chmod "$word" "$place" ;; -o) chown "$word" "$place" ;; -g) chgrp "$word" "$place" ;; esac; previous=$word; done ;;
    useradd*|groupadd*|usermod*|adduser*|addgroup*)
        uid=999 who= previous=
        for word; do
            case $previous in
                -u|-g|--uid|--gid) case $word in [0-9]*) uid=$word ;; esac ;;
                -d|-s|-G|-c|-h|-b|--home|--home-dir|--shell|--comment|--ingroup) ;;
                *) case $word in -*) ;; *) who=${who:-$word} ;; esac ;;
            esac
            previous=$word
        done
        name=${name/adduser/useradd}; name=${name/addgroup/groupadd}
        case $name in
            groupadd) echo "$who:x:$uid:" >>/etc/group ;;
            useradd) echo "$who:x:$uid:$uid::/home/$who:/bin/sh" >>/etc/passwd; grep -q "^$who:" /etc/group || echo "$who:x:$uid:" >>/etc/group
                case "$*" in *-m*) mkdir -p "/home/$who"; chown "$uid:$uid" "/home/$who" ;; esac ;;
        esac ;;
    gosu*) user=$1; shift; exec "$@" ;;
esac
case $name in curl) [ -n "$out" ] || echo "echo fetched" ;; esac
"""
DOCKERFILE = """FROM scratch AS made
COPY busybox stand-in /bin/
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY etc /etc
COPY mounts /
RUN mkdir -p /tmp /root /home/app /usr/bin /usr/local/bin /usr/local/lib /usr/share /var/log/stand-in /var/lib /var/cache /opt /srv \\
    && chmod 1777 /tmp /var/log/stand-in && chmod 700 /root && chown 1000:2000 /home/app \\
    && for name in {names}; do ln -s /bin/stand-in /usr/bin/$name; done && ln -s /bin/sh /bin/bash 2>/dev/null || true
FROM scratch
COPY --from=made / /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["sh"]
"""  # one layer: what cases add begins with the second
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:2000::/home/app:/bin/sh\nnonroot:x:65532:65532::/home/app:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:3000:app\nnonroot:x:65532:\nwww-data:x:33:\nextra:x:3001:app,www-data\n"
MOUNTS = {f"mounts/{name}/": "" for name in ("dev", "proc", "sys", "run")}  # or docker leaves them in layers


def make_busybox_base(root: Path, work: Path) -> Path:
    """Build the base with `pipe` under all its names; the archive other builders load it from."""
    context = busybox_context(
        work / "base", {"stand-in": STAND_IN, "etc/passwd": PASSWD, "etc/group": GROUP, **MOUNTS}
    )
    (context / "stand-in").chmod(0o755)
    age(context)
    tags = [word for image in IMAGES for word in ("-t", image)]
    build_text(root, context, DOCKERFILE.replace("{names}", " ".join(CALLED.split())), *tags)
    archive = work / "base.tar"
    run_pipe(root, "save", "-o", str(archive), *IMAGES)
    return archive


DEBIAN = "stand.in/real/debian:bookworm"


def make_debian_base(root: Path, work: Path, kept: Path | None = None) -> Path:
    """A minimal Debian from its packages (`kept` is the tar of such a root), named `DEBIAN`; the archive for other builders."""
    context = work / "debian"
    context.mkdir()
    if kept is not None:
        shutil.copy(kept, context / "rootfs.tar")
    else:
        command = (
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            "--format=tar",
            "bookworm",
            context / "rootfs.tar",
        )
        subprocess.run(command, check=True, timeout=900)
    build_text(root, context, 'FROM scratch\nADD rootfs.tar /\nCMD ["bash"]\n', "-t", DEBIAN)
    archive = work / "debian.tar"
    run_pipe(root, "save", "-o", str(archive), DEBIAN)
    return archive
