"""Arrays and axes in, artists out: the pictures that several lectures share. No inference happens here."""

from cmog_lib.classroom.plots.curves import (
    count_humps,
    curve_with_point,
    error_curves,
    histogram,
    lines_with_point,
    posterior,
    prior,
    spectrum,
    staircase,
)
from cmog_lib.classroom.plots.images import heat, images, row_names, signed_image
from cmog_lib.classroom.plots.planes import (
    Plane,
    cloud,
    density,
    digits_in_plane,
    ellipses,
    gaussian_ring,
    line_with_datum,
    mark,
    move,
    plane,
    scatter,
)

__all__ = [
    "Plane",
    "cloud",
    "count_humps",
    "curve_with_point",
    "density",
    "digits_in_plane",
    "ellipses",
    "error_curves",
    "gaussian_ring",
    "heat",
    "histogram",
    "images",
    "line_with_datum",
    "lines_with_point",
    "mark",
    "move",
    "plane",
    "posterior",
    "prior",
    "row_names",
    "scatter",
    "signed_image",
    "spectrum",
    "staircase",
]
