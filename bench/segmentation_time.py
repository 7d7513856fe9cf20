"""Time and memory of segmenting a whole cine: ``python -m bench.segmentation_time``.

A virtual patient's export (synthetic), brought to 12 slices x 25 frames x 256 x 256. Median of some runs after one that
loads the networks; peak memory of the process, and what it was before the first run.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

import torch
from torch.nn.functional import interpolate

from bench.heart_cohort import stored_stack
from kspace.scan import Cine, Geometry
from kspace.segment.segmenter import Segmenter
from simulate.training.dataset import Split


def resized(cine: Cine, shape: tuple[int, int, int, int]) -> Cine:
    """Return a cine with other numbers of slices (repeated at the end or left out), frames, rows and columns."""
    slices, frames, rows, columns = shape
    index = torch.arange(slices).clamp(max=cine.n_slices - 1)
    in_space = interpolate(cine.images.abs()[index].float(), (rows, columns), mode="bilinear", align_corners=False)
    pixels = in_space.flatten(2).movedim(1, 2).flatten(0, 1)[:, None]
    again = torch.cat([pixels, pixels[..., :1]], -1)  # the beat is a circle
    in_time = interpolate(again, frames + 1, mode="linear", align_corners=True)[..., :frames]
    images = in_time[:, 0].reshape(slices, rows * columns, frames).movedim(2, 1).reshape(shape)
    affine = cine.geometry.affine.copy()
    affine[:3, 0] *= cine.images.shape[-1] / columns
    affine[:3, 1] *= cine.images.shape[-2] / rows
    geometry = Geometry((slices, rows, columns), affine, cine.geometry.slice_thickness_mm)
    rr_s = tuple(cine.rr_s[k] for k in index.tolist()) if isinstance(cine.rr_s, tuple) else cine.rr_s
    return Cine(images.contiguous(), geometry, rr_s, cine.source)


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=Path, default=Path("runs/heart-cohort"), help="folder of the drawn scans")
    parser.add_argument("--shape", default="12,25,256,256")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    slices, frames, rows, columns = (int(n) for n in given.shape.split(","))
    cine = resized(stored_stack(given.cohort, Split.VALIDATION, 0).cine, (slices, frames, rows, columns))
    before = _peak_gb()
    found = {}
    for topology in ("refine", "tidy"):
        segmenter = Segmenter(topology=topology)
        segmenter(resized(cine, (1, frames, rows, columns)))
        wall, processor = [], []
        for _ in range(given.runs):
            start, spent = time.perf_counter(), time.process_time()
            segmenter(cine)
            wall.append(time.perf_counter() - start)
            processor.append(time.process_time() - spent)
        found[topology] = {
            "seconds": round(statistics.median(wall), 2), "slowest": round(max(wall), 2),
            "processor_seconds": round(statistics.median(processor), 2),
        }  # fmt: skip
    threads = torch.get_num_threads()
    print(json.dumps({**found, "threads": threads, "peak_gb": round(_peak_gb(), 2), "before_gb": round(before, 2)}))


if __name__ == "__main__":
    main()
