"""The HTML report in a real browser: Chromium, headless. Skipped where there is none."""

import base64
import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator import analysis
from orchestrator.report.page import write_report
from orchestrator.report.provenance import Source
from orchestrator.specs import SweepSpec, expand

selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra dev)")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no Chromium with chromedriver (Debian: apt-get install chromium chromium-driver)"
)
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
QUIET = ("--disable-background-networking", "--disable-component-update", "--no-first-run")


@pytest.fixture(scope="module")
def browser():
    from selenium.webdriver.chrome.service import Service

    options = selenium.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (*OPTIONS, *QUIET):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report_path():
    return {}


@pytest.fixture
def page(browser, report_path, tmp_path_factory, write_study):
    """The browser with the report of a small study open, at desktop width, light; the same file for all tests."""
    if not report_path:
        folder = tmp_path_factory.mktemp("report")
        fields = {
            "name": "study",
            "backbones": ["cogvideox/tiny", "cogvideox/tiny-random", "causal_lm/tiny", "baseline/oracle"],
            "tasks": [{"life": {"height": 5, "width": 5}}, {"elementary_ca": {"rule": 30, "width": 8}}],
            "seeds": [0, 1],
            "n_train": [3, 10],
            "lora_rank": [4, 16],
            "n_test": 12,
        }
        write_study(folder / "results", expand(SweepSpec.model_validate(fields)))
        study = analysis.load(folder / "results")
        source = Source("results/" + "a_long_name_" * 12, "study", f"name: study\n# {'long line ' * 40}\n")
        report_path["path"] = write_report(study, folder / "report.html", sources=[source])
    show(browser, report_path["path"], 1280)
    return browser


def show(browser, path: Path, width_px, scheme="light"):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width_px, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())


def contrast(one, other):
    """WCAG 2.2 contrast of two colours (red, green, blue), 0 to 255."""

    def luminance(color):
        parts = np.asarray(color[:3]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def shown_cards(browser):
    return browser.execute_script("return [...document.querySelectorAll('.card')].filter(c => c.offsetParent).length")


def press(browser, *keys):
    browser.switch_to.active_element.send_keys(*keys)


def test_the_console_is_free_of_errors_and_nothing_is_asked_for_elsewhere(page, report_path):
    assert page.get_log("browser") == []
    asked = []
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    assert report_path["path"].as_uri() in asked, "requests are seen"
    assert all(url.startswith(("file://", "data:")) for url in asked)


@pytest.mark.parametrize("width_px", [360, 375, 768, 1280])
def test_the_page_is_never_wider_than_the_screen(page, report_path, width_px):
    show(page, report_path["path"], width_px)
    page.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    root = "document.documentElement"
    assert page.execute_script(f"return {root}.scrollWidth") <= page.execute_script(f"return {root}.clientWidth")
    regions = "[...document.querySelectorAll('.scroll')].filter(r => r.scrollWidth > r.clientWidth + 1)"
    if width_px < 400:
        assert page.execute_script(f"return {regions}.length"), "wide tables scroll by themselves"
    assert page.execute_script(f"return {regions}.every(r => r.tabIndex === 0)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(page, report_path, scheme):
    show(page, report_path["path"], 1280, scheme)
    script = """
      const parse = (text) => text.match(/[\\d.]+/g).map(Number);
      const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
          const color = parse(getComputedStyle(at).backgroundColor);
          if (color.length === 3 || color[3] > 0) return color;
        }
      };
      const texts = 'h1, h2, h3, p, td, th, a, li, strong, .role, .small, button, select, summary';
      const name = (element) => element.tagName + '.' + element.className;
      return [...document.querySelectorAll(texts)]
        .filter((element) => element.offsetParent && element.textContent.trim())
        .map((element) => [name(element), parse(getComputedStyle(element).color), behind(element)]);
    """
    found = page.execute_script(script)
    assert len(found) > 50
    low = {name for name, ink, paper in found if contrast(ink, paper) < 4.5}
    assert not low
    paper = found[0][2]
    assert (sum(paper[:3]) > 600) == (scheme == "light")


def test_dark_paper_has_light_figures(page, report_path):
    color = "return getComputedStyle(document.querySelector('svg text')).fill.match(/[\\d.]+/g).map(Number)"
    light = page.execute_script(color)
    show(page, report_path["path"], 1280, "dark")
    dark = page.execute_script(color)
    assert sum(dark[:3]) > sum(light[:3]) + 200


def test_every_picture_of_the_gallery_decodes(page):
    script = """
      return Promise.all([...document.images].map((image) => image.decode().then(() => image.naturalWidth)))
    """
    widths = page.execute_script(script)
    assert len(widths) > 30
    assert min(widths) > 0


def test_tables_sort_by_keyboard(page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    table = page.find_element(By.ID, "table-headline")
    headings = table.find_elements(By.CSS_SELECTOR, "thead th")
    place = next(at for at, heading in enumerate(headings) if "exact match" in heading.text)
    heading = headings[place]

    def values():
        rows = "[...document.querySelectorAll('#table-headline tbody tr')]"
        return page.execute_script(f"return {rows}.map(row => Number(row.cells[{place}].dataset.sort))")

    button = heading.find_element(By.TAG_NAME, "button")
    before = values()
    page.execute_script("arguments[0].focus()", button)
    press(page, Keys.ENTER)
    assert heading.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(before)
    press(page, Keys.SPACE)
    assert heading.get_attribute("aria-sort") == "descending"
    assert values() == sorted(before, reverse=True)
    assert before not in (sorted(before), sorted(before, reverse=True)), "sorting changed something"


def test_the_gallery_filters_and_sorts_by_keyboard(page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    form = page.find_element(By.CSS_SELECTOR, ".controls")
    assert form.is_displayed()
    total = shown_cards(page)
    page.execute_script("document.querySelector('.controls input').focus()")
    shown = {}
    for verdict in ("right", "wrong", "unreadable", "hardest"):
        press(page, Keys.ARROW_RIGHT)
        assert page.switch_to.active_element.get_attribute("value") == verdict
        shown[verdict] = shown_cards(page)
        wanted = "[data-hardest]" if verdict == "hardest" else f"[data-verdict={verdict}]"
        others = f"[...document.querySelectorAll('.card:not({wanted})')].filter(c => c.offsetParent).length"
        assert page.execute_script(f"return {others}") == 0
        assert f"{shown[verdict]} of {total} examples" in form.find_element(By.TAG_NAME, "output").text
    assert shown["right"]
    assert shown["right"] + shown["wrong"] + shown["unreadable"] == total
    press(page, Keys.ARROW_RIGHT)
    assert shown_cards(page) == total
    order = form.find_element(By.NAME, "order")
    order.send_keys("hardest")
    script = "return [...document.querySelector('.cards').children].map(c => Number(c.dataset.solved))"
    solved = page.execute_script(script)
    assert solved == sorted(solved)
    assert len(set(solved)) > 1


def test_without_javascript_everything_is_there(page, report_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    total = shown_cards(page)
    page.get("about:blank")
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.get(report_path["path"].as_uri())
        # with scripts disabled the driver does not wait until the page is whole
        WebDriverWait(page, 10).until(lambda _: page.find_elements(By.TAG_NAME, "footer"))
        assert len(page.find_elements(By.CSS_SELECTOR, ".card")) == total
        assert not page.find_element(By.CSS_SELECTOR, ".controls").is_displayed()
        assert page.find_elements(By.CSS_SELECTOR, "th button") == []
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_first_tab_skips_to_the_findings_and_focus_is_seen(page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    first = page.switch_to.active_element
    assert first.get_attribute("class") == "skip"
    assert first.location["x"] >= 0
    outline = page.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    first.send_keys(Keys.ENTER)
    assert page.execute_script("return document.activeElement.id") == "main"


def test_it_prints_on_white_paper_even_in_the_dark(page, report_path):
    show(page, report_path["path"], 1280, "dark")
    printed = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page") > 3
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    shot = Image.open(BytesIO(base64.b64decode(page.execute_cdp_cmd("Page.captureScreenshot", {})["data"])))
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert np.asarray(shot.convert("L")).mean() > 200
