"""The gateway's server: the server of all services, the stages, and the tenants.

The servicer of the caller's tenant answers each call.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc.aio
import structlog
from google.longrunning import operations_pb2_grpc
from grpc_health.v1 import health_pb2
from prometheus_client import Gauge

from dubstage.gateway.v1 import batch_pb2_grpc, gateway_pb2_grpc, media_pb2_grpc, webhook_pb2_grpc
from gateway.api.actors import ActorServicer
from gateway.api.batch_service import BatchServicer
from gateway.api.context import OpenedStages, ProcessContext
from gateway.api.dubs import DubServicer
from gateway.api.operations import OperationsServicer, num_calling
from gateway.api.rest import SERVED, RestServer
from gateway.api.tenants import Servicers, Tenants
from gateway.api.uploads import MediaServicer
from gateway.api.webhooks import WebhookServicer
from gateway.live.admission import LiveMetrics
from gateway.private_files import SocketFolder
from gateway.settings import GatewaySettings
from gateway.signatures import TOKEN_FINGERPRINTS, signing_key
from gateway.stages.interface import STAGE_NAMES
from gateway.tenants.long_calls import most_calls_of_tenant
from gateway.ui.proxy import ProxyUsers
from services.common.errors import InvalidRequestError
from services.common.server.auth import TokenCheck
from services.common.server.call_context import DEFAULT_TENANT
from services.common.server.process_tokens import ProcessTokens
from services.common.server.server import LIVENESS, StageServer, bracketed

SERVICES: Final = tuple(service.full_name for service in SERVED)
"""Full names of the services that `add_servicers` adds."""
HTTP_STUCK_S: Final = 15.0
"""Seconds without an answer over HTTP after which the gateway reports that it does not serve."""
_HTTP_POLL_S: Final = 2.0
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING

_log = structlog.stdlib.get_logger("dubstage.gateway")


def add_servicers(server: grpc.aio.Server, tenants: Tenants) -> None:
    """Add ActorService, DubService, BatchService, MediaService, WebhookService and Operations to a server.

    Args:
        tenants: the tenants of this process.
    """
    actors: Any = _ByTenant(ActorServicer, tenants, lambda own: own.actors)
    dubs: Any = _ByTenant(DubServicer, tenants, lambda own: own.dubs)
    batches: Any = _ByTenant(BatchServicer, tenants, lambda own: own.batches)
    media: Any = _ByTenant(MediaServicer, tenants, lambda own: own.media)
    webhooks: Any = _ByTenant(WebhookServicer, tenants, lambda own: own.webhooks)
    operations: Any = _ByTenant(OperationsServicer, tenants, lambda own: own.operations)
    gateway_pb2_grpc.add_ActorServiceServicer_to_server(actors, server)
    gateway_pb2_grpc.add_DubServiceServicer_to_server(dubs, server)
    batch_pb2_grpc.add_BatchServiceServicer_to_server(batches, server)
    media_pb2_grpc.add_MediaServiceServicer_to_server(media, server)
    webhook_pb2_grpc.add_WebhookServiceServicer_to_server(webhooks, server)
    operations_pb2_grpc.add_OperationsServicer_to_server(operations, server)


class _ByTenant:
    """Stands in for the servicers of all tenants, and rewrites their errors. Generated code looks up the methods by name."""

    def __init__(self, kind: type[Any], tenants: Tenants, choose: Callable[[Servicers], Any]) -> None:
        self._kind = kind
        self._tenants = tenants
        self._choose = choose

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._kind, name)

        @functools.wraps(method)
        async def unary(request: Any, context: Any) -> Any:
            own = (await self._tenants.of_caller()).servicers
            with own.names.rewriting(name):
                return await getattr(self._choose(own), name)(request, context)

        @functools.wraps(method)
        async def streaming(request: Any, context: Any) -> AsyncIterator[Any]:
            own = (await self._tenants.of_caller()).servicers
            with own.names.rewriting(name):
                async with aclosing(getattr(self._choose(own), name)(request, context)) as replies:
                    async for reply in replies:
                        yield reply

        return streaming if inspect.isasyncgenfunction(method) else unary


class GatewayServer(StageServer):
    """Server of one gateway process. The warm-up opens the stages. A drain stops the operations; another process resumes them.

    Args:
        settings: settings of the process.

    Raises:
        InvalidRequestError: another gateway works in the data folder or with the SQLite file, or a file of the settings cannot be
            used.
        StorageRefusedError: the signing key of the data folder cannot be used.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        if settings.tenant != DEFAULT_TENANT:
            raise InvalidRequestError(
                "DUBSTAGE_TENANT is for commands: a gateway serves every tenant of its token file; unset it",
                field="DUBSTAGE_TENANT",
            )
        process_tokens = ProcessTokens() if settings.proxy_user_header else None
        proxy = ProxyUsers(settings, process_tokens) if process_tokens is not None and settings.http_port else None
        self._stages = OpenedStages(settings)
        shared = ProcessContext.of(settings, self._stages)
        self._tenants = tenants = Tenants(shared)
        super().__init__(
            "gateway",
            settings,
            register=lambda server: add_servicers(server, tenants),
            services=SERVICES,
            # Without tokens there is only one tenant.
            most_calls_of_tenant=most_calls_of_tenant(settings.max_concurrent_rpcs) if settings.auth_token_file else None,
            fingerprint_key=_fingerprint_key(settings) if settings.auth_token_file else None,
            process_tokens=process_tokens,
            is_serving=lambda: self._http_answers,
        )
        self._http_port, self._web_host = settings.http_port, settings.web_host
        # The HTTP server calls this gRPC server over a socket that only this user can open.
        self._sockets = SocketFolder() if settings.http_port else None
        tokens = TokenCheck(settings.auth_token_file, process_tokens=process_tokens)
        self._rest = RestServer(f"unix:{self._sockets.path}/rpc", settings, tokens, proxy) if self._sockets is not None else None
        self._http_answers = True
        self._watching_http: asyncio.Task[None] | None = None
        unfinished = Gauge("dubstage_operations", "Operations and batches that run here, or wait", registry=self.metrics.registry)
        unfinished.set_function(lambda: sum(tenants.unfinished.values()))
        calling = Gauge(
            "dubstage_stage_operations",
            "Operations and batches that run here, or wait, and call the stage",
            ["stage"],
            registry=self.metrics.registry,
        )
        for stage in STAGE_NAMES:
            calling.labels(stage).set_function(_number_calling(stage, tenants))
        load = Gauge(
            "dubstage_gateway_load",
            "Filled share of the gateway's slots: the larger of live streams and of operations",
            registry=self.metrics.registry,
        )
        load.set_function(lambda: max(shared.live.load, shared.jobs.load))
        self.metrics.registry.register(LiveMetrics(shared.live))

    @property
    def busy(self) -> bool:
        """Whether a stage in this process still computes. After `drain()`, the results of such work are dropped."""
        return super().busy or self._stages.busy

    async def start(self) -> int:
        """Listen for gRPC and, if the settings name a port, for HTTP, without serving yet. Return the port of gRPC.

        Raises:
            InvalidRequestError: an address is in use or cannot be used.
        """
        if self._rest is None:
            return await super().start()
        self._server.add_insecure_port(self._rest.target)
        port = await super().start()
        try:
            await self._rest.start()
        except OSError as error:
            raise InvalidRequestError(
                f"the gateway cannot listen for HTTP on {bracketed(self._web_host)}:{self._http_port}: "
                f"{error.strerror or error}; set DUBSTAGE_HTTP_PORT to another port",
                field="DUBSTAGE_HTTP_PORT",
            ) from error
        if self._web_host != self._settings.host:
            self._warn_of_tokens(self._web_host)
        self._watching_http = asyncio.create_task(self._watch_http(self._rest))
        return port

    async def _watch_http(self, rest: RestServer) -> None:
        """Report NOT_SERVING while HTTP does not answer, also as liveness: a restart ends what holds HTTP.

        Probes ask gRPC alone, which goes on while HTTP is stuck.
        """
        last = time.monotonic()
        while True:
            await asyncio.sleep(_HTTP_POLL_S)
            if await rest.answers():
                last = time.monotonic()
            if self._http_answers is not (answers := time.monotonic() - last < HTTP_STUCK_S):
                self._http_answers = answers
                self._set_health(_SERVING if answers else _NOT_SERVING, LIVENESS)
                (_log.info if answers else _log.error)("http_answers" if answers else "http_stuck")

    async def warm_up(self) -> None:
        """Open the stages, resume interrupted operations and batches, then admit calls and report SERVING.

        Raises:
            DubstageError: a stage cannot be reached, or does not warm up.
        """
        self._tenants.default.watch()
        await self._stages.open()
        await self._tenants.start(self.tracer)
        await super().warm_up()

    async def drain(self, grace_s: float | None = None) -> None:
        """Stop the operations and batches where they are, let running calls end, stop, and close what was opened."""
        await self._tenants.stop()
        if self._watching_http is not None:
            self._watching_http.cancel()
        if self._rest is not None:
            self._rest.close()
        await super().drain(grace_s)
        if self._rest is not None:
            await self._rest.stop()
        if self._sockets is not None:
            self._sockets.remove()
        await self._tenants.close_batches()
        await self._stages.close()
        await self._tenants.close()


def _number_calling(stage: str, tenants: Tenants) -> Callable[[], float]:
    """Return a function that returns the number of operations and batches that call a stage."""
    return lambda: num_calling(stage, tenants.unfinished)


def _fingerprint_key(settings: GatewaySettings) -> bytes:
    return signing_key(settings.data_dir, settings.signing_key_file).derived(TOKEN_FINGERPRINTS)
