"""Corrupted spokes are found and mended without any training, and sound ones are left alone."""

from dataclasses import replace

import pytest
import torch

from kspace.coils import espirit_maps
from kspace.equations import NormalEquations
from kspace.errors import ShapeError
from kspace.motion.correct import correct
from kspace.motion.detector import default_detector, distrust, plain_detector
from kspace.motion.evidence import Evidence, gather, sparks
from kspace.motion.examine import FEWEST, examine
from kspace.motion.features import NAMES, boxed, spoke_features
from kspace.motion.navigator import Short
from kspace.motion.reasons import REASONS, reason_of
from kspace.motion.robust import huber_trust
from kspace.recon.cg_sense import CgSense


def corrected(case, detector=plain_detector):
    return correct(case.spokes, case.frame, case.n_frames, noise_std=1.0, detector=detector)


def test_sound_spokes_are_left_alone(disc):
    found = corrected(disc)
    assert float(found.flagged.double().mean()) < 0.02
    assert torch.equal(found.frame, disc.frame)
    assert not bool(found.moved.any())
    assert float(found.trust.mean()) > 0.9


def test_swapped_spokes_are_found_by_the_shipped_network_and_put_elsewhere(swapped):
    case, wrong = swapped
    found = corrected(case, default_detector())
    assert float(found.probability[wrong].median()) > 0.5
    assert float(found.flagged[~wrong].double().mean()) < 0.05
    assert int((found.rebinned & wrong).sum()) > 0.5 * int(wrong.sum())


def test_a_body_that_moved_is_brought_back(shifted):
    case, late = shifted
    found = corrected(case)
    assert float(found.flagged[late].double().mean()) > 0.9
    assert float(found.flagged[~late].double().mean()) < 0.1
    assert float(found.moved[late].double().mean()) > 0.7
    x = found.moves.shift[late & found.moved][:, 1]
    assert float((x - 1.5).abs().median()) < 0.1


def test_spikes_and_lost_signal_are_named(disc):
    samples = disc.spokes.samples.clone()
    samples[100, :, 45] += 3 * samples[100].abs().max()
    generator = torch.Generator().manual_seed(1)
    samples[200:230] = torch.randn(samples[200:230].shape, dtype=samples.dtype, generator=generator)
    spokes = replace(disc.spokes, samples=samples)
    found = distrust(spokes, disc.frame, disc.n_frames, noise_std=1.0, detector=plain_detector)
    assert float(found.probability[100]) > 0.9
    assert float(found.probability[200:230].min()) > 0.9
    why = reason_of(found.examined.features)
    assert REASONS[int(why[100])] == "a spike"
    assert (why[200:230] == REASONS.index("lost signal")).double().mean() > 0.9


def test_huber_weights_trust_swapped_spokes_less(swapped):
    case, wrong = swapped
    trust = huber_trust(case.spokes, case.frame, case.n_frames, noise_std=1.0)
    assert float(trust[wrong].mean()) < 0.7 * float(trust[~wrong].mean())
    assert float(trust.min()) > 0


def test_too_few_spokes_are_refused(disc):
    few = disc.spokes.select(slice(0, FEWEST - 1))
    with pytest.raises(ShapeError):
        examine(few, disc.frame[: FEWEST - 1], disc.n_frames, noise_std=1.0)


def test_evidence_agrees_with_itself(disc):
    short = Short.of(disc.spokes)
    some = short.cut(disc.spokes.select(slice(0, 40)))
    frame = disc.frame[:40]
    image = torch.randn(
        (disc.n_frames, *some.matrix), dtype=torch.complex64, generator=torch.Generator().manual_seed(0)
    )
    image[3:] = image[:1] + image[3:] * 0  # few components: nothing is lost by keeping six
    maps = torch.ones((some.n_coils, *some.matrix), dtype=torch.complex64) / some.n_coils**0.5
    found = gather(some, frame, image, maps, n_frames=disc.n_frames, spark=sparks(disc.spokes.select(slice(0, 40))))
    own = found.misfit[torch.arange(40), frame]
    assert torch.allclose(own, found.own, rtol=2e-3, atol=1e-2)
    assert torch.allclose(found.by_coil.sum(1), found.own.sum(1), rtol=1e-4)
    assert len(Evidence.join([found, found])) == 80
    assert torch.equal(found.replaced(torch.tensor([2]), found.at(torch.tensor([5]))).own[2], found.own[5])


def test_nothing_known_is_nothing_said(disc):
    short = Short.of(disc.spokes)
    some = disc.spokes.select(slice(0, 60))
    maps = torch.ones((short.coils.shape[0], *short.matrix), dtype=torch.complex64)
    found = gather(short.cut(some), disc.frame[:60], None, maps, n_frames=disc.n_frames, spark=sparks(some))
    features = spoke_features(found, disc.frame[:60], some.time_s, some.ecg_s, noise_std=1.0)
    assert bool(torch.isfinite(features).all())
    assert float(features[:, NAMES.index("known")].max()) == 0
    assert float(features[:, NAMES.index("misfit_low")].abs().max()) == 0
    assert float(plain_detector(features).max()) < 0.5


def test_means_over_neighbours():
    values = torch.arange(7.0)[:, None]
    assert boxed(values, 3)[:, 0].tolist() == [0.5, 1, 2, 3, 4, 5, 5.5]


def test_images_gain_from_correction(disc, shifted):
    case, _ = shifted
    found = corrected(case)

    def image(spokes, frame, trust=None):
        sums = NormalEquations(spokes.matrix, case.n_frames, spokes.n_coils)
        sums.add(spokes.samples, spokes.positions, frame, trust)
        return CgSense()(sums, maps, noise_std=1.0).image

    still = NormalEquations(disc.spokes.matrix, disc.n_frames, disc.spokes.n_coils)
    still.add(disc.spokes.samples, disc.spokes.positions, disc.frame)
    maps = espirit_maps(still.time_average())
    wanted = image(disc.spokes, disc.frame)
    before = torch.linalg.vector_norm(image(case.spokes, case.frame) - wanted)
    after = torch.linalg.vector_norm(image(found.spokes, found.frame, found.trust) - wanted)
    assert float(after) < 0.8 * float(before)
