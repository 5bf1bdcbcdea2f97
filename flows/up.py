"""Everything at once, to look at and to leave running: servers, and the flows on schedule."""

from __future__ import annotations

import os
import signal
import warnings

from flows.console import Progress
from malearn.embedded import Platform
from malearn.home import Home

__all__ = ["up"]


def up(home: Home, shown: Progress) -> None:
    """Start Redis, MLflow and Prefect, or use those that the environment names, and run the
    deployments of `prefect.yaml` on their schedules until Ctrl-C.
    """
    os.environ["MALEARN_HOME"] = str(home.root)  # for the processes that run the flows
    with Platform(home, redis=True, mlflow=True, prefect=True, on_event=shown.server) as platform:
        from prefect import serve

        from flows import deployments

        served = deployments.served()
        names = ", ".join(f"{d.flow_name}/{d.name}" for d in served)
        shown.done(f"Serving {names}")
        shown.done(f"Redis    {platform.redis_url}")
        shown.done(f"MLflow   {platform.tracking_uri}")
        shown.done(f"Prefect  {platform.prefect_api_url.removesuffix('/api')}")
        shown.step("Ctrl-C stops everything")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the event loop has its own way
        # Prefect's own slip, at SIGTERM; its schedules are paused all the same.
        warnings.filterwarnings("ignore", "coroutine 'Runner.astop'", RuntimeWarning)
        serve(*served, print_starting_message=False)  # returns at Ctrl-C
        shown.step("Stopping …")
