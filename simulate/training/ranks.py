"""Several processes that train one model: what they must agree on, and the mean of their gradients.

``torchrun --nproc-per-node N`` starts them and tells each its place in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def training_device(name: str = "auto") -> torch.device:
    """Return where this rank trains: ``auto`` is its own GPU if there is one, and else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"
    return torch.device(name)


def join() -> bool:
    """Join the other ranks that torchrun started, and return whether this call did."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        return False
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return True


def place() -> tuple[int, int]:
    """Return this process's rank and the number of ranks: (0, 1) when it is alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def average_gradients(model: nn.Module) -> None:
    """Replace every rank's gradients by their mean over the ranks."""
    # Every rank must send the same numbers in the same order: a parameter that a loss left out sends zeros.
    trained = [p for p in model.parameters() if p.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, grad in zip(trained, torch.split(flat, [p.numel() for p in trained]), strict=True):
        parameter.grad = grad.view_as(parameter)


def share_tensors(tensors: Sequence[Tensor]) -> None:
    """Overwrite every rank's tensors by those of rank 0."""
    for tensor in tensors:
        dist.broadcast(tensor, 0)


def highest(number: int, device: torch.device) -> int:
    """Return the highest of the ranks' numbers."""
    if place()[1] == 1:
        return number
    value = torch.tensor(number, device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)
