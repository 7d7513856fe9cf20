"""The report: well formed, self-contained, true to the record, and alive in a browser."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kspace.errors import InputError
from kspace.quality.judge import Score
from kspace.scan import Geometry
from simulate.record import ScanRecord, SliceRecord, StepRecord
from simulate.report import render_report, write_report
from simulate.report_images import ERROR_GAIN, IMAGE_BUDGET
from simulate.report_words import verdict

VOID = {"meta", "link", "img", "input", "br", "hr", "path"}


class Checker(HTMLParser):
    """Balances tags and remembers what refers to somewhere."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> says {names} twice"
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs), "script in an attribute"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a beginning"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert all(reference.startswith("data:") for reference in checker.references), checker.references
    assert not re.search(r"https?://", page)
    assert not re.search(r"\burl\(|@import", page)
    assert "{{" not in page
    assert page.startswith("<!doctype html>")
    return checker


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def sheet(uri: str) -> np.ndarray:
    assert re.match(r"data:image/(webp|png);base64,", uri)
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))) as picture:
        return np.asarray(picture.convert("L")).astype(int)


def frames_of(entry: dict, name: str) -> np.ndarray:
    whole, across = sheet(entry[name]), entry["across"]
    rows, cols = entry["rows"], entry["cols"]
    places = [divmod(f, across) for f in range(entry["frames"])]
    return np.stack([whole[r * rows : (r + 1) * rows, c * cols : (c + 1) * cols] for r, c in places])


def heart(frames: int, rows: int, cols: int, phase: float = 0.0) -> torch.Tensor:
    """A ring that beats beside a blob that does not."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, cols), indexing="ij")
    radius = torch.sqrt(x**2 + y**2)
    beat = 0.45 + 0.12 * torch.cos(2 * torch.pi * (torch.arange(frames) + 0.5) / frames + phase)
    ring = torch.exp(-(((radius[None] - beat[:, None, None]) / 0.13) ** 2))
    return 80 * (ring + 0.5 * torch.exp(-(((x - 0.6) ** 2 + (y + 0.5) ** 2) / 0.04)))


def make(
    n: int = 3, frames: int = 6, rows: int = 33, cols: int = 48, *, truth: bool = True, noise: float = 3.0
) -> ScanRecord:
    generator = torch.Generator().manual_seed(1)
    slices = []
    for index in range(n):
        stopped = index != 1
        count = 4 + index if stopped else 12
        steps = tuple(
            StepRecord(
                0.5 * k,
                180 * k,
                (
                    Score("prediction", 0.4 / k, 0.09, "how badly the newest spokes were foreseen"),
                    Score("change", float("nan") if k == 1 else 2.0 / k**3, 0.02, "how much the images still change"),
                ),
                k == count,
                "good enough twice in a row" if k == count and stopped else "prediction holds it back",
                0.1,
                {"psnr_db": 25.0 + k, "ssim": 1 - 0.3 / k, "nrmse": 0.3 / k} if truth else {},
            )
            for k in range(1, count + 1)
        )
        true = heart(frames, rows, cols, 0.3 * index)
        image = (true + noise * torch.randn(true.shape, generator=generator)).abs()
        slices.append(SliceRecord(index, steps, stopped, 180 * count / frames, image, true if truth else None))
    return ScanRecord(
        "phantom:7",
        truth,
        {"max_seconds": 6.0, "seed": 7, "judges": ["prediction", "change"]},
        {"spokewise": "0.1.0"},
        Geometry.from_spacing((n, rows, cols), (8.0, 1.5, 1.25)),
        n,
        0.9,
        tuple(slices),
        wall_s=12.3,
    )


def test_page_is_well_formed_and_needs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, make())
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    checker = check(path.read_text(encoding="utf-8"))
    assert checker.tags.count("h1") == 1
    assert checker.tags.count("canvas") == 3
    text = " ".join(checker.text)
    for expected in ("Simulated spokes", "phantom:7", "What each number means", "1.5 × 1.25 mm", "0.1.0", "12.3 s"):
        assert expected in text


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_report(tmp_path / "nowhere" / "report.html", make(1, 1))


def test_verdict_in_words() -> None:
    said = " ".join(verdict(make(3)))
    assert "2 of 3 slices were good enough before the cap." in said
    assert "11 s of scanning instead of 18 s (1.6 times faster)." in said
    assert "PSNR of 29.0 to 37.0 dB" in said
    assert "The spokes are simulated from phantom:7; no scanner measured them." in said
    assert "no truth" not in said


def test_verdict_on_measured_spokes_claims_no_quality() -> None:
    said = " ".join(verdict(make(1, truth=False)))
    assert "1 of 1 slice was good enough" in said
    assert "measured k-space" in said
    assert "quality against the truth is not known" in said
    assert "PSNR" not in said


def test_verdict_without_a_cap_or_with_one_that_is_no_number() -> None:
    for options in ({}, {"max_seconds": None}, {"max_seconds": "six"}, {"max_seconds": True}, {"max_seconds": 0}):
        record = replace(make(2), options=options)
        said = " ".join(verdict(record))
        assert "cap" not in said
        assert "instead of" not in said
        assert "not reached" in render_report(record)


def test_no_saving_is_not_sold_as_one() -> None:
    record = make(2)
    record = replace(record, slices=(record.slices[1],), n_slices=1)
    said = " ".join(verdict(record))
    assert "0 of 1 slice were good enough before the cap. 6 s of scanning of at most 6 s." in said
    assert "faster" not in said


def test_a_source_that_runs_dry_has_saved_nothing() -> None:
    record = make(2)
    short = replace(record.slices[1], steps=record.slices[1].steps[:2])
    said = " ".join(verdict(replace(record, slices=(record.slices[0], short))))
    assert "faster" not in said


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_small_sheets_hold_the_images_within_one_grey_level(noise: float) -> None:
    record = make(2, frames=7, rows=21, cols=34, noise=noise)
    for entry, kept in zip(data_of(render_report(record))["slices"], record.slices, strict=True):
        assert kept.truth is not None
        top = np.percentile(kept.truth.numpy(), 99.5)
        error = ERROR_GAIN * (kept.image - kept.truth).abs()
        for name, images in (("recon", kept.image), ("truth", kept.truth), ("error", error)):
            expected = 255 * np.clip(images.numpy() / top, 0, 1)
            assert np.abs(frames_of(entry, name) - expected).max() <= 1.0


def test_a_large_scan_gives_quality_for_size() -> None:
    record = make(1, frames=25, rows=192, cols=192, noise=4.0)
    record = replace(record, slices=tuple(replace(record.slices[0], index=i) for i in range(12)), n_slices=12)
    page = render_report(record)
    assert len(page) < 1.3 * IMAGE_BUDGET
    assert "Stored as WebP of quality" in page
    entry = data_of(page)["slices"][5]
    kept = record.slices[5]
    assert kept.truth is not None
    expected = 255 * np.clip(kept.truth.numpy() / np.percentile(kept.truth.numpy(), 99.5), 0, 1)
    assert np.abs(frames_of(entry, "truth") - expected).mean() < 3


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{css}}{{data}}<!--"


def test_hostile_text_stays_text() -> None:
    record = make(2)
    steps = tuple(
        replace(s, reason=HOSTILE, scores=(Score(HOSTILE, 1.0, 0.5, HOSTILE),)) for s in record.slices[0].steps
    )
    record = replace(
        record,
        source=HOSTILE,
        options={HOSTILE: HOSTILE, "nested": {"a": [HOSTILE]}, "path": Path(HOSTILE)},
        versions={HOSTILE: HOSTILE},
        slices=(replace(record.slices[0], steps=steps),),
    )
    page = render_report(record)
    page_without = page.replace("{{css}}", "").replace("{{data}}", "")
    checker = check(page_without)
    assert checker.tags.count("script") == 2
    assert checker.tags.count("img") == render_report(make(1)).count("<img ")
    assert HOSTILE not in page
    assert HOSTILE in html.unescape(page)


@pytest.mark.parametrize(("frames", "rows", "cols"), [(1, 16, 16), (2, 17, 5), (3, 1, 40), (25, 64, 31)])
def test_odd_sizes(frames: int, rows: int, cols: int) -> None:
    page = render_report(make(2, frames, rows, cols))
    check(page)
    entry = data_of(page)["slices"][0]
    assert (entry["frames"], entry["rows"], entry["cols"]) == (frames, rows, cols)
    assert f"aspect-ratio:{1.25 * cols:.6g} / {1.5 * rows:.6g}" in page


def test_images_too_large_for_phones_are_shown_smaller() -> None:
    entry = data_of(render_report(make(1, frames=5, rows=8, cols=3000, truth=False)))["slices"][0]
    assert entry["cols"] == 1500
    assert sheet(entry["recon"]).shape == (2 * entry["rows"], 3 * entry["cols"])


def test_without_truth_there_is_one_panel() -> None:
    page = render_report(make(2, truth=False))
    checker = check(page)
    assert checker.tags.count("canvas") == 1
    assert set(data_of(page)["slices"][0]).isdisjoint({"truth", "error"})
    text = " ".join(checker.text)
    assert "SSIM" not in text
    assert "What only the truth knows" not in text
    assert "Measured spokes" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 0.0, -1.0, 1e300, 5e-324])
@pytest.mark.parametrize("limit", [0.1, 0.0, float("inf"), float("nan"), -3.0])
def test_scores_of_any_value(value: float, limit: float) -> None:
    record = make(2, 1, 4, 4)
    first = record.slices[0]
    steps = tuple(replace(s, scores=(Score("odd", value, limit, "odd"), *s.scores), truth={}) for s in first.steps)
    for changed in ((replace(first, steps=steps), record.slices[1]), (replace(first, steps=steps[:1]),)):
        page = render_report(replace(record, slices=changed))
        check(page)
        drawn = "".join(re.findall(r'(?: d|style)="([^"]*)"', page))
        assert "nan" not in drawn
        assert "inf" not in drawn


def test_truth_that_is_met_exactly_or_holds_nan() -> None:
    record = make(1, 2, 8, 8, noise=0.0)
    first = record.slices[0]
    steps = tuple(replace(s, truth={"psnr_db": float("inf"), "ssim": 1.0}) for s in first.steps)
    image = first.image.clone()
    image[0, 0, 0] = float("nan")
    check(render_report(replace(record, slices=(replace(first, steps=steps, image=image),))))
    check(render_report(replace(record, slices=(replace(first, image=0 * first.image, truth=0 * first.image),))))


def test_steps_of_a_scan_without_judges() -> None:
    record = make(2, 2, 8, 8, truth=False)
    bare = tuple(replace(r, steps=tuple(replace(s, scores=()) for s in r.steps)) for r in record.slices)
    assert "No score was given." in render_report(replace(record, slices=bare))


def test_interrupted_and_empty() -> None:
    record = replace(make(3), interrupted=True)
    some = replace(record, slices=record.slices[:2])
    assert verdict(some)[0] == "The scan was interrupted: 2 of 3 slices were finished."
    check(render_report(some))
    page = render_report(replace(record, slices=(), source="", rr_s=float("nan")))
    checker = check(page)
    assert "No slice was finished." in page
    assert data_of(page)["slices"] == []
    assert "canvas" not in checker.tags


def test_slice_table_adds_up() -> None:
    page = render_report(make(3))
    rows = re.findall(r'<tr data-row="\d">(.*?)</tr>', page)
    cells = [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row)] for row in rows]
    assert [row[1] for row in cells] == ["2.0", "6.0", "3.0"]
    assert [row[3] for row in cells] == ["720", "2160", "1080"]
    foot = re.search(r"<tfoot>(.*?)</tfoot>", page)
    assert foot
    assert "11.0" in foot[1]
    assert "3960" in foot[1]
    assert page.count('<b class="badge cap">cap</b>') == 2  # in the table and at its decisions
    assert '<td class="over" title="limit 0.09">0.1000</td>' in page


# ------------------------------------------------------------------------------------------------------ in a browser

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


def browse(page: Path, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=1500 "
        "--force-prefers-reduced-motion --hide-scrollbars"
    )
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={profile}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


@pytest.mark.skipif(not CHROMIUM, reason="no chromium to open the report with")
@pytest.mark.parametrize("truth", [True, False])
def test_player_in_a_browser(tmp_path: Path, truth: bool) -> None:
    record = make(3, truth=truth)
    page, picture = tmp_path / "report.html", tmp_path / "page.png"
    write_report(page, record)
    seen = browse(page, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in seen.stderr, seen.stderr
    body = re.search(r"<body[^>]*>", seen.stdout)
    assert body
    assert "data-fault" not in body[0]
    assert 'data-ready="1"' in body[0]
    entry = data_of(page.read_text(encoding="utf-8"))["slices"][1]
    names = ("recon", "truth") if truth else ("recon",)
    for name in names:
        grey = re.search(rf'data-{name}="([\d.]+)"', body[0])
        assert grey
        assert float(grey[1]) == pytest.approx(frames_of(entry, name)[0].mean(), abs=1.5)
    assert "frame 1 of 6 · 75 ms" in seen.stdout
    if truth:
        browse(page, tmp_path / "profile", "--window-size=1366,1500", f"--screenshot={picture}")
        with Image.open(picture) as shot:
            greys = np.asarray(shot.convert("L"))
        assert greys.std() > 20
        assert len(np.unique(greys)) > 100


@pytest.mark.skipif(not CHROMIUM, reason="no chromium to open the report with")
def test_empty_report_in_a_browser(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(page, replace(make(1), slices=(), interrupted=True))
    seen = browse(page, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in seen.stderr, seen.stderr
    assert 'data-ready="1"' in seen.stdout
    assert "data-fault" not in seen.stdout.split("<script")[0]
