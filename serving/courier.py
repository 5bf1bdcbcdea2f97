"""The one background thread that speaks to Redis on nobody's time.

It opens links for callers, probes a server that went away, sends what was
collected, reads the records that were only named, and brings in what other
schedulers observed. Each step may fail by itself; all of them go on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, perf_counter

from malearn.serving import wire
from malearn.serving.breaker import Breaker
from malearn.serving.collector import Collector
from malearn.serving.link import Garbled, Link, Links, Refused, pack

__all__ = ["Courier"]

_log = logging.getLogger("malearn.serving")

_TICK = 0.05
_TIMEOUT = 2.0
_MOST_ASKED = 20_000
_MOST_FUNCTIONS = 5_000
_PAGE = 256

#: Takes `(task_id, function, raw)` of a record that was read for it.
Delivery = Callable[[str, str | None, bytes], None]


class Courier:
    """Owns the links, the breaker and the collector's sending.

    `deliver` takes records that were asked for, `observe` entries of the
    stream, `restore` all memos found at the start, by function; `settle` is called
    every round. `pull` is the pause between looks at the stream, in seconds.
    """

    def __init__(
        self,
        connect: Callable[[], Link],
        collector: Collector,
        *,
        deliver: Delivery,
        observe: Callable[[list[bytes]], None],
        restore: Callable[[dict[str, list[bytes]]], None],
        settle: Callable[[], None],
        links: int = 4,
        pull: float = 2.0,
    ) -> None:
        self.breaker = Breaker()
        self.links = Links(connect, links)
        self.restored = threading.Event()
        self.lost = 0
        self._connect, self._collector = connect, collector
        self._deliver, self._observe, self._restore = deliver, observe, restore
        self._settle = settle
        self._asked: deque[tuple[str, str | None]] = deque()
        self._pull, self._pull_at, self._send_at = pull, 0.0, 0.0
        self._link: Link | None = None
        self._last_id = b""
        self._away = False
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None

    def __len__(self) -> int:
        return len(self._asked)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="malearn-courier", daemon=True)
        self._thread.start()

    def ask(self, task_id: str, function: str | None) -> None:
        """Read `result:<task_id>` soon, and deliver it."""
        if len(self._asked) >= _MOST_ASKED:
            self.lost += 1
            return
        self._asked.append((task_id, function))

    def nudge(self) -> None:
        """There is something to do now, such as a link to replace."""
        self._wake.set()

    def close(self, timeout: float) -> None:
        """Send what is left, waiting `timeout` seconds at most, and close every link."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
        self.links.clear()

    def abandon(self) -> None:
        """After a fork: nothing of the parent's is touched; `start` begins afresh."""
        self.links.abandon()
        if self._link is not None:
            self._link.abandon()
        self._link = self._thread = None
        self._asked.clear()
        self._collector.forget()
        self._wake = threading.Event()
        restored, self.restored = self.restored.is_set(), threading.Event()
        if restored:
            self.restored.set()
        self.breaker = Breaker()

    def _run(self) -> None:
        while not self._closing:
            self._round()
            self._wake.wait(_TICK)
            self._wake.clear()
        self._settle()
        link = self._link
        if self.breaker.closed and link is not None:
            self._attempt(self._read_asked, link)
            self._attempt(self._send_all, link)
        if self._link is not None:
            self._link.close()
            self._link = None
        self._collector.give_up()

    def _round(self) -> None:
        self._settle()
        self._collector.pack()
        link = self._linked()
        if link is None:
            self.restored.set()  # nothing to be had for now: nobody need wait for it
            return
        if not self._last_id and monotonic() >= self._pull_at:
            self._pull_at = monotonic() + self._pull
            self._attempt(self._restore_all, link)
            self.restored.set()
        self._attempt(self._read_asked, link)
        if monotonic() >= self._send_at and not self._attempt(self._send_all, link):
            self._send_at = monotonic() + 1.0
        if self._last_id and monotonic() >= self._pull_at:
            self._pull_at = monotonic() + self._pull
            self._attempt(self._pull_stream, link)

    def _linked(self) -> Link | None:
        """A link of our own, after making sure that callers have theirs."""
        breaker = self.breaker
        if breaker.closed and self._link is not None and not self.links.missing:
            return self._link
        if not breaker.closed and not breaker.due:
            return None
        try:
            if not breaker.closed:
                self.links.clear()  # whatever made it fail, old links are suspect
            if self._link is None:
                self._link = self._connect()
            (answer,) = self._link.call(pack("EXISTS", wire.STREAM), 1, perf_counter() + _TIMEOUT)
            if isinstance(answer, Refused):
                raise answer
            self.links.refill()
        except Exception as error:  # noqa: BLE001 - a URL that is none must not end the thread
            self._unlink(error)
            return None
        breaker.close()
        self._away = False
        return self._link

    def _attempt(self, step: Callable[[Link], None], link: Link) -> bool:
        """Whether `step` went well. A step that fails costs its link, if that is to blame."""
        if link is not self._link:
            return False
        try:
            step(link)
        except Refused as error:
            _log.debug("Redis refuses: %s", error)
            return False
        except Exception as error:  # noqa: BLE001 - whatever a server answers, the thread lives on
            self._unlink(error)
            return False
        return True

    def _unlink(self, error: Exception) -> None:
        # An outage is said once, not at every probe.
        level = logging.DEBUG if self._away else logging.WARNING
        _log.log(level, "Redis does not answer (%s: %s)", type(error).__name__, error)
        self._away = True
        self.breaker.fail()
        if self._link is not None:
            self._link.close()
            self._link = None

    def _read_asked(self, link: Link) -> None:
        asked = self._asked
        while asked:
            batch = [asked[i] for i in range(min(_PAGE, len(asked)))]
            keys = [f"result:{task_id}" for task_id, _ in batch]
            values = link.mget(keys, perf_counter() + _TIMEOUT)
            for (task_id, function), raw in zip(batch, values, strict=True):
                asked.popleft()
                if raw is None:
                    self.lost += 1
                else:
                    self._deliver(task_id, function, bytes(raw))

    def _send_all(self, link: Link) -> None:
        while self._collector.send(link, _TIMEOUT):
            pass

    def _restore_all(self, link: Link) -> None:
        functions = self._functions(link)
        memos: dict[str, list[bytes]] = {}
        for start in range(0, len(functions), _PAGE):
            page = functions[start : start + _PAGE]
            packed = b"".join(pack("LRANGE", wire.HISTORY + f, "0", "-1") for f in page)
            answers = link.call(packed, len(page), perf_counter() + _TIMEOUT)
            for function, answer in zip(page, answers, strict=True):
                if isinstance(answer, list):
                    memos[function] = [raw for raw in answer if isinstance(raw, bytes)]
        self._last_id = self._newest(link)
        self._restore(memos)

    def _functions(self, link: Link) -> list[str]:
        """Whose history Redis keeps. SCAN, so that the server is never held up."""
        cursor, functions = b"0", []
        while True:
            command = pack("SCAN", cursor, "MATCH", f"{wire.HISTORY}*", "COUNT", "1000")
            (answer,) = link.call(command, 1, perf_counter() + _TIMEOUT)
            if not isinstance(answer, list) or len(answer) != 2:
                raise Garbled("not the answer to a SCAN")
            cursor, keys = answer
            functions += [key.decode("utf-8", "replace")[len(wire.HISTORY) :] for key in keys]
            if cursor == b"0" or len(functions) > _MOST_FUNCTIONS:
                return functions

    def _newest(self, link: Link) -> bytes:
        command = pack("XREVRANGE", wire.STREAM, "+", "-", "COUNT", "1")
        (answer,) = link.call(command, 1, perf_counter() + _TIMEOUT)
        if isinstance(answer, list) and answer and isinstance(answer[0], list):
            return bytes(answer[0][0])
        return b"0-0"

    def _pull_stream(self, link: Link) -> None:
        """Bring in what came since; of a flood only its first page, for more would tell little."""
        command = pack("XREAD", "COUNT", str(_PAGE), "STREAMS", wire.STREAM, self._last_id)
        (answer,) = link.call(command, 1, perf_counter() + _TIMEOUT)
        if isinstance(answer, Refused):
            raise answer
        if not answer:
            return
        entries = answer[0][1]
        raws = [fields[1] for _, fields in entries if fields and fields[0] == b"e"]
        self._last_id = bytes(entries[-1][0])
        if len(entries) == _PAGE:
            self._last_id = self._newest(link)
        self._observe(raws)
