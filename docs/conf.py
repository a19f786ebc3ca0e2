"""The documentation: `sphinx-build -W docs docs/_build`; with `-D plot_gallery=0` no picture script runs."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import generated
from sphinx.util.inspect import TypeAliasForwardRef

import xpnet

project, author, copyright = "xpnet", "the xpnet contributors", "the xpnet contributors"
version = release = xpnet.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["_build", "_generated"]
nitpicky = True

smartquotes = False  # two hyphens are an option
suppress_warnings = ["myst.header"]  # the sections of a page may be of any level
myst_enable_extensions = ["html_image"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "__new__"}  # of named tuples, which says nothing
autodoc_preserve_defaults = True  # str, not <class 'str'>
autodoc_class_signature = "separated"  # a class and what it takes on lines of their own
add_module_names = False
python_use_unqualified_type_names = True
# types of other projects, and those that annotations name but the API page does not have, are not linked
nitpick_ignore_regex = [("py:class", r"(?!xpnet\.).*|xpnet\.(parameters\.Parameters|differences\.Change)")]
TypeAliasForwardRef.__repr__ = lambda alias: alias.name  # in a union, too, an alias is shown by its name alone
autodoc_type_aliases = {name: name for name in ("Array", "FilePath", "Function", "Map", "Seed")}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/ch\d",
    "ignore_pattern": r"(^|/)(?!ch\d)[^/]*\.py$",
    "write_computation_times": False,
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "reference_url": {"xpnet": None},
    "doc_module": ("xpnet",),
    "nested_sections": False,
    "abort_on_example_error": True,
}

napoleon_use_ivar = True  # fields of a named tuple as one list

html_theme = "furo"
html_title = f"xpnet {release}"
html_static_path = ["_static"]
html_css_files = ["xpnet.css"]
pygments_dark_style = "github-dark"

SPECIAL = re.compile(r"(?<![\w`])(``.+?``)|([|*_`\\])")


def as_plain_text(app, what, name, item, options, lines):
    """Leave to a docstring its literals and lists; what else reStructuredText would see is text: |a − n|, *, x_."""
    lines[:] = [
        line if line.lstrip().startswith((">>>", "...")) else SPECIAL.sub(lambda m: m[1] or "\\" + m[2], line)
        for line in lines
    ]


PAGES = {"../README.md": "index.md", "../examples/README.md": "path.md", "../CHANGELOG.md": "changelog.md"}


def as_pages(app, name, source):
    """Lead links to what lies outside of docs/ to the pages that are made of it."""
    for file, page in PAGES.items():
        source[0] = source[0].replace(f"]({file})", f"]({page})")


def without_fields(app, what, name, item, skip, options):
    """Leave out the fields of a named tuple, which its docstring has, and Python calls "Alias for field number 0"."""
    return True if type(item).__name__ == "_tuplegetter" else None


def setup(app):
    """Connect what only this project needs."""
    generated.write()
    app.connect("source-read", as_pages)
    app.connect("autodoc-skip-member", without_fields)
    app.connect("autodoc-process-docstring", as_plain_text, priority=400)
