"""Programs and files of others: git, certificates, docker's credential helpers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from pipeline.doctor.finding import Finding, Level
from pipeline.doctor.host import Host


def git(host: Host) -> Iterator[Finding]:
    program = host.program("git")
    if program:
        yield Finding(
            "git", Level.OK, host.output(program, "--version").removeprefix("git version ") or program
        )
    else:
        hint = "install the package git: contexts by URL, `git.*` values and hooks need it"
        yield Finding("git", Level.LIMITED, "not installed", hint)


def certificates(host: Host) -> Iterator[Finding]:
    import ssl

    usual = ssl.get_default_verify_paths()
    files = (
        [host.ca_bundle]
        if host.ca_bundle
        else [usual.cafile, usual.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt"]
    )
    found = next((path for path in files if path and host.exists(path)), "")
    if found:
        yield Finding("certificates", Level.OK, found)
    else:
        named = f"{host.ca_bundle} does not exist" if host.ca_bundle else "no bundle of authorities"
        hint = "install the package ca-certificates: registries cannot be trusted without"
        yield Finding("certificates", Level.LIMITED, named, hint)


def credentials(host: Host) -> Iterator[Finding]:
    path = os.path.join(host.docker_config, "config.json")
    text = host.read(path)
    if not text:
        yield Finding("credentials", Level.OK, "no logins (`pipe login` makes one)")
        return
    try:
        record = json.loads(text)
        helpers = {str(name) for name in (record.get("credHelpers") or {}).values()}
        helpers |= {str(record["credsStore"])} if record.get("credsStore") else set()
    except (ValueError, AttributeError) as error:
        yield Finding("credentials", Level.LIMITED, f"{path} cannot be read: {error}", "repair or remove it")
        return
    missing = sorted(name for name in helpers if not host.program(f"docker-credential-{name}"))
    if missing:
        programs = ", ".join(f"docker-credential-{name}" for name in missing)
        yield Finding(
            "credentials",
            Level.LIMITED,
            f"{path} wants {programs}",
            "install it, or take it out of that file",
        )
    else:
        yield Finding("credentials", Level.OK, path)


CHECKS = (git, certificates, credentials)
