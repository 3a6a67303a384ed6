"""Links of the documentation, and paths that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SITE = "https://github.com/tokenbucket/tokenbucket/blob/main/"
PAGES = sorted(
    path.relative_to(ROOT)
    for glob in ("*.md", "docs/**/*.md", "charts/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(glob)
)
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
ARCHITECTURE = ROOT / "docs" / "contributing" / "architecture.md"


def prose(page: Path) -> str:
    return CODE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page, as GitHub and MkDocs compute them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken(page: Path, link: str) -> bool:
    file, _, anchor = link.removeprefix(SITE).partition("#")
    folder = ROOT if link.startswith(SITE) else page.parent
    target = folder / file if file else page
    return not target.exists() or (target.suffix == ".md" and bool(anchor) and anchor not in anchors(target))


@pytest.mark.parametrize("name", PAGES, ids=str)
def test_each_link_leads_to_a_page_and_a_heading(name: Path) -> None:
    """Find dead links before a reader does."""
    page = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    own = [link for link in links if link.startswith(SITE) or "://" not in link]
    assert [link for link in own if broken(page, link)] == []


def test_each_file_that_architecture_names_exists() -> None:
    """Show newcomers the place of each decision."""
    named = re.findall(r"`([\w/]+\.(?:py|h|c))`", ARCHITECTURE.read_text())
    places = (ROOT, ROOT / "operator" / "tokenbucket", ROOT / "operator" / "bpf")
    assert named
    assert [name for name in named if not any((place / name).is_file() for place in places)] == []


def test_the_layers_in_architecture_are_the_packages_of_the_product() -> None:
    """Find a package that the page does not name, and one that is gone."""
    folder = ROOT / "operator" / "tokenbucket"
    block = ARCHITECTURE.read_text().partition("enforces this order:")[2].split("```")[1]
    packages = [*folder.glob("[a-z]*/__init__.py"), *(folder / "core").glob("[a-z]*/__init__.py")]
    modules = [*(path.parent for path in packages), *folder.glob("[a-z]*.py")]
    names = {".".join(path.relative_to(folder).with_suffix("").parts) for path in modules}
    assert set(re.findall(r"[a-z][a-z.]+", block.removeprefix("text"))) == names - {"core"}


def test_each_test_that_the_documentation_names_exists() -> None:
    """Keep the names in tables and proofs current."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    known = {file.stem for file in files}.union(
        *(re.findall(r"def (test_\w+)", file.read_text()) for file in files)
    )
    named = {name for page in PAGES for name in re.findall(r"\btest_\w+", prose(ROOT / page))}
    assert named
    assert named - known == set()


def test_each_decision_record_is_in_the_list_under_its_title() -> None:
    """Keep the list current if titles change."""
    folder = ROOT / "docs" / "contributing" / "adr"
    titles = {
        file.name: file.read_text().splitlines()[0].partition(". ")[2] for file in folder.glob("00*.md")
    }
    listed = re.findall(r"^\d+\. \[(.+)\]\((.+)\)$", (folder / "index.md").read_text(), re.MULTILINE)
    assert {name: title for title, name in listed} == {
        name: title for name, title in titles.items() if name != "0000-template.md"
    }


def test_the_overview_links_each_page_for_users() -> None:
    """The navigation lists pages of the migration, of benchmarks and for contributors elsewhere."""
    overview = (ROOT / "docs/index.md").read_text()
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2].partition("  - Contributing:")[0]
    pages = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    elsewhere = ("index.md", "migration/", "benchmarks/")
    assert "reference/live.md" in pages
    assert [page for page in pages if not page.startswith(elsewhere) and f"({page})" not in overview] == []


def test_each_generated_page_is_in_the_list_of_generated_files() -> None:
    """The recipe of ``make generate`` names the scripts."""
    recipe = (ROOT / "Makefile").read_text().partition("\ngenerate:")[2].partition("\nverify:")[0]
    scripts = {name.replace(".", "/") for name in re.findall(r"hack[/.]\w+", recipe)}
    page = (ROOT / "docs/contributing/development.md").read_text()
    assert scripts
    assert [name for name in sorted(scripts) if f"`{name}." not in page] == []
