"""The explorer: a picture under sliders.

With few states all pictures are drawn beforehand and held in the browser (scrubbed): the slider needs no kernel. With
many, the slider's values travel to the kernel and a picture comes back (live). Both show one picture of fixed size.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cmog_lib.classroom.explore import views
from cmog_lib.classroom.explore.frames import bundle, check_size, encode
from cmog_lib.classroom.explore.sliders import Control, control, restricted, sweep_positions
from cmog_lib.classroom.explore.studio import Drawn, Studio

MOST_SCRUBBED = 200
SWEEP = 25
SWEEP_SECONDS = 2.5
SIZE_WITHOUT_PICTURE = (720, 320)


@dataclass(frozen=True)
class Failure:
    """An exception that `draw` raised.

    Attributes:
        label: of the explorer.
        values: the slider values.
        error: the exception.
    """

    label: str
    values: dict[str, Any]
    error: Exception

    def __str__(self) -> str:
        return f"explorer {self.label!r} at {self.values}: {views.cause(self.error)}"


_made: list[weakref.ref[Explorer]] = []
_failures: list[Failure] = []


def made() -> list[Explorer]:
    """All explorers that are still alive, in the order of making; a test finds those of a notebook here."""
    return [explorer for reference in _made if (explorer := reference()) is not None]


def failures() -> list[Failure]:
    """All exceptions that any explorer's `draw` has raised so far, whether or not the reader has seen them."""
    return list(_failures)


def explore(draw: Callable[..., Any], /, *, label: str = "", live: bool | None = None, **sliders: Any) -> Explorer:
    """`draw(**values)` under one slider for each of its arguments.

    Args:
        draw: a pure function of the values to a matplotlib Figure, or to (figure, sentence), where the sentence
            describes the picture to readers who cannot see it. It may return a new figure each time or, faster, always
            the same one with changed artists, whether they were changed by a method or in place.
        label: the explorer's heading.
        live: whether the kernel draws each picture on demand. The default is to do so for more than 200 states.
        sliders: for each argument of `draw` a range, a list or array, (lowest, highest[, step]), a Slider or a Pad.

    Returns:
        An `Explorer`, which a cell shows as its last expression.

    Raises:
        ValueError: for an invalid slider, a draw that returns no figure or figures of two sizes, and more than 3 MB of
            pictures. An exception of `draw` is shown in place of its picture and kept in `failures()`; with
            CMOG_STRICT=1 in the environment it is raised at once.
    """
    if not callable(draw):
        raise ValueError(f"draw must be a function of the slider values, got {draw!r}")
    if not sliders:
        raise ValueError("sliders must hold at least one slider, as in explore(draw, d=range(1, 9)), got none")
    return Explorer(draw, [control(name, spec) for name, spec in sliders.items()], label, live)


class Explorer:
    """What `explore` returns; the last expression of a cell shows it."""

    def __init__(self, draw: Callable[..., Any], controls: Sequence[Control], label: str, live: bool | None) -> None:
        self.label, self.controls = label, tuple(controls)
        self.errors: list[Failure] = []
        self.live = self._count > MOST_SCRUBBED if live is None else live
        self._studio = Studio(draw, controls)
        self._start = tuple(each.start for each in controls)
        if self.live:
            self._first = self._take(self._start)
        else:
            self._bundle = bundle(self._studio, list(self._all_positions()), label)
            check_size(self._bundle, label)
            for k, positions in enumerate(self._all_positions()):
                if k in self._bundle.errors:
                    self._note(positions, self._bundle.errors[k])
        _made.append(weakref.ref(self))

    def states(self) -> Iterator[dict[str, Any]]:
        """The values of every state, as `draw` gets them; the last slider moves fastest."""
        return (self._values(positions) for positions in self._all_positions())

    def picture(self, **values: Any) -> bytes:
        """The picture at `values`, encoded as WebP.

        Args:
            values: by the name of the slider; a slider that is not named stays at its start.

        Raises:
            ValueError: if a slider does not have the value.
            Exception: the one that `draw` raised for this state.
        """
        unknown = set(values) - {each.name for each in self.controls}
        if unknown:
            raise ValueError(f"values must name sliders of this explorer, got {', '.join(sorted(unknown))}")
        at = [each.position(values[each.name]) if each.name in values else each.start for each in self.controls]
        if self.live:
            drawn = self._take(at)
            if drawn.pixels is None:
                assert drawn.error is not None
                raise drawn.error
            return encode(drawn.pixels)
        state = self._state_of(at)
        if state in self._bundle.errors:
            raise self._bundle.errors[state]
        return self._bundle.picture(state)

    def html(self) -> str:
        """The explorer as HTML that stands alone. For a live one it holds a sweep along the first slider."""
        if not self.live:
            return views.page(self._spec(), self._bundle, self._state_of(self._start))
        first, rest = self.controls[0], self.controls[1:]
        began = time.perf_counter()
        self._take(self._start)
        affordable = int(SWEEP_SECONDS / (time.perf_counter() - began + 1e-3))
        sweep = sweep_positions(first, min(SWEEP, max(3, affordable)))
        swept = bundle(self._studio, [(k, *self._start[1:]) for k in sweep], self.label)
        still = ", ".join(f"{each.label} = {each.texts[each.start]}" for each in rest)
        note = f"{len(sweep)} of {self._count} positions{still and ', at ' + still}; run the notebook to move freely."
        slider = restricted(first, sweep)
        return views.page(self._spec([slider]) | {"note": note}, swept, slider.start)

    @functools.cached_property
    def widget(self) -> views.Widget:
        """The explorer as a widget."""
        if not self.live:
            spec = self._spec() | views.bundle_spec(self._bundle) | {"live": False}
            widget = views.Widget(spec=spec, frames=b"".join([self._bundle.base, *self._bundle.frames]))
        else:
            reply, picture = self._reply(self._first)
            widget = views.live_widget(self._spec() | {"live": True, "first": reply}, picture, self._answer)
        widget.explorer = self  # A widget on the page lives on; so must what the registry finds.
        return widget

    def _repr_mimebundle_(self, **_: Any) -> Any:
        """For notebooks: the widget, and the HTML that is shown if no widget manager runs."""
        shown = self.widget._repr_mimebundle_()
        data, metadata = shown if isinstance(shown, tuple) else (shown, {})
        return {**(data or {}), "text/plain": repr(self), "text/html": self.html()}, metadata

    def __repr__(self) -> str:
        names = ", ".join(each.name for each in self.controls)
        return f"<explorer {self.label!r} of {names}: {self._count} states, {'live' if self.live else 'scrubbed'}>"

    @property
    def _count(self) -> int:
        return math.prod(len(each.values) for each in self.controls)

    def _all_positions(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*(range(len(each.values)) for each in self.controls))

    def _state_of(self, positions: Sequence[int]) -> int:
        return functools.reduce(
            lambda state, pair: state * len(pair[0].values) + pair[1], zip(self.controls, positions, strict=True), 0
        )

    def _values(self, positions: Sequence[int]) -> dict[str, Any]:
        return {each.name: each.values[k] for each, k in zip(self.controls, positions, strict=True)}

    def _spec(self, controls: Sequence[Control] | None = None) -> dict[str, Any]:
        size = self._studio.size or SIZE_WITHOUT_PICTURE
        return views.base_spec(self.label, size, controls or self.controls, self._studio.sentences_given)

    def _note(self, positions: Sequence[int], error: Exception) -> None:
        failure = Failure(self.label, self._values(positions), error)
        if not any(str(failure) == str(known) for known in self.errors):
            self.errors.append(failure)
            _failures.append(failure)
        if os.environ.get("CMOG_STRICT") == "1":
            raise error

    def _take(self, positions: Sequence[int]) -> Drawn:
        try:
            drawn = self._studio.take(positions)
        except ValueError as error:
            self._note(positions, error)
            raise
        if drawn.error is not None:
            self._note(positions, drawn.error)
        return drawn

    def _reply(self, drawn: Drawn) -> tuple[dict[str, Any], bytes]:
        if drawn.pixels is None:
            assert drawn.error is not None
            return {"sentence": drawn.sentence, "error": views.cause(drawn.error)}, b""
        return {"sentence": drawn.sentence}, encode(drawn.pixels)

    def _answer(self, positions: Sequence[int]) -> tuple[dict[str, Any], bytes]:
        """The answer to the browser's question. There is always one; otherwise its slider would wait for ever."""
        try:
            return self._reply(self._take(positions))
        except Exception as error:
            return {"sentence": "", "error": views.cause(error)}, b""
