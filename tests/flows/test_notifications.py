"""One setting, and somebody is told: in one sentence, with the cause and a link."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from malearn.kernel.errors import InputError

#: Apprise, which loads all it has, uses a module that Python 3.13 no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:.*imghdr:DeprecationWarning")

Inbox = queue.Queue[dict[str, Any]]


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    """What a webhook on loopback receives; `$MALEARN_NOTIFY` names it."""
    received: Inbox = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("MALEARN_NOTIFY", f"http://127.0.0.1:{server.server_address[1]}/hook")
    yield received
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def configured(prefect_api: str, inbox: Inbox) -> Iterator[Inbox]:
    from prefect.client.orchestration import get_client

    from malearn.flows import notifications

    with get_client(sync_client=True) as client, pytest.MonkeyPatch.context() as patch:
        notifications.configure(client)
        yield inbox
        patch.delenv("MALEARN_NOTIFY", raising=False)
        patch.delenv("MALEARN_PREFIX", raising=False)
        notifications.configure(client)
        every = client.read_automations()
        assert [a.name for a in every if a.name.startswith("malearn notifies")] == []


def until(inbox: Inbox, words: str, again: Callable[[], object]) -> str:
    """The first sentence that has `words`. Automations are loaded by the server in its own time,
    and events before that are not acted on: so `again` causes another, now and then.
    """
    for _ in range(60):
        again()
        try:
            while words not in (text := inbox.get(timeout=4)["text"]):
                pass
            return str(text)
        except queue.Empty:
            continue
    raise AssertionError(f"nobody was told of {words}")


def test_a_flow_fails_and_a_webhook_receives_one_sentence_with_cause_and_link(
    configured: Inbox, prefect_api: str
) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow

    from malearn.flows import failure

    @flow(
        name="ingest", flow_run_name="ingest Redis", on_failure=[failure.record_cause],
        validate_parameters=False,
    )  # fmt: skip
    def fails() -> None:
        raise InputError("MALEARN_REDIS_URL", 'is "not set", and no files were given')

    deployment = fails.to_deployment("for a test of notifications", tags=["malearn"])
    deployment.entrypoint = "malearn.flows.unattended.ingest"
    deployment.concurrency_limit = None
    made: Any = deployment.apply()

    def fail() -> None:
        with get_client(sync_client=True) as client:
            run = client.create_flow_run_from_deployment(made)
            run_flow(fails, flow_run=run, return_type="state")

    try:
        sentence = until(configured, "ingest Redis", fail)
    finally:
        with get_client(sync_client=True) as client:
            client.delete_deployment(made)
    assert sentence.startswith("malearn: ingest Redis failed: ")
    assert 'MALEARN_REDIS_URL: is "not set", and no files were given' in sentence
    assert f"{prefect_api.removesuffix('/api')}/runs/flow-run/" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("event", "resource", "payload", "sentence"),
    [
        (
            "malearn.drift.found",
            "malearn.tool-type.llm_process",
            {"version": 3, "why": "two consecutive checks found drift in error: retrain"},
            "malearn: llm_process v3 needs retraining: two consecutive checks found drift in error",
        ),
        (
            "malearn.production.withdrawn",
            "malearn.tool-type.llm_process",
            {"version": 4, "why": "worse twice", "instead": "version 3 is in its place"},
            "malearn: llm_process v4 was taken out of Production, version 3 is in its place: worse",
        ),
        (
            "malearn.stream.gap",
            "malearn.stream",
            {"lost": 7, "why": "7 entries left the stream before they were read; it is full"},
            "malearn: executions were lost: 7 entries left the stream before they were read",
        ),
    ],
)
def test_drift_a_rollback_and_lost_entries_are_told(
    event: str, resource: str, payload: dict[str, Any], sentence: str, configured: Inbox
) -> None:
    from prefect.events import emit_event

    about = {
        "prefect.resource.id": resource,
        "prefect.resource.name": resource.rpartition(".")[2],
    }
    told = until(configured, sentence, lambda: emit_event(event, about, payload=payload))
    assert told.startswith(sentence)


def test_an_address_that_nothing_understands_is_refused_without_its_secrets(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    from malearn.flows import notifications

    monkeypatch.setenv("MALEARN_NOTIFY", "nowhere://user:secret@host")
    with (
        get_client(sync_client=True) as client,
        pytest.raises(InputError, match="'nowhere://…' is no address") as refused,
    ):
        notifications.configure(client)
    assert "secret" not in str(refused.value)


def test_a_mail_address_is_taken_by_apprise(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    from malearn.flows import notifications

    with get_client(sync_client=True) as client:
        monkeypatch.setenv("MALEARN_NOTIFY", "mailto://user:secret@mail.example.com")
        notifications.configure(client)
        (one,) = client.read_automations_by_name("malearn notifies: a flow failed")
        assert one.actions[0].type == "send-notification"
        monkeypatch.delenv("MALEARN_NOTIFY")
        notifications.configure(client)


def test_each_installation_on_one_server_has_its_own_notifications(
    configured: Inbox, prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    from malearn.flows import deployments, notifications

    def automations(prefix: str) -> list[Any]:
        return [a for a in client.read_automations() if a.name.startswith(f"{prefix} notifies: ")]

    monkeypatch.setenv("MALEARN_PREFIX", "Team_A")
    assert all("Team_A" in one.tags for one in deployments.build(tmp_path))
    with get_client(sync_client=True) as client:
        notifications.configure(client)
        theirs, ours = automations("malearn"), automations("Team_A")
        assert len(theirs) == len(ours) == 4
        text = " ".join(str(one) for one in ours)
        assert "Team_A.tool-type.*" in text
        assert "prefect.tag.Team_A" in text
        assert "Team_A.stream" in text
        assert "malearn.tool-type" not in text
        blocks = {str(a.actions[0].block_document_id) for a in (*theirs, *ours)}
        assert len(blocks) == 2
        monkeypatch.delenv("MALEARN_NOTIFY")
        notifications.configure(client)
        assert not automations("Team_A")
        assert len(automations("malearn")) == 4
