"""The front door: the chapters with question and cost, how to cite, the repository's address.

The address is one setting, `repository_url` in conf.py or REPOSITORY_URL in the environment. From
it come the launch buttons, the link to the repository and the commands of the first page; where it
is not set, the buttons are left out and the commands say `<REPOSITORY_URL>`.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from irlbook.authoring.notebooks import read, title
from irlbook.authoring.repository import chapters

ROOT = Path(__file__).parents[2]
PARTS: tuple[tuple[str, range], ...] = (
    ("Start", range(0, 1)),
    ("Part I · Decisions", range(1, 4)),
    ("Part II · Inverse reinforcement learning", range(4, 10)),
    ("Part III · Language models", range(10, 16)),
    ("Part IV · Frontiers", range(16, 23)),
    ("Part V · The real thing", range(23, 24)),
)
_README = re.compile(r"\]\(((?:\.\./)?)README\.md(?:#[^)]*)?\)")
PLACEHOLDER = "<REPOSITORY_URL>"
logger = logging.getLogger(__name__)


def part_of(chapter: int) -> str:
    return next(name for name, numbers in PARTS if chapter in numbers)


class ChapterTable(SphinxDirective):
    """`{chapters}`: a table of the chapters by part, from the metadata that each carries."""

    def run(self) -> list[nodes.Node]:
        found: dict[str, list[nodes.row]] = {}
        for path in chapters(ROOT):
            self.env.note_dependency(str(path))
            notebook = read(path)
            book = notebook.metadata.get("irlbook", {})
            cost = book.get("cost")
            below = f"{_time(cost['seconds_below'])}, {cost['megabytes_below']} MB" if cost else "—"
            page = f"chapters/{path.stem}"
            link = nodes.reference("", title(notebook), internal=True, refdoc=page)
            cells = [nodes.paragraph("", "", link)]
            cells += [nodes.paragraph("", text) for text in (book.get("question", ""), below)]
            row = nodes.row("", *(nodes.entry("", cell) for cell in cells))
            found.setdefault(part_of(int(path.stem[:2])), []).append(row)
        tables: list[nodes.Node] = []
        for part, rows in found.items():
            tables += [nodes.rubric("", part), _table(("chapter", "question", "under"), rows)]
        return tables


def _time(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds / 60:g} min"


def _table(head: tuple[str, ...], rows: list[nodes.row]) -> nodes.table:
    group = nodes.tgroup("", cols=len(head))
    group += [nodes.colspec(colwidth=width) for width in (40, 45, 15)]
    titles = [nodes.entry("", nodes.paragraph("", name)) for name in head]
    group += nodes.thead("", nodes.row("", *titles))
    group += nodes.tbody("", *rows)
    return nodes.table("", group, classes=["chapters"])


def resolve_chapters(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """The links of the table, once it is known where the pages lie."""
    for link in list(doctree.findall(nodes.reference)):
        if page := link.get("refdoc"):
            text = nodes.inline("", link.astext())
            link.replace_self(make_refnode(app.builder, docname, page, "", text))


class Citation(SphinxDirective):
    """`{citation}`: how to cite the book, in BibTeX, from CITATION.cff."""

    def run(self) -> list[nodes.Node]:
        file = ROOT / "CITATION.cff"
        self.env.note_dependency(str(file))
        text = file.read_text(encoding="utf-8")
        field = dict(re.findall(r'^(\w+): "?([^"\n]+)"?$', text, re.MULTILINE))
        author = re.search(r'^authors:\n  - name: "([^"]+)"', text, re.MULTILINE)
        lines = [f"title = {{{field['title']}}}"]
        if author:
            lines.insert(0, f"author = {{{{{author.group(1)}}}}}")
        lines.append(f"note = {{version {field['version']}}}")
        if address := self.config.repository_url:
            lines.append(f"url = {{{address}}}")
        code = "@misc{irlbook,\n  " + ",\n  ".join(lines) + "\n}"
        return [nodes.literal_block(code, code, language="bibtex")]


def set_repository(app: Sphinx, config: Config) -> None:
    """Launch buttons and the link to the repository, where its address is known."""
    address = config.repository_url.rstrip("/").removesuffix(".git")
    config.repository_url = address
    if not address:
        logger.info("REPOSITORY_URL is not set (environment, or docs/conf.py): no launch buttons")
        return
    options = dict(config.html_theme_options)
    options["repository_url"] = address
    options["repository_branch"] = config.repository_branch
    options["use_repository_button"] = True
    options["launch_buttons"] = {
        "notebook_interface": "jupyterlab",
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
    }
    config.html_theme_options = options


def fill_in_repository(app: Sphinx, docname: str, content: list[str]) -> None:
    """The repository's address; and what links to the README leads to the first page."""
    content[0] = _README.sub(r"](\1index.md)", content[0])
    if app.config.repository_url:
        content[0] = content[0].replace(PLACEHOLDER, app.config.repository_url)


def describe(app: Sphinx, docname: str, templatename: str, context: dict, doctree) -> None:  # noqa: ANN001
    """What a search engine shows below the title: a chapter's question, else the first sentence."""
    if doctree is None:
        return
    path = app.env.doc2path(docname)
    text = ""
    if path.suffix == ".ipynb":
        text = read(path).metadata.get("irlbook", {}).get("question", "")
    paragraphs = (
        " ".join(p.astext().split())
        for p in doctree.findall(nodes.paragraph)
        if not any(isinstance(n, nodes.math) for n in p.findall(nodes.math))
    )
    text = text or next((p for p in paragraphs if len(p) > 40), "")
    if len(text) > 160:
        text = text[:157].rsplit(" ", 1)[0] + " ..."
    if text:
        content = text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        tag = f'<meta name="description" content="{content}" />'
        context["metatags"] = context.get("metatags", "") + tag


def setup(app: Sphinx) -> dict[str, object]:
    app.add_config_value("repository_url", "", "env", types=frozenset({str}))
    app.add_config_value("repository_branch", "main", "env", types=frozenset({str}))
    app.add_directive("chapters", ChapterTable)
    app.add_directive("citation", Citation)
    app.connect("config-inited", set_repository)
    app.connect("source-read", fill_in_repository)
    app.connect("doctree-resolved", resolve_chapters)
    app.connect("html-page-context", describe)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
