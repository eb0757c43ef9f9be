"""Compile the MJML sources to the HTML that ships: `python -m postier.workers.compile_templates [--check]`.

Development only: needs mrml. `--check` writes nothing and exits 1 when a committed HTML file differs from its source.
The HTML is plain ASCII with short lines, so that a rendered mail can go over the wire as 7bit.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import postier.schemas.templates

TEMPLATES = Path(next(iter(postier.schemas.templates.__path__)))
SOURCES = TEMPLATES / "mjml"

_INCLUDE = re.compile(r'<mj-include path="([a-z_.]+)" />')
_STYLE = re.compile(r"(?<=<style )[^<]*")
_CSS_GAP = re.compile(r"[ \t]*([{};:,>])[ \t]*")
# White space after these tags means nothing, so a line may end there. Conditional comments stay in one piece.
_BREAKABLE = re.compile(r"(</(?:td|tr|tbody|thead|table|div|p|h1|style|head|title)>|<(?:tbody|tr)>)(?=<[^!])")


def compile_source(source: Path) -> str:
    """The HTML template of one MJML file. Raises ValueError with mrml's words when the source is wrong."""
    import mrml

    def included(match: re.Match[str]) -> str:
        return (source.parent / match[1]).read_text(encoding="utf-8")

    # Included as text: mrml's own mj-include loses the width of the body.
    text = _INCLUDE.sub(included, source.read_text(encoding="utf-8"))
    try:
        output = mrml.to_html(text, render_options=mrml.RenderOptions(fonts={}))
    except OSError as error:
        raise ValueError(f"{source.name}: {error}") from error
    if output.warnings:
        raise ValueError(f"{source.name}: {output.warnings[0].kind}")
    html = re.sub(r"\s*\n\s*", "\n", output.content)
    html = _STYLE.sub(lambda style: _CSS_GAP.sub(r"\1", style[0]), html)
    html = _BREAKABLE.sub(r"\1\n", html)
    # SMTP doubles a dot that opens a line: every mail would be copied for it. White space before a rule of CSS is free.
    html = html.replace("\n.", "\n .")
    return html.encode("ascii", "xmlcharrefreplace").decode("ascii") + "\n"


def stale(sources: Path = SOURCES, templates: Path = TEMPLATES) -> dict[Path, str]:
    """The HTML files that differ from what their sources give now, with the content they should have."""
    wanted = {
        templates / f"{source.stem}.html": compile_source(source)
        for source in sorted(sources.glob("*.mjml"))
        if not source.name.startswith("_")
    }
    return {
        path: html for path, html in wanted.items() if not path.exists() or path.read_text(encoding="ascii") != html
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 when `--check` found a stale file."""
    parser = argparse.ArgumentParser(prog="compile_templates", description="Compile MJML templates to HTML.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    options = parser.parse_args(arguments)
    found = stale()
    for path, html in found.items():
        if options.check:
            sys.stderr.write(f"{path.name} differs from its MJML source\n")
        else:
            path.write_text(html, encoding="ascii")
            sys.stdout.write(f"{path.name} written\n")
    return 1 if options.check and found else 0


if __name__ == "__main__":
    sys.exit(main())
