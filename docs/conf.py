"""Sphinx's settings. All that a page asks for, formulas, fonts and scripts, comes from the site itself."""

import importlib.metadata
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from book import docstrings  # noqa: E402
from book.course import address  # noqa: E402

project = "Continuous mixtures of Gaussians"
author = ""
release = importlib.metadata.version("cmog_lib")
language = "en"  # of en_GB Sphinx lacks the plural, and its search breaks off
repository = [{"name": "Repository", "url": address(), "icon": "fa-brands fa-github"}] if address() else []

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx.ext.mathjax"]
extensions += ["sphinx.ext.githubpages"]
templates_path = ["_templates"]
suppress_warnings = ["mystnb.mime_priority"]

# Lectures come executed; an explorer is shown as the HTML that it brings along, which needs no kernel.
nb_execution_mode = "off"
nb_mime_priority_overrides = [("html", "text/html", 0)]
nb_ipywidgets_js = {}
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]  # a list of fields, not an entry for each
add_module_names = False
python_display_short_literal_types = True
viewcode_line_numbers = False

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_show_sourcelink = False
html_copy_source = False
html_use_index = False
PLAIN = ("index", "notation", "formulas", "glossary", "references", "search")
html_sidebars = {page: [] for page in PLAIN}
html_sidebars |= {"lectures/*": ["lectures.html", "page-toc"], "library/*": ["sidebar-nav-bs"], "_modules/**": []}
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "header_links_before_dropdown": 6,
    "icon_links": repository,
    "secondary_sidebar_items": {"library/*": ["page-toc"], "references": ["page-toc"], "notation": ["page-toc"]},
    "footer_start": [],
    "footer_end": [],
    "show_toc_level": 2,
    "search_bar_text": "Search the book",
    "back_to_top_button": False,
}

# MathJax 3.2.2 as the package sphinx-mathjax-offline has it: the component and what it may ask for.
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"enableMenu": False}}
MATHJAX = Path(
    str(importlib.metadata.distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax"))
)
NEEDED = ["tex-chtml.js", "input/tex", "output/chtml/fonts/woff-v2"]


def copy_mathjax(app, exception):
    """Into the site, once."""
    import shutil

    for name in NEEDED:
        source, target = MATHJAX / name, Path(app.outdir) / "_static" / "mathjax" / name
        if not target.exists() and exception is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


def setup(app):
    """Docstrings go through the house's own reader, then through napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", docstrings.process, priority=400)
    app.connect("build-finished", copy_mathjax)
