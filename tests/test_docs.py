"""The documentation: its code runs and prints what it quotes, links lead somewhere, translations keep the code."""

import re
from pathlib import Path

import pytest
from running import run_python

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MADE = {"gallery/index.rst", "path.md", "changelog.md", "api.rst"}  # while the documentation is built
WRITTEN = sorted(page for page in DOCS.glob("*.md") if page.name not in MADE)
PAGES = [ROOT / "README.md", ROOT / "examples/README.md", *WRITTEN]
PYTHON = r"^```python\n(.*?)^```$"
INDENTED = r"(?:^    [^\n]*\n|^\n(?=    ))+"
VARIES = re.compile(r"[\d.]+ m?s\b|(?<![\d.])\d(?:\.\d)?e-\d\d\b")  # times, and sizes of round-off


def blocks(page):
    """Return the blocks of a page: Python, and the indented ones: commands, and what is printed."""
    text = page.read_text(encoding="utf-8")
    return [one[0].strip("\n") for one in re.finditer(rf"(?ms){PYTHON}|{INDENTED}", text)]


def assert_quoted(quoted, printed):
    """Compare what a page quotes with what is printed; … stands for any lines."""
    quoted = "\n".join(line[4:] for line in quoted.splitlines())
    parts = [VARIES.sub("…", part) for part in re.split(r"(?m)^…\n?", quoted)]
    pattern = "(?s)" + ".*?".join(re.escape(part) for part in parts)
    printed = VARIES.sub("…", printed.strip("\n"))
    assert re.fullmatch(pattern, printed), f"{printed}\n\nis printed, but this is quoted:\n\n{quoted}"


@pytest.mark.parametrize("name", ["README.md", "docs/own_layer.md", "docs/numerical_gradients.md"])
def test_the_code_of_a_page_runs_from_top_to_bottom_and_prints_what_is_quoted(name, capsys):
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(rf"(?ms){PYTHON}(?:\n\n({INDENTED}))?", text)
    assert found
    for library in re.findall(r"^import (torch)", "".join(code for code, _ in found), re.MULTILINE):
        pytest.importorskip(library)
    names = {"__name__": name}
    for code, quoted in found:
        exec(compile(code, name, "exec"), names)
        printed = capsys.readouterr().out
        if quoted:
            assert_quoted(quoted.rstrip("\n"), printed)


def test_the_command_of_the_readme_prints_the_report_that_is_quoted():
    (quoted,) = [block for block in blocks(ROOT / "README.md") if block.startswith("    $ ")]
    command, _, report = quoted.partition("\n")
    assert max(map(len, report.splitlines())) <= 104  # 100 columns
    _, script, *arguments = command.split()[1:]
    run = run_python(ROOT / script, *arguments, "--backend", "numpy")
    assert run.returncode == 1, run.stderr
    assert_quoted(report, run.stdout)


LINK = r"\]\((?!https?:)([^)#]+)[^)]*\)|`[^`<]+ <([^>]+)>`|<img src=\"([^\"]+)\""


def links(page):
    """Return the links of a page to others of the repository, pictures included, in order."""
    return ["".join(target) for target in re.findall(LINK, page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_and_into_the_repository_lead_somewhere(page):
    for target in links(page):
        made = target in MADE or target.startswith("_generated/")
        assert made or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_elsewhere_are_whole(page):
    for target in re.findall(r"https?:[^\s)>\"]*", page.read_text(encoding="utf-8")):
        assert re.fullmatch(r"https://[\w.-]+\.[a-z]+(/[\w./~%#?=&+-]*)?", target), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_sections_that_are_linked_to_are_there(page):
    for target, section in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        titles = [re.sub(r"[^\w -]", "", line.lower()).strip() for line in re.findall(r"(?m)^#+ (.*)", text)]
        assert section in [title.replace(" ", "-") for title in titles], section


def test_pages_name_no_module_that_is_gone():
    for page in PAGES:
        for name in re.findall(r"`((?:xpnet|examples|tests)/[\w/]+\.py)`", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_every_page_has_its_place_in_the_table_of_contents():
    contents = re.findall(r"(?m)^(?:.* <)?([\w.]+)>?$", (DOCS / "index.md").read_text(encoding="utf-8"))
    for page in WRITTEN:
        assert page.stem in (*contents, "index"), f"{page.name} is in no toctree of docs/index.md"


@pytest.mark.parametrize("language", ["zh", "ja"])
class TestTranslationsOfTheReadme:
    def test_commands_and_code_are_those_of_the_english_one(self, language):
        assert blocks(DOCS / f"README.{language}.md") == blocks(ROOT / "README.md")

    def test_links_and_pictures_are_those_of_the_english_one(self, language):
        page = DOCS / f"README.{language}.md"
        there, here = ([(one.parent / target).resolve() for target in links(one)] for one in (page, ROOT / "README.md"))
        languages = {ROOT / "README.md", *DOCS.glob("README.*.md")}
        assert sorted(set(there) - languages) == sorted(set(here) - languages)
        assert len(there) == len(here)

    def test_sections_are_as_many(self, language):
        texts = [one.read_text(encoding="utf-8") for one in (DOCS / f"README.{language}.md", ROOT / "README.md")]
        there, here = ([re.match("#+", line)[0] for line in re.findall(r"(?m)^#+ .*", text)] for text in texts)
        assert there == here

    def test_each_language_links_to_the_others(self, language):
        for page in (ROOT / "README.md", *DOCS.glob("README.*.md")):
            others = {(page.parent / target).resolve() for target in links(page) if "README" in target}
            assert others >= {ROOT / "README.md", *DOCS.glob("README.*.md")} - {page}
