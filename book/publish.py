"""`make publish URL=…` writes the project's public address wherever one is needed; with an empty URL it takes it out.

Until the project has an address, no file names one. If a file named an address that is not ours, its owner could run
code on the readers' machines.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

GITHUB = re.compile(r"https://github\.com/[A-Za-z0-9][A-Za-z0-9-]*/(?!\.+$)[A-Za-z0-9._-]+(?<!\.git)")
ROOT = Path(__file__).parent.parent
COLAB = """\
# On Colab only: install the library. Everywhere else this cell does nothing.
import sys

if "google.colab" in sys.modules:
    %pip install -q "cmog_lib[lectures] @ git+{url}"\
"""


def changed(root: Path, url: str) -> dict[Path, str]:
    """Returns the new text of each file that this address changes.

    Args:
        root: the project's folder.
        url: https://github.com/OWNER/NAME, or empty, to remove the address.

    Raises:
        ValueError: if url is another address. Colab and Binder open lectures from GitHub.
    """
    if url and not GITHUB.fullmatch(url):
        raise ValueError(f"URL must be https://github.com/OWNER/NAME or empty, got {url!r}")
    files = {root / "pyproject.toml": in_pyproject, root / "README.md": in_readme}
    files |= dict.fromkeys(sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")), in_lecture)
    before = {path: path.read_text(encoding="utf-8") for path in files}
    after = {path: files[path](text, url) for path, text in before.items()}
    return {path: text for path, text in after.items() if text != before[path]}


def in_pyproject(text: str, url: str) -> str:
    """Writes the address into `[project.urls]`, from which the book reads it, or removes it."""
    text = re.sub(r"^\[project\.urls\]\n(?:.+\n)+\n", "", text, flags=re.M)
    after = "[tool.setuptools.packages.find]\n"
    urls = (
        f'[project.urls]\n# Written by `make publish`, here and wherever else it is needed.\nRepository = "{url}"\n\n'
    )
    return text.replace(after, urls + after, 1) if url else text


def in_readme(text: str, url: str) -> str:
    """Adds or removes the `git clone` line and the rows for Colab and Binder."""
    text = re.sub(r"^(?:git clone |\| Colab \||\| Binder \|).*\n", "", text, flags=re.M)
    if not url:
        return text
    slug = url.removeprefix("https://github.com/")
    command = "```sh\nmake lab\n```\n"
    text = text.replace(command, command.replace("make", f"git clone {url} && cd {slug.split('/')[1]}\nmake", 1), 1)
    rows = (
        f"| Colab | [choose a lecture](https://colab.research.google.com/github/{slug}); its first cell installs the"
        " library on Colab and does nothing elsewhere |\n"
        f"| Binder | [start the lectures](https://mybinder.org/v2/gh/{slug}/HEAD?urlpath=lab/tree/notebooks); the first"
        " start builds an image, which takes minutes |\n"
    )
    return re.sub(r"^\| NVIDIA GPU.*\n", lambda row: row[0] + rows, text, count=1, flags=re.M)


def in_lecture(text: str, url: str) -> str:
    """Adds or removes the first cell, which installs the library on Colab."""
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if "colab" not in cell["metadata"].get("tags", [])]
    first: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": "cell-01",
            "metadata": {"tags": ["colab"]},
            "outputs": [],
            "source": COLAB.format(url=url).splitlines(keepends=True),
        }
    ]
    notebook["cells"] = (first if url else []) + cells
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main(url: str, root: Path = ROOT) -> int:
    """Writes the files and names them. Returns 0, or 1 for an address that it refuses."""
    try:
        files = changed(root, url)
    except ValueError as error:
        print(f"publish: {error}", file=sys.stderr)
        return 1
    for path, text in files.items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"publish: {path.relative_to(root)}")
    print(f"publish: the project's address is {url}" if url else "publish: no file names an address")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
