"""Checks every file of an audit, and the viewer, against rules that others wrote.

    cargo build --release -p nocebo-cli
    python bench/report_checks.py RESULTS...

| what | checked by |
|---|---|
| `audit.json` | its published JSON Schema (`nocebo schema`), with `jsonschema` |
| `model.cdx.json` | the strict CycloneDX schema inside `cyclonedx-python-lib` |
| `junit.xml` | `junit-10.xsd` of Jenkins' xunit plugin, as pytest's source distribution carries it, with `lxml` |
| `report.html`, the viewer's page | `html-validate` (its recommended rules), `axe-core` in Chromium, size, requests, console |

Takes finished audits; those with --keep-samples show more of the viewer. Prints a table and ends with 1 where a check fails.
Needs network once, for npm (into --tools) and pip.
"""

import argparse
import io
import json
import pathlib
import subprocess
import sys
import tarfile

import jsonschema
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from lxml import etree
from playwright.sync_api import sync_playwright

from viewer_check import served

PACKAGES = ["html-validate@10", "axe-core@4"]
LARGEST = 5_000_000


def tools(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules/axe-core").exists():
        subprocess.run(["npm", "install", "--silent", "--no-save", *PACKAGES], cwd=folder, check=True)
    if not list(folder.glob("pytest-*.tar.gz")):
        command = [sys.executable, "-m", "pip", "download", "pytest", "--quiet", "--no-deps", "--no-binary", "pytest", "-d", str(folder)]
        subprocess.run(command, check=True)


def junit_schema(folder: pathlib.Path) -> etree.XMLSchema:
    with tarfile.open(next(folder.glob("pytest-*.tar.gz"))) as archive:
        name = next(name for name in archive.getnames() if name.endswith("junit-10.xsd"))
        return etree.XMLSchema(etree.parse(io.BytesIO(archive.extractfile(name).read())))


def html(folder: pathlib.Path, page: pathlib.Path) -> list[str]:
    command = ["node_modules/.bin/html-validate", "--preset", "recommended", "--formatter", "json", str(page.resolve())]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    results = json.loads(done.stdout)
    return [f"{message['ruleId']} at {message['line']}: {message['message']}" for result in results for message in result["messages"]]


class Browser:
    def __init__(self, playwright, chromium: str, axe: str):
        self.browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        self.axe = axe

    def opened(self, address: str, ready: str, allowed: str) -> dict[str, list[str]]:
        page = self.browser.new_page(viewport={"width": 1280, "height": 900})
        requests, console = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: console.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: console.append(str(error)))
        page.goto(address)
        page.wait_for_selector(ready)
        page.wait_for_load_state("networkidle")
        # A tool of ours may do what the page may not.
        page.evaluate(self.axe)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations', 'incomplete']})")
        page.close()
        violations = [f"{rule['id']} ({len(rule['nodes'])}): {rule['nodes'][0]['html'][:120]}" for rule in found["violations"]]
        outside = [url for url in requests if url != address and not url.startswith(("data:", allowed))]
        return {"axe": violations, "requests elsewhere": outside, "console": console}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=pathlib.Path)
    parser.add_argument("--nocebo", default="target/release/nocebo", help="the program")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    parser.add_argument("--tools", type=pathlib.Path, default=pathlib.Path("target/report-checks"), help="where npm and pip put theirs")
    arguments = parser.parse_args()
    nocebo = str(pathlib.Path(arguments.nocebo).resolve())
    tools(arguments.tools)
    schema = json.loads(subprocess.run([nocebo, "schema"], capture_output=True, text=True, check=True).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    junit = junit_schema(arguments.tools)
    failed = 0

    def row(what: str, check: str, problems: list[str]) -> None:
        nonlocal failed
        failed += bool(problems)
        print(f"| {what} | {check} | {'ok' if not problems else f'{len(problems)} problems: ' + '; '.join(problems[:5])} |")

    print("| file | check | result |\n|---|---|---|")
    with sync_playwright() as playwright:
        axe = (arguments.tools / "node_modules/axe-core/axe.min.js").read_text()
        browser = Browser(playwright, arguments.chromium, axe)
        for folder in arguments.results:
            audit = json.loads((folder / "audit.json").read_text())
            row(f"{folder.name}/audit.json", "JSON Schema", [e.message for e in jsonschema.Draft202012Validator(schema).iter_errors(audit)])
            card = (folder / "model.cdx.json").read_text()
            version = SchemaVersion.from_version(json.loads(card)["specVersion"])
            error = JsonStrictValidator(version).validate_str(card)
            row(f"{folder.name}/model.cdx.json", f"CycloneDX {version.to_version()}", [str(error)] if error else [])
            tree = etree.parse(folder / "junit.xml")
            row(f"{folder.name}/junit.xml", "junit-10.xsd", [] if junit.validate(tree) else [str(e) for e in junit.error_log])
            report = folder / "report.html"
            size = report.stat().st_size
            row(f"{folder.name}/report.html", f"size {size / 1e6:.2f} MB below 5 MB", [] if size < LARGEST else [str(size)])
            row(f"{folder.name}/report.html", "html-validate", html(arguments.tools, report))
            for check, problems in browser.opened(report.resolve().as_uri(), "footer", "data:").items():
                row(f"{folder.name}/report.html", check, problems)
        with served(nocebo, *arguments.results) as address:
            page = arguments.tools / "viewer.html"
            page.write_bytes(subprocess.run(["curl", "--silent", address], capture_output=True, check=True).stdout)
            row("viewer", "html-validate", html(arguments.tools, page))
            for check, problems in browser.opened(address, "#items label", address).items():
                row("viewer", check, problems)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
