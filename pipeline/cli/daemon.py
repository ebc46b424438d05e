"""`pipe daemon`: the Engine API for docker's clients. Here lower and upper floors meet: the builder is handed in."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from pipeline.services import Services
    from runtime.daemon.api import EngineApi
    from runtime.daemon.engine import Engine
    from runtime.daemon.service import Tls

_AN_HOUR = 3600.0
_DOCKER_CERTIFICATES = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}


@click.command()
@click.option(
    "-H", "--host", "hosts", multiple=True, metavar="ADDRESS",
    help="unix:///run/pipe.sock or tcp://127.0.0.1:2375; may be repeated (default: pipe.sock in the store's directory).",
)  # fmt: skip
@click.option("-G", "--group", default="docker", metavar="GROUP", help="Who may use the socket, beside us.")
@click.option("-p", "--pidfile", default="", metavar="FILE", help="Write our process id there.")
@click.option("--tls", is_flag=True, help="Speak TLS on tcp.")
@click.option("--tlsverify", is_flag=True, help="Speak TLS, and only with clients that show a certificate.")
@click.option(
    "--tlscacert", metavar="FILE", help="Who signs clients' certificates (default ~/.docker/ca.pem)."
)
@click.option("--tlscert", metavar="FILE", help="Our certificate (default ~/.docker/cert.pem).")
@click.option("--tlskey", metavar="FILE", help="Its key (default ~/.docker/key.pem).")
@click.option("--allow-plain-tcp", is_flag=True, help="Let anybody who reaches a tcp address be root here.")
@click.pass_obj
def daemon(
    session: Session, hosts: tuple[str, ...], group: str, pidfile: str, tls: bool, tlsverify: bool,
    tlscacert: str | None, tlscert: str | None, tlskey: str | None, allow_plain_tcp: bool,
) -> None:  # fmt: skip
    """Serve Docker's Engine API until SIGTERM."""
    from runtime.daemon.service import Options, serving

    files = {"ca": tlscacert, "cert": tlscert, "key": tlskey}
    options = Options(
        hosts=hosts or (f"unix://{os.path.abspath(session.settings.root)}/pipe.sock",),
        group=group,
        pidfile=pidfile,
        tls=_tls(session, files, tlsverify) if tls or tlsverify else None,
        plain_tcp=allow_plain_tcp,
    )
    # Builds run their steps from here: the spawner is forked, and what they mount kept apart, while there is one thread.
    with session.work(containers=True, private_mounts=True, progress="none") as services:
        engine = open_engine(services)
        with serving(make_api(services, engine), options) as addresses:
            _warn(options.hosts, options.tls)
            for address in addresses:
                click.echo(f"serving the Engine API at {address}")
            while not session.cancel.wait(_AN_HOUR):
                pass


def open_engine(services: Services) -> Engine:
    """What the routes work on. Everything is opened here, while nobody else asks for it."""
    from runtime.daemon.engine import Engine
    from runtime.daemon.happened import Happened
    from runtime.daemon.host import engine_id, read_facts
    from runtime.events import Changed, Event

    happened = Happened()

    def note(event: Event) -> None:
        if isinstance(event, Changed):
            happened.note(event)

    services.emit = note
    return Engine(
        id=engine_id(services.store.root),
        facts=read_facts(version("pipe-ci")),
        store=services.store,
        snapshots=services.settings.snapshots,
        images=services.images,
        containers=services.containers,
        networks=services.networks,
        volumes=services.volumes,
        happened=happened,
        transport=services.transport,
        cancel=services.cancel,
        insecure=tuple(filter(None, services.settings.insecure_registries.split(","))),
    )


def make_api(services: Services, engine: Engine) -> EngineApi:
    """All routes. Those of what lies above `runtime` are added here."""
    from builder.classic.builds import ClassicBuilds
    from builder.control.builds import Ground
    from builder.control.routes import BuildKit
    from runtime.daemon.service import engine_api
    from runtime.networks.networks import Networks

    ground = Ground(
        root=engine.store.root,
        working=engine.working,
        networks=Networks,
        spawner=services.spawner_if_any,
        jobs=services.jobs,
        version=engine.facts.version,
        cancel=engine.cancel,
    )
    kit = BuildKit(ground)
    classic = ClassicBuilds(engine, services.spawner_if_any, Networks, services.jobs)
    api = engine_api(engine, classic, kit.older.build)
    api.add(kit.routes())
    return api


def _tls(session: Session, files: dict[str, str | None], verify: bool) -> Tls:
    """Docker's names for the files, where none is given."""
    from runtime.daemon.service import Tls

    places = {
        name: path or os.path.join(session.settings.docker_config, _DOCKER_CERTIFICATES[name])
        for name, path in files.items()
    }
    wanted = ["cert", "key", *(["ca"] if verify else [])]
    for name in wanted:
        if not os.path.isfile(places[name]):
            raise InvalidInput(f"no file {places[name]} for --tls{name}{'cert' if name == 'ca' else ''}")
    return Tls(certificate=places["cert"], key=places["key"], authority=places["ca"] if verify else "")


def _warn(hosts: tuple[str, ...], tls: Tls | None) -> None:
    for host in hosts:
        if not host.startswith(("unix://", "/")) and not (tls and tls.authority):
            click.echo(f"warning: {host} lets everybody who reaches it be root on this host", err=True)
