"""Great Expectations' pages made safe and whole: what it writes trusts data and the network.

It puts values into its pages as they are, so that a sample's id could run a script in the browser
of whoever looks, and it loads its styles and scripts from a dozen other addresses.  Here values
become text before they reach it, and its pages lose everything that is loaded or run.
"""

import html
import re
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from ovis_model.data.checks.label_mask import visible
from ovis_model.reports import write_text

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SCRIPT = re.compile(r"<script\b.*?</script\s*>", re.DOTALL | re.IGNORECASE)
#: Styles, icons and pictures from elsewhere; the site's own pictures are icons and logos too.
_LOADED = re.compile(r"<(?:link|img)\b[^>]*>", re.IGNORECASE)
_HANDLER = re.compile(r"\son[a-z]+=\"[^\"]*\"", re.IGNORECASE)
_FOOTER = re.compile(r"<footer>.*?</footer>", re.DOTALL)
_TITLE = re.compile(r"<title>[^<]*</title>\s*")
_HEAD = "<head>"
#: Where the home page is, as every page says it.
_BRAND = re.compile(r"(<a href=\"[^\"]*index\.html\">)\s*</a>")

#: In place of Bootstrap and Font Awesome, for the classes that the pages use.
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #8881; --bad: #c62828; --good: #1b7f3b; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #6fdc96; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 78rem; padding: 1rem; }
h1, h2, h3, h4, h5, h6 { margin: 0; } h4 { font-size: 1.4rem; } h5 { font-size: 1.05rem; }
h6, .h6 { font-size: .95rem; font-weight: 600; }
p { margin: .25rem 0; } a { color: LinkText; }
.navbar { border-bottom: 1px solid var(--line); height: auto !important; margin-bottom: 1rem; }
.navbar .navbar { border: 0; margin: 0; } .navbar-brand { font-weight: 700; }
ol.breadcrumb { list-style: none; display: flex; flex-wrap: wrap; gap: .4rem; padding: 0; }
.breadcrumb-item + .breadcrumb-item::before { content: "/"; margin-right: .4rem; opacity: .6; }
.row { display: grid; gap: 1rem; } .lead { opacity: .75; }
@media (min-width: 60rem) {
  .container-fluid.pt-4 > .row { grid-template-columns: 14rem minmax(0, 1fr); }
}
.sticky { position: static; }
.sticky > .card:first-child:not(:last-child) { display: none; }
.card { border: 1px solid var(--line); border-radius: 8px; }
.card-header { padding: .4rem .7rem; background: var(--faint); }
.card ul { list-style: none; margin: 0; padding: .4rem .7rem; max-height: none !important; }
.ge-navigation-sidebar-container, .card { max-height: none !important; }
.ge-section { margin: 0 0 1.2rem; padding: 0; }
.alert { background: var(--faint); border-radius: 6px; padding: .5rem .7rem; }
.table-responsive, .show-scrollbars { overflow-x: auto; }
table { border-collapse: collapse; max-width: 100%; } .table { width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; }
th, td { border-bottom: 1px solid var(--line); } td { overflow-wrap: anywhere; }
td table { margin-top: .5rem; font-size: .9em; }
.fas { font-style: normal; font-weight: 700; }
.fa-check-circle::before { content: "\\2713"; } .fa-times::before { content: "\\2717"; }
.text-success { color: var(--good); } .text-danger { color: var(--bad); }
.badge { border: 1px solid var(--line); border-radius: 4px; padding: 0 .3rem; font-size: .85em; }
code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
.cooltip .top, .btn-group, [hidden] { display: none; }
"""
#: What a page of results says about itself.
_COUNTS = {
    name: re.compile(rf"{name} Expectations</div></td><td[^>]*><div[^>]*>(\d+)<")
    for name in ("Evaluated", "Unsuccessful")
}


def as_text(value: str) -> str:
    """Write a value so that a page shows it as it is, whatever it holds.

    Example:
        >>> as_text("<b>1 & 2</b>")
        '&lt;b&gt;1 &amp; 2&lt;/b&gt;'
    """
    return html.escape(visible(value))


def values_as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts can be put into a page; rows and other values stay.

    Args:
        table: Facts; most of its texts are few and repeat, or are not there at all.
    """
    changed = {}
    for name in table.columns:
        column = table[name]
        if pd.api.types.is_numeric_dtype(column):
            continue
        texts = {value for value in column[column.notna()].unique() if isinstance(value, str)}
        # All at once first: a million ids of letters and digits need nothing.
        together = "\n".join(texts)
        if as_text(together) != together:
            safe = {text: as_text(text) for text in texts}
            values = [safe.get(value, value) for value in column]
            changed[name] = pd.Series(values, index=table.index, dtype=object)
    return table.assign(**changed)


def make_offline(site: Path) -> None:
    """Rewrite every page of a site so that it loads nothing, runs nothing and can be read.

    Args:
        site: The folder with index.html.
    """
    # Scripts that are not there would have filled its home page.
    home = site / "index.html"
    for path in sorted(set(site.rglob("*.html")) - {home}):
        write_text(path, _rewrite(path.read_text(encoding="utf-8"), path.relative_to(site)))
    write_text(home, _home(site))


def _home(site: Path) -> str:
    results = sorted((site / "validations").rglob("*.html"))
    rows = "".join(_row(path, site) for path in results)
    suites = "".join(
        f'<li><a href="{_address(path, site)}">{html.escape(path.stem)}</a></li>'
        for path in sorted((site / "expectations").glob("*.html"))
    )
    return _rewrite(
        f'<!DOCTYPE html>\n<html lang="en">\n{_HEAD}</head>\n<body>\n<h4>Data Docs</h4>\n'
        "<p>What was expected of the data, and what was found.</p>\n"
        '<table class="table"><thead><tr><th>Results</th><th>Expectations</th><th>Not met</th>'
        f"</tr></thead>\n<tbody>{rows}</tbody></table>\n"
        f"<p>What is expected of each table:</p>\n<ul>{suites}</ul>\n</body>\n</html>\n",
        Path("index.html"),
    )


def _row(path: Path, site: Path) -> str:
    page = path.read_text(encoding="utf-8")
    found = (pattern.search(page) for pattern in _COUNTS.values())
    cells = "".join(f"<td>{match[1] if match else '?'}</td>" for match in found)
    name = html.escape(path.relative_to(site).parts[1])
    return f'<tr><td><a href="{_address(path, site)}">{name}</a></td>{cells}</tr>'


def _address(path: Path, site: Path) -> str:
    return html.escape(quote(path.relative_to(site).as_posix()))


def _rewrite(page: str, place: Path) -> str:
    for pattern in (_SCRIPT, _LOADED, _HANDLER, _FOOTER, _TITLE):
        page = pattern.sub("", page)
    page = _BRAND.sub(r"\1Data Docs</a>", page)
    # Before anything else, so that it holds for all of the page.
    head = (
        f'{_HEAD}\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{_title(place)}</title>"
    )
    page = page.replace(_HEAD, head, 1)
    return page.replace("</head>", f"<style>{_STYLE}</style>\n</head>", 1)


def _title(place: Path) -> str:
    """Name a page by what it is about: expectations/turns.html, validations/turns/..."""
    about = place.parts[1].removesuffix(".html") if len(place.parts) > 1 else ""
    return html.escape(f"Data Docs: {about}" if about else "Data Docs")
