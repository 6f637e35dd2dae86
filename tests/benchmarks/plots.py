"""`python -m tests.benchmarks.plots`, with the peers' Python: draws the plots that docs/performance.md shows."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
# Texts stay texts, and the same figures give the same file.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "passbook", "font.family": "sans-serif"})
from matplotlib import pyplot as plt  # noqa: E402

from tests.benchmarks.figures import Plot  # noqa: E402
from tests.benchmarks.report import PICTURES, kept  # noqa: E402


def draw(plot: Plot, folder: Path) -> Path:
    """One picture; both axes are logarithmic."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for line in plot.lines:
        axes.plot(line.x, line.y, marker="o", label=line.name)
    ticks = sorted({x for line in plot.lines for x in line.x})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5), numticks=20))
    axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{plot.name}.svg"
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return path


def main() -> None:
    for plot in kept()[-1].plots:
        print(draw(plot, PICTURES))


if __name__ == "__main__":
    main()
