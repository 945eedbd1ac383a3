"""One look for all lectures: a palette safe for colour-blind readers, type legible from the last row, alt text."""

from __future__ import annotations

import base64
import html
import importlib.metadata
import inspect
import io
import os
import platform
from collections.abc import Callable, Iterable
from typing import Any

import jax
import matplotlib
from IPython.display import HTML, Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from cmog_lib.classroom import resume

# The same thing has the same colour in all lectures (Okabe & Ito 2008); no figure relies on colour alone.
TRUTH = "#000000"
MODEL = "#0072B2"
POSTERIOR = "#D55E00"
PRIOR = "#007A5C"
DATA = "#6B6B6B"
BOUND = "#AA3377"
HIGHLIGHT = "#E69F00"
# Colours for numerals and words, which need a contrast of 4.5 with white (WCAG 2.2): two of the five are darker.
INK = (MODEL, "#B84F00", PRIOR, BOUND, "#8F5F00")

WIDTH = 9.6  # inches: at 100 dots an inch, what JupyterLab shows unscaled on a 1280-pixel screen
DENSITY = "Blues"

matplotlib.rcParams.update(
    {
        "figure.dpi": 100,
        "font.size": 13,
        "axes.titlesize": 14,
        "axes.titlelocation": "left",
        "axes.titley": 1.0,  # a fixed place: searching for one takes half as long as the drawing
        "axes.labelsize": 13,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(
            color=[MODEL, POSTERIOR, PRIOR, BOUND, HIGHLIGHT], linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
        ),
        "lines.linewidth": 2.2,
        "xtick.labelsize": 12,
        "ytick.labelsize": 12,
        # A legend is a pale card, so that a curve or a slider's line behind it does not cross the names.
        "legend.edgecolor": "none",
        "legend.framealpha": 0.85,
        "legend.fontsize": 12,
        "mathtext.fontset": "cm",
    }
)


def begin(*, x64: bool) -> None:
    """Prints what a lecture runs on, and chooses its precision.

    From here on XLA computes with two threads and BLAS with one, whatever the number of cores. With another number of
    threads a sum is added up in another order, so a training run or a chain ends elsewhere. Compilation, which takes
    most of a lecture's time, uses all cores. The environment variable NPROC overrides the two threads of XLA.

    Args:
        x64: True for float64, False for float32.
    """
    import scipy.linalg  # noqa: F401 (whose BLAS JAX calls; it must be there to be told)
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    os.environ.setdefault("NPROC", "2")  # read by XLA when it starts, at the first array
    threadpool_limits(1, "blas")
    resume.watch()
    jax.config.update("jax_enable_x64", x64)
    packages = " · ".join(f"{name} {importlib.metadata.version(name)}" for name in ("cmog_lib", "jax", "matplotlib"))
    print(f"Python {platform.python_version()} · {packages} · {'float64' if x64 else 'float32'}")


def figure(
    panels: int | str = 1,
    *,
    height: float = 4.0,
    widths: tuple[float, ...] | None = None,
    left: float = 0.8,
    right: float = 0.2,
    top: float = 0.5,
    bottom: float = 0.7,
    gap: float = 0.9,
    projection: str | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, with margins in inches: panels stay where they are while a slider moves.

    Args:
        panels: number of panels side by side, or a mosaic such as "AA;BC": two rows, the first with one wide panel.
        height: of the figure, in inches.
        widths: of the columns, relative to each other.
        left: margin, in inches.
        right: margin, in inches.
        top: margin, in inches.
        bottom: margin, in inches.
        gap: between panels, in inches.
        projection: of the axes, such as "3d".

    Returns:
        The figure, and the axes in the order of their letters.
    """
    fig = Figure(figsize=(WIDTH, height))
    mosaic = panels if isinstance(panels, str) else "ABCDEF"[:panels]
    rows, columns = len(mosaic.split(";")), len(mosaic.split(";")[0])
    panel_width = (WIDTH - left - right - gap * (columns - 1)) / columns
    panel_height = (height - top - bottom - gap * (rows - 1)) / rows
    axes = fig.subplot_mosaic(
        mosaic,
        width_ratios=widths,
        subplot_kw={"projection": projection},
        gridspec_kw={
            "left": left / WIDTH,
            "right": 1 - right / WIDTH,
            "top": 1 - top / height,
            "bottom": bottom / height,
            "wspace": gap / panel_width,
            "hspace": gap / panel_height,
        },
    )
    return fig, [axes[letter] for letter in sorted(axes)]


def show(fig: Figure, alt: str) -> HTML:
    """The figure as an image with a text for readers who cannot see it.

    Args:
        fig: the figure.
        alt: the text.
    """
    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=2 * fig.dpi)
    data = base64.b64encode(png.getvalue()).decode()
    width = int(fig.get_figwidth() * fig.dpi)
    style = "max-width:100%;height:auto;background:white;border-radius:6px"
    return HTML(f'<img alt="{html.escape(alt)}" width="{width}" style="{style}" src="data:image/png;base64,{data}">')


def bar(steps: Iterable[Any], what: str) -> Iterable[Any]:
    """The steps of a loop, with a progress bar if they take longer than two seconds.

    Args:
        steps: over which to loop.
        what: name of the bar.
    """
    from tqdm.auto import tqdm

    return tqdm(steps, desc=what, delay=2, leave=False)


def source(*functions: Callable) -> Markdown:
    """The library's own source code of a formula, to read beside the slide.

    Args:
        functions: whose code is shown.
    """
    shown = []
    for function in map(inspect.unwrap, functions):
        where = f"{function.__module__.replace('.', '/')}.py: {function.__qualname__}"
        shown.append(f"`{where}`\n```python\n{inspect.getsource(function).rstrip()}\n```")
    return Markdown("\n".join(shown))
