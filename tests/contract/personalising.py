"""Personalisations that a stage gets at once."""

import asyncio
from typing import Any

import grpc.aio


async def personalised_at_once(count: int, personalize: Any, request: Any, timeout_s: float) -> tuple[list[str], list[int]]:
    """Call the streaming RPC Personalize some times at once. Return the status code of each call, and the call of each report."""
    reports: list[int] = []

    async def personalise(number: int) -> str:
        try:
            async for _ in personalize(request, timeout=timeout_s):
                reports.append(number)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    codes = await asyncio.gather(*map(personalise, range(count)))
    return list(codes), reports
