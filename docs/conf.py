"""Settings of the documentation site: `make docs` builds it into docs/_build/html."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from rlcar import __version__  # noqa: E402  after the path is set

project = "rlcar"
author = "the rlcar authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "docs._generate.extension"]
exclude_patterns = ["_build", "_generate", "examples"]
smartquotes = False  # `--` in prose is part of an option
highlight_language = "text"
templates_path: list[str] = []

# Markdown: headings are anchors, and a link to one that does not exist is an error.
myst_enable_extensions = ["attrs_block", "attrs_inline", "deflist"]
myst_heading_anchors = 4

# Docstrings write code in single backticks.
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = "rlcar"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
