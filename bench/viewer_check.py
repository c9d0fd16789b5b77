"""Clicks through `nocebo view` in Chromium and checks what the page does.

    cargo build --release -p nocebo-cli
    python bench/viewer_check.py --screenshots docs

Audits two small networks on phantoms (`nocebo demo` data, or --results FOLDER FOLDER of audits with --keep-samples), then
opens the viewer on both, on the same numbers laid out as signals, as a volume and as colour images, and on results that keep
no samples. Fails where a filter does not change the list, a slider does not change the picture, a request leaves this machine,
or the console tells of an error. Needs NumPy and `playwright` (which drives the installed Chromium).
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile
from contextlib import contextmanager

import numpy as np
from playwright.sync_api import Page, sync_playwright


@contextmanager
def served(nocebo: str, *folders: pathlib.Path):
    process = subprocess.Popen([nocebo, "view", *map(str, folders)], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().split()[0]
    finally:
        process.kill()
        process.wait()


def reshaped(source: pathlib.Path, target: pathlib.Path, shape: tuple[int, ...]) -> pathlib.Path:
    """A copy of results whose samples have another shape: the first elements of each, in order."""
    shutil.copytree(source, target)
    elements = int(np.prod(shape))
    for path in [target / "samples.npy", *target.glob("cells/*.npy")]:
        values = np.load(path)
        np.save(path, values.reshape(len(values), -1)[:, :elements].reshape(len(values), *shape))
    for name, keys in [("audit.json", ("data", "shape")), ("samples.json", ("shape",))]:
        content = json.loads((target / name).read_text())
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = list(shape)
        (target / name).write_text(json.dumps(content))
    return target


class Watched:
    """A page whose requests and complaints are kept."""

    def __init__(self, page: Page, address: str):
        self.page, self.problems, self.requests = page, [], []
        page.on("console", lambda message: self.problems.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        page.on("request", lambda request: self.requests.append(request.url))
        self.address = address
        page.goto(address)
        page.wait_for_selector("#items label")
        page.wait_for_selector("#viewer:not([hidden]), #no-picture:not(:empty)")

    def pixels(self, canvas: str) -> str:
        return self.page.eval_on_selector(canvas, "canvas => canvas.toDataURL()")

    def done(self) -> None:
        outside = [url for url in self.requests if not url.startswith((self.address, "data:"))]
        assert not outside, outside
        assert not self.problems, self.problems


def settle(page: Page) -> None:
    page.wait_for_load_state("networkidle")


def two_runs(watched: Watched, screenshots: pathlib.Path | None) -> None:
    page = watched.page
    listed = lambda: page.locator("#items label").count()
    count = lambda: page.text_content("#count")
    assert page.locator("#runs tbody tr").count() == 2
    assert page.locator("#curves figure").count() >= 1
    everything = listed()

    page.select_option("#outcome", "fell")
    fallen, told = listed(), count()
    assert 0 < fallen < everything and str(fallen) in told, (fallen, everything, told)
    assert set(page.locator("#items .badge").all_text_contents()) == {"fell"}
    page.select_option("#budget", "0")
    least = listed()
    assert least < fallen, "a smaller budget brings fewer down"
    page.select_option("#budget", label=page.locator("#budget option").nth(2).text_content())
    classes = page.locator("#class option").all_text_contents()[1:]
    parts = []
    for name in classes:
        page.select_option("#class", name)
        texts = page.locator("#items .text").all_text_contents()
        assert all(text.endswith(name) for text in texts)
        parts.append(len(texts))
    page.select_option("#class", "")
    assert sum(parts) == listed() and len(parts) > 1
    attacks = page.locator("#attack option").all_text_contents()
    page.select_option("#attack", "noise")
    assert listed() < sum(parts) and "pgd" in " ".join(attacks)
    page.select_option("#attack", "")
    assert page.locator("#kept-choice").is_visible()
    before = int(count().split()[0])
    page.uncheck("#kept")
    assert int(count().split()[0]) > before
    page.check("#kept")

    settle(page)
    first = page.text_content("#detail-title")
    page.focus("#items input:checked")
    page.keyboard.press("ArrowDown")
    settle(page)
    assert page.text_content("#detail-title") != first, "the arrow keys move to the next sample"
    adversarial, difference = watched.pixels("#picture"), watched.pixels("#difference")
    assert page.text_content("#blend-value") == "adversarial"
    page.focus("#blend")
    page.keyboard.press("Home")
    clean = watched.pixels("#picture")
    assert clean != adversarial and page.text_content("#blend-value") == "clean"
    page.keyboard.press("ArrowRight")
    assert page.text_content("#blend-value") == "1 % of the change"
    assert watched.pixels("#difference") == difference, "the difference is that of the whole change"
    page.select_option("#amplification", "1")
    assert watched.pixels("#difference") != difference
    page.keyboard.press("End")
    page.focus("#blend")
    page.keyboard.press("End")
    assert watched.pixels("#picture") == adversarial

    page.locator("#attacks button").first.click()
    settle(page)
    assert page.get_attribute("#attacks button >> nth=0", "aria-pressed") == "true"
    assert page.locator("#attacks tbody tr").count() == page.locator("#attacks tbody button").count() > 5
    assert "Elsewhere at" in page.text_content("#elsewhere")

    page.select_option("#difference-budget", "1")
    rows = page.locator("#difference-table tbody tr")
    assert rows.count() > 0 and str(rows.count()) in page.text_content("#difference-count")
    wanted = rows.first.locator("th").text_content().lstrip("#")
    rows.first.locator("button").last.click()
    settle(page)
    assert page.text_content("#detail-title").startswith(f"Sample {wanted}")
    assert page.eval_on_selector("#run", "run => run.selectedIndex") == 1
    if screenshots:
        page.select_option("#run", "0")
        page.select_option("#outcome", "fell")
        page.check("#kept")
        settle(page)
        page.focus("#items input:checked")
        page.mouse.move(0, 0)
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=screenshots / "viewer-runs.png")
        page.eval_on_selector("#samples", "samples => samples.scrollIntoView()")
        page.screenshot(path=screenshots / "viewer-sample.png")


def other_shape(watched: Watched, slices: int, screenshot: pathlib.Path | None) -> None:
    page = watched.page
    page.select_option("#outcome", "fell")
    settle(page)
    adversarial = watched.pixels("#picture")
    page.focus("#blend")
    page.keyboard.press("Home")
    assert watched.pixels("#picture") != adversarial
    assert page.locator("#slice-control").is_visible() == (slices > 1)
    if slices > 1:
        shown = watched.pixels("#picture")
        page.focus("#slice")
        page.keyboard.press("ArrowRight")
        assert watched.pixels("#picture") != shown and f"of {slices}" in page.text_content("#slice-value")
    if screenshot:
        page.locator("#detail").screenshot(path=screenshot)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nocebo", default="target/release/nocebo", help="the program")
    parser.add_argument("--results", nargs=2, type=pathlib.Path, help="two finished audits of the same phantoms; made by `nocebo demo` otherwise")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    parser.add_argument("--screenshots", type=pathlib.Path, help="folder for two pictures of the page")
    parser.add_argument("--shapes", type=pathlib.Path, help="folder for a picture of each other layout")
    arguments = parser.parse_args()
    nocebo = str(pathlib.Path(arguments.nocebo).resolve())
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = pathlib.Path(name)
        results = arguments.results
        if not results:
            subprocess.run([nocebo, "demo", "--out", folder / "demo", "--quiet"], check=True)
            results = [folder / "demo/audit-plain", folder / "demo/audit-hardened"]
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])

        def opened(address: str) -> Watched:
            return Watched(browser.new_page(viewport={"width": 1280, "height": 860}), address)

        with served(nocebo, *results) as address:
            watched = opened(address)
            two_runs(watched, arguments.screenshots)
            watched.done()
            print("two runs: ok;", len(watched.requests), "requests, all to this server; no complaint on the console")
        for kind, shape in [("signal", (4, 196)), ("volume", (1, 16, 7, 7)), ("colour", (3, 16, 16))]:
            copy = reshaped(results[0], folder / kind, shape)
            with served(nocebo, copy) as address:
                watched = opened(address)
                other_shape(watched, 16 if kind == "volume" else 1, arguments.shapes and arguments.shapes / f"{kind}.png")
                watched.done()
                print(f"{kind} {shape}: ok")
        bare = folder / "bare"
        shutil.copytree(results[0], bare)
        (bare / "samples.json").unlink()
        with served(nocebo, bare) as address:
            watched = opened(address)
            assert "not kept" in watched.page.text_content("#no-picture") and not watched.page.locator("#viewer").is_visible()
            watched.done()
            print("results without samples: ok")
        browser.close()


if __name__ == "__main__":
    main()
