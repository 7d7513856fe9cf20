from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch

from kspace.errors import InputError
from kspace.scan import Geometry, RadialScan

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(scope="session")
def hearts() -> Path:
    """The folder of real data."""
    if not DATA.is_dir():
        pytest.skip(f"the real hearts are not at {DATA}")
    return DATA


@contextmanager
def _refused(*fragments: str) -> Iterator[None]:
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    for fragment in fragments:
        assert fragment in message


@pytest.fixture(scope="session")
def refused() -> Callable[..., AbstractContextManager[None]]:
    """Expect an InputError of one line which says what was expected and holds the fragments given."""
    return _refused


@pytest.fixture
def left(tmp_path: Path) -> Callable[[], list[str]]:
    """Give the names of what lies in ``tmp_path``."""
    return lambda: sorted(path.name for path in tmp_path.iterdir())


@pytest.fixture
def scan() -> RadialScan:
    """Two slices, three coils, a grid that is not square, oblique, with ECG and noise."""
    n, coils, readout = 21, 3, 34
    generator = torch.Generator().manual_seed(1)
    angle = torch.arange(n) * 1.941611
    radius = (torch.arange(readout) - readout // 2) / readout
    positions = torch.stack([torch.sin(angle)[:, None] * radius, torch.cos(angle)[:, None] * radius], -1)
    root = torch.randn(coils, coils, dtype=torch.complex128, generator=generator)
    c, s = 0.8, 0.6
    affine = torch.tensor(
        [[1.5 * c, 0.0, -8 * s, 12.0], [0.0, -2.0, 0.0, -7.0], [1.5 * s, 0.0, 8 * c, 3.0], [0.0, 0.0, 0.0, 1.0]]
    )
    return RadialScan(
        samples=torch.randn(n, coils, readout, dtype=torch.complex64, generator=generator),
        positions=positions.float(),
        time_s=0.123456 + torch.arange(n, dtype=torch.float64) * 2.8e-3,
        geometry=Geometry((2, 20, 26), affine.double().numpy(), 6.5),
        slice_index=(torch.arange(n) >= 10).long(),
        ecg_s=torch.tensor([0.1, 0.140001, 0.9], dtype=torch.float64),
        noise_covariance=(root @ root.conj().T).to(torch.complex64),
        source="phantom:1",
    )
