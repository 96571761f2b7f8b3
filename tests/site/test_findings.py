"""What a page asks and finds, as the documents around it repeat it."""

import re

import pytest

import copies
from builds import build
from gallery.show import findings, preview
from helpers import PAGES, ROOT

DOCSTRING = """
A title
=======
There are rules. Which of :func:`two *rules* <optax.sgd>` is
better [1]_, and why? We try both.

- a rule

.. admonition:: In short
   :class: finding

   - **The first.** It has ``x=1`` and :math:`x^2`,
     as `others <https://a.b>`__ say.

   - **The second.** It has not.

More text.
"""


def test_summary_of_a_page():
    page = findings.summarize(DOCSTRING)
    assert page.title == "A title"
    expected = "There are rules. Which of two *rules* is better, and why?"
    assert page.question == expected
    expected = "**The first.** It has ``x=1`` and :math:`x^2`, as others say."
    assert page.finding == expected
    expected = "**The first.** It has `x=1` and $x^2$, as others say."
    assert findings.markdown(page.finding) == expected
    assert (
        findings.plain(page.finding) == "The first. It has x=1 and x^2, as others say."
    )


@pytest.mark.parametrize(
    "docstring, question",
    [
        ("A\n=\n", ""),
        ("A\n=\n\nIs it?\n", "Is it?"),
        ("A\n=\nIt is. No question.\n\nIs it?\n", "It is."),
    ],
)
def test_summary_of_a_page_that_has_less(docstring, question):
    assert findings.summarize(docstring) == findings.Summary("A", question, "")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("One. Two, e.g. three. Four:", "One. Two, e.g. three."),
        (f"One. {'Long ' * 50}. Three.", "One."),
        ("Only one sentence:", "Only one sentence:"),
        ("", ""),
    ],
)
def test_descriptions_end_with_a_sentence(text, expected):
    assert preview.shortened(text) == expected


README = """
| page | question | answer |
| --- | --- | --- |
| [`plot_b.py`](b) | Is it? | Old `|`. |
| [`plot_a.py`](a) | Is it? | Old. |
"""


def test_answers_are_copied_into_readme(tmp_path):
    scripts = [tmp_path / "plot_a.py", tmp_path / "plot_b.py"]
    for script in scripts:
        script.write_text(f'r"""{DOCSTRING}"""\n')
    answer = findings.markdown(findings.read(scripts[0]).finding)
    text = copies.with_answers(README, scripts)
    assert text == re.sub(r"Old.*\. ", lambda _: f"{answer} ", README)
    assert copies.with_answers(text, scripts) == text
    scripts[1].write_text('"""\nA title\n=======\nIs it?\n"""\n')
    with pytest.raises(ValueError, match=r"^plot_b.py needs an admonition In short"):
        copies.with_answers(text, scripts)


def test_readme_has_the_answers_of_the_pages():
    text = (ROOT / "README.md").read_text()
    assert copies.with_answers(text, PAGES) == text, "make copies"


def test_the_home_page_follows_what_a_page_finds(copy, write_page):
    for answer in ("one.", "another."):
        text = f"Is it?\n\n.. admonition:: In short\n\n   - **It** is {answer}\n"
        write_page(text=text)
        run = build(copy)
        assert run.returncode == 0, run.stderr
        home = (copy / "html/index.html").read_text()
        assert f"<strong>It</strong> is {answer}" in home
