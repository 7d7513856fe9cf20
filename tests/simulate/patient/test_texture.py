import numpy as np
import torch

from simulate.patient.texture import Tubes, Waves, lattice


def test_a_field_has_unit_variance_and_depends_on_place_and_seed_alone() -> None:
    points = torch.rand((20000, 3), generator=torch.Generator().manual_seed(0)) * 400
    field = Waves((1, 2), 20.0, 24)
    values = field(points)
    assert abs(float(values.std()) - 1) < 0.1
    assert torch.allclose(field(points[:10]), values[:10], atol=1e-4)
    assert torch.equal(Waves((1, 2), 20.0, 24)(points[:10]), field(points[:10]))
    assert not torch.allclose(Waves((1, 3), 20.0, 24)(points[:10]), values[:10], atol=0.1)


def test_tubes_are_thin_lines() -> None:
    x = torch.stack(torch.meshgrid(*[torch.arange(0, 120.0, 2.0)] * 3, indexing="ij"), -1)
    inside = float((Tubes((4,), 40.0).distance_mm(x) < 2).float().mean())
    assert 0.001 < inside < 0.05


def test_a_lattice_is_periodic_smooth_and_of_unit_variance() -> None:
    field = lattice(np.random.default_rng(1), 8, 16, 64, (1.0, 2.0, 4.0))
    assert abs(field.std() - 1) < 1e-6
    assert np.abs(np.roll(field, 1, 2) - field).max() < 1.5
