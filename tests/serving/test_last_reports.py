"""What was reported just before a process ends reaches Redis, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest
import redis

from malearn.serving import stream_format

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"
RECORD = '{"start_time": 1, "end_time": 5}'

SCRIPT = f"""
import multiprocessing, os, sys, time
from malearn import DAGTaskPredictor

def report(task):
    p = DAGTaskPredictor(sys.argv[1], "http://127.0.0.1:1", cache_dir=sys.argv[2])
    p.collect_data_for_task(f"{RUN}-{{task}}", "step", {RECORD!r})
    return p

if __name__ == "__main__":
    how = sys.argv[3]
    if how == "term":
        p = report(how)
        print("reported", flush=True)
        while True:
            time.sleep(1)
    elif how == "exit":
        report(how)
    else:
        if how == "inherited":
            p = report("parent")
            multiprocessing.set_start_method("fork")
            target = lambda: p.collect_data_for_task(f"{RUN}-child", "step", {RECORD!r})
        else:
            multiprocessing.set_start_method(how)
            target = report
        arguments = () if how == "inherited" else (how,)
        child = multiprocessing.Process(target=target, args=arguments)
        child.start()
        child.join()
        sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("how", ["exit", "fork", "spawn", "forkserver", "inherited", "term"])
def test_a_report_before_the_end_is_sent(
    how: str, tmp_path: Any, redis_url: str, redis_client: redis.Redis
) -> None:
    script = tmp_path / "scheduler.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-W", "ignore", script, redis_url, tmp_path / "cache", how]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if how == "term":
            assert process.stdout.readline() == b"reported\n"
            process.terminate()
        assert process.wait(300) == (-signal.SIGTERM if how == "term" else 0)
    assert redis_client.xlen(stream_format.STREAM) == (2 if how == "inherited" else 1)


def test_whoever_catches_the_signal_keeps_it(tmp_path: Any) -> None:
    script = """
import signal
caught = []
signal.signal(signal.SIGTERM, lambda *_: caught.append(1))
from malearn import DAGTaskPredictor
with DAGTaskPredictor("redis://127.0.0.1:1", "http://127.0.0.1:1", cache_dir="cache"):
    signal.raise_signal(signal.SIGTERM)
print(caught)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[1]\n"), done.stderr
