"""moby.buildkit.v1.Control and moby.buildkit.v1.frontend.LLBBridge.

A build comes as `Control.Solve`, in one of two forms: it names the front end itself, or it waits for what the client's
own build function returns. That function asks `LLBBridge.Solve` for results, which are promised there and made when the
client wants an output of them, or another build stands on them. The two calls know each other by a header.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from builder.control import calls, worker
from builder.control.attributes import request_of
from builder.control.builds import NODE, Done, Ground, Wanted, run_build
from builder.control.errors import in_grpc
from builder.control.history import History
from builder.control.inputs import definition_of, result_in
from builder.control.jobs import Job, Jobs, Pending
from builder.control.messages import control, gateway
from builder.control.messages.common import Definition, Empty, Timestamp, capabilities
from builder.control.messages.content import InfoRequest, ReadRequest
from builder.control.sessions import Sessions
from builder.control.sources import Sent
from builder.control.usage import pruned, usage
from registry_client.values import replace
from runtime.cancel import Cancel
from runtime.errors import PipeError
from runtime.events import Emit, ignore
from runtime.grpc.server import Method, streaming, unary
from runtime.grpc.status import Code, GrpcError, Status
from runtime.grpc.stream import Stream

_BUILD = "buildkit-controlapi-buildid"
_SESSION = "x-docker-expose-session-"
_CONTENT = "/containerd.services.content.v1.Content/"
_FRONTENDS = ("dockerfile.v0",)
_NO_LLB = "graphs of LLB are not built here, only Dockerfiles (the front end dockerfile.v0)"


class Services:
    """Both services over one set of jobs and sessions."""

    def __init__(self, ground: Ground, sessions: Sessions) -> None:
        self._ground, self._sessions = ground, sessions
        self._jobs, self._history = Jobs(), History()

    def methods(self) -> dict[str, Method]:
        own, bridge = "/moby.buildkit.v1.Control/", "/moby.buildkit.v1.frontend.LLBBridge/"
        return {
            f"{own}Solve": unary(control.SolveRequest, self._solve),
            f"{own}Status": streaming(control.StatusRequest, self._status),
            f"{own}ListWorkers": unary(Empty, self._workers),
            f"{own}Info": unary(Empty, self._info),
            f"{own}Session": self._session,
            f"{own}ListenBuildHistory": streaming(control.HistoryRequest, self._listen),
            f"{own}UpdateBuildHistory": unary(control.HistoryUpdate, self._update),
            f"{_CONTENT}Info": unary(InfoRequest, lambda request, stream: self._history.info(request)),
            f"{_CONTENT}Read": streaming(ReadRequest, lambda request, stream: self._history.read(request)),
            f"{own}DiskUsage": unary(control.DiskUsageRequest, self._disk_usage),
            f"{own}Prune": streaming(control.PruneRequest, self._prune),
            f"{bridge}Ping": unary(Empty, self._ping),
            f"{bridge}Solve": unary(gateway.SolveRequest, self._bridge_solve),
            f"{bridge}Return": unary(gateway.ReturnRequest, self._return),
            f"{bridge}Evaluate": unary(gateway.EvaluateRequest, self._evaluate),
            f"{bridge}Inputs": unary(Empty, lambda request, stream: gateway.InputsResponse()),
            f"{bridge}Warn": unary(Empty, lambda request, stream: Empty()),
            "/grpc.health.v1.Health/Check": unary(Empty, lambda request, stream: control.HealthResponse(1)),
        }

    # --- Control ------------------------------------------------------------------------------------------------------

    def _solve(self, request: control.SolveRequest, stream: Stream) -> control.SolveResponse:
        if request.definition is not None and request.definition.nodes:
            raise GrpcError(Code.UNIMPLEMENTED, _NO_LLB)
        job = self._jobs.begin(request.ref, request.session)
        try:
            with (
                stream.cancel.on_cancel(lambda: job.cancel.cancel("the client went away")),
                self._ground.cancel.on_cancel(lambda: job.cancel.cancel("the daemon ends")),
            ):
                done = self._recorded(job, request)
        finally:
            self._jobs.end(job)
        return control.SolveResponse(dict(done.response) if done else {})

    def _recorded(self, job: Job, request: control.SolveRequest) -> Done | None:
        """The build, and what is kept of it. Questions are none; a build that found no result has nothing to keep."""
        started, error, done = time.time(), None, None
        try:
            done = self._solved(job, request)
            return done
        except (GrpcError, PipeError) as mistake:
            error = mistake if isinstance(mistake, GrpcError) else in_grpc(mistake)
            raise
        finally:
            if (done is not None or (error is not None and job.wanted is not None)) and not request.internal:
                record = control.HistoryRecord(
                    request.ref,
                    _FRONTENDS[0],
                    dict(job.wanted.attrs) if job.wanted else {},
                    request.exporters,
                    Status(int(error.code), error.message, list(error.details)) if error else None,
                    Timestamp.of(started),
                    Timestamp.of(time.time()),
                    dict(done.response) if done else {},
                    cached_steps=job.told.count(cached=True),
                    total_steps=job.told.count(),
                    completed_steps=job.told.count(completed=True),
                    warnings=job.told.warnings,
                )
                self._history.add(record, done.result.provenance if done else {})

    def _solved(self, job: Job, request: control.SolveRequest) -> Done | None:
        cache = request.cache or control.CacheOptions()
        exporters = request.exporters or [control.Exporter(request.exporter, request.exporter_attrs)]
        asked = Wanted(
            session=request.session,
            attrs=request.frontend_attrs,
            exporters=tuple(each for each in exporters if each.type),
            cache_from=tuple(cache.imports),
            cache_to=tuple(cache.exports),
            entitlements=tuple(request.entitlements),
        )
        if request.frontend:
            _check_frontend(request.frontend)
            wanted = replace(asked, inputs=self._inputs(request.frontend_inputs, job.cancel))
        else:
            pending = self._returned(job)
            if pending is None:
                return None
            wanted = replace(
                pending.wanted,
                exporters=asked.exporters,
                cache_from=(*pending.wanted.cache_from, *asked.cache_from),
                cache_to=asked.cache_to,
                entitlements=asked.entitlements,
            )
        job.wanted = wanted
        return self._run(wanted, job.told.emit, job.cancel)

    def _returned(self, job: Job) -> Pending | None:
        """The result the client's build function ends with; None when it has none, or only said something."""
        answer = self._jobs.returned(job, job.cancel)
        if answer.error is not None:
            raise GrpcError(_code(answer.error.code), answer.error.message, answer.error.details)
        result = answer.result or gateway.Result()
        refs = [result.ref] if result.ref else list((result.refs or gateway.RefMap()).refs.values())
        named = [ref.id for ref in refs if ref.id]
        if len(named) > 1:
            raise GrpcError(Code.UNIMPLEMENTED, "a build has one result here; platforms are its own business")
        return self._jobs.promised(named[0]) if named else None

    def _run(self, wanted: Wanted, emit: Emit, cancel: Cancel) -> Done:
        return run_build(self._ground, self._sessions, wanted, emit, cancel)

    def _status(self, request: control.StatusRequest, stream: Stream) -> Iterator[control.StatusResponse]:
        job = self._jobs.get(request.ref, stream.cancel)
        yield from job.told.follow(stream.cancel)

    def _workers(self, request: Empty, stream: Stream) -> control.ListWorkersResponse:
        return control.ListWorkersResponse([worker.worker(self._ground.version)])

    def _info(self, request: Empty, stream: Stream) -> control.InfoResponse:
        return control.InfoResponse(worker.version(self._ground.version))

    def _session(self, stream: Stream) -> None:
        """A session within a call, for clients that cannot open a connection for it."""
        from builder.control.tunnel import tunnelled

        with tunnelled(stream) as sock:
            head = {name.removeprefix(_SESSION): values for name, values in stream.headers.items()}
            self._sessions.serve(
                sock,
                b"",
                head["uuid"][0],
                next(iter(head.get("name", ())), ""),
                next(iter(head.get("sharedkey", ())), ""),
                head.get("grpc-method", ()),
            )

    def _listen(self, request: control.HistoryRequest, stream: Stream) -> Iterator[control.HistoryEvent]:
        return self._history.listen(request, stream.cancel)

    def _update(self, request: control.HistoryUpdate, stream: Stream) -> Empty:
        self._history.update(request)
        return Empty()

    def _disk_usage(self, request: control.DiskUsageRequest, stream: Stream) -> control.DiskUsageResponse:
        with self._ground.working(None, ignore) as images:
            return control.DiskUsageResponse(usage(images.store, request.filters))

    def _prune(self, request: control.PruneRequest, stream: Stream) -> Iterator[control.UsageRecord]:
        with self._ground.working(None, ignore) as images:
            yield from pruned(images.store, request)

    # --- LLBBridge ----------------------------------------------------------------------------------------------------

    def _job(self, stream: Stream) -> Job:
        return self._jobs.get(stream.header(_BUILD), stream.cancel)

    def _ping(self, request: Empty, stream: Stream) -> gateway.Pong:
        self._job(stream)
        here = worker.worker(self._ground.version)
        return gateway.Pong(capabilities(worker.FRONTEND), capabilities(worker.LLB), [here])

    def _bridge_solve(self, request: gateway.SolveRequest, stream: Stream) -> gateway.SolveResponse:
        job = self._job(stream)
        if not request.frontend:
            if request.definition is not None and request.definition.nodes:
                raise GrpcError(Code.UNIMPLEMENTED, _NO_LLB)
            return gateway.SolveResponse(result=gateway.Result())
        _check_frontend(request.frontend)
        wanted = Wanted(
            session=job.session,
            attrs=request.options,
            cache_from=tuple(request.cache_imports),
            inputs=self._inputs(request.inputs, stream.cancel),
        )
        if kind := request.options.get("requestid", ""):
            return gateway.SolveResponse(result=gateway.Result(metadata=self._answer(kind, wanted, job)))
        pending = self._jobs.promise(job, wanted)
        if request.evaluate:
            self._made(pending)
        ref = gateway.Ref(pending.id, definition_of(pending.id))
        return gateway.SolveResponse(result=gateway.Result(ref=ref))

    def _answer(self, kind: str, wanted: Wanted, job: Job) -> dict[str, bytes]:
        from contextlib import ExitStack

        with ExitStack() as stack:
            session = self._sessions.get(wanted.session, job.cancel)
            sent = Sent(session, self._ground.root, NODE, job.told.emit, job.cancel, stack)
            sources = sent.dockerfile(wanted.attrs)
            request = request_of(
                wanted.attrs,
                sources=sources,
                tags=(),
                outputs=(),
                cache_from=(),
                cache_to=(),
                entitlements=(),
            )
            images = stack.enter_context(self._ground.working(None, job.told.emit))
            return calls.answer(kind, sources, request, images)

    def _return(self, request: gateway.ReturnRequest, stream: Stream) -> Empty:
        self._jobs.give_back(self._job(stream), request)
        return Empty()

    def _evaluate(self, request: gateway.EvaluateRequest, stream: Stream) -> Empty:
        self._made(self._jobs.promised(request.ref))
        return Empty()

    def _made(self, pending: Pending) -> Done:
        """The result itself, without any output: its image is in the store."""
        return self._run(pending.wanted, pending.job.told.emit, pending.job.cancel)

    def _inputs(self, given: Mapping[str, Definition], cancel: Cancel) -> dict[str, str]:
        """What each named input is: an image a build here made."""
        found = {}
        for name, definition in given.items():
            result = result_in(definition)
            if result is None:
                raise GrpcError(Code.UNIMPLEMENTED, f"input {name!r}: {_NO_LLB}")
            found[name] = f"docker-image://{self._made(self._jobs.promised(result)).result.image_id}"
        return found


def _check_frontend(name: str) -> None:
    if name not in _FRONTENDS:
        raise GrpcError(Code.UNIMPLEMENTED, f"the front end {name!r} is not known here, only {_FRONTENDS[0]}")


def _code(number: int) -> Code:
    try:
        return Code(number)
    except ValueError:
        return Code.UNKNOWN
