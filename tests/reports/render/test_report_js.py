"""report.html in a browser: tables that sort, filter and show other columns, on a desktop, a phone and without scripts."""

import pytest

from reports.pages.report_page import make_section, report_html, run_listings
from reports.tables.table import build_tables

pytestmark = pytest.mark.slow
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def address(collected, tmp_path_factory) -> str:
    """The page of the made study, without figures, as a file."""
    tables = build_tables(collected)
    page = report_html(collected, [make_section(table, "stem", []) for table in tables], run_listings(tables), [])
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page)
    return file.as_uri()


@pytest.fixture(scope="module")
def shared_tab(chromium):
    tab = chromium.new_page()
    yield tab
    tab.close()


@pytest.fixture
def tab(shared_tab, address):
    """The page, freshly opened; it must not log errors."""
    errors = []
    shared_tab.on("pageerror", lambda error: errors.append(str(error)))
    shared_tab.goto(address)
    yield shared_tab
    assert errors == []


def main_table(tab):
    return tab.locator("#stem ~ .table").first


def column(tab, title: str) -> list[str]:
    """The texts of the visible rows in a column of the main table."""
    table = main_table(tab)
    place = table.locator("th").all_text_contents().index(title)
    rows = [row for row in table.locator("tbody tr").all() if row.is_visible()]
    return [row.locator("td").nth(place).text_content() for row in rows]


def sort_by(tab, title: str) -> None:
    main_table(tab).locator("th button", has_text=title).first.click()


def test_columns_are_sorted_by_number_up_down_and_back(tab):
    before = column(tab, "Abs Rel")
    sort_by(tab, "Abs Rel")
    numbers = [float(text.split()[0]) for text in column(tab, "Abs Rel") if text != "–"]
    assert numbers == sorted(numbers)
    sort_by(tab, "Abs Rel")
    assert [float(text.split()[0]) for text in column(tab, "Abs Rel") if text != "–"] == numbers[::-1]
    assert main_table(tab).locator("th[aria-sort=descending]").all_text_contents() == ["Abs Rel"]
    sort_by(tab, "Abs Rel")
    assert column(tab, "Abs Rel") == before


def test_rows_without_a_value_come_last_in_both_directions(tab):
    for _ in range(2):
        sort_by(tab, "loss.temperature")
        blank = [text == "–" for text in column(tab, "loss.temperature")]
        assert any(blank)
        assert blank == sorted(blank)


def test_rows_are_filtered_by_all_words(tab):
    tab.locator(".tools input[type=search]").nth(0).fill("ResNet18")
    assert column(tab, "Backbone") == ["ResNet18"]
    assert tab.locator(".tools output").nth(0).text_content() == "1 of 9 rows"
    tab.locator(".tools input[type=search]").nth(0).fill("tie-kd l_depth")
    assert set(column(tab, "Loss")) == {"L_DPM, L_DEPTH"}


def test_all_metrics_can_be_chosen(tab):
    heads = main_table(tab).locator("th")
    shown = [head.inner_text() for head in heads.all() if head.is_visible()]
    assert "SILog" not in shown
    tab.locator(".tools summary").nth(0).click()
    tab.locator(".tools label", has_text="SILog").nth(0).click()
    tab.locator(".tools label", has_text="Abs Rel published").nth(0).click()
    shown = [head.inner_text() for head in heads.all() if head.is_visible()]
    assert "SILog" in shown
    assert "Abs Rel published" not in shown
    assert main_table(tab).locator("tbody tr").first.locator("td:visible").count() == len(shown)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_only_tables_aside(tab, scheme):
    tab.set_viewport_size(PHONE)
    tab.emulate_media(color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    table = main_table(tab)
    assert table.evaluate("box => box.scrollWidth > box.clientWidth")
    table.evaluate("box => (box.scrollLeft = 200)")
    first = table.locator("tbody td").first
    assert first.bounding_box()["x"] == table.bounding_box()["x"]  # the name of the row stays
    ink, paper = (first.evaluate(f"cell => getComputedStyle(cell).{name}") for name in ("color", "backgroundColor"))
    ink, paper = (sum(map(int, color.removeprefix("rgb(").rstrip(")").split(", "))) for color in (ink, paper))
    assert abs(ink - paper) > 400  # of 765
    assert (ink < paper) == (scheme == "light")
    tab.set_viewport_size({"width": 1280, "height": 720})


def test_a_page_without_scripts_has_the_same_tables(chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(address)
    heads = main_table(tab).locator("th")
    assert heads.nth(0).is_visible()
    assert [heads.nth(place).is_visible() for place, title in enumerate(heads.all_text_contents()) if title == "SILog"] == [
        False
    ]
    assert tab.locator(".tools").count() == 0
    context.close()
