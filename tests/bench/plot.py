"""Results as a picture, where matplotlib is installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .report import target
from .samples import Result

_COLOURS = {"yes": "tab:green", "yes?": "tab:olive", "no?": "tab:orange", "no": "tab:red"}
_TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10)


def write(path: Path, results: Sequence[Result]) -> None:
    """A box for each row: quartiles and median, whiskers to all; a mark where its limit is."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        print("no picture: matplotlib is not installed (python3-matplotlib)", file=sys.stderr)
        return
    shown = [result for result in results if not result.detail][::-1]
    figure, axes = pyplot.subplots(figsize=(13, 1.5 + 0.22 * len(shown)))
    boxes = axes.boxplot(
        [result.ratios for result in shown],
        vert=False,
        whis=(0, 100),
        patch_artist=True,
        medianprops={"color": "black"},
    )
    for row, (result, box) in enumerate(zip(shown, boxes["boxes"]), start=1):
        box.set_facecolor(_COLOURS.get(result.verdict, "lightgrey"))
        if result.limit is not None:
            axes.plot([result.limit], [row], marker="<" if result.at_least else ">", color="navy")
    axes.set_yticklabels([f"{r.group}: {r.name}  {target(r)}" for r in shown], fontsize=7)
    axes.set_xscale("log")
    axes.set_xlim(0.2, 15)
    axes.minorticks_off()
    axes.set_xticks(_TICKS)
    axes.set_xticklabels([f"{tick:g}" for tick in _TICKS])
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.grid(axis="x", linewidth=0.3)
    axes.set_xlabel("ratio, ours to the other's (log scale); the arrow marks the target")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
