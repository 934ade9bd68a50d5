"""The report in a real browser: draws, switches, fits, speaks."""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cl.metrics.matrix import average_accuracy
from cl.report.samples import write_samples
from cl.report.write import write_report
from cl.testing import TinyStream
from tests.fake_runs import matrix, write

selenium = pytest.importorskip("selenium", reason="needs selenium")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver")

STRATEGIES = ("naive", "ewc", "er")
TASKS = 4


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for i, strategy in enumerate(STRATEGIES):
        for seed in range(3):
            folder = write(root, strategy, seed, k=TASKS, kept=0.3 + 0.3 * i, points=10)
            write_samples(TinyStream("class", tasks=TASKS), folder)
    write(root, "lwf", 0, status="failed", message="Expected a finite loss, got nan")
    return write_report([root], root, figures=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(word)
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def resize(browser, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.fixture
def opened(browser, page: Path):
    resize(browser, 1400)
    browser.get(page.as_uri())
    return browser


def count(browser, selector: str) -> int:
    return len(browser.find_elements("css selector", selector))


def shown(browser, selector: str) -> int:
    return sum(e.is_displayed() for e in browser.find_elements("css selector", selector))


def test_loads_without_errors_and_draws_every_curve(opened) -> None:
    assert [entry for entry in opened.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    curves = "#f0-forgetting_curves"
    assert count(opened, f"{curves} .panel") == TASKS
    assert count(opened, f"{curves} polyline.line") == TASKS * len(STRATEGIES)
    assert count(opened, f"{curves} polygon.band") == TASKS * len(STRATEGIES)
    assert count(opened, "#f0-stability_gap polyline.line") == (TASKS - 1) * len(STRATEGIES)
    assert count(opened, "#f0-accuracy_matrix table") == len(STRATEGIES)
    assert count(opened, "#f0-accuracy_matrix td") == len(STRATEGIES) * TASKS * (TASKS + 1)
    assert count(opened, ".samples img") == TASKS * 10
    assert "Expected a finite loss, got nan" in opened.find_element("id", "failed").text


def test_points_stand_where_the_values_are(opened) -> None:
    read = """
        const plot = document.querySelector('#f0-average_accuracy .plot'), box = plot.getBoundingClientRect();
        const dot = plot.querySelector('g[data-label="naive"] .dot').getBoundingClientRect();
        const tick = [...plot.querySelectorAll('.ty')].map(e => [Number(e.dataset.v), e.getBoundingClientRect()]);
        const at = (r) => (r.top + r.bottom) / 2;
        const [low, high] = [tick[0], tick[tick.length - 1]];
        return [low[0] + (dot.bottom - at(low[1])) / (at(high[1]) - at(low[1])) * (high[0] - low[0])];
    """
    (value,) = opened.execute_script(read)
    mean = np.mean([average_accuracy(matrix(TASKS, 0.3, seed))[0] for seed in range(3)])
    assert value == pytest.approx(mean, abs=0.02)  # the dot is 8 pixels high


@pytest.mark.parametrize("width", [380, 768, 1400])
def test_nothing_overflows(opened, width: int) -> None:
    resize(opened, width)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    outside = opened.execute_script("""
        return [...document.querySelectorAll('h1,h2,h3,p,figcaption,.plot,.chip,button,.matrix,li')].filter(e => {
            const r = e.getBoundingClientRect();
            return r.width > 0 && (r.left < -1 || r.right > innerWidth + 1);
        }).map(e => e.outerHTML.slice(0, 80))""")
    assert outside == []


def test_strategies_and_tasks_are_switched(opened) -> None:
    lines = "#f0-forgetting_curves g[data-s]"
    before = shown(opened, lines)
    naive = opened.find_element("css selector", "[data-strategy]")
    naive.click()
    assert shown(opened, lines) == before - TASKS
    naive.click()
    assert shown(opened, lines) == before
    opened.find_element("css selector", "[data-task-switch='1']").click()
    assert shown(opened, "#f0-forgetting_curves .panel") == TASKS - 1
    assert shown(opened, ".samples") == TASKS - 1


def test_log_scale_there_and_back(opened) -> None:
    def points() -> list[str]:
        found = opened.find_elements("css selector", "#f0-average_accuracy polyline.line")
        return [e.get_attribute("points") for e in found]

    before, button = points(), opened.find_element("id", "log")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    after = points()
    assert all(a != b for a, b in zip(before, after, strict=True))
    heights = [float(p.split(",")[1]) for line in after for p in line.split()]
    assert all(-1 <= h <= 1001 for h in heights)
    assert shown(opened, "#f0-average_accuracy .ty") >= 3
    button.click()
    for a, b in zip(before, points(), strict=True):
        pairs = zip(a.replace(",", " ").split(), b.replace(",", " ").split(), strict=True)
        assert max(abs(float(x) - float(y)) for x, y in pairs) < 0.01


def test_every_tick_of_the_log_scale_has_its_line(opened) -> None:
    count = """return [...document.querySelectorAll(".plot[data-log]")].filter((p) => p.dataset.log).map((p) => [
        [...p.querySelectorAll(".grid path")].filter((e) => e.getAttribute("d").includes("H1000")).length,
        [...p.querySelectorAll(".ty")].filter((e) => !e.hidden).length,
        [...p.querySelectorAll(".tx")].filter((e) => !e.hidden).length]);"""
    before = opened.execute_script(count)
    assert len(before) >= 4
    button = opened.find_element("id", "log")
    for _ in ("there", "back"):
        button.click()
        now = opened.execute_script(count)
        assert [lines for lines, _, _ in now] == [ticks for _, ticks, _ in now]
        assert min(min(found) for found in now) >= 2, now
    assert now == before


def test_values_by_pointer_and_by_keyboard(opened) -> None:
    from selenium.webdriver import ActionChains, Keys

    plot = opened.find_element("css selector", "#f0-average_accuracy .plot")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    ActionChains(opened).move_to_element(plot).perform()
    tip = opened.find_element("id", "tip")
    assert tip.is_displayed()
    assert all(strategy in tip.text for strategy in STRATEGIES)
    plot.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    plot.send_keys(Keys.ARROW_RIGHT)
    assert tip.text.startswith("tasks trained: 1")
    plot.send_keys(Keys.ARROW_RIGHT)
    assert tip.text.startswith("tasks trained: 2")
    assert tip.get_attribute("aria-live") == "polite"


def test_dark_and_light(opened) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    dark = opened.execute_script(background)
    opened.find_element("id", "theme").click()
    light = opened.execute_script(background)
    assert dark != light
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_readable_without_script(browser, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
        assert shown(browser, "#f0-forgetting_curves polyline.line") == TASKS * len(STRATEGIES)
        assert shown(browser, "#f0-average_accuracy .ty") >= 3
        assert shown(browser, ".chip input") == shown(browser, "button") == 0
        assert shown(browser, ".chip") == len(STRATEGIES)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_drawings_speak(opened) -> None:
    plots = opened.find_elements("css selector", ".plot")
    assert plots
    for plot in plots:
        assert plot.get_attribute("role") == "img"
        assert len(plot.get_attribute("aria-label")) > 20
    heads = [int(e.tag_name[1]) for e in opened.find_elements("css selector", "h1,h2,h3,h4")]
    assert heads[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(heads))
    assert opened.execute_script("return document.documentElement.lang") == "en"
