"""Write mathematics as MathML, which browsers show without any script."""

from docutils.writers.html5_polyglot import HTMLTranslator


def visit(self, node):
    """Write the formula of a math node; a mistake in it is a warning with its place."""
    self.math_output, self.math_options = "mathml", ""
    start = len(self.body)
    try:
        HTMLTranslator.visit_math(self, node)
    finally:
        # In TeX, the bars of a norm stretch after \left and \right alone. A browser
        # stretches all, and one with an exponent to another height than its partner.
        if r"\left" not in node.astext():
            formula = "".join(self.body[start:])
            flat = '<mo stretchy="false">‖</mo>'
            self.body[start:] = [formula.replace("<mo>‖</mo>", flat)]


RENDERERS = (visit, None), (visit, None)  # inline, and in a block
