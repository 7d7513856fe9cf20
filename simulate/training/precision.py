"""Where convolutions in bfloat16 are worth it."""

from __future__ import annotations

import torch
from torch import nn


def bfloat16_is_quick(device: torch.device | str) -> bool:
    """Return whether a device multiplies bfloat16 numbers itself.

    A GPU does. A processor without AMX or AVX-512 BF16 emulates it, and a training step takes twenty times as long.
    """
    if torch.device(device).type != "cpu":
        return True
    can = torch.cpu.get_capabilities()
    return bool(can.get("amx_bf16") or can.get("avx512_bf16"))


def chosen(half: bool | None, network: nn.Module) -> bool:
    """Return whether to use bfloat16 for a network: as told, or where it is quick."""
    return bfloat16_is_quick(next(network.parameters()).device) if half is None else half
