"""Pages for a person to read: self-contained HTML, headings in order, tables that say what heads what."""

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

HEADS = ("✗", "○", "!")  # how the messages of autograder.check begin

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; color: #1a1a1a;
  background: #fff }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
caption {{ text-align: left; font-weight: 600; padding: .25rem 0 }}
th, td {{ border: 1px solid #767676; padding: .3rem .6rem; text-align: left; vertical-align: top }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums }}
thead th {{ background: #eee }}
pre {{ margin: 0; overflow-x: auto; white-space: pre-wrap; font: 14px/1.4 ui-monospace, monospace }}
.scroll {{ overflow-x: auto }}
{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """A whole page: the title is its heading of the first level, and `body` is HTML, whose headings begin
    at the second.
    """
    return _PAGE.format(title=escape(title), body="\n".join(body), style=style)


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    """A table whose first column heads its rows. Texts are escaped; numbers stand to the right."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    lines = [
        f'<tr><th scope="row">{escape(str(row[0]))}</th>{"".join(map(_cell, row[1:]))}</tr>' for row in rows
    ]
    inside = f"<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>"
    body = "\n".join(lines)
    # Whoever has no mouse must be able to scroll a table that is wider than the page.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>{inside}\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(value):
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    return f'<td class="number">{value:g}</td>'


def without_head(message: str) -> str:
    """What a check says, without the line that names outcome and exercise."""
    rest = message.partition("\n")[2]
    return rest if message.startswith(HEADS) and rest else message


def write(path: Path, text: str) -> None:
    """The file has this text, or what it had before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8", newline="")
    os.replace(aside, path)
