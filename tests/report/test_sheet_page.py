"""The page of a preview in a real browser: enlarging, arrow keys, copying, phones."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import pytest
from playwright.sync_api import Browser, Page, expect

from batchlight import JobConfig
from batchlight.driver.preview import preview
from tests.support.browser import CONTRAST, WIDTHS, closely_watched, fitting
from tests.support.helpers import dark_image, write_images

IMAGES = 3
SETTINGS = ("", "omega=0.6 format=jpeg", "denoise=none window=9")
OPTIONS = ["original", "defaults", "--omega 0.6 --format jpeg", "--window 9 --denoise none"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sheet of four images; one cannot be decoded, and one cannot be a JPEG."""
    folder = tmp_path_factory.mktemp("preview")
    write_images(folder / "in", 2, height=240, width=360)
    cv2.imwrite(str(folder / "in/alpha <i>.png"), dark_image(5, 100, 80, channels=4))
    (folder / "in" / ("x" * 150 + ".png")).touch()
    preview(JobConfig(input=str(folder / "in")), SETTINGS, page=str(folder / "page.html"))
    return (folder / "page.html").as_uri()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with closely_watched(browser, address) as page:
        yield page


def enlarged(page: Page) -> list[str | None]:
    """The name, the options and the alternative text of the picture that fills the window."""
    texts = [
        page.locator(selector).text_content() for selector in ("#enlarged-name", "dialog code")
    ]
    return [*texts, page.locator("#enlarged").get_attribute("alt")]


def test_a_picture_enlarges_and_arrows_lead_to_the_others(page: Page) -> None:
    names = page.locator("h3 .path").all_text_contents()
    first = page.get_by_role("button", name=f"{names[0]}, original", exact=True).first
    first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert enlarged(page) == [names[0], "original", f"{names[0]}, original"]
    box = page.locator("#enlarged").bounding_box()
    small = first.bounding_box()
    assert box is not None
    assert small is not None
    assert box["width"] > 3 * small["width"]
    page.keyboard.press("ArrowRight")
    assert enlarged(page)[:2] == [names[0], "defaults"]
    page.keyboard.press("ArrowDown")
    assert enlarged(page)[:2] == [names[1], "defaults"]
    page.get_by_role("button", name="Previous setting").click()
    page.keyboard.press("ArrowLeft")  # there is nothing further left
    assert enlarged(page)[:2] == [names[1], "original"]
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    left = page.get_by_role("button", name=f"{names[1]}, original", exact=True)
    expect(left).to_be_focused()


def test_a_setting_that_failed_is_passed_over(page: Page) -> None:
    button = page.get_by_role("button", name="alpha <i>.png, defaults", exact=True)
    button.click()
    page.keyboard.press("ArrowRight")
    assert enlarged(page)[:2] == ["alpha <i>.png", OPTIONS[3]]
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert page.get_by_text("unsupported: JPEG cannot hold its transparency").is_visible()


def test_options_can_be_copied(page: Page) -> None:
    page.get_by_role("button", name=f"Copy {OPTIONS[3]}").click()
    page.get_by_text(f"{OPTIONS[3]} copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == OPTIONS[3]


def test_columns_and_pictures_are_labelled(page: Page) -> None:
    assert page.locator(".heads code").all_text_contents() == OPTIONS
    assert page.locator("article").count() == IMAGES
    assert page.locator("article figcaption").all_text_contents() == OPTIONS * IMAGES
    for heading in ("Settings", "Pictures, darkest first", "Images that cannot be enhanced"):
        assert page.get_by_role("region", name=heading, exact=True).count() == 1
    assert all(page.locator("img:not(#enlarged)").evaluate_all("all => all.map(i => i.alt)"))


def test_a_detail_is_shown_at_its_own_size(page: Page) -> None:
    detail = page.locator(".detail img").first
    assert detail.evaluate("image => getComputedStyle(image).objectFit") == "none"
    assert detail.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [320, 180]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser: Browser, address: str, width: int, scheme: str) -> None:
    with fitting(browser, address, width, scheme) as page:
        narrow = width <= 768
        assert page.locator(".heads").is_visible() != narrow
        label = page.locator("figcaption").nth(1).bounding_box()
        assert label is not None
        assert (label["width"] > 10) == narrow
        for selector in (
            "h1",
            "td",
            "h3 .facts",
            "figure .facts",
            ".failed .facts",
            "footer",
            "th",
        ):
            assert page.locator(selector).last.evaluate(CONTRAST) >= 4.5 - 1e-6, selector
        page.locator(".enlarge").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator("#enlarged").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width
