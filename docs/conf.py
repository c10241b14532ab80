"""The documentation site, built by `make docs` from the pages of this folder."""

import inspect
import re

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

from musicbox_env import __version__
from musicbox_env.env import MusicSessionEnv

project = "MusicBox"
author = "The MusicBox authors"
project_copyright = f"2026, {author}"
release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"MusicBox {release}"
html_math_renderer = "mathml"

myst_heading_anchors = 4  # as GitHub names them
default_role = "code"  # one backtick in docstrings, as in Markdown
autodoc_member_order = "bysource"

nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True


def prepare(app, docname, source):
    """Fill the environment's page from its docstring; name mathematics as MyST does."""
    if docname == "manual":
        source[0] += inspect.getdoc(MusicSessionEnv)
    text = source[0].replace("```math\n", "```{math}\n")
    source[0] = re.sub(r"\$`([^`]+)`\$", r"{math}`\1`", text)


def write_mathml(as_block):
    """A writer of equations that every browser draws without a script from elsewhere."""

    def visit(translator, node):
        translator.body.append(tex2mathml(node.astext(), as_block=as_block))
        raise SkipNode

    return visit


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", prepare)
    app.add_html_math_renderer("mathml", (write_mathml(False), None), (write_mathml(True), None))
