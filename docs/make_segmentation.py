"""Draw docs/pictures/segmentation.png: ``python docs/make_segmentation.py ../shared/data``.

The two Sunnybrook hearts as they come, at the expert's end-diastole and end-systole: the expert's LV cavity (white,
dashed) and, at end-diastole, myocardium, beside what the shipped networks draw, which learnt from virtual patients
alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from kspace.formats.files import written_beside
from kspace.formats.nifti import read_labels
from kspace.formats.source import open_source
from kspace.scan import Cine
from kspace.segment.segmentation import Structure
from kspace.segment.segmenter import Segmenter
from simulate.segment_movie import COLOURS

HEARTS = (("SC-HF-I-1", "dicom"), ("SC-HF-I-4", "cine.nii.gz"))
SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the slices that the expert drew
MARGIN = 22  # pixels around the heart


def main() -> None:
    data = Path(sys.argv[1])
    figure = Figure(figsize=(2 * len(SHOWN), 8.4), layout="constrained", facecolor="#14171a")
    axes = figure.subplots(4, len(SHOWN))
    for row, (name, form) in enumerate(HEARTS):
        folder = data / "sunnybrook" / name
        cine = open_source(folder / form)
        assert isinstance(cine, Cine)
        truth, drawn = read_labels(folder / "labels.nii.gz"), Segmenter()(cine).labels
        expert = json.loads((folder / "expert.json").read_text())
        heart = torch.nonzero((truth > 0).any(0).any(0))
        (top, left), (bottom, right) = heart.amin(0).tolist(), heart.amax(0).tolist()
        area = (slice(max(0, top - MARGIN), bottom + MARGIN), slice(max(0, left - MARGIN), right + MARGIN))
        for phase, (key, word) in enumerate((("ed_phase", "end-diastole"), ("es_phase", "end-systole"))):
            frame = expert[key]
            there = [k for k in range(cine.n_slices) if bool((truth[k, frame] > 0).any())]
            for column, share in enumerate(SHOWN):
                k = there[round(share * (len(there) - 1))]
                where = axes[2 * row + phase, column]
                image = cine.images[k, frame][area].abs().numpy()
                where.imshow(image, cmap="gray", vmin=0, vmax=float(np.percentile(image, 98)))
                for structure, colour in COLOURS.items():
                    mask = (drawn[k, frame][area] == structure).numpy()
                    if mask.any():
                        where.contour(mask, levels=[0.5], colors=[colour], linewidths=1.4)
                for structure in (Structure.LV, Structure.MYOCARDIUM):
                    mask = (truth[k, frame][area] == structure).numpy()
                    if mask.any():
                        where.contour(mask, levels=[0.5], colors=["white"], linewidths=0.9, linestyles=["dashed"])
                title = f"slice {k}, {word}" if column else f"{name}, slice {k}"
                where.set_title(title, color="#e9e7e2", fontsize=8)
                where.set_axis_off()
    with written_beside(Path(__file__).parent / "pictures" / "segmentation.png") as temporary:
        figure.savefig(temporary, dpi=110)


if __name__ == "__main__":
    main()
