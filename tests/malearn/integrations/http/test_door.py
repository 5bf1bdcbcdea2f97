"""Who may use the HTTP service, and what it says to bodies that it cannot use."""

from __future__ import annotations

import pytest

from tests.malearn.integrations.http.conftest import TOKEN, Service

PREDICT = {"task_name": "task1_llm_process"}


def test_without_the_token_nothing_but_the_health_is_answered(service: Service) -> None:
    for wrong in (None, "Bearer nonsense", f"Basic {TOKEN}", TOKEN):
        reply = service.ask("POST", "/predict", PREDICT, {"Authorization": wrong})
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert "A token is needed" in reply.error
    for path in ("/metrics", "/openapi.json", "/workflows/predict", "/nowhere"):
        assert service.ask("GET", path, headers={"Authorization": None}).status == 401
    health = service.ask("GET", "/health", headers={"Authorization": None})
    assert (health.status, health.json) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.", "[::2]"]
)
def test_a_host_that_is_not_ours_is_refused_with_any_token(service: Service, host: str) -> None:
    for path in ("/health", "/metrics"):
        reply = service.ask("GET", path, headers={"Host": host})
        assert reply.status == 403
        assert f"The host '{host}' is not a name of this service" in reply.error


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "[::1]:80", "times.example:443"])
def test_our_own_names_are_answered(service: Service, host: str) -> None:
    assert service.ask("GET", "/health", headers={"Host": host}).status == 200


def test_pages_of_other_origins_are_refused(service: Service) -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://localhost"):
        reply = service.ask("POST", "/predict", PREDICT, {"Origin": origin})
        assert reply.status == 403
        assert reply.error == "Pages of other origins may not use this service."
    own = {"Origin": f"http://127.0.0.1:{service.port}"}
    assert service.ask("POST", "/predict", PREDICT, own).status == 200


def test_a_form_of_a_page_is_no_request(service: Service) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        reply = service.ask("POST", "/predict", PREDICT, {"Content-Type": kind})
        assert reply.status == 415
        assert "The body must be JSON" in reply.error


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/predict", b"", 400, "The body is empty"),
        ("/predict", b"{", 400, "The body is not JSON"),
        ("/predict", b"{x}", 400, "The body is not JSON: JSON is malformed"),
        ("/predict", b"[" * 100_000, 422, "expected `object`"),
        ("/predict", b'{"task_name": "a", "features": {"x": NaN}}', 400, "NaN and Infinity"),
        ("/predict", b'{"task_name": "\xff"}', 400, "The body is not JSON"),
        ("/predict", b'{"task_name": "a", "features": {"x": 1e400}}', 422, "out of range"),
        ("/predict", {}, 422, "missing required field `task_name`"),
        ("/predict", {"task_name": ""}, 422, "`$.task_name`"),
        ("/predict", {"task_name": "a" * 2000}, 422, "length <= 1024"),
        ("/predict", {"task_name": "a", "feature": {}}, 422, "unknown field `feature`"),
        ("/predict", {"task_name": "a", "features": [1]}, 422, "`$.features`"),
        ("/predict", {"task_name": "a", "features": {"x": {}}}, 422, "`$.features[...]`"),
        ("/predict", {"task_name": "a", "task_type": "tpu"}, 422, "'tpu' - at `$.task_type`"),
        ("/predict_batch", {"tasks": [PREDICT] * 4097}, 422, "length <= 4096"),
        ("/predict_batch", {"tasks": [PREDICT, {}]}, 422, "`$.tasks[1]`"),
        ("/collect_data", {"task_name": "a"}, 422, "missing required field `execution_time`"),
        ("/collect_data", {"task_name": "a", "execution_time": 0}, 422, "`float` > 0.0"),
        ("/collect_data", {"task_name": "a", "execution_time": 1e8}, 422, "`float` < 2592000.0"),
        ("/collect_data", {"task_name": "a", "execution_time": "1"}, 422, "got `str`"),
        ("/predict", b" " * (5 * 1024 * 1024), 413, "larger than 4 MiB"),
        ("/nowhere", {}, 404, "There is nothing at /nowhere"),
        ("/health", {}, 405, "POST is not possible here, only GET"),
    ],
)
def test_a_body_that_cannot_be_used_is_refused_in_one_sentence(
    service: Service, path: str, body: object, status: int, sentence: str
) -> None:
    reply = service.ask("POST", path, body)
    assert (reply.status, sentence in reply.error) == (status, True), reply.error
    assert "\n" not in reply.error
    assert reply.headers["content-type"] == "application/json"


def test_a_body_without_a_length_is_bounded_too(service: Service) -> None:
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    headers = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    reply = service.ask("POST", "/predict", chunk * 5 + b"0\r\n\r\n", headers)
    assert reply.status == 413


def test_after_what_was_refused_the_service_goes_on(service: Service) -> None:
    assert service.ask("POST", "/predict", b"{").status == 400
    assert service.ask("POST", "/predict", PREDICT).status == 200


def test_metrics_count_requests_by_route_and_status(service: Service) -> None:
    service.ask("POST", "/predict", b"{")
    service.post("/predict", PREDICT)
    reply = service.ask("GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    page = reply.body.decode()
    assert 'malearn_http_requests_total{route="/predict",status="200"}' in page
    assert 'malearn_http_requests_total{route="/predict",status="400"}' in page
    assert 'malearn_http_request_seconds_bucket{le="0.01",route="/predict"}' in page
    assert 'malearn_predictions_total{source="heuristic"}' in page


def test_the_schema_describes_every_path_and_body(service: Service) -> None:
    schema = service.ask("GET", "/openapi.json").json
    paths = {"/predict", "/collect_data", "/workflows/{run_id}/predict", "/health", "/metrics"}
    assert paths <= schema["paths"].keys()
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    name = body["schema"]["$ref"].rpartition("/")[2]
    assert schema["components"]["schemas"][name]["required"] == ["task_name"]
