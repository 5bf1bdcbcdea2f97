"""Notifications: Prefect's automations that send a sentence to the address in `$MALEARN_NOTIFY`.

An `https://` address gets a POST of JSON with the sentence as `text`, which Slack, Mattermost and
others show as it is. Any other scheme is an address of Apprise, which Prefect brings along:
`mailtos://user:password@host`, `msteams://…`, `tgram://…`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.events import AutomationCore
from prefect.events.actions import CallWebhook, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.types import SecretDict
from pydantic import SecretStr

from malearn.flows import news
from malearn.kernel.errors import InputError

__all__ = ["SETTING", "configure"]

#: The one setting: an address, or nothing.
SETTING = "MALEARN_NOTIFY"
_BLOCK = "malearn-notify"
#: Names by which the automations of an earlier deployment are found, to be replaced.
_PREFIX = "malearn notifies: "


@dataclass(frozen=True, slots=True)
class _Notice:
    """An event that people are notified of, and the template of the sentence."""

    name: str
    events: frozenset[str]
    sentence: str
    resource: str = "*"
    #: Related resources that the event must have.
    related: tuple[tuple[str, str], ...] = ()


_LINK = "{{ flow_run|ui_url }}"
_ABOUT = '{{ event.resource["prefect.resource.name"] }}'
_NOTICES = (
    _Notice(
        "a flow failed",
        frozenset(f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")),
        f"malearn: {{{{ flow_run.name }}}} {{{{ flow_run.state.name|lower }}}}: "
        # Cut: a cause may be a page of output, and the link leads to all of it.
        f'{{{{ (flow_run.state.message or "no cause is known")|truncate(400) }}}} {_LINK}',
        "prefect.flow-run.*",
        # A subflow fails with its parent, which says it; only the parent has a deployment.
        (("prefect.resource.id", "prefect.tag.malearn"), ("prefect.resource.role", "deployment")),
    ),
    _Notice(
        "drift",
        frozenset({news.DRIFT}),
        f"malearn: {_ABOUT} v{{{{ event.payload.version }}}} needs retraining: "
        f"{{{{ event.payload.why }}}} {_LINK}",
        "malearn.tool-type.*",
    ),
    _Notice(
        "a rollback",
        frozenset({news.WITHDRAWN}),
        f"malearn: {_ABOUT} v{{{{ event.payload.version }}}} was taken out of Production, "
        f"{{{{ event.payload.instead }}}}: {{{{ event.payload.why }}}} {_LINK}",
        "malearn.tool-type.*",
    ),
    _Notice(
        "lost entries",
        frozenset({news.STREAM_GAP}),
        f"malearn: executions were lost: {{{{ event.payload.why }}}} {_LINK}",
        "malearn.stream",
    ),
)


def configure(client: SyncPrefectClient) -> None:
    """Create the automations for `$MALEARN_NOTIFY` at `client`'s server, or remove them where it
    is not set. Raises `InputError` for an address that nothing understands.
    """
    for notice in _NOTICES:
        # Deleted and made anew: the address, its kind and the sentences may all have changed.
        for old in client.read_automations_by_name(_PREFIX + notice.name):
            client.delete_automation(old.id)
    address = os.environ.get(SETTING, "").strip()
    if not address:
        return
    block = _block(address)
    saved: Any = block.save(
        _BLOCK, overwrite=True
    )  # at the server of the environment, as everywhere
    for notice in _NOTICES:
        client.create_automation(_automation(notice, saved, isinstance(block, Webhook)))


def _block(address: str) -> Block:
    if address.startswith(("https://", "http://")):
        return Webhook(
            url=SecretStr(address), headers=SecretDict({"Content-Type": "application/json"})
        )
    from apprise import Apprise

    # Checked now: Prefect would accept any text, and fail with the first notification.
    if not Apprise().add(address):
        # The scheme alone: the rest holds passwords.
        shown = address.partition("://")[0]
        raise InputError(
            SETTING,
            f"'{shown}://…' is no address for notifications; "
            "give https://… or an address of Apprise, such as mailtos://user:password@host",
        )
    # A block of a type that every Prefect server has; it hands the address to Apprise.
    return SlackWebhook(url=SecretStr(address))


def _automation(notice: _Notice, block: Any, webhook: bool) -> AutomationCore:
    sentence = notice.sentence
    action = (
        CallWebhook(block_document_id=block, payload=_json(sentence))
        if webhook
        else SendNotification(block_document_id=block, subject="malearn", body=sentence)
    )
    trigger = EventTrigger(
        expect=set(notice.events),
        match={"prefect.resource.id": notice.resource},
        match_related=[{key: value} for key, value in notice.related],
        # One event, one sentence: neither collected nor held back.
        posture=Posture.Reactive,
        threshold=1,
    )
    return AutomationCore(
        name=_PREFIX + notice.name,
        description=f"Sends a sentence to the address in {SETTING}.",
        trigger=trigger,
        actions=[action],
    )


def _json(sentence: str) -> str:
    """A template of JSON in which whatever a cause contains stays text."""
    return f'{{% set text %}}{sentence}{{% endset %}}{{"text": {{{{ text|string|tojson }}}}}}'
