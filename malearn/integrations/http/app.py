"""The ASGI application around one predictor."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from malearn.integrations.http import bodies, error_response, metrics
from malearn.integrations.http.bodies import (
    AppendedBody,
    BatchBody,
    FinishedBatchBody,
    FinishedBody,
    ProgressBody,
    QueueBody,
    TaskBody,
    WorkflowBody,
)
from malearn.integrations.http.connection import OVERLOADED
from malearn.integrations.http.guard import Guard
from malearn.integrations.http.held_workflows import HeldWorkflows
from malearn.integrations.http.metrics import Metrics
from malearn.integrations.http.refused import RequestRefused
from malearn.kernel.features import FeatureSchema
from malearn.kernel.prediction import Prediction
from malearn.kernel.reading import believable
from malearn.kernel.tool_types import ToolTypes
from malearn.kernel.workflow import WorkflowPrediction
from malearn.serving.predictor import DAGTaskPredictor
from malearn.serving.task_estimator import Task

__all__ = ["create"]

_log = logging.getLogger(__name__)

#: Bytes of a body, and seconds in which it must have arrived.
LARGEST_BODY, BODY_TIMEOUT = 4 * 1024 * 1024, 10.0
#: Bytes of a larger body that are read all the same: a client that still sends when the connection
#: ends never sees why.
_MOST_DISCARDED = 16 * LARGEST_BODY
#: Tasks that are predicted on the event loop, in about a millisecond; more go to a thread.
#: Handing work to a thread and back costs more than predicting a few tasks.
_ON_THE_LOOP = 128
_THREADS = 4

_Body = TypeVar("_Body")
_Result = TypeVar("_Result")


class _Done(msgspec.Struct, frozen=True):
    status: str = "success"


class _Predicted(msgspec.Struct, frozen=True):
    """What earlier Maze products expect of `/predict`: these three keys."""

    status: str
    predict_time: float
    prediction_source: str


class _PredictedBatch(msgspec.Struct, frozen=True):
    status: str
    predictions: list[Prediction]


class _Rejected(msgspec.Struct, frozen=True):
    """A finished task of a batch that is not learnt from, and why; `task` counts from 0."""

    task: int
    error: str


class _Collected(msgspec.Struct, frozen=True):
    status: str
    accepted: int
    rejected: list[_Rejected]


class _Held(msgspec.Struct, frozen=True):
    status: str
    run_id: str
    tasks: int


class _PredictedWorkflow(msgspec.Struct, frozen=True):
    status: str
    prediction: WorkflowPrediction


class _PredictedQueue(msgspec.Struct, frozen=True):
    status: str
    predictions: dict[str, WorkflowPrediction]
    order: list[str] | None


_DONE = msgspec.json.encode(_Done())
_encode = msgspec.json.Encoder().encode


def create(
    predictor: DAGTaskPredictor,
    tool_types: ToolTypes,
    token: str | None,
    hosts: Iterable[str] = (),
    version: str = "0",
) -> ASGIApp:
    """The application: `predictor` over HTTP, for tasks of `tool_types`.

    `token` is what every request but `/health` must carry, None for none; `hosts` are names that
    the service goes by, beside loopback's and the address that it is reached at.
    """
    workflows = HeldWorkflows(predictor)
    service = _Service(predictor, tool_types, workflows)
    # No docs pages: they load scripts from a CDN. `/openapi.json` is there.
    app = FastAPI(title="malearn", version=version, docs_url=None, redoc_url=None)
    # Handlers take the raw request: msgspec decodes and checks a body many times faster than the
    # models that FastAPI would build.
    for method, path, handler, body in (
        ("POST", "/predict", service.predict, TaskBody),
        ("POST", "/predict_batch", service.predict_batch, BatchBody),
        ("POST", "/collect_data", service.collect_data, FinishedBody),
        ("POST", "/collect_data_batch", service.collect_data_batch, FinishedBatchBody),
        ("POST", "/workflows/predict", service.predict_queue, QueueBody),
        ("PUT", "/workflows/{run_id}", service.put_workflow, WorkflowBody),
        ("DELETE", "/workflows/{run_id}", service.delete_workflow, None),
        ("POST", "/workflows/{run_id}/tasks", service.append_tasks, AppendedBody),
        ("POST", "/workflows/{run_id}/predict", service.predict_workflow, ProgressBody),
        ("GET", "/health", service.health, None),
    ):
        app.add_api_route(path, handler, methods=[method], openapi_extra=_documented(body))
    counted = Metrics(predictor, workflows)

    async def show_metrics() -> Response:
        return Response(counted.page(), media_type=metrics.CONTENT_TYPE)

    app.add_api_route("/metrics", show_metrics, methods=["GET"])
    app.add_exception_handler(RequestRefused, _refused)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(ClientDisconnect, _gone)
    _complete_schema(app)
    return _Door(app, Guard(token, hosts), counted)


class _Service:
    """One method per route."""

    def __init__(
        self, predictor: DAGTaskPredictor, tool_types: ToolTypes, workflows: HeldWorkflows
    ) -> None:
        self._predictor, self._tool_types, self._workflows = predictor, tool_types, workflows
        self._schemas = {t.name: FeatureSchema(t) for t in tool_types.values()}
        # For what may wait for Redis, so that the others need not wait with it.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="malearn-http")

    async def predict(self, request: Request) -> Response:
        """Seconds that a task will take; the interface of earlier Maze products."""
        task = await _read(TaskBody, request)
        arguments = (task.task_name, task.task_type, task.predecessors, task.features)

        def estimate() -> Prediction:
            return self._predictor.estimate(*arguments, task_id=task.task_id)

        found = await self._in_a_thread(estimate) if task.predecessors else estimate()
        return _answer(_Predicted("success", found.seconds, found.source))

    async def predict_batch(self, request: Request) -> Response:
        """One complete prediction per task, in order."""
        given = (await _read(BatchBody, request)).tasks
        tasks: list[Task] = [
            (t.task_name, t.task_type, t.predecessors, t.features, t.task_id) for t in given
        ]

        def estimate() -> list[Prediction]:
            return self._predictor.estimate_many(tasks)

        small = len(tasks) <= _ON_THE_LOOP and not any(t.predecessors for t in given)
        found = estimate() if small else await self._in_a_thread(estimate)
        return _answer(_PredictedBatch("success", found))

    async def collect_data(self, request: Request) -> Response:
        """Report a finished task; the interface of earlier Maze products."""
        problem = self._collect(await _read(FinishedBody, request))
        if problem is not None:
            raise RequestRefused(422, f"The task was recorded as rejected: {problem}.")
        return Response(_DONE, media_type=error_response.MEDIA_TYPE)

    async def collect_data_batch(self, request: Request) -> Response:
        """Report finished tasks; those that teach nothing are named with the reason."""
        tasks = (await _read(FinishedBatchBody, request)).tasks
        problems = [(number, self._collect(task)) for number, task in enumerate(tasks)]
        rejected = [_Rejected(number, problem) for number, problem in problems if problem]
        return _answer(_Collected("success", len(tasks) - len(rejected), rejected))

    async def put_workflow(self, run_id: str, request: Request) -> Response:
        """Declare a workflow, in place of any of its id."""
        declared = await _read(WorkflowBody, request)
        tasks = await self._in_a_thread(lambda: self._workflows.put(run_id, declared))
        return _answer(_Held("success", run_id, tasks))

    async def delete_workflow(self, run_id: str) -> Response:
        """Forget a workflow."""
        await self._in_a_thread(lambda: self._workflows.remove(run_id))
        return Response(_DONE, media_type=error_response.MEDIA_TYPE)

    async def append_tasks(self, run_id: str, request: Request) -> Response:
        """Add tasks that were discovered while the workflow runs: all of them, or none."""
        tasks = (await _read(AppendedBody, request)).tasks
        count = await self._in_a_thread(lambda: self._workflows.append(run_id, tasks))
        return _answer(_Held("success", run_id, count))

    async def predict_workflow(self, run_id: str, request: Request) -> Response:
        """What is left of a workflow, by when it ends, and how likely that is too late."""
        progress = await _read(ProgressBody, request)
        left = await self._in_a_thread(lambda: self._workflows.predict(run_id, progress))
        return _answer(_PredictedWorkflow("success", left))

    async def predict_queue(self, request: Request) -> Response:
        """The same for a whole queue, and its order by a policy."""
        queue = await _read(QueueBody, request)
        now = time.time() if queue.now is None else queue.now
        found, order = await self._in_a_thread(lambda: self._workflows.predict_queue(queue, now))
        return _answer(_PredictedQueue("success", found, order))

    async def health(self) -> Response:
        """That the service is up; needs no token."""
        return Response(b'{"status":"ok"}', media_type=error_response.MEDIA_TYPE)

    def _collect(self, task: FinishedBody) -> str | None:
        """Report `task`; returns why nothing is learnt from it, None where all is well."""
        now = time.time()
        end = now if task.end_time is None else task.end_time
        task_id = task.task_id or f"{uuid.uuid4()}-{task.task_name}"
        start, features = end - task.execution_time, task.features or {}
        record: dict[str, object] = {"start_time": start, "end_time": end}
        if features:
            record["curr_task_feat"] = features
        if task.successors:
            record["succ_task_feat"] = task.successors
        # Before it is checked: ingestion keeps rejected records, too, with the reason.
        self._predictor.collect_data_for_task(task_id, task.task_name, record)
        if (problem := believable.problem(start, end, now)) is not None:
            return problem[1]
        tool_type = self._tool_types.for_known(task.task_name)
        return self._schemas[tool_type.name].problem(features) if tool_type else None

    async def _in_a_thread(self, ask: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)


class _Door:
    """ASGI middleware: checks access, counts requests, answers what fails in a sentence."""

    def __init__(self, app: ASGIApp, guard: Guard, counted: Metrics) -> None:
        self._app, self._guard, self._metrics = app, guard, counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # Closed before it is accepted, a WebSocket is answered with HTTP status 403.
            await send({"type": "websocket.close", "code": 1008})
            return
        began, status = perf_counter(), 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            # First, as it is to cost little: there are more connections than may be.
            if scope.get("state", {}).get(OVERLOADED):
                raise RequestRefused(503, "There are too many connections; try again in a moment.")
            # Before the application: nothing of a request is parsed for who may not ask.
            self._guard.check(scope["path"], scope["headers"], (scope["server"] or ("",))[0])
            await self._app(scope, receive, note)
        except RequestRefused as refused:
            await error_response.response(refused.status, refused.sentence)(scope, receive, note)
        except Exception:  # noqa: BLE001 - whoever asked is owed an answer
            _log.exception("A request to %s failed", scope["path"])
            if not status:  # nothing was sent yet
                failed = "malearn failed to answer; its log says why."
                await error_response.response(500, failed)(scope, receive, note)
        # The route's pattern, not the path: run ids as label values would grow without bound.
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.answered(route, status, perf_counter() - began)


async def _read(kind: type[_Body], request: Request) -> _Body:
    """The body of `request` as a `kind`; raises `RequestRefused`."""
    headers = request.headers
    if (
        headers.get("content-type", "").partition(";")[0].strip().lower()
        != error_response.MEDIA_TYPE
    ):
        raise RequestRefused(
            415, f"The body must be JSON, sent with Content-Type: {error_response.MEDIA_TYPE}."
        )
    read, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= LARGEST_BODY:
                    read += chunk
                elif size > _MOST_DISCARDED:
                    break
    except TimeoutError:
        raise RequestRefused(
            408, f"The body did not arrive within {BODY_TIMEOUT:g} seconds."
        ) from None
    if size > LARGEST_BODY:
        raise RequestRefused(
            413, f"The body is larger than {LARGEST_BODY // 1024**2} MiB; send several requests."
        )
    return bodies.decode(kind, bytes(read))


def _answer(value: msgspec.Struct) -> Response:
    return Response(_encode(value), media_type=error_response.MEDIA_TYPE)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return error_response.response(error.status, error.sentence)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        sentence = f"{request.method} is not possible here, only {allowed}."
    else:
        # Cut: a path may be as long as the head of a request.
        sentence = f"There is nothing at {request.url.path[:200]}; GET /openapi.json lists all."
    response = error_response.response(error.status_code, sentence)
    # Among them Allow, which HTTP demands of a 405.
    response.headers.update(error.headers or {})
    return response


async def _gone(request: Request, error: Exception) -> Response:
    return error_response.response(400, "The connection ended before the body did.")


def _documented(body: type | None) -> dict[str, Any] | None:
    """The OpenAPI entry of a route whose body msgspec decodes."""
    if body is None:
        return None
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    return {
        "requestBody": {
            "required": True,
            "content": {error_response.MEDIA_TYPE: {"schema": schema}},
        }
    }


def _complete_schema(app: FastAPI) -> None:
    """Let `/openapi.json` hold the schemas of all bodies."""
    made = app.openapi

    def complete() -> dict[str, Any]:
        schema = made()
        kinds = [TaskBody, BatchBody, FinishedBody, FinishedBatchBody, WorkflowBody, AppendedBody]
        _, components = msgspec.json.schema_components(
            [*kinds, ProgressBody, QueueBody], ref_template="#/components/schemas/{name}"
        )
        known: Mapping[str, Any] = schema.setdefault("components", {}).setdefault("schemas", {})
        schema["components"]["schemas"] = {**known, **components}
        return schema

    app.openapi = complete  # type: ignore[method-assign]
