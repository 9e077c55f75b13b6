"""How the documentation is built: `make docs`, offline, warnings are errors."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from docutils.nodes import Element, document
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

import diffractory

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "Diffractory"
author = "The Diffractory developers"
copyright = author
version = release = diffractory.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "command_reference",
    "mathml",
]
exclude_patterns = ["_build", "_extensions", "decisions/README.md", "**.ipynb_checkpoints"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Notebooks come executed; the site shows what they hold. Widgets would be fetched from a server.
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}

# Types stand in the docstrings, with shapes and units; annotations would only repeat them.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__init__, __new__"}
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False

# Blocks without a language are commands.
highlight_language = "text"
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "pydata_sphinx_theme"
html_title = "Diffractory"
html_static_path = ["_static"]
html_css_files = ["diffractory.css"]
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "Diffractory", "alt_text": "Diffractory"},
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "back_to_top_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "start": [], "physics": []}

#: A bar that is not escaped already.
_BAR = re.compile(r"(?<!\\)\|")
#: Pages of the repository outside the documentation -> where the site has them.
_PAGES = {
    "README": "start",
    "CHANGELOG": "project/changelog",
    "CONTRIBUTING": "project/contributing",
    "cluster/README": "how-to/supercomputer",
    "docs/decisions/README": "decisions/index",
}
_NOTEBOOK_PAGE = """\
# Notebooks

Each is one user's story, shown as it was executed, from the folder `notebooks` of the source.

"""


def copy_notebooks(_: Sphinx, __: Config) -> None:
    """Bring the repository's notebooks, which lie outside the documentation, into it, and list them."""
    target = HERE / "notebooks"
    target.mkdir(exist_ok=True)
    found = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for path in set(target.glob("*.ipynb")) - {target / notebook.name for notebook in found}:
        path.unlink()
    names = "\n".join(path.stem for path in found)
    listed = (
        f"```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n" if found else "This copy of the source has none.\n"
    )
    contents = {target / path.name: path.read_bytes() for path in found}
    contents[target / "index.md"] = (_NOTEBOOK_PAGE + listed).encode()
    for path, content in contents.items():
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)


def as_restructured_text(_: Sphinx, what: str, __: str, ___: object, ____: object, lines: list[str]) -> None:
    """Let docstrings say |g|, which is a substitution elsewhere, and use colons in those of properties."""
    for i, line in enumerate(lines):
        parts = re.split(r"(``.*?``)", line)
        lines[i] = "".join(part if part.startswith("``") else _BAR.sub(r"\|", part) for part in parts)
    if what in {"attribute", "data", "property"}:
        # Napoleon takes what stands before a colon in the first line for a type.
        lines[:1] = lines[0].split(" ", 1)


def skip_generated(_: Sphinx, __: str, name: str, ___: object, skip: bool, ____: object) -> bool | None:
    """Leave out what scikit-learn adds to every estimator."""
    return True if re.fullmatch(r"set_\w+_request|get_metadata_routing", name) else None


def lead_home(_: Sphinx, doctree: document) -> None:
    """Lead links to the repository's own pages, which work where people read the files, to the site's."""
    for node in doctree.findall(pending_xref):
        if node.get("refdomain") == "doc":
            path = os.path.relpath(HERE / node["reftarget"], ROOT)
            node["reftarget"] = _PAGES.get(path, node["reftarget"])


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Element | None:
    """Lead names to where the reference has them; others are text in docstrings, and faults elsewhere."""
    if node.get("refdomain") != "py":
        return None
    module, _, name = node["reftarget"].rpartition(".")
    if name in diffractory.__all__ and module in {
        "",
        getattr(getattr(diffractory, name), "__module__", None),
    }:
        target, domain = f"diffractory.{name}", env.get_domain("py")
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, text)
    return text if node["refdoc"].startswith("reference/api/") else None


def setup(app: Sphinx) -> None:
    """Connect what is said above."""
    app.connect("config-inited", copy_notebooks)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
    app.connect("autodoc-skip-member", skip_generated)
    app.connect("doctree-read", lead_home)
    app.connect("missing-reference", resolve)
