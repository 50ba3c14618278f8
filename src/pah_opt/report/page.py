"""The frame of a self-contained HTML page: no script, no network; light and dark, phone and desktop."""

from __future__ import annotations

from html import escape
from importlib.resources import files

# Nothing may be fetched or run, whatever a model's name or a plugin's text contains.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, body: str, *, lang: str = "en", style: str = "") -> str:
    """Put a body into the frame.

    Args:
        title: of the page, as plain text.
        body: HTML, escaped already.
        lang: language of the text.
        style: CSS beside that of every page.
    """
    common = (files("pah_opt.report") / "page.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="{lang}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} - pah_opt</title>\n<style>\n{common}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
