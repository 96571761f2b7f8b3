"""Write mathematics as MathML, which browsers show without any script."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml


def visit(self, node, as_block):
    """Write the formula of a math node."""
    self.body.append(tex2mathml(node.astext(), as_block=as_block))
    raise nodes.SkipNode


def setup(app):
    """Offer the renderer ``mathml``."""
    inline = (lambda self, node: visit(self, node, as_block=False)), None
    block = (lambda self, node: visit(self, node, as_block=True)), None
    app.add_html_math_renderer("mathml", inline, block)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
