"""The processor of a training: CPU or GPU, alone or as one of several processes that `torchrun` started."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from services.common.errors import InvalidRequestError
from services.common.server.resources import computes_bfloat16, cpu_flags

_LONGEST_WAIT: Final = timedelta(hours=1)
"""Longest wait of a process for the others. Process 0 checks the network alone while the others wait. If a process dies, torchrun
ends the others at once by SIGTERM."""


@dataclass(frozen=True, slots=True)
class Device:
    """Device and rank of one process of a training.

    Attributes:
        torch_device: device of the tensors.
        rank: number of this process, from 0. Process 0 alone writes files and shows progress.
        num_processes: processes that train together.
    """

    torch_device: torch.device
    rank: int = 0
    num_processes: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def autocast(self, *, bfloat16: bool) -> torch.autocast:
        """Return a context in which forward passes compute in bfloat16, if that is wanted and the processor can."""
        possible = self.torch_device.type != "cpu" or computes_bfloat16(cpu_flags())
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=bfloat16 and possible)

    def parallel(self, module: nn.Module, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose backward pass averages the gradients of `module` over all processes.

        One process gets `function` itself. In several processes DistributedDataParallel wraps the function. The function may call
        any method of the module, but each of its results that reaches the backward pass must be a tensor in a tuple, list or dict.

        Args:
            module: the module whose parameters learn. Parameters that need no gradient at this moment are left out.
            function: forward pass and loss.
        """
        if self.num_processes == 1:
            return function
        device_ids = [self.torch_device.index] if self.torch_device.type == "cuda" else None
        return DistributedDataParallel(_Objective(module, function), device_ids=device_ids, find_unused_parameters=True)

    def without_exchange(self, function: Callable[..., Any], *, last: bool) -> AbstractContextManager[None]:
        """Return the context of one forward and backward pass of several in a step: gradients are exchanged in the last pass only.

        Args:
            function: what `parallel` returned.
            last: whether this is the step's last pass.
        """
        if isinstance(function, DistributedDataParallel) and not last:
            return function.no_sync()
        return nullcontext()

    def same_everywhere(self, value: float) -> float:
        """Return the value of process 0."""
        if self.num_processes == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.torch_device)
        distributed.broadcast(shared, src=0)
        return float(shared.item())

    def mean(self, value: float) -> float:
        """Return the mean of a number over all processes."""
        if self.num_processes == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.torch_device)
        distributed.all_reduce(shared)
        return float(shared.item()) / self.num_processes

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        """Return the rows of all processes, those of process 0 first. The tensor has the same shape in all processes."""
        if self.num_processes == 1:
            return values
        rows = [torch.empty_like(values) for _ in range(self.num_processes)]
        distributed.all_gather(rows, values.contiguous())
        return torch.cat(rows)


CPU: Final = Device(torch.device("cpu"))
"""This process alone, on the CPU."""


@contextmanager
def open_device(kind: str) -> Iterator[Device]:
    """Yield the device of this process. Under `torchrun`, the process joins the others: over gloo on CPUs, over NCCL on GPUs.

    Args:
        kind: `cpu` or `cuda`.

    Raises:
        InvalidRequestError: there is no such device on this machine, or its memory is too small to begin.
    """
    if kind not in {"cpu", "cuda"}:
        raise InvalidRequestError(f"--device {kind}: the devices are cpu and cuda", field="device")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InvalidRequestError(
            "--device cuda: PyTorch finds no CUDA GPU here; check the driver and whether PyTorch is a CUDA build, or use cpu",
            field="device",
        )
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    torch_device = torch.device("cuda", local) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(torch_device)
    if num_processes == 1:
        yield Device(torch_device)
        return
    # A process that waits for the others is ended by SIGTERM. Python would notice the signal after the wait only.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=_LONGEST_WAIT)
    try:
        yield Device(torch_device, distributed.get_rank(), num_processes)
        # A process that ends early closes connections that others still read.
        distributed.barrier()
    finally:
        # DistributedDataParallel lies in circles of references and holds the group. If the group outlives the interpreter, its
        # threads end the process with SIGABRT.
        gc.collect()
        distributed.destroy_process_group()


class _Objective(nn.Module):
    """A module and a function as one module, as DistributedDataParallel needs them."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self._function = function

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return self._function(*arguments, **named)
