"""The dub request of a shot: the same request, with the same checks, as `dubstage dub` makes of its options."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from gateway.actors.dub_prepare import prepared
from gateway.ahead import in_thread
from gateway.batch.bench import Bench
from gateway.batch.media import delivered, fetched
from gateway.batch.types import Shot
from gateway.consent.files import read_consent
from gateway.consent.use import use_of
from gateway.methods import DEFAULT_METHOD, combined
from gateway.pipeline.dub_files import refuse_input
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.enrol import EnrolOptions
from gateway.pipeline.faces import parse_face

T = TypeVar("T")


@asynccontextmanager
async def shot_request(bench: Bench, shot: Shot) -> AsyncIterator[DubRequest]:
    """Yield the checked dub request of a shot, whose files are on this machine.

    Files of a URL are copied to this machine before. A film that goes to a URL is uploaded whole at the end of the block, unless
    the block raises an error.

    Raises:
        DubstageError: as `dubstage dub` for the same options; or a URL cannot be read or written.
    """
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(_in_threads(bench.folder_aside()))
        limit = bench.settings.max_job_bytes

        async def local(location: str | None, field: str) -> Path | None:
            return None if location is None else await in_thread(fetched, location, folder, max_bytes=limit, field=field)

        consent, speech = await local(shot.consent, "consent"), await local(shot.speech, "speech")
        footage = await local(shot.footage, "footage")
        assert footage is not None
        output = await stack.enter_async_context(_in_threads(delivered(shot.output, folder)))
        if consent is not None:
            refuse_input(output, consent, "a consent record")
        request = DubRequest(
            footage=footage,
            speech=speech,
            output=output,
            method=combined(shot.method or DEFAULT_METHOD),
            face=parse_face(shot.face),
            consent=await in_thread(read_consent, consent) if consent is not None else None,
            use=use_of(shot.project or "", shot.language or ""),
            retime=shot.retime,
            expression=shot.expression,
            expressiveness=shot.expressiveness,
            keep_audio=shot.keep_audio,
            codec=shot.codec,
            enrol=EnrolOptions(personalize_renderer=shot.personalize, personalize_motion=shot.personalize, seed=shot.seed),
            # The bytes of the film depend on this number, so that it is the same however many workers share the cores.
            threads=bench.settings.compute_threads,
        )
        yield await prepared(request, bench.place, shot.actor, request.method if shot.method is not None else None)


@asynccontextmanager
async def _in_threads(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a context manager that blocks in threads."""
    value = await in_thread(manager.__enter__)
    try:
        yield value
    except BaseException:
        if not await in_thread(manager.__exit__, *sys.exc_info()):
            raise
    else:
        await in_thread(manager.__exit__, None, None, None)
