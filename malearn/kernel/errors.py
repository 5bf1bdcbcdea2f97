"""The exceptions that malearn raises; each message is a sentence that says what to do next.

    MalearnError
    ├── DeclarationError        a tool-type declaration is invalid
    │   └── UnknownToolType     the tool type is not declared
    ├── InputError              a file or a value handed to us cannot be read
    ├── HomeTooNew              a newer malearn wrote the home
    ├── BackupError             a backup cannot be made, or cannot be restored
    ├── Unreachable             Redis, MLflow or Prefect does not answer
    ├── PlatformError           a server of ours does not start or stay up
    ├── DatasetError            a table is missing, locked, or of another shape
    │   └── DatasetDamaged      files of a table are missing, cut or garbage
    ├── BatchRefused            too much of a batch is bad: nothing of it is ingested
    ├── TrainingError           a model cannot be fitted
    ├── ExportError             a model does not convert faithfully
    ├── ArtifactRefused         an ONNX file failed a check
    ├── RegistryError           a version or an alias is not there
    ├── IntegrationError        a scheduler that we plug into is not as we know it
    └── WorkflowError           the tasks of a workflow do not hold together

The command line prints the sentence and exits with 1; a library user catches
`MalearnError`. Rejected *records* are no errors: see `records.Rejected`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "ArtifactRefused",
    "BackupError",
    "BatchRefused",
    "DatasetDamaged",
    "DatasetError",
    "DeclarationError",
    "ExportError",
    "HomeTooNew",
    "InputError",
    "IntegrationError",
    "MalearnError",
    "PlatformError",
    "RegistryError",
    "TrainingError",
    "UnknownToolType",
    "Unreachable",
    "WorkflowError",
    "without_password",
]


class MalearnError(Exception):
    """The root of malearn's own exceptions. They can be pickled, as between processes.

    `args` is what the class was called with, `given`, or the sentence of one that takes nothing
    else: libraries that raise an exception anew call `type(error)(*error.args)`.
    """

    def __init__(self, sentence: str, *given: object) -> None:
        super().__init__(*(given or (sentence,)))
        self._sentence = sentence

    def __str__(self) -> str:
        return self._sentence

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by calling the class with the sentence: each takes identifiers and builds its own.
        return _restored, (type(self), self.args, self.__dict__)


class DeclarationError(MalearnError):
    """A tool-type declaration is invalid."""

    def __init__(self, source: object, problem: str) -> None:
        self.source, self.problem = str(source), problem
        super().__init__(f"{source}: {problem}.", self.source, problem)


class UnknownToolType(DeclarationError):
    """The tool type is not declared."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name, declared = name, tuple(sorted(known))
        # Not DeclarationError's: no file is at fault, so there is no source to name.
        MalearnError.__init__(
            self,
            f"There is no tool type '{name}'; declared are {', '.join(declared)} "
            "(declare more in malearn.toml).",
            name,
            declared,
        )


class InputError(MalearnError):
    """A file or a value handed to us cannot be read."""

    def __init__(self, what: object, problem: str) -> None:
        self.what, self.problem = str(what), problem
        super().__init__(f"{what}: {problem}.", self.what, problem)


class HomeTooNew(MalearnError):
    """A newer malearn wrote the home."""

    def __init__(self, home: object, found: int, version: str, known: int) -> None:
        self.home, self.found, self.version = str(home), found, version
        super().__init__(
            f"The home {home} has format {found}, of malearn {version}; this malearn knows formats "
            f"up to {known}: install malearn {version} or newer, or name another home with --home.",
            self.home,
            found,
            version,
            known,
        )


class BackupError(MalearnError):
    """A backup cannot be made, or cannot be restored."""

    def __init__(self, what: object, problem: str) -> None:
        self.what, self.problem = str(what), problem
        super().__init__(f"{what}: {problem}.", self.what, problem)


class IntegrationError(MalearnError):
    """A scheduler that we plug into is not as we know it, or not there."""

    def __init__(self, scheduler: str, problem: str) -> None:
        self.scheduler, self.problem = scheduler, problem
        super().__init__(f"{scheduler}: {problem}.", scheduler, problem)


class Unreachable(MalearnError):
    """A service does not answer. `url` is shown without its password.

    `remedy` is what to do, where that is not to start it.
    """

    def __init__(
        self,
        service: str,
        url: str,
        setting: str,
        cause: object = "no answer",
        remedy: str = "",
    ) -> None:
        self.service, self.url = service, without_password(url)
        remedy = remedy or f"start it or point {setting} at another"
        super().__init__(
            f"{service} at {self.url} cannot be reached ({cause}); {remedy}.",
            service,
            self.url,  # never with its password
            setting,
            str(cause),
            remedy,
        )


class PlatformError(MalearnError):
    """A server of ours does not start or stay up."""

    def __init__(self, service: str, problem: str, log: Path | None = None) -> None:
        self.service, self.problem, self.log = service, problem, log
        super().__init__(
            f"{service} {problem}{f'; see {log}' if log else ''}.", service, problem, log
        )


class DatasetError(MalearnError):
    """A table is missing, locked, or of another shape."""

    def __init__(self, table: object, problem: str) -> None:
        self.table, self.problem = str(table), problem
        super().__init__(f"Dataset {table}: {problem}.", self.table, problem)


class DatasetDamaged(DatasetError):
    """Files of a table are missing, cut or garbage. `path` is the table's."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(
            path.name,
            # The problem is another library's message, which may end in a full stop of its own.
            f"{path} is damaged ({problem.rstrip('.')}); stop what writes to it and run "
            "`malearn doctor --repair`, which says what is lost",
        )
        self.args = path, problem


class BatchRefused(MalearnError):
    """Too much of a batch is bad: nothing of it is ingested."""

    def __init__(self, tool_type: str, bad: int, total: int, worst: str, allowed: float) -> None:
        self.tool_type, self.bad, self.total, self.worst = tool_type, bad, total, worst
        super().__init__(
            f"{bad} of {total} {tool_type} rows break their contract, most often '{worst}'; "
            f"with more than {allowed:.0%} bad rows the whole batch is quarantined.",
            tool_type,
            bad,
            total,
            worst,
            allowed,
        )


class TrainingError(MalearnError):
    """A model cannot be fitted."""

    def __init__(self, tool_type: str, problem: str) -> None:
        self.tool_type, self.problem = tool_type, problem
        super().__init__(f"{tool_type} cannot be trained: {problem}.", tool_type, problem)


class ExportError(MalearnError):
    """A model does not convert to ONNX faithfully."""

    def __init__(self, tool_type: str, family: str, problem: str) -> None:
        self.tool_type, self.family, self.problem = tool_type, family, problem
        super().__init__(
            f"The {family} model of {tool_type} was not exported: {problem}.",
            tool_type,
            family,
            problem,
        )


class ArtifactRefused(MalearnError):
    """An ONNX file failed a check; the model in use stays."""

    def __init__(self, artifact: object, reasons: Sequence[str]) -> None:
        self.artifact, self.reasons = str(artifact), tuple(reasons)
        super().__init__(
            f"{artifact} is refused: {'; '.join(self.reasons)}.", self.artifact, self.reasons
        )


class RegistryError(MalearnError):
    """A registered version or an alias is not there."""

    def __init__(self, model: str, problem: str) -> None:
        self.model, self.problem = model, problem
        super().__init__(f"{model}: {problem}.", model, problem)


class WorkflowError(MalearnError):
    """The tasks of a workflow do not hold together."""

    def __init__(self, run_id: str, problem: str) -> None:
        self.run_id, self.problem = run_id, problem
        super().__init__(f"Workflow {run_id}: {problem}.", run_id, problem)


def _restored(
    kind: type[MalearnError], args: tuple[Any, ...], attributes: Mapping[str, Any]
) -> MalearnError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


#: An option of a URL's query that holds a secret, up to its value.
_SECRET_OPTION = re.compile(r"(?i)([?&;][^=&;]*(?:passw|secret|token|credential)[^=&;]*=)[^&;]*")


def without_password(url: str) -> str:
    """`url` with any password replaced, fit for logs and messages.

    >>> without_password("redis://user:secret@host:6379/0")
    'redis://user:***@host:6379/0'
    >>> without_password("redis://host/0?db=1&password=secret")
    'redis://host/0?db=1&password=***'
    """
    scheme, separator, rest = url.partition("://")
    # Options first: an @ in one of their values would be taken for the end of the credentials.
    rest = _SECRET_OPTION.sub(r"\1***", rest)
    # The last @, since a password may hold one that was not percent-encoded.
    credentials, at, address = rest.rpartition("@")
    # Azure's addresses name a container before the @, and never a password.
    if not at or scheme in ("abfs", "abfss"):
        return f"{scheme}{separator}{rest}"
    user = credentials.partition(":")[0]
    return f"{scheme}{separator}{user}:***@{address}"
