"""The site: Sphinx with furo, from the Markdown in this folder and the library's docstrings.

pip install -e ".[docs]" && sphinx-build -W docs runs/site
"""

import os
import sys
from importlib.metadata import version as installed
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "linearize"
author = "the linearize authors"
copyright = f"{author}, Apache-2.0"
release = version = installed("linearize")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "gallery",
    "links",
    "reference",
    "tutorials",
]
exclude_patterns = ["conf.py", "extensions", "figures"]
suppress_warnings = ["myst.header"]  # pages of results go from H1 to H3

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_use_rtype = False
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "linearize"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "source_repository": "https://github.com/linearize/linearize/",
    "source_branch": "main",
    "source_directory": "docs/",
}
