"""What ``simulate`` writes, read by the library that defines the format and reconstructed by BART."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
import torch
from torch import Tensor

from kspace.equations import NormalEquations
from kspace.formats.cfl import bart_samples, bart_trajectory, read_cfl, write_cfl
from kspace.formats.mrd import read_scan
from kspace.formats.nifti import read_cine
from kspace.recon.cg_sense import CgSense
from kspace.scan import RadialScan
from simulate.calibration import calibrate
from simulate.scanner import ScannerOptions, SimulatedScanner
from simulate.to_file import simulate_to_file

BART = shutil.which("bart") or ""
with_bart = pytest.mark.skipif(not BART, reason="no bart to reconstruct with")

# Measured: 1.1e-3. A penalty of half or twice the weight, which is another problem, would be off by 5e-3.
L2, BOUND = 0.05, 3e-3


@pytest.fixture(scope="module")
def source(make_cine: Any) -> SimulatedScanner:
    cine = make_cine(slices=2, rows=64, columns=64, beat=0.0)
    return SimulatedScanner(cine, ScannerOptions(n_coils=4, snr=50, seed=2))


@pytest.fixture(scope="module")
def raw(source: SimulatedScanner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "raw.h5"
    simulate_to_file(source, path, seconds=0.6, slices=[0, 1], n_frames=2)
    return path


def imaging(path: Path) -> tuple[list[Any], Any]:
    """The readouts that are no noise, and the header, as the ismrmrd library reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = ismrmrd.Dataset(str(path), "dataset", create_if_needed=False)
        every = [dataset.read_acquisition(i) for i in range(dataset.number_of_acquisitions())]
        header = ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header())
        dataset.close()
    return [a for a in every if not a.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)], header


def spokes_of(acquisitions: list[Any], index: int) -> tuple[Tensor, Tensor]:
    """(spoke, coil, readout) samples and (spoke, readout, 2) positions of a slice."""
    chosen = [a for a in acquisitions if a.idx.slice == index]
    samples = torch.from_numpy(np.stack([a.data for a in chosen]))
    return samples, torch.from_numpy(np.stack([a.traj[:, ::-1] for a in chosen]))


def test_the_ismrmrd_library_reads_the_spokes_that_were_simulated(raw: Path, source: SimulatedScanner) -> None:
    acquisitions, header = imaging(raw)
    assert len(acquisitions) == 2 * 215
    encoding = header.encoding[0]
    assert encoding.trajectory.value in ("radial", "goldenangle")
    assert (encoding.reconSpace.matrixSize.x, encoding.reconSpace.matrixSize.y) == (48, 48)
    assert encoding.reconSpace.fieldOfView_mm.x == pytest.approx(192)
    assert list(header.sequenceParameters.TR) == pytest.approx([2.8])
    for index in range(2):
        expected = source.open_slice(index).acquire(0.6)
        samples, positions = spokes_of(acquisitions, index)
        assert torch.equal(samples, expected.samples)
        torch.testing.assert_close(positions, expected.positions, atol=1e-7, rtol=0)


def bart(command: str, folder: Path) -> None:
    subprocess.run([BART, *command.split()], cwd=folder, check=True, capture_output=True, timeout=120)


def ours(scan: RadialScan, l2: float) -> tuple[Tensor, Tensor, float]:
    """Our image (y, x), the maps, and the weight of the penalty |x|^2 that BART has to be told for the same problem."""
    frame = torch.zeros(scan.n_spokes, dtype=torch.int64)
    ramp = NormalEquations(scan.matrix, 1, scan.n_coils)
    ramp.add(scan.samples, scan.positions, frame)
    maps = calibrate(ramp, None).maps
    equations = NormalEquations(scan.matrix, 1, scan.n_coils, density="none")
    equations.add(scan.samples, scan.positions, frame)
    method = CgSense(l2=l2, max_iterations=300, tolerance=1e-5, density="none")
    return method(equations, maps).image[0], maps, l2 * equations.scale


@with_bart
@pytest.mark.parametrize("index", [0, 1])
def test_bart_reconstructs_the_same_image(raw: Path, index: int, tmp_path: Path) -> None:
    samples, positions = spokes_of(imaging(raw)[0], index)
    image, maps, weight = ours(read_scan(raw).select_slice(index), l2=L2)
    # BART's first axis of an image belongs to kx.
    write_cfl(tmp_path / "sens", maps.permute(2, 1, 0)[:, :, None])
    write_cfl(tmp_path / "ksp", bart_samples(samples))
    write_cfl(tmp_path / "traj", bart_trajectory(positions, (48, 48)))
    bart(f"pics -w 1 -i 100 -l2 -r {weight} -t traj ksp sens image", tmp_path)
    theirs = torch.from_numpy(read_cfl(tmp_path / "image").reshape(48, 48).T.copy())
    error = float(torch.linalg.vector_norm(theirs - image) / torch.linalg.vector_norm(image))
    assert error <= BOUND, f"{error:.2e}"

    truth = read_cine(raw.with_name("raw.truth.nii.gz")).images[index, 0]
    assert float((theirs.abs() - truth).norm() / truth.norm()) < 0.08
