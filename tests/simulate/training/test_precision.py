import torch
from torch import nn

from simulate.training.precision import bfloat16_is_quick, chosen


def test_a_cpu_is_quick_in_bfloat16_only_where_it_multiplies_it_itself() -> None:
    can = torch.cpu.get_capabilities()
    assert bfloat16_is_quick("cpu") is bool(can.get("amx_bf16") or can.get("avx512_bf16"))
    assert bfloat16_is_quick("cuda")


def test_what_the_user_chose_counts() -> None:
    network = nn.Linear(1, 1)
    assert chosen(True, network)
    assert not chosen(False, network)
    assert chosen(None, network) is bfloat16_is_quick("cpu")
