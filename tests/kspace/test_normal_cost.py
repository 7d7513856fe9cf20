from __future__ import annotations

from typing import Any

import pytest
import torch

from kspace import normal_cost
from kspace.encoding import Encoding
from kspace.normal_cost import cheaper_form, seconds_of


def test_gridding_pays_for_its_samples_and_toeplitz_does_not() -> None:
    few, many = (seconds_of("gridded", (192, 192), n) for n in (1_000, 40_000))
    assert many > 2 * few
    assert seconds_of("toeplitz", (192, 192), 1_000) == seconds_of("toeplitz", (192, 192), 40_000)
    assert seconds_of("toeplitz", (256, 256), 1) > seconds_of("toeplitz", (192, 192), 1)


def test_without_fftw_few_spokes_are_gridded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cheaper_form((192, 192), 13 * 384) == "toeplitz"
    monkeypatch.setattr(normal_cost, "fftw_available", lambda: False)
    assert cheaper_form((256, 256), 3 * 256) == "gridded"
    assert cheaper_form((256, 256), 100 * 512) == "toeplitz"


def test_an_encoding_takes_the_form_that_it_names(
    small: Any, make_noise: Any, make_maps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = Encoding(small.positions, make_maps(3, *small.matrix))
    x = make_noise(encoding.n_frames, *encoding.matrix)
    for form in ("toeplitz", "gridded"):
        monkeypatch.setattr("kspace.encoding.cheaper_form", lambda *_, form=form: form)
        assert encoding.normal_form == form
        assert torch.equal(encoding.normal(x), encoding.normal(x, form))
