"""The check that an S3 server honours conditional writes (`If-None-Match`).

Delta Lake relies on them: of two writers of one version the second must be refused. A server that
ignores the condition loses the first one's rows without a word. Amazon's own S3 honours them; of
any other it is tried once in each process.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from urllib.parse import quote, urlsplit

from malearn.kernel.errors import InputError, Unreachable

__all__ = ["require"]

_ENDPOINT = "AWS_ENDPOINT_URL"
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_TIMEOUT = 20.0  # seconds


# Cached by address: every command opens several tables, and a probe is three requests.
@cache
def require(url: str, setting: str) -> None:
    """Raise `InputError` where writes below `url`, `s3://bucket/…`, are not conditional.

    `setting` named the address. Raises `Unreachable` where the server does not answer.
    """
    if os.environ.get("AWS_S3_ALLOW_UNSAFE_RENAME", "").lower() in ("1", "true"):
        raise InputError(
            "AWS_S3_ALLOW_UNSAFE_RENAME",
            "lets two writers overwrite each other's commits; unset it",
        )
    endpoint = os.environ.get(_ENDPOINT, "")
    if not endpoint:
        return
    if missing := [name for name in _KEYS if not os.environ.get(name)]:
        raise InputError(
            " and ".join(missing),
            f"must be set: whether {endpoint} honours conditional writes is tried with them",
        )
    # A random name, below the datasets' own prefix: two processes never probe one object, and the
    # rights that are tried are those that commits need.
    place = f"{url.partition('://')[2]}/_probe/{uuid.uuid4().hex}"
    address = f"{endpoint.rstrip('/')}/{place}"
    try:
        first, second = (_send("PUT", address, {"if-none-match": "*"}) for _ in range(2))
        _send("DELETE", address, {})
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable("Object storage", endpoint, _ENDPOINT, error) from error
    # The first write shows that rights and signature are in order, so that a refusal of the second
    # can only come from the condition.
    if first != 200:
        raise InputError(setting, f"{endpoint} refuses to write below {url} (HTTP status {first})")
    if second != 412:
        raise InputError(
            setting,
            f"{endpoint} ignores conditional writes (If-None-Match), so that two writers would "
            "overwrite each other's rows; use a server that honours them",
        )


# Signed here, because delta-rs offers no conditional PUT of a single object and boto3 would be a
# dependency for three requests.
def _send(method: str, address: str, headers: Mapping[str, str]) -> int:
    """The status of a request signed with the keys in the environment (AWS Signature 4)."""
    url = urlsplit(address)
    now = datetime.now(UTC)
    empty = hashlib.sha256(b"").hexdigest()
    sent = {
        "host": url.netloc,
        "x-amz-content-sha256": empty,
        "x-amz-date": f"{now:%Y%m%dT%H%M%SZ}",
        **headers,
    }
    if token := os.environ.get("AWS_SESSION_TOKEN"):
        sent["x-amz-security-token"] = token
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    names = ";".join(sorted(sent))
    lines = [f"{name}:{sent[name]}" for name in sorted(sent)]
    # Path-style addresses (server/bucket/key), which every S3-compatible server understands.
    path = quote(url.path)
    request = "\n".join([method, path, "", *lines, "", names, empty])
    scope = f"{now:%Y%m%d}/{region}/s3/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", sent["x-amz-date"], scope, digest])
    key = f"AWS4{os.environ[_KEYS[1]]}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    sent["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={os.environ[_KEYS[0]]}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    secure = url.scheme == "https"
    connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = connect(url.netloc, timeout=_TIMEOUT)
    try:
        connection.request(method, path, headers=sent)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
