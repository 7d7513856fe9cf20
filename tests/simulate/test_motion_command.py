"""``spokewise motion``: table, picture and the file of what can be trusted."""

import json

import numpy as np
import pytest
import torch

from kspace.errors import InputError, UsageError
from kspace.formats.mrd import read_scan, write_scan
from kspace.motion.detector import plain_detector
from kspace.nufft import Nufft
from kspace.scan import Geometry, RadialScan
from kspace.trajectory import golden_angles, radial_positions
from simulate.motion_command import motion_command, motion_text

N, COILS, SPOKES = 24, 2, 120


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A still disc in 4 frames, with a spike and a stretch of lost signal."""
    y, x = torch.meshgrid(torch.arange(N) - N / 2, torch.arange(N) - N / 2, indexing="ij")
    image = torch.sigmoid(2 * (8 - torch.sqrt(y**2 + 1.3 * x**2))) + torch.exp(-((y - 3) ** 2 + x**2) / 6)
    maps = torch.stack((1 + 0.02 * x, 1j * (1 - 0.02 * y)))
    positions = radial_positions(golden_angles(SPOKES), 2 * N)
    plan = Nufft(positions.reshape(-1, 2), (N, N), n_transforms=COILS, accuracy="standard")
    samples = plan.forward((image * maps).to(torch.complex64)).reshape(COILS, SPOKES, -1).transpose(0, 1).contiguous()
    samples[60:66] = 0
    generator = torch.Generator().manual_seed(0)
    samples += 0.02 * torch.randn(samples.shape, dtype=torch.complex64, generator=generator)
    samples[20, :, 40] += 4 * samples[20].abs().max()
    scan = RadialScan(
        samples, positions, torch.arange(SPOKES) * 3e-3, Geometry.from_spacing((1, N, N), (8.0, 8.0, 8.0)),
        frame=torch.arange(SPOKES) % 4, noise_covariance=4e-4 * torch.eye(COILS) + 0j, source="a still disc",
    )  # fmt: skip
    path = tmp_path_factory.mktemp("motion") / "raw.h5"
    write_scan(path, scan)
    return path


def test_what_is_spoilt_is_left_out(raw, tmp_path):
    picture, out = tmp_path / "m.png", tmp_path / "trusted.h5"
    answer = motion_command(raw, picture, out=out, detector=plain_detector)
    one = answer["slices"][0]
    assert one["spokes"] == SPOKES
    assert 7 <= one["flagged"] <= 30
    assert one["reasons"]["a spike"] >= 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    back = read_scan(out)
    assert back.n_spokes == SPOKES - one["left_out"]
    times = set(np.round(back.time_s.numpy() / 3e-3).astype(int).tolist())
    assert not times & {20, 60, 61, 62, 63, 64, 65}
    assert back.frame is not None
    assert "distrusted" in motion_text(answer)
    json.dumps(answer)


def test_files_that_are_there_stay(raw, tmp_path):
    picture = tmp_path / "m.png"
    picture.write_text("mine")
    with pytest.raises(InputError):
        motion_command(raw, picture, detector=plain_detector)
    assert picture.read_text() == "mine"
    with pytest.raises(UsageError):
        motion_command(raw, tmp_path / "m.jpg", detector=plain_detector)
    with pytest.raises(UsageError):
        motion_command(raw, tmp_path / "n.png", out=raw, overwrite=True, detector=plain_detector)
