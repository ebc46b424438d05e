"""`pipe registry serve|status|stop`, `pipe login` and `pipe logout`."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session
from runtime.errors import Denied, InvalidInput

if TYPE_CHECKING:
    from registry_client.client import RegistryClient
    from registry_client.credentials import Credential
    from registry_client.reference import Reference
    from runtime.registry.process import ServiceState


@click.group()
def registry() -> None:
    """The embedded registry: the images of this store, for docker, podman, skopeo and the like."""


@registry.command()
@click.option("-d", "--detach", is_flag=True, help="Serve in the background.")
@click.option("--address", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")
@click.option("--htpasswd", metavar="FILE", default="", help="Let only these users in (bcrypt entries).")
@click.option("--anonymous-read", is_flag=True, help="With --htpasswd: pulling needs no login.")
@click.option("--tls-cert", metavar="FILE", default="", help="Speak TLS with this certificate.")
@click.option("--tls-key", metavar="FILE", default="", help="The certificate's key.")
@click.pass_obj
def serve(
    session: Session,
    detach: bool,
    address: str | None,
    htpasswd: str,
    anonymous_read: bool,
    tls_cert: str,
    tls_key: str,
) -> None:
    """Serve the store's images and take in pushes."""
    from runtime.registry import process
    from runtime.registry.access import Access
    from runtime.registry.service import ServiceOptions

    options = ServiceOptions(
        address=address or session.settings.registry_address,
        access=Access(_absolute(htpasswd), anonymous_read),
        certificate=_absolute(tls_cert),
        key=_absolute(tls_key),
    )
    if detach:
        _show(process.start_detached(session.settings.root, options))
        return
    with session.work(containers=False, progress="none") as services:
        process.serve(services.store, services.images, options, _show)


@registry.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(session: Session, as_json: bool) -> None:
    """Say whether and where the registry serves; exit code 1 when it does not."""
    from runtime.registry import process

    state = process.status(session.settings.root)
    if as_json:
        record = {"running": False} if state is None else {"running": True, "address": state.address}
        if state is not None:
            record |= {"pid": state.pid, "url": state.url, "log": process.log_path(session.settings.root)}
        click.echo(json.dumps(record))
    elif state is None:
        click.echo("the registry is not running")
    else:
        click.echo(f"serving at {state.url} (pid {state.pid})")
    if state is None:
        raise click.exceptions.Exit(1)


@registry.command()
@click.pass_obj
def stop(session: Session) -> None:
    """End the registry that serves this store."""
    from runtime.registry import process

    state = process.stop(session.settings.root)
    click.echo(f"stopped {state.url}" if state else "the registry is not running")


def _show(state: ServiceState) -> None:
    click.echo(f"serving at {state.url} (pid {state.pid})")
    sys.stdout.flush()


def _absolute(path: str) -> str:
    # The detached process runs in another directory.
    return os.path.abspath(path) if path else ""


@click.command()
@click.argument("server", default="docker.io")
@click.option("-u", "--username", metavar="NAME", help="User name.")
@click.option("-p", "--password", metavar="PASSWORD", help="Password; better use --password-stdin.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.pass_obj
def login(
    session: Session, server: str, username: str | None, password: str | None, password_stdin: bool
) -> None:
    """Log in to a registry and remember it as docker does."""
    from registry_client.credentials import Credential, DockerConfig
    from runtime.images.transport import connected

    host = _host(server)
    reference = _reference(host)
    if password_stdin:
        if password is not None or not username:
            raise InvalidInput("--password-stdin wants --username and no --password")
        password = sys.stdin.read().rstrip("\r\n")
    username = username or click.prompt("Username", err=True)
    password = password if password is not None else click.prompt("Password", hide_input=True, err=True)
    credential = Credential(username, password)
    with connected(_Trial(session, host, credential), reference) as client:
        assert hasattr(client, "ping")
        client.ping()
    where = _stored(DockerConfig(_config_file(session)), host, credential)
    click.echo(f"Login Succeeded ({host}, kept in {where})")


@click.command()
@click.argument("server", default="docker.io")
@click.pass_obj
def logout(session: Session, server: str) -> None:
    """Forget a login."""
    from registry_client.credentials import DockerConfig
    from registry_client.errors import CredentialError

    host = _host(server)
    try:
        known = DockerConfig(_config_file(session)).erase(host)
    except CredentialError as error:
        raise Denied(error.message, hint=error.hint) from error
    click.echo(f"Removed the login for {host}" if known else f"Not logged in to {host}")


class _Trial:
    """A transport that knows one login, which is kept nowhere yet."""

    def __init__(self, session: Session, host: str, credential: Credential) -> None:
        self._session, self._host, self._credential = session, host, credential

    def client(self, reference: Reference) -> RegistryClient:
        from registry_client.clients import Clients, RegistryOptions
        from registry_client.credentials import FixedCredentials

        settings = self._session.settings
        insecure = frozenset(filter(None, settings.insecure_registries.split(",")))
        options = RegistryOptions(insecure=insecure, ca_bundle=settings.ca_bundle)
        return Clients(FixedCredentials({self._host: self._credential}), options).client(reference)


def _host(server: str) -> str:
    host = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io", "") else host


def _reference(host: str) -> Reference:
    from registry_client.reference import parse_reference

    try:
        found = parse_reference(f"{host}/name")
    except ValueError as error:
        raise InvalidInput(
            f"invalid registry {host!r}", hint="want a host name, with a port if need be"
        ) from error
    if host not in (found.domain, "docker.io"):
        raise InvalidInput(
            f"invalid registry {host!r}", hint="a host name has a dot or a port, or is localhost"
        )
    return found


def _config_file(session: Session) -> str:
    return os.path.join(session.settings.docker_config, "config.json")


def _stored(config: object, host: str, credential: Credential) -> str:
    from registry_client.credentials import DockerConfig
    from registry_client.errors import CredentialError

    assert isinstance(config, DockerConfig)
    try:
        return config.store(host, credential)
    except CredentialError as error:
        raise Denied(error.message, hint=error.hint) from error
