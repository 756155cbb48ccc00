"""The page of a report in a real browser: the slider, the keyboard, the clipboard, the looks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from shutil import copytree
from urllib.parse import unquote, urlparse

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from batchlight import JobConfig, run
from batchlight.output.inputs import DataSet
from batchlight.output.records import Record
from batchlight.report import write_report
from batchlight.storage import Location
from tests.report.test_report import write_records
from tests.support.browser import CONTRAST, WIDTHS, closely_watched, fitting
from tests.support.helpers import rows, write_images


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of some images and two methods; two images failed, one is not dark."""
    folder = tmp_path_factory.mktemp("report")
    write_images(folder / "in", 8, height=60, width=90)
    cv2.imwrite(str(folder / "in/bright.png"), np.full((60, 90, 3), 200, np.uint8))
    for name in (
        'empty <b>bold</b> & "quoted".jpg',
        "a folder with a long name/" + "x" * 150 + ".png",
    ):
        (folder / "in" / name).parent.mkdir(exist_ok=True)
        (folder / "in" / name).touch()
    run(JobConfig(input=str(folder / "in"), workers=0, progress="off", batch_size=3))
    output = folder / "in-enhanced"
    copytree(output / "classical", output / "absgn")
    others = [
        Record(**row | {"method": "absgn", "output": row["output"].replace("classical", "absgn")})
        for row in rows(output)
        if row["output"] is not None
    ]
    write_records(output, others)
    place = Location.parse(str(folder / "in"))
    write_report(Location.parse(str(output)), DataSet(place, place))
    return output


@pytest.fixture(scope="module")
def address(output: Path) -> str:
    """Its report, as a file."""
    return (output / "report.html").as_uri()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The report, of which nothing may be complained about and for which nothing is loaded."""
    with closely_watched(browser, address) as page:
        yield page


CARD = ".pictures > li"


def seen(page: Page, card: str) -> list[tuple[str, str]]:
    """Of each state that is seen, its name and what is cut from it."""
    found: list[tuple[str, str]] = page.locator(f"{card} .state").evaluate_all(
        """states => states.map(s => [s.dataset.state, getComputedStyle(s)])
        .filter(([_, style]) => style.visibility === 'visible')
        .map(([name, style]) => [name, style.clipPath])"""
    )
    return [(name, cut) for name, cut in found]


def test_one_slider_goes_through_all_states(page: Page) -> None:
    card = f"{CARD}:first-child"
    slider = page.locator(f"{card} input")
    slider.focus()
    for key, states, left_out, said in (
        ("Home", ("before", "classical"), "100%", "before"),
        ("ArrowRight", ("before", "classical"), "99%", "1% classical, 99% before"),
        ("End", ("classical", "absgn"), "0", "absgn"),
    ):
        slider.press(key)
        (below, whole), (above, cut) = seen(page, card)
        assert (below, above) == states
        assert whole == "none"
        assert left_out in cut
        assert slider.get_attribute("aria-valuetext") == said
    slider.fill("100")
    assert slider.get_attribute("aria-valuetext") == "classical"


def test_a_picture_is_dragged_over(page: Page) -> None:
    card = page.locator(CARD).first
    card.scroll_into_view_if_needed()
    box = card.locator(".compare").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 10, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 3 / 4, box["y"] + 20, steps=3)
    page.mouse.up()
    assert int(card.locator("input").input_value()) == pytest.approx(75, abs=2)


def test_a_picture_is_enlarged_and_others_are_a_key_away(page: Page) -> None:
    first, second = (page.locator(f"{CARD} .path").nth(n).text_content() for n in (0, 1))
    button = page.get_by_role("button", name=f"Enlarge {first}", exact=True)
    button.focus()
    button.press("Enter")
    dialog = page.get_by_role("dialog", name="Enlarged picture")
    dialog.wait_for()
    assert dialog.locator("#enlarged-name").text_content() == first
    assert len(seen(page, "dialog")) == 2
    page.keyboard.press("End")  # the slider has the focus
    assert [name for name, _ in seen(page, "dialog")] == ["classical", "absgn"]
    page.keyboard.press("PageDown")
    assert dialog.locator("#enlarged-name").text_content() == second
    page.keyboard.press("PageUp")
    page.keyboard.press("PageUp")  # there is none before the first
    assert dialog.locator("#enlarged-name").text_content() == first
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert button.evaluate("b => b === document.activeElement")


def test_every_file_that_is_named_is_linked(page: Page, output: Path) -> None:
    links = page.locator(".states a").evaluate_all("links => links.map(a => a.href)")
    places = {Path(unquote(urlparse(link).path)) for link in links}
    assert all(place.is_file() for place in places)
    assert {place.parts[len(output.parent.parts)] for place in places} == {"in", output.name}


def test_images_are_searched_and_chosen_by_reason(page: Page) -> None:
    cards, lines = page.locator(f"{CARD}:visible"), page.locator("#table ~ * tbody tr:visible")
    all_cards, all_lines = cards.count(), lines.count()
    assert (all_cards, all_lines) == (9, 18)
    page.get_by_role("searchbox").fill("BRIGHT")
    assert (cards.count(), lines.count()) == (1, 2)
    page.get_by_text("1 of 9 images").wait_for()
    page.get_by_role("searchbox").fill("")
    page.get_by_role("combobox").select_option("left as it is")
    assert cards.count() == 1
    page.get_by_role("combobox").select_option("")
    page.get_by_text("9 images", exact=True).wait_for()


def test_tables_are_sorted_by_their_headings(page: Page) -> None:
    table = page.get_by_role("region", name="The images shown, in numbers")
    heading = table.get_by_role("columnheader", name="before")

    def values() -> list[float]:
        return [float(v) for v in table.locator("tbody td:nth-child(3)").all_text_contents()]

    assert values() != sorted(values())
    heading.get_by_role("button").click()
    assert values() == sorted(values())
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").press("Enter")
    assert values() == sorted(values(), reverse=True)


def test_all_of_it_works_by_keyboard(page: Page) -> None:
    reached = []
    for _ in range(300):
        page.keyboard.press("Tab")
        element = page.evaluate(
            """[document.activeElement].map(
                e => [e.tagName, e.ariaLabel || e.labels?.[0]?.textContent || e.textContent]
            )[0]"""
        )
        if element[0] == "BODY":
            break
        reached.append(element[0])
        assert element[1], "a name, for who only hears of it"
    assert reached.count("INPUT") == page.locator(f"{CARD} input").count() + 1
    assert reached.count("A") == page.locator("a:visible").count()
    assert reached.count("SUMMARY") == 2
    assert reached.count("BUTTON") == page.locator("button:visible").count()


def test_the_paths_of_failures_can_be_copied(page: Page, address: str) -> None:
    page.get_by_role("button", name="Copy the paths").click()
    page.get_by_text("2 paths copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()").split("\n")
    assert sorted(copied) == [
        "a folder with a long name/" + "x" * 150 + ".png",
        'empty <b>bold</b> & "quoted".jpg',
    ]


def test_who_listens_learns_what_is_there(page: Page) -> None:
    for heading in ("How it ended", "Totals", "Pictures", "Failures", "Folders", "Curves", "Runs"):
        assert page.get_by_role("region", name=heading, exact=True).count() == 1
    assert page.get_by_role("slider").count() == 8  # one image is shown as it is
    names = page.get_by_role("img").evaluate_all(
        "images => images.map(i => i.getAttribute('alt') || i.getAttribute('aria-label'))"
    )
    assert len(names) > 16
    assert all(names)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser: Browser, address: str, width: int, scheme: str) -> None:
    with fitting(browser, address, width, scheme) as page:
        for selector in (
            *("h1", "dd", ".facts", ".charts svg text", ".count", "footer", "th"),
            *(".verdict", ".tag", ".states a", ".ticks span", ".options dt"),
        ):
            assert page.locator(selector).first.evaluate(CONTRAST) >= 4.5 - 1e-6, selector


def test_without_scripts_all_pictures_are_seen(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    card = page.locator(CARD).first
    boxes = [state.bounding_box() for state in card.locator(".state").all()]
    assert len(boxes) == 3
    for above, below in pairwise(boxes):
        assert above is not None
        assert below is not None
        assert above["height"] > 20
        assert above["y"] + above["height"] <= below["y"] + 1
    assert not card.locator("input").is_visible()
    assert not page.get_by_role("searchbox").is_visible()
    context.close()
