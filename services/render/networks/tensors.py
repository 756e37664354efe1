"""Pictures as tensors."""

from __future__ import annotations

import numpy as np
import torch

from services.common.array_types import UInt8


def to_tensor(pictures: UInt8, device: torch.device | None = None) -> torch.Tensor:
    """Return pictures as float32 [B, C, H, W] in [0, 1], channels last in memory.

    Args:
        pictures: uint8 [B, H, W, C].
        device: device of the tensor; None: the CPU.
    """
    # The bytes go to the device, where they become floats: a quarter of the copying.
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float().div_(255.0)
