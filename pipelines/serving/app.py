"""Ray Serve: a registered generator over HTTP, its requests bounded, its alias followed."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gan_core.conditions.classes import Classes
from gan_core.errors import ConfigurationError, GanError
from gan_core.portable import PortableGenerator
from pipelines.registry import ModelVersion
from pipelines.runtime import installed, ray_session
from pipelines.serving.requests import MAX_BODY, MEDIA, answer_request, parse_request

METHODS = {"/samples": "POST", "/model": "GET", "/health": "GET"}
REQUEST_SECONDS = 60.0  # then Ray Serve answers 408


@dataclass(frozen=True)
class ServeSettings:
    """Where to listen, on how many replicas, and what one request and one replica may be asked for."""

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    max_samples: int = 1024
    max_waiting: int = 16  # requests for samples at a replica, beside the one that is worked on

    def __post_init__(self) -> None:
        for name, least in {"port": 1, "replicas": 1, "max_samples": 1, "max_waiting": 0}.items():
            if getattr(self, name) < least:
                raise ConfigurationError(f"too small a {name}", "serve", str(getattr(self, name)), f"at least {least}")
        if self.port > 65535:
            raise ConfigurationError("not a port", "serve", str(self.port), "1 to 65535")


class ModelHolder:
    """A Ray actor that holds the model that is served: replicas take it from here, and never read the registry."""

    def __init__(self) -> None:
        self.served: tuple[PortableGenerator, dict[str, Any]] | None = None

    def put(self, model: PortableGenerator, about: dict[str, Any]) -> None:
        """Serve another model from now on."""
        self.served = model, about

    def get(self) -> Any:
        """The model, and what /model says of it."""
        return self.served


class Replica:
    """Answers requests, one draw at a time: a few may wait, those beyond are told to come again."""

    def __init__(self, holder: Any, settings: ServeSettings) -> None:
        import torch

        torch.set_num_threads(1)
        self.holder, self.settings = holder, settings
        self.waiting = 0
        self.drawing = asyncio.Lock()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take the model from its holder: at the start, and whenever it is another one."""
        self.model, self.about = await self.holder.get.remote()

    async def __call__(self, request: Any) -> Any:
        """One request, by its path: POST /samples, GET /model, GET /health."""
        path = request.url.path
        if path not in METHODS:
            return _refused(404, ConfigurationError("no such path", path[:80], request.method, ", ".join(METHODS)))
        if request.method != METHODS[path]:
            return _refused(405, ConfigurationError("method", path, request.method, METHODS[path]), Allow=METHODS[path])
        if path == "/health":
            return _json(200, {"status": "ok"})
        if path == "/model":
            return _json(200, self.about)
        return await self._samples(request)

    async def _samples(self, request: Any) -> Any:
        from starlette.responses import Response

        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                return _refused(
                    413, ConfigurationError("body too large", "POST /samples", "more", f"at most {MAX_BODY} bytes")
                )
        try:
            wanted = parse_request(body, self.settings.max_samples)
        except GanError as error:
            return _refused(400, error)
        if self.waiting > self.settings.max_waiting:
            before = f"{self.waiting} requests before this one"
            busy = ConfigurationError("busy", "POST /samples", before, "to be asked again in a second")
            return _refused(503, busy, **{"Retry-After": "1"})
        self.waiting += 1
        try:
            async with self.drawing:
                model, about = self.model, self.about  # of one moment: the alias may move while this one draws
                content = await asyncio.to_thread(answer_request, model, wanted)
        except GanError as error:  # a condition that this model does not take
            return _refused(400, error)
        finally:
            self.waiting -= 1
        headers = {"X-Model": f"{about['name']}/{about['version']}", "X-Generator-SHA256": about["generator_sha256"]}
        return Response(content, media_type=MEDIA[wanted.format], headers=headers)


class Service:
    """A running Serve application; `show` puts another model in its place without a pause."""

    def __init__(self, settings: ServeSettings, name: str) -> None:
        import ray
        from ray import serve

        self.settings, self.name = settings, f"gan-{name}"
        self.holder = ray.remote(ModelHolder).options(num_cpus=0).remote()
        self.deployment = serve.deployment(
            Replica,
            name="samples",
            num_replicas=settings.replicas,
            ray_actor_options={"num_cpus": 1},
            # Ours answers first, in JSON; what would still be too many, Serve refuses.
            max_ongoing_requests=2 * (settings.max_waiting + 2) + 16,
            max_queued_requests=16 * settings.replicas,
        )

    def show(self, version: ModelVersion, model: PortableGenerator) -> dict[str, Any]:
        """Serve this version, and return what /model says of it once every replica has it."""
        import ray
        from ray import serve

        about = {
            "name": version.name,
            "version": version.version,
            "generator_sha256": model.sha256,
            "image_shape": list(model.image_shape),
            "pixels": model.pixels,
            **({"classes": list(model.conditions.labels)} if isinstance(model.conditions, Classes) else {}),
            "max_samples": self.settings.max_samples,
        }
        ray.get(self.holder.put.remote(model, about))
        application = self.deployment.options(user_config={"version": version.version}).bind(self.holder, self.settings)
        serve.run(application, name=self.name, logging_config={"log_level": "ERROR", "enable_access_log": False})
        return about


@contextmanager
def service(settings: ServeSettings, name: str) -> Iterator[Service]:
    """A Serve application on the cluster that is joined, for as long as the block runs.

    Raises:
        ConfigurationError: If the cluster has no room for the replicas, or the port is taken, or Ray has no Serve.
    """
    import logging

    import ray

    try:
        from ray import serve
    except ModuleNotFoundError as error:  # Ray raises its own, which names no module
        raise installed.not_installed("ray[serve]", "services") from error

    cpus = ray.cluster_resources().get("CPU", 0)
    if settings.replicas > cpus:
        raise ConfigurationError(
            "not enough resources", "--replicas", f"{settings.replicas} CPU", f"at most {cpus:g}, what the cluster has"
        )
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    options = {"host": settings.host, "port": settings.port, "request_timeout_s": REQUEST_SECONDS}
    serve.start(http_options=options, logging_config={"log_level": "ERROR", "enable_access_log": False})
    running = Service(settings, name)
    try:
        yield running
    finally:
        if ray_session.address() is not None:  # our own cluster ends as a whole
            serve.delete(running.name)


def _json(status: int, value: Any, **headers: str) -> Any:
    from starlette.responses import Response

    return Response(json.dumps(value), status, headers, "application/json")


def _refused(status: int, error: GanError, **headers: str) -> Any:
    return _json(status, {"error": str(error)}, **headers)
