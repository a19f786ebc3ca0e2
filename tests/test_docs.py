"""The documentation: its code runs, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("name", ["own_layer.md", "numerical_gradients.md"])
def test_the_code_of_a_page_runs_from_top_to_bottom(name, capsys):
    text = (DOCS / name).read_text(encoding="utf-8")
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```$", text)
    assert blocks
    exec(compile("\n".join(blocks), name, "exec"), {"__name__": name})
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_and_into_the_repository_lead_somewhere(page):
    made = {"gallery/index.rst", "path.md", "api.rst"}  # while the documentation is built
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)|`[^`<]+ <([^>]+)>`", page.read_text(encoding="utf-8")):
        target = "".join(target)
        assert target in made or (page.parent / target).exists(), target


def test_pages_name_no_module_that_is_gone():
    root = DOCS.parent
    for page in PAGES:
        for name in re.findall(r"`((?:xpnet|examples|tests)/[\w/]+\.py)`", page.read_text(encoding="utf-8")):
            assert (root / name).exists(), f"{page.name} names {name}"
