"""The part of a scan's report that shows which spokes were distrusted, and when."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from simulate.motion_plot import timeline_of_slice, timeline_png
from simulate.record import SliceRecord


def distrust_section(slices: Sequence[SliceRecord]) -> str:
    """Return the section as HTML; nothing where no slice was watched."""
    watched = [record for record in slices if record.distrust is not None]
    if not watched:
        return ""
    rows, lines = [], []
    for record in watched:
        distrust = record.distrust
        assert distrust is not None
        share = 100 * distrust.flagged / max(len(distrust.probability), 1)
        rows.append(
            f'<tr><th scope="row">slice {record.index}</th><td>{distrust.flagged} of {len(distrust.probability)}</td>'
            f"<td>{share:.1f} %</td></tr>"
        )
        lines.append(timeline_of_slice(record.index, distrust))
    picture = base64.b64encode(timeline_png(lines)).decode()
    return (
        "<section><h2>Spokes that were distrusted</h2>"
        '<p class="note">Each dot is a spoke: how probably it did not show what its frame should, as the loop judged it'
        " from the images before it. Blue: R waves. Below: how far body and heart seemed to move in the plane.</p>"
        f'<img src="data:image/png;base64,{picture}" alt="Distrust of each spoke over time" style="max-width:100%">'
        '<table><tr><th scope="col"></th><th scope="col">distrusted spokes</th><th scope="col">share</th></tr>'
        f"{''.join(rows)}</table></section>"
    )
