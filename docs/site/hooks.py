"""Brings into the site what lies outside of docs/: README.md as its home page, and each file that a page links to.

Links stay as they lead within the repository; here they are rewritten to lead within the site. A link whose text is the name of a
page shows the page's title instead.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

PAGES = {
    "README.md": "index.md",
    **{name: name.lower() for name in ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")},
}
"""Pages at the root of the repository, and their names in the site."""

LINK = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]+`)|\[(?P<text>[^\]\n]*)\]\((?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)", re.M | re.S
)
CONSOLE = re.compile(r"^```console\n(?=[^│]*?^```)", re.MULTILINE)
"""The start of what commands print, where that draws no table."""

ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
PIPE = re.compile(r"`[^`\n]*`")
"""Code in a table: GitHub wants its pipes escaped there, and Python-Markdown shows the backslash."""

LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=\"?(?:https?:)?//[^\"> ]+")
LANGUAGES = {".kt": "kotlin", ".mjs": "js", ".swift": "swift", ".cpp": "cpp", ".py": "python", ".toml": "toml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the root of the repository, and a page for each source file that a page links to."""
    for name, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    for file in list(files.documentation_pages()):
        for link in LINK.finditer(file.content_string):
            source = _in_repository(file.src_uri, link["target"]) if link["target"] else ""
            uri = _in_site(source)
            if uri.startswith("source/") and (ROOT / source).is_file() and not files.get_file_from_path(uri):
                files.append(File.generated(config, uri, content=_source_page(source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links to files of the repository as links within the site, and let long lines of messages wrap; pipes in code stay pipes."""
    here = page.file.src_uri

    def rewritten(link: re.Match[str]) -> str:
        if link["code"]:
            return link[0]
        uri = _in_site(_in_repository(here, link["target"]))
        target = files.get_file_from_path(uri)
        if target is None:
            return link[0]  # which the build then warns of
        text = link["text"]
        if target.page and target.page.title and text.rpartition("/")[2] == link["target"].rpartition("/")[2]:
            text = str(target.page.title)
        return f"[{text}]({relpath(uri, dirname(here) or '.')}{link['anchor'] or ''})"

    plain = ROW.sub(
        lambda row: PIPE.sub(lambda code: code[0].replace("\\|", "|"), row[0]), LINK.sub(rewritten, markdown)
    )
    return CONSOLE.sub("``` {.console .wrapped}\n", plain)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would fetch something: the site works without a network."""
    if found := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads from elsewhere: {found[0]}")
    return output


def _in_repository(uri: str, target: str) -> str:
    """The path in the repository that ``target`` leads to, on the page ``uri`` of the site."""
    origin = next((name for name, place in PAGES.items() if place == uri), f"docs/{uri}")
    return normpath(join(dirname(origin), target))


def _in_site(path: str) -> str:
    """Where the file at ``path`` of the repository is in the site."""
    return PAGES.get(path) or (path[len("docs/") :] if path.startswith("docs/") else f"source/{path}.md")


def _source_page(path: str) -> str:
    language = LANGUAGES.get(Path(path).suffix, "text")
    head = f"---\nsearch: {{exclude: true}}\n---\n\n# {path}\n"
    return f"{head}\n````{language}\n{(ROOT / path).read_text('utf-8')}````\n"
