"""`pipe network create|ls|inspect|rm|prune|connect|disconnect`, after docker's command line. The work is in `runtime.networks`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput, PipeError

if TYPE_CHECKING:
    from pipeline.services import Services
    from runtime.containers.connecting import Connecting
    from runtime.networks import Network


@click.group()
def network() -> None:
    """Manage networks."""


def _pairs(option: str, values: tuple[str, ...], *, bare: bool = False) -> dict[str, str]:
    """KEY=VALUE options as a mapping; `bare` ones may stand without a value."""
    pairs = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not key or not (equals or bare):
            raise InvalidInput(f"{option} {text!r} is not of the form KEY=VALUE")
        pairs[key] = value
    return pairs


def _one(option: str, values: tuple[str, ...]) -> str:
    if len(values) > 1:
        raise InvalidInput(f"{option} is given {len(values)} times: a network has one IPv4 range")
    return values[0] if values else ""


@network.command()
@click.argument("name")
@click.option("-d", "--driver", default="bridge", show_default=True, help="How the network is made.")
@click.option("--subnet", multiple=True, metavar="CIDR", help="Its range; a free one is chosen without.")
@click.option("--gateway", multiple=True, metavar="ADDRESS", help="The host's address on it.")
@click.option("--ip-range", multiple=True, metavar="CIDR", help="Where container addresses are taken from.")
@click.option("--aux-address", multiple=True, metavar="NAME=ADDRESS", help="An address to leave alone.")
@click.option("--internal", is_flag=True, help="No way out to other networks.")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="Metadata.")
@click.option("-o", "--opt", multiple=True, metavar="KEY=VALUE", help="mtu, icc, masquerade or host-binding.")
@click.option("--ipv6", is_flag=True, help="Not supported.")
@click.option("--attachable", is_flag=True, help="Accepted; every network is.")
@click.pass_obj
def create(
    session: Session,
    name: str,
    driver: str,
    subnet: tuple[str, ...],
    gateway: tuple[str, ...],
    ip_range: tuple[str, ...],
    aux_address: tuple[str, ...],
    internal: bool,
    label: tuple[str, ...],
    opt: tuple[str, ...],
    ipv6: bool,
    attachable: bool,
) -> None:
    """Create a network and print its id."""
    if ipv6:
        from runtime.errors import Unsupported

        raise Unsupported("--ipv6: networks are IPv4 only", hint="leave the flag out")
    with session.work(containers=False, progress="none") as services:
        made = services.networks.create(
            name,
            driver=driver,
            subnet=_one("--subnet", subnet),
            gateway=_one("--gateway", gateway),
            ip_range=_one("--ip-range", ip_range),
            reserved=_pairs("--aux-address", aux_address),
            internal=internal,
            labels=_pairs("--label", label, bare=True),
            options=_pairs("--opt", opt),
        )
    click.echo(made.id)


def _chosen(networks: tuple[Network, ...], filters: tuple[str, ...], used: set[str]) -> list[Network]:
    from runtime.networks.inspect import FILTERS, fits

    wanted: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or key not in FILTERS:
            raise InvalidInput(f"--filter {text!r} is not one of {', '.join(FILTERS)}, each with =VALUE")
        wanted.setdefault(key, []).append(value)
    return [each for each in networks if fits(each, wanted, used)]


@network.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten ids.")
@click.option(
    "-f",
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="name, id, driver, label, type, dangling.",
)
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", help="table or json."
)
@click.pass_obj
def ls(session: Session, quiet: bool, no_trunc: bool, filters: tuple[str, ...], form: str) -> None:
    """List networks."""
    with session.work(containers=False, progress="none") as services:
        services.networks.sweep()
        used = {endpoint.network.id for endpoint in services.networks.endpoints()}
        found = sorted(_chosen(services.networks.list(), filters, used), key=lambda each: each.name)
    ids = [each.id if no_trunc else each.id[:12] for each in found]
    if quiet:
        click.echo("\n".join(ids), nl=bool(ids))
    elif form == "json":
        from runtime.networks.inspect import network_record

        for each in found:
            click.echo(json.dumps(network_record(each, ())))
    else:
        from pipeline.ui.text import table

        rows = [
            [i, each.name, each.driver, str(each.subnet) if each.gateway else ""]
            for i, each in zip(ids, found)
        ]
        click.echo(table(["NETWORK ID", "NAME", "DRIVER", "SUBNET"], rows))


@network.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...")
@click.pass_obj
def inspect(session: Session, names: tuple[str, ...]) -> None:
    """Show networks, and who is on them, as JSON."""
    from runtime.networks.inspect import network_record

    with session.work(containers=False, progress="none") as services:
        services.networks.sweep()
        found = [services.networks.get(name) for name in names]
        records = [network_record(each, services.networks.endpoints(network=each.id)) for each in found]
    click.echo(json.dumps(records, indent=4))


@network.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...")
@click.option("-f", "--force", is_flag=True, help="No error when there is none of that name.")
@click.pass_obj
def rm(session: Session, names: tuple[str, ...], force: bool) -> None:
    """Remove networks."""
    from runtime.errors import NotFound

    with session.work(containers=False, progress="none") as services:
        first: PipeError | None = None
        for name in names:
            try:
                click.echo(services.networks.remove(name).name)
            except NotFound as error:
                first = first or (None if force else error)
            except PipeError as error:
                first = first or error
        if first is not None:
            raise first


@network.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(session: Session, force: bool) -> None:
    """Remove all networks no container is on."""
    if not force:
        click.confirm("This removes all networks that no container uses. Go on?", abort=True)
    with session.work(containers=False, progress="none") as services:
        removed = services.networks.prune()
    click.echo("\n".join(removed), nl=bool(removed))


@network.command()
@click.argument("network_name", metavar="NETWORK")
@click.argument("container_name", metavar="CONTAINER")
@click.option("--alias", multiple=True, metavar="NAME", help="A further name on this network.")
@click.option("--ip", default="", metavar="ADDRESS", help="Its address; a free one is chosen without.")
@click.pass_obj
def connect(
    session: Session, network_name: str, container_name: str, alias: tuple[str, ...], ip: str
) -> None:
    """Connect a container to a network."""
    from runtime.containers.spec import NetworkAttachment

    attachment = NetworkAttachment(network=network_name, aliases=alias, ipv4=ip)
    with session.work(progress="none") as services:
        _connecting(services).connect(container_name, attachment)


@network.command()
@click.argument("network_name", metavar="NETWORK")
@click.argument("container_name", metavar="CONTAINER")
@click.option("-f", "--force", is_flag=True, help="Accepted; disconnecting never asks.")
@click.pass_obj
def disconnect(session: Session, network_name: str, container_name: str, force: bool) -> None:
    """Disconnect a container from a network."""
    with session.work(progress="none") as services:
        _connecting(services).disconnect(container_name, network_name)


def _connecting(services: Services) -> Connecting:
    from runtime.containers.connecting import Connecting

    return Connecting(services.store, services.networks, services.spawner)
