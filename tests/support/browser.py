"""A real headless browser, and the checks on every page that is opened in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (320, 768, 1280)


@contextmanager
def closely_watched(browser: Browser, address: str) -> Iterator[Page]:
    """A page that must cause no errors and load nothing."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    yield page
    context.close()
    assert not complaints
    assert [url for url in requests if not url.startswith("data:")] == [address]


@contextmanager
def fitting(browser: Browser, address: str, width: int, scheme: str) -> Iterator[Page]:
    """A page, light or dark, in a window of this width, in which everything must fit."""
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    yield page
    context.close()


# The contrast of an element's text with what lies behind it, by WCAG 2.
CONTRAST = """
element => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => {
    const [r, g, b] = channels(colour).map(c => {
      c /= 255;
      return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(element);
  const text = element instanceof SVGElement ? style.fill : style.color;
  let behind = element;
  let back = "";
  for (; behind; behind = behind.parentElement) {
    back = getComputedStyle(behind).backgroundColor;
    if (channels(back)[3] !== 0) break;
  }
  const [low, high] = [luminance(text), luminance(back)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
"""
