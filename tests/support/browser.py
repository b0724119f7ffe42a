"""A real browser that looks at pages: headless Chromium, and what it asked other machines for.

Names of other machines lead nowhere in it, and it keeps a log of what it asked for.
"""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from PIL import Image

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="there is no chromium; Debian has it: apt-get install chromium"
)
#: What is asked for by the browser itself, not by a page.
OWN_HOSTS = re.compile(r"(^|\.)(google\.com|googleapis\.com|gvt1\.com|gstatic\.com)$")
OWNED = "document.title='owned'"
HOSTILE = f'<script>{OWNED}</script><img src="http://leak.invalid/a.png" onerror="{OWNED}">'
#: Background of what is learned, in the light and in the dark theme of the card.
LEARNED = {"light": (0xCF, 0xEE, 0xD9), "dark": (0x17, 0x42, 0x2A)}


@dataclass(frozen=True)
class Seen:
    """A page as the browser shows it.

    Attributes:
        dom: The document after it was loaded, as HTML.
        text: What of it is text.
        picture: The window.
        asked_for: Addresses of other machines that the page asked for.
    """

    dom: str
    text: str
    picture: Image.Image
    asked_for: set[str]

    @property
    def title(self):
        return html.unescape(re.search(r"<title>([^<]*)</title>", self.dom)[1])

    def count_pixels(self, colour):
        counts = {shown: count for count, shown in self.picture.getcolors(1 << 24)}
        return counts.get(colour, 0)


class Browser:
    """Chromium with a profile of its own."""

    def __init__(self, folder):
        self.folder = folder

    def _run(self, page, *options, fragment="", width=1200, height=2400):
        log = self.folder / "net.json"
        done = subprocess.run(
            [
                BROWSER,
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--no-first-run", "--disable-background-networking", "--no-proxy-server"),
                *("--disable-component-update", "--disable-extensions", "--disable-sync"),
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={self.folder / 'profile'}",
                f"--log-net-log={log}",
                f"--window-size={width},{height}",
                *options,
                page.absolute().as_uri() + fragment,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout, _addresses(log)

    def look_at(self, page, *options, **window):
        picture = self.folder / "window.png"
        picture.unlink(missing_ok=True)
        dom, asked = self._run(page, "--dump-dom", f"--screenshot={picture}", *options, **window)
        body = re.sub(r"<(style|script)\b.*?</\1>", "", dom, flags=re.DOTALL)
        text = html.unescape(re.sub(r"<[^>]*>", "", body))
        with Image.open(picture) as image:
            return Seen(dom, text, image.convert("RGB"), asked)


def _addresses(log):
    """Read from the browser's log what pages asked other machines for."""
    text = log.read_text(encoding="utf-8", errors="replace")
    found = re.findall(r'"url":"((?:[^"\\]|\\.)*)"', text)
    addresses = {json.loads(f'"{address}"') for address in found}
    return {
        address
        for address in addresses
        if address.startswith(("http:", "https:", "ws:", "wss:"))
        and not OWN_HOSTS.search(urlsplit(address).hostname or "")
    }
