"""Notifications: Prefect's automations that send a sentence to the address in `$MALEARN_NOTIFY`.

An `https://` address gets a POST of JSON with the sentence as `text`, which Slack, Mattermost and
others show as it is. Any other scheme is an address of Apprise, which Prefect brings along:
`mailtos://user:password@host`, `msteams://…`, `tgram://…`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any
from zlib import crc32

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
from malearn.kernel.names import Names

__all__ = ["SETTING", "configure"]

#: The one setting: an address, or nothing.
SETTING = "MALEARN_NOTIFY"


@dataclass(frozen=True, slots=True)
class _Notice:
    """An event that people are notified of, and the template of the sentence.

    `PREFIX` in it, in `resource` and in `related` stands for that of the installation.
    """

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
        f"PREFIX: {{{{ flow_run.name }}}} {{{{ flow_run.state.name|lower }}}}: "
        # Cut: a cause may be a page of output, and the link leads to all of it.
        f'{{{{ (flow_run.state.message or "no cause is known")|truncate(400) }}}} {_LINK}',
        "prefect.flow-run.*",
        # A subflow fails with its parent, which says it; only the parent has a deployment.
        (("prefect.resource.id", "prefect.tag.PREFIX"), ("prefect.resource.role", "deployment")),
    ),
    _Notice(
        "drift",
        frozenset({news.DRIFT}),
        f"PREFIX: {_ABOUT} v{{{{ event.payload.version }}}} needs retraining: "
        f"{{{{ event.payload.why }}}} {_LINK}",
        "PREFIX.tool-type.*",
    ),
    _Notice(
        "a rollback",
        frozenset({news.WITHDRAWN}),
        f"PREFIX: {_ABOUT} v{{{{ event.payload.version }}}} was taken out of Production, "
        f"{{{{ event.payload.instead }}}}: {{{{ event.payload.why }}}} {_LINK}",
        "PREFIX.tool-type.*",
    ),
    _Notice(
        "lost entries",
        frozenset({news.STREAM_GAP}),
        f"PREFIX: executions were lost: {{{{ event.payload.why }}}} {_LINK}",
        "PREFIX.stream",
    ),
)


def configure(client: SyncPrefectClient) -> None:
    """Create the automations for `$MALEARN_NOTIFY` at `client`'s server, or remove them where it
    is not set. Raises `InputError` for an address that nothing understands.
    """
    prefix = Names.find().prefix
    for notice in _NOTICES:
        # Deleted and made anew: the address, its kind and the sentences may all have changed.
        for old in client.read_automations_by_name(_automation_name(prefix, notice)):
            client.delete_automation(old.id)
    address = os.environ.get(SETTING, "").strip()
    if not address:
        return
    block = _block(address)
    # At the server of the environment, as everywhere.
    saved: Any = block.save(_block_name(prefix), overwrite=True)
    for notice in _NOTICES:
        client.create_automation(_automation(prefix, notice, saved, isinstance(block, Webhook)))


def _automation_name(prefix: str, notice: _Notice) -> str:
    """The name by which the automation of an earlier deployment is found, to be replaced."""
    return f"{prefix} notifies: {notice.name}"


def _block_name(prefix: str) -> str:
    """Prefect allows small letters, digits and dashes in it; a prefix holds more."""
    name = re.sub("[^a-z0-9]", "-", prefix)
    # Of two prefixes that differ in other letters alone, neither may get the other's address.
    return f"{name}-notify" if name == prefix else f"{name}-{crc32(prefix.encode()):08x}-notify"


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


def _automation(prefix: str, notice: _Notice, block: Any, webhook: bool) -> AutomationCore:
    sentence = notice.sentence.replace("PREFIX", prefix)
    action = (
        CallWebhook(block_document_id=block, payload=_json(sentence))
        if webhook
        else SendNotification(block_document_id=block, subject=prefix, body=sentence)
    )
    trigger = EventTrigger(
        expect=set(notice.events),
        match={"prefect.resource.id": notice.resource.replace("PREFIX", prefix)},
        match_related=[{key: value.replace("PREFIX", prefix)} for key, value in notice.related],
        # One event, one sentence: neither collected nor held back.
        posture=Posture.Reactive,
        threshold=1,
    )
    return AutomationCore(
        name=_automation_name(prefix, notice),
        description=f"Sends a sentence to the address in {SETTING}.",
        trigger=trigger,
        actions=[action],
    )


def _json(sentence: str) -> str:
    """A template of JSON in which whatever a cause contains stays text."""
    return f'{{% set text %}}{sentence}{{% endset %}}{{"text": {{{{ text|string|tojson }}}}}}'
