"""Statuses, notes and pictures of a batch as comments on the tasks of shots in Kitsu (kitsu.cg-wire.com), sent by the package gazu.

The last line of each comment is its mark, such as `dubstage night/sc010_sh020 3f9a1b2c4d5e`. A comment whose mark is on the task
already is not posted again: a second run, from any machine, posts only what is new, and a status that people set in Kitsu stays.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from gateway.batch.reviews import Decision
from gateway.batch.types import ENDED, ShotRecord, ShotSpec
from gateway.safe_paths import path_below
from gateway.studio.review_export import marker_text
from services.common.errors import BackendUnavailableError, InvalidRequestError, UnauthenticatedError

STATUSES: Final[Mapping[str, str]] = {"done": "wfa", "undubbed": "wfa", "approved": "done", "rejected": "retake"}
"""Short name of Kitsu's status for each state of a shot or of its review. Other states of shots are not posted."""
_TIMEOUT_S: Final = (10, 120)
"""Seconds to connect, and between two parts of an answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KitsuTarget:
    """Project of Kitsu that a batch is posted to.

    Attributes:
        url: address of the API, such as `https://kitsu.example.com/api`.
        token: access token of a person or bot.
        project: name of the project.
        task_type: name of the task type; `{language}` stands for the language of a row.
        statuses: short name of a status by state.
    """

    url: str
    token: str
    project: str
    task_type: str
    statuses: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BatchShot:
    """Shot of a batch with all decisions about it, the last one last."""

    spec: ShotSpec
    record: ShotRecord
    decisions: Sequence[Decision]


@dataclass(frozen=True, slots=True)
class Note:
    """Comment for the task of a shot: the state that chooses the status, the text, and the mark below the text."""

    state: str
    text: str
    mark: str


def notes_of(name: str, shot: BatchShot, statuses: Mapping[str, str]) -> list[Note]:
    """Return the comments of a shot in the order of time: decisions about earlier videos, the present video, decisions about it.

    Args:
        name: name of the batch.
        statuses: see KitsuTarget.
    """
    record = shot.record

    def note(state: str, text: str, subject: str) -> Note:
        digest = hashlib.sha256(f"{state} {subject}".encode()).hexdigest()[:12]
        return Note(state, text, f"dubstage {name}/{record.id} {digest}")

    earlier: list[Note] = []
    now: list[Note] = []
    for one in shot.decisions:
        frame = "" if one.frame is None else f", frame {one.frame}"
        said = note(one.state, f"{marker_text(one)}{frame}", f"{one.number} {one.decided_at}")
        (now if one.belongs_to(record) else earlier).append(said)
    present = []
    if record.state in ENDED and record.state in statuses:
        frames = f"{record.frames_dubbed} of {record.frames} frames dubbed"
        lines = [frames if record.output_sha256 else f"{record.state}: {record.error}", *(f"look: {one}" for one in record.look)]
        present = [note(record.state, "\n".join(lines), record.subject)]
    return [*earlier, *present, *now]


def keys_of(spec: ShotSpec) -> list[str]:
    """Return the names that the shot of a row may have in Kitsu, as `_key` makes them, the most likely first.

    Rows of a timeline are called NUMBER_CLIP_LANGUAGE.
    """
    whole = _key(spec.id)
    language = spec.dub.language
    plain = whole.removesuffix(f"-{_key(language)}") if language else whole
    return list(dict.fromkeys(one for key in (whole, plain) for one in (key, re.sub(r"^\d{4,}-", "", key))))


def post_batch(
    target: KitsuTarget,
    name: str,
    shots: Sequence[BatchShot],
    picture: Callable[[str], bytes | None],
    on_comment: Callable[[str], None],
) -> dict[str, str]:
    """Post what is new about a batch, and return the reason by id of each shot that is left out or refused. Blocks.

    Tasks are made where shots have none.

    Args:
        name: name of the batch.
        shots: shots in the order of the rows.
        picture: returns the JPEG picture of a shot by its id; None: there is none.
        on_comment: called with the id of the shot after each comment.

    Raises:
        InvalidRequestError: gazu is not installed; URL, project, task type or a status is wrong; or two rows have the same task.
        UnauthenticatedError: Kitsu does not accept the token.
        BackendUnavailableError: Kitsu does not answer.
    """
    gazu = _gazu()
    with _errors_of_kitsu(gazu, target.url):
        kitsu = _Kitsu(gazu, target)
        rows: dict[tuple[str, str], str] = {}
        left_out: dict[str, str] = {}
        work = []
        for shot in shots:
            if not (notes := notes_of(name, shot, target.statuses)):
                continue
            row, entities = shot.spec.id, next((kitsu.shots[key] for key in keys_of(shot.spec) if key in kitsu.shots), [])
            if len(entities) != 1:
                left_out[row] = f"Kitsu has {len(entities) or 'no'} shot{'s' if entities else ''} of this name"
                continue
            task_type = kitsu.task_type(shot.spec.dub.language or "")
            if (other := rows.setdefault((entities[0]["id"], task_type["id"]), row)) != row:
                raise InvalidRequestError(
                    f"the rows {other} and {row} have the same task: give a task type for each language, such as "
                    "'Dubbing {language}'",
                    field="task_type",
                    named=True,
                )
            work.append((row, entities[0], task_type, notes))
        for row, entity, task_type, notes in work:
            try:
                kitsu.post(row, kitsu.task(entity, task_type), notes, picture, on_comment)
            except gazu.exception.ParameterException as problem:
                # A rule of the project, such as the most retakes, holds back no other shot.
                left_out[row] = f"Kitsu refuses: {problem.args[-1]}"
    return left_out


class _Kitsu:
    """A project of Kitsu, by the functions of gazu. `shots`: shots by name, with and without sequence and episode."""

    def __init__(self, gazu: Any, target: KitsuTarget) -> None:
        self._gazu, self._target = gazu, target
        self._client = client = _client(gazu, target)
        try:
            projects = gazu.project.all_open_projects(client=client)
        except gazu.exception.ValidationException as problem:
            # Kitsu refuses a text that is no token with this error.
            raise gazu.exception.NotAuthenticatedException(*problem.args) from problem
        self._project = project = _named(projects, target.project, "name", "project", "open project")
        # A project without a choice of its own uses all statuses and task types.
        task = gazu.task
        statuses = task.all_task_statuses_for_project(project, client=client) or task.all_task_statuses(client=client)
        self._statuses = {
            state: _named(statuses, short, "short_name", "status", "status") for state, short in target.statuses.items()
        }
        types = task.all_task_types_for_project(project, client=client) or task.all_task_types(client=client)
        self._task_types = [one for one in types if one["for_entity"] == "Shot"]
        self._tasks: dict[tuple[str, str], dict[str, Any]] = {}
        self._chosen: dict[str, dict[str, Any]] = {}
        kinds = (gazu.shot.all_episodes_for_project, gazu.shot.all_sequences_for_project)
        parents = {one["id"]: one for kind in kinds for one in kind(project, client=client)}
        self.shots: dict[str, list[dict[str, Any]]] = {}
        for shot in gazu.shot.all_shots_for_project(project, client=client):
            path, entity = "", shot
            while entity is not None and not shot.get("canceled"):
                path = f"{entity['name']} {path}"
                self.shots.setdefault(_key(path), []).append(shot)
                entity = parents.get(entity["parent_id"])

    def task_type(self, language: str) -> dict[str, Any]:
        """Return the task type of a language."""
        text = self._target.task_type.replace("{language}", language).strip()
        if text not in self._chosen:
            chosen = self._chosen[text] = _named(self._task_types, text, "name", "task-type", "task type of shots")
            for task in self._gazu.task.all_tasks_for_task_type(self._project, chosen, client=self._client):
                self._tasks[task["entity_id"], chosen["id"]] = task
        return self._chosen[text]

    def task(self, shot: Mapping[str, Any], task_type: Mapping[str, Any]) -> dict[str, Any]:
        """Return the task of a shot; a missing one is made."""
        task = self._tasks.get((shot["id"], task_type["id"]))
        return dict(task or self._gazu.task.new_task(shot, task_type, client=self._client))

    def post(
        self,
        row: str,
        task: Mapping[str, Any],
        notes: Sequence[Note],
        picture: Callable[[str], bytes | None],
        on_comment: Callable[[str], None],
    ) -> None:
        """Post the comments that a task does not have."""
        comments = self._gazu.task.all_comments_for_task(task, client=self._client)
        marks = {(one.get("text") or "").rstrip().rpartition("\n")[2]: one for one in comments}
        status = task["task_status_id"]
        for note in notes:
            comment = marks.get(note.mark)
            if comment is None:
                # A note of a state without a status leaves the status of the task.
                status = self._statuses[note.state]["id"] if note.state in self._statuses else status
                text = f"{note.text}\n\n{note.mark}"
                comment = self._gazu.task.add_comment(task, {"id": status}, text, client=self._client)
                on_comment(row)
            # The picture may be missing after a run that was interrupted.
            content = picture(row) if note.state in ENDED and not comment.get("previews") else None
            if content is not None:
                with TemporaryDirectory(prefix="dubstage-kitsu-") as folder:
                    file = path_below(Path(folder), f"{row}.jpg", field="id")
                    file.write_bytes(content)
                    self._gazu.task.add_preview(task, comment, str(file), client=self._client)


def _key(text: str) -> str:
    """Return a name without regard to case and separators, such as `sc010-sh020` of `SC010_SH020`."""
    return re.sub(r"[\W_]+", "-", text.casefold()).strip("-")


def _named(entities: Sequence[dict[str, Any]], text: str, field: str, option: str, what: str) -> dict[str, Any]:
    for one in entities:
        if str(one[field]).casefold() == text.casefold():
            return one
    are = ", ".join(sorted(str(one[field]) for one in entities)) or "none"
    raise InvalidRequestError(f"--{option}: Kitsu has no {what} {text!r}; there are: {are}", field=option.replace("-", "_"))


def _gazu() -> Any:
    try:
        import gazu
    except ModuleNotFoundError as problem:
        raise InvalidRequestError(
            f"this command needs the package {problem.name}, which is not installed here: pip install 'dubstage-suite[kitsu]'",
            field="installation",
        ) from problem
    return gazu


def _client(gazu: Any, target: KitsuTarget) -> Any:
    import requests
    from requests.adapters import HTTPAdapter

    class Bounded(HTTPAdapter):
        """Adapter with a time limit, and with errors for busy servers. gazu has neither."""

        def send(self, request: Any, *more: Any, **options: Any) -> Any:
            answer = super().send(request, *more, **{**options, "timeout": _TIMEOUT_S})
            if answer.status_code in {429, 502, 503, 504}:
                raise requests.ConnectionError(f"HTTP status {answer.status_code}")
            return answer

    client = gazu.client.create_client(target.url, access_token=target.token)
    for scheme in ("http://", "https://"):
        client.session.mount(scheme, Bounded())
    return client


@contextmanager
def _errors_of_kitsu(gazu: Any, url: str) -> Iterator[None]:
    """Raise errors of dubstage in place of the errors that gazu and requests raise in the block."""
    import requests

    errors = gazu.exception
    try:
        yield
    # requests' errors for a wrong URL or answer are ValueErrors.
    except (ValueError, errors.RouteNotFoundException, errors.MethodNotAllowedException) as problem:
        raise InvalidRequestError(
            f"{url[:200]} does not answer as Kitsu's API: give an address such as https://kitsu.example.com/api",
            field="url",
            named=True,
        ) from problem
    except (requests.RequestException, errors.ServerErrorException) as problem:
        raise BackendUnavailableError(f"Kitsu at {url} does not answer: {problem}") from problem
    except errors.NotAuthenticatedException as problem:
        raise UnauthenticatedError(f"Kitsu at {url} does not accept the token: make a new one in Kitsu", field="token") from problem
    except errors.NotAllowedException as problem:
        raise InvalidRequestError(
            f"Kitsu refuses {problem}: the token needs the role of a manager in the team of the project", field="token"
        ) from problem
    except errors.GazuException as problem:
        raise InvalidRequestError(f"Kitsu refuses: {', '.join(map(str, problem.args))}", field="url") from problem
