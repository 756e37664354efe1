"""Statuses, notes and pictures of a batch as comments on the tasks of shots in Kitsu (kitsu.cg-wire.com), sent by the package gazu.

The last line of each comment is its mark, such as `dubstage night/sc010_sh020 3f9a1b2c4d5e`. A comment whose mark is on the task
already is not posted again: a second run, from any machine, posts only what has changed, and a status that people set in Kitsu
meanwhile stays.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.batch.review_export import marker_text
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.types import ENDED, ShotRecord, ShotSpec
from gateway.safe_paths import bounded_bytes
from services.common.errors import BackendUnavailableError, InvalidRequestError, UnauthenticatedError

TOKEN_VARIABLE: Final = "DUBSTAGE_KITSU_TOKEN"
"""Variable of the environment that holds the token of Kitsu."""
STATUSES: Final[Mapping[str, str]] = {"done": "wfa", "undubbed": "wfa", "approved": "done", "rejected": "retake"}
"""Short name of Kitsu's status for each state of a shot or of its review. Other states of shots are not posted."""
STATES: Final = (*sorted(ENDED), *(str(state) for state in ReviewState if state is not ReviewState.UNDECIDED))
"""States that can have a status in Kitsu."""
TASK_TYPE: Final = "Dubbing"
"""Name of the task type if the user names none."""
_MOST_TOKEN_BYTES: Final = 8192
_TIMEOUT_S: Final = (10, 120)
"""Seconds to connect, and between two parts of an answer."""
_BUSY: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, kw_only=True, slots=True)
class KitsuTarget:
    """Place in Kitsu that a batch is posted to.

    Attributes:
        url: address of the API, such as `https://kitsu.example.com/api`.
        token: access token of a person or bot.
        project: name of the project.
        task_type: name or short name of the task type of the shots; `{language}` stands for the language of a row.
        statuses: short name of a status by state; states without one are not posted.
    """

    url: str
    token: str
    project: str
    task_type: str = TASK_TYPE
    statuses: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BatchShot:
    """Shot of a batch with all decisions about it, the last one last."""

    spec: ShotSpec
    record: ShotRecord
    decisions: Sequence[Decision]


@dataclass(frozen=True, slots=True)
class Note:
    """Comment for the task of a shot.

    Attributes:
        state: state that chooses the status.
        text: text without the mark.
        mark: last line of the comment.
        has_picture: whether the picture of the shot belongs to the comment.
    """

    state: str
    text: str
    mark: str
    has_picture: bool = False


def read_token(file: Path | None) -> str:
    """Return the token in the first line of a file; None: that of the environment.

    Raises:
        InvalidRequestError: the file cannot be read, or there is no token.
    """
    text = os.environ.get(TOKEN_VARIABLE, "")
    if file is not None:
        try:
            text = bounded_bytes(file, _MOST_TOKEN_BYTES).decode("ascii")
        except (OSError, UnicodeDecodeError) as problem:
            reason = (problem.strerror if isinstance(problem, OSError) else "") or "the content is no token"
            raise InvalidRequestError(f"--token-file {file} cannot be read: {reason}", field="token_file") from problem
    token = text.strip().partition("\n")[0].strip()
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise InvalidRequestError(
            f"there is no token of Kitsu: set {TOKEN_VARIABLE}, or give --token-file FILE", field="token_file"
        )
    return token


def notes_of(name: str, shot: BatchShot, statuses: Mapping[str, str]) -> list[Note]:
    """Return the comments of a shot in the order of time: decisions about earlier videos, the present video, decisions about it.

    Args:
        name: name of the batch.
        statuses: see KitsuTarget.
    """
    record = shot.record

    def note(state: str, text: str, subject: str, *, has_picture: bool = False) -> Note:
        digest = hashlib.sha256(f"{state} {subject}".encode()).hexdigest()[:12]
        return Note(state, text, f"dubstage {name}/{record.id} {digest}", has_picture)

    earlier: list[Note] = []
    now: list[Note] = []
    for decision in shot.decisions:
        place = "" if decision.frame is None else f", frame {decision.frame}"
        one = note(decision.state, f"{marker_text(decision)}{place}", f"{decision.number} {decision.token}")
        (now if decision.belongs_to(record) else earlier).append(one)
    present = []
    if record.state in ENDED and record.state in statuses:
        lines = [f"{record.state}: {record.error}" if record.error else str(record.state)]
        if record.output_sha256:
            lines = [f"{record.frames_dubbed} of {record.frames} frames dubbed", *(f"look: {reason}" for reason in record.look)]
        present = [note(record.state, "\n".join(lines), record.subject, has_picture=record.has_thumbnail)]
    return [*earlier, *present, *now]


def name_key(text: str) -> str:
    """Return a name without regard to case and separators, such as `sc010-sh020` of `SC010_SH020`."""
    return re.sub(r"[\W_]+", "-", text.casefold()).strip("-")


def keys_of(spec: ShotSpec) -> list[str]:
    """Return the names that the shot of a row may have in Kitsu, the most likely first, as `name_key` makes them.

    Rows of a timeline are called NUMBER_CLIP_LANGUAGE.
    """
    whole = name_key(spec.id)
    plain = whole.removesuffix(f"-{name_key(spec.language)}") if spec.language else whole
    return list(dict.fromkeys(one for key in (whole, plain) for one in (key, re.sub(r"^\d{4,}-", "", key))))


def post_batch(
    target: KitsuTarget,
    name: str,
    shots: Sequence[BatchShot],
    picture: Callable[[str], bytes | None],
    on_comment: Callable[[str], None],
) -> dict[str, str]:
    """Post what is new about a batch, and return the reason by id of each shot that is left out or refused. Blocks.

    Tasks of the task type are made where shots have none.

    Args:
        name: name of the batch.
        shots: shots in the order of the rows.
        picture: returns the JPEG picture of a shot by its id; None: there is none.
        on_comment: called with the id of the shot after each comment.

    Raises:
        InvalidRequestError: gazu is not installed; the URL, the project, a task type or a status is wrong; two rows have the same
            task; or Kitsu refuses.
        UnauthenticatedError: Kitsu does not accept the token.
        BackendUnavailableError: Kitsu does not answer.
    """
    with _errors_of_kitsu(target.url):
        kitsu = _Kitsu(target)
        work = [(shot, notes) for shot in shots if (notes := notes_of(name, shot, target.statuses))]
        chosen: dict[tuple[str, str], BatchShot] = {}
        left_out: dict[str, str] = {}
        places = {}
        for shot, _ in work:
            found = kitsu.shots_named(keys_of(shot.spec))
            if len(found) != 1:
                are = " and ".join(kitsu.full_name(one) for one in found[:3])
                left_out[shot.spec.id] = (
                    f"Kitsu has several shots of this name: {are}" if found else "Kitsu has no shot of this name"
                )
                continue
            place = (found[0]["id"], kitsu.task_type(shot.spec)["id"])
            if (other := chosen.setdefault(place, shot)) is not shot:
                raise InvalidRequestError(
                    f"task_type: the rows {other.spec.id} and {shot.spec.id} have the same task of the shot "
                    f"{kitsu.full_name(found[0])}: give a task type for each language, such as --task-type 'Dubbing {{language}}'",
                    field="task_type",
                )
            places[shot.spec.id] = (found[0], kitsu.task_type(shot.spec))
        for shot, notes in work:
            if shot.spec.id in places:
                try:
                    kitsu.post(*places[shot.spec.id], shot.spec.id, notes, picture, on_comment)
                except _gazu().exception.ParameterException as problem:
                    # A rule of the project, such as the most retakes, holds back no other shot.
                    left_out[shot.spec.id] = f"Kitsu refuses: {problem.args[-1]}"
    return left_out


class _Kitsu:
    """A project of Kitsu, by the functions of gazu."""

    def __init__(self, target: KitsuTarget) -> None:
        self._gazu = _gazu()
        self._client = _client(self._gazu, target)
        self._target = target
        task = self._gazu.task
        try:
            projects = self._gazu.project.all_open_projects(client=self._client)
        except self._gazu.exception.ValidationException as problem:
            # Kitsu's answer to a text that is no token at all.
            raise self._gazu.exception.NotAuthenticatedException(*problem.args) from problem
        self._project = _named(projects, target.project, ("name",), "project", "open project")
        # A project without a choice of its own uses all statuses and task types.
        statuses = task.all_task_statuses_for_project(self._project, client=self._client)
        statuses = statuses or task.all_task_statuses(client=self._client)
        self._statuses = {
            state: _named(statuses, short, ("short_name",), "status", "status") for state, short in target.statuses.items()
        }
        types = task.all_task_types_for_project(self._project, client=self._client) or task.all_task_types(client=self._client)
        self._task_types = [one for one in types if one["for_entity"] == "Shot"]
        self._chosen: dict[str, dict[str, Any]] = {}
        self._tasks: dict[str, dict[str, Any]] = {}
        self._shots = self._by_name()

    def _by_name(self) -> dict[str, list[dict[str, Any]]]:
        shot = self._gazu.shot
        episodes = {one["id"]: one for one in shot.all_episodes_for_project(self._project, client=self._client)}
        sequences = {one["id"]: one for one in shot.all_sequences_for_project(self._project, client=self._client)}
        found: dict[str, list[dict[str, Any]]] = {}
        for one in shot.all_shots_for_project(self._project, client=self._client):
            if one.get("canceled"):
                continue
            sequence = sequences.get(one["parent_id"], {})
            episode = episodes.get(sequence.get("parent_id"), {})
            parents = [parent["name"] for parent in (episode, sequence) if parent]
            one["dubstage_name"] = "/".join([*parents, one["name"]])
            for start in range(len(parents) + 1):
                found.setdefault(name_key(" ".join([*parents[start:], one["name"]])), []).append(one)
        return found

    def full_name(self, shot: Mapping[str, Any]) -> str:
        """Return the name of a shot with those of its episode and sequence."""
        return str(shot["dubstage_name"])

    def shots_named(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Return the shots that the first key with a shot names."""
        return next((self._shots[key] for key in keys if key in self._shots), [])

    def task_type(self, spec: ShotSpec) -> dict[str, Any]:
        """Return the task type of a row."""
        text = self._target.task_type.replace("{language}", spec.language or "")
        if text not in self._chosen:
            self._chosen[text] = _named(self._task_types, text.strip(), ("name", "short_name"), "task-type", "task type of shots")
            for task in self._gazu.task.all_tasks_for_task_type(self._project, self._chosen[text], client=self._client):
                self._tasks.setdefault(f"{task['entity_id']} {task['task_type_id']}", task)
        return self._chosen[text]

    def post(
        self,
        shot: Mapping[str, Any],
        task_type: Mapping[str, Any],
        shot_id: str,
        notes: Sequence[Note],
        picture: Callable[[str], bytes | None],
        on_comment: Callable[[str], None],
    ) -> None:
        """Post the comments that a task does not have."""
        task = self._tasks.get(f"{shot['id']} {task_type['id']}")
        if task is None:
            task = self._gazu.task.new_task(shot, task_type, client=self._client)
        known = self._gazu.task.all_comments_for_task(task, client=self._client)
        marks = {(one.get("text") or "").rstrip().rpartition("\n")[2]: one for one in known}
        status = task["task_status_id"]
        for note in notes:
            comment = marks.get(note.mark)
            if comment is None:
                # A note of a state without a status leaves the status of the task.
                status = self._statuses[note.state]["id"] if note.state in self._statuses else status
                text = f"{note.text}\n\n{note.mark}"
                comment = self._gazu.task.add_comment(task, {"id": status}, text, client=self._client)
                on_comment(shot_id)
            # A run that was interrupted before the picture is completed.
            content = picture(shot_id) if note.has_picture and not comment.get("previews") else None
            if content is not None:
                with TemporaryDirectory(prefix="dubstage-kitsu-") as folder:
                    file = Path(folder) / f"{shot_id}.jpg"
                    file.write_bytes(content)
                    self._gazu.task.add_preview(task, comment, str(file), client=self._client)


def _named(found: Sequence[dict[str, Any]], text: str, fields: Sequence[str], option: str, what: str) -> dict[str, Any]:
    for one in found:
        if text.casefold() in {str(one[field] or "").casefold() for field in fields}:
            return one
    are = ", ".join(sorted(str(one[fields[0]]) for one in found)) or "none"
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
        """Adapter with a time limit, which gazu does not set."""

        def send(self, request: Any, *more: Any, **options: Any) -> Any:
            answer = super().send(request, *more, **{**options, "timeout": _TIMEOUT_S})
            if answer.status_code in _BUSY:
                raise requests.ConnectionError(f"HTTP status {answer.status_code}")
            return answer

    try:
        parts = urlsplit(target.url)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.username and not parts.query
    except ValueError:
        right = False
    if not right:
        shown = re.sub("//.*@", "//...@", target.url)[:200]
        raise InvalidRequestError(
            f"--url {shown!r}: give the address of Kitsu's API, such as https://kitsu.example.com/api", field="url"
        )
    client = gazu.client.create_client(target.url, access_token=target.token)
    for scheme in ("http://", "https://"):
        client.session.mount(scheme, Bounded())
    return client


@contextmanager
def _errors_of_kitsu(url: str) -> Iterator[None]:
    """Turn errors of gazu and requests, in the block, into those of dubstage."""
    gazu = _gazu()
    import requests

    errors = gazu.exception
    try:
        yield
    except (requests.JSONDecodeError, errors.RouteNotFoundException, errors.MethodNotAllowedException) as problem:
        raise InvalidRequestError(
            f"--url {url} does not answer as Kitsu's API: give an address such as https://kitsu.example.com/api", field="url"
        ) from problem
    except (requests.RequestException, errors.ServerErrorException) as problem:
        raise BackendUnavailableError(f"Kitsu at {url} does not answer: {problem}") from problem
    except errors.NotAuthenticatedException as problem:
        raise UnauthenticatedError(f"Kitsu at {url} does not accept the token: make a new one in Kitsu", field="token") from problem
    except errors.NotAllowedException as problem:
        raise InvalidRequestError(
            f"Kitsu refuses {problem}: the person of the token needs the role of a manager in the team of the project",
            field="token",
        ) from problem
    except errors.GazuException as problem:
        raise InvalidRequestError(f"Kitsu refuses: {': '.join(map(str, problem.args))}", field="url") from problem
