"""The servers malearn starts when it is given none: Redis, MLflow, Prefect.

Real ones, on loopback, on free ports, keeping everything below one home::

    with Platform(home, redis=True, mlflow=True) as platform:
        print(platform.redis_url, platform.tracking_uri)

**How long a server lives.** Each server has a reaper, a small process that ends the
server's whole process group when nobody uses it any more. "Using" is a shared file lock on
`<home>/.malearn/run/<service>.users`, which the kernel takes back from a process however it
dies, so no pid is trusted and nothing outlives a SIGKILL.

**Two at once on one home.** The second attaches to the servers of the first. Whoever leaves
stops nothing that another still uses; the last one out takes the server with it.

Importing this costs a few milliseconds: the heavy libraries run only in the children. Enter
a `Platform` before `import prefect`, which reads its settings once, at import.
"""

from __future__ import annotations

from malearn.platform.mlflow import MLflowServer
from malearn.platform.platform import Platform
from malearn.platform.prefect import PrefectServer
from malearn.platform.redis import EmbeddedRedis

__all__ = ["EmbeddedRedis", "MLflowServer", "Platform", "PrefectServer"]
