"""`make book` and `make slides`: runs the lectures, builds pages and slides, and at the end names what failed."""

from __future__ import annotations

import sys

from book import build, execute, slides


def main(only_slides: bool) -> int:
    """Builds everything, even if a lecture fails. Returns 0, 1 after a failure, or 130 after Ctrl-C."""
    if stopped := execute.run_all():
        return stopped
    made = 0 if only_slides else build.main()
    slides.main()
    return max(execute.report(), int(made != 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["slides"]))
