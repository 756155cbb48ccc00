"""The page of a report in a real browser: the slider, the keyboard, the clipboard, the looks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from batchlight import JobConfig, run
from tests.support.browser import CONTRAST, WIDTHS, closely_watched, fitting
from tests.support.helpers import write_images


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of some images, of which two failed, as a file."""
    folder = tmp_path_factory.mktemp("report")
    write_images(folder / "in", 8, height=60, width=90)
    for name in (
        'empty <b>bold</b> & "quoted".jpg',
        "a folder with a long name/" + "x" * 150 + ".png",
    ):
        (folder / "in" / name).parent.mkdir(exist_ok=True)
        (folder / "in" / name).touch()
    run(JobConfig(input=str(folder / "in"), workers=0, progress="off", batch_size=3))
    return (folder / "in-enhanced/report.html").as_uri()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The report, of which nothing may be complained about and for which nothing is loaded."""
    with closely_watched(browser, address) as page:
        yield page


def test_the_slider_shows_more_or_less_of_the_original(page: Page) -> None:
    slider = page.locator(".compare input").first
    before = page.locator(".compare img.before").first

    def hidden() -> str:
        return str(before.evaluate("image => getComputedStyle(image).clipPath"))

    slider.focus()
    slider.press("Home")
    assert "100%" in hidden()
    slider.press("End")
    assert hidden() in ("inset(0px)", "inset(0px 0% 0px 0px)")
    slider.press("ArrowLeft")
    assert "1%" in hidden()
    box = slider.bounding_box()
    assert box is not None
    slider.click(position={"x": box["width"] / 4, "y": 5})
    assert int(slider.input_value()) == pytest.approx(25, abs=4)


def test_all_of_it_works_by_keyboard(page: Page) -> None:
    reached = []
    for _ in range(200):
        page.keyboard.press("Tab")
        element = page.evaluate(
            "[document.activeElement].map(e => [e.tagName, e.ariaLabel || e.textContent])[0]"
        )
        if element[0] == "BODY":
            break
        reached.append(element[0])
        assert element[1], "a name, for who only hears of it"
    assert reached.count("INPUT") == page.locator(".compare input").count() >= 8
    assert reached.count("A") == page.locator("a").count()
    assert reached.count("SUMMARY") == 1
    assert reached.count("BUTTON") == 1


def test_the_paths_of_failures_can_be_copied(page: Page, address: str) -> None:
    page.get_by_role("button", name="Copy the paths").click()
    page.get_by_text("2 paths copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()").split("\n")
    assert sorted(copied) == [
        "a folder with a long name/" + "x" * 150 + ".png",
        'empty <b>bold</b> & "quoted".jpg',
    ]


def test_who_listens_learns_what_is_there(page: Page) -> None:
    for heading in ("Totals", "A sample of all", "Curves", "Failures", "Runs"):
        assert page.get_by_role("region", name=heading, exact=True).count() == 1
    assert page.get_by_role("slider").count() == page.locator(".compare").count()
    names = page.get_by_role("img").evaluate_all(
        "images => images.map(i => i.getAttribute('alt') || i.getAttribute('aria-label'))"
    )
    assert len(names) > 16
    assert all(names)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser: Browser, address: str, width: int, scheme: str) -> None:
    with fitting(browser, address, width, scheme) as page:
        for selector in ("h1", "dd", ".facts", ".charts svg text", ".count", "footer", "th"):
            assert page.locator(selector).first.evaluate(CONTRAST) >= 4.5 - 1e-6, selector


def test_without_scripts_both_pictures_are_seen(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    boxes = [
        page.locator(f".compare {side}").first.bounding_box()
        for side in ("img.after", "img.before")
    ]
    assert all(box is not None and box["height"] > 20 for box in boxes)
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"] + 1
    assert not page.locator(".compare input").first.is_visible()
    context.close()
