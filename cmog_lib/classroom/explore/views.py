"""The two forms of an explorer: an anywidget if a widget manager runs, and HTML that stands alone."""

from __future__ import annotations

import base64
import html
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from cmog_lib.classroom.explore.frames import Bundle
from cmog_lib.classroom.explore.sliders import Control

_JS, _CSS = (Path(__file__).with_name(f"explore.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))

# A small message waits 40 ms at the server for the receipt of the one before it (Nagle's algorithm against delayed
# acknowledgements; JupyterLab on the loopback: 50 ms there and back, 13 ms with 100 KB). Beyond one segment of the
# loopback, 64 KB, nothing waits; a browser on this machine asks for that.
PADDED = 100_000


class Widget(anywidget.AnyWidget):
    """What the browser gets: `spec` and the encoded frames, one after the other; if live, only the first of them."""

    _esm = _JS
    _css = _CSS
    spec = traitlets.Dict().tag(sync=True)
    frames = traitlets.Bytes().tag(sync=True)


def cause(error: Exception) -> str:
    """One line that says what went wrong."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def base_spec(label: str, size: tuple[int, int], controls: Sequence[Control], sentences_given: bool) -> dict[str, Any]:
    """The part of a spec that both forms and both modes share."""
    return {
        "label": label,
        "size": list(size),
        "controls": [_control_spec(control) for control in controls],
        "sentencesGiven": sentences_given,
    }


def bundle_spec(made: Bundle) -> dict[str, Any]:
    """The part of a spec that describes its frames."""
    return {
        "frameOf": made.frame_of,
        "sentences": made.sentences,
        "errors": {str(k): cause(error) for k, error in made.errors.items()},
        "lengths": [len(part) for part in (made.base, *made.frames)],
    }


def live_widget(spec: dict[str, Any], frame: bytes, answer: Callable[[Any], tuple[dict[str, Any], bytes]]) -> Widget:
    """A widget that asks `answer(positions)` for every picture but the first."""
    widget = Widget(spec=spec, frames=frame)

    def hear(_: Any, message: Any, __: Any) -> None:
        reply, picture = answer(message["positions"])
        reply |= {"view": message["view"], "question": message["question"]}
        padding = [bytes(max(0, PADDED - len(picture)))] if message.get("near") else []
        widget.send(reply, [picture, *padding])

    widget.on_msg(hear)
    return widget


def page(spec: dict[str, Any], made: Bundle, start: int) -> str:
    """`spec` and its pictures as HTML that stands alone: the first one at once, sliders as soon as scripts run."""
    name = f"cmog-{uuid.uuid4().hex}"
    spec = spec | bundle_spec(made)
    sentence = html.escape(made.sentences[start])
    first = f"<p>{sentence}</p>"
    if start not in made.errors:
        first = f'<img src="{_data_url(made.picture(start))}" alt="{sentence}" style="max-width: 100%">'
    urls = [_data_url(part) for part in (made.base, *made.frames)]
    return (
        f'<style>{_CSS}</style><div id="{name}" class="cmog-host"><p>{html.escape(spec["label"])}</p>{first}</div>'
        f'<script type="module">{_JS}\nconst spec = {_script_safe(spec)};\n'
        f'mount(document.getElementById("{name}"), spec, framesSource(spec, {_script_safe(urls)}));</script>'
    )


def _data_url(picture: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(picture).decode()}"


def _script_safe(data: Any) -> str:
    # A "<" could end the script element from inside a string.
    return json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")


def _control_spec(control: Control) -> dict[str, Any]:
    spec: dict[str, Any] = {"label": control.label, "count": len(control.values), "start": control.start}
    if control.axes is None:
        return spec | {"texts": list(control.texts)}
    return spec | {
        "axes": [list(axis) for axis in control.axes],
        "names": list(control.names),
        "cross": list(control.cross),
    }
