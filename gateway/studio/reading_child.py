"""The process that reads a timeline or a dubbing script: `python -m gateway.studio.reading_child timeline 5 3221225472 60`.

The process sets its limits before it loads a library that reads files. The question comes on standard input, and the answer goes to
standard output, both as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Final

from gateway.child_process import limit_process
from gateway.studio.reading_process import OUT_OF_MEMORY, REMEDY
from services.common.errors import InvalidRequestError

_MOST_ANSWER: Final = 512 << 20
"""Most bytes of an answer: the caller has no bound on its memory."""


def main(arguments: list[str]) -> None:
    """Set the limits of this process, read one file, and print what the file holds, or why it is refused, as JSON.

    Args:
        arguments: kind of the file, descriptor, bytes of address space, seconds of processor time.
    """
    kind, (handle, memory_bytes, seconds) = arguments[0], map(int, arguments[1:])
    limit_process(memory_bytes, seconds)
    question = json.load(sys.stdin)
    try:
        answer = json.dumps(_facts(kind, handle, question))
    except InvalidRequestError as problem:
        answer = json.dumps({"refused": problem.message, "field": problem.field})
    except MemoryError:
        raise
    except Exception as problem:
        # The libraries check little, and raise errors of every kind where a field has another type than they expect.
        said = " ".join(f"{type(problem).__name__}: {problem}".split())[:200]
        answer = json.dumps({"refused": f"{question['path']}: damaged, no usual {kind} ({said}); {REMEDY}", "field": kind})
    if len(answer) > _MOST_ANSWER:
        answer = json.dumps({"refused": f"{question['path']}: holds more than {_MOST_ANSWER >> 20} MiB; {REMEDY}", "field": kind})
    sys.stdout.write(answer)
    sys.stdout.flush()


def _facts(kind: str, handle: int, question: Mapping[str, Any]) -> dict[str, Any]:
    # Imported here: the limits come first.
    if kind == "timeline":
        from gateway.studio.timeline_files import timeline_facts

        return timeline_facts(handle, question)
    from gateway.studio.dubbing_script import script_facts

    return script_facts(handle, question)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
