"""The page at `/docs` in a real browser, driven by its own protocol (Chrome DevTools)."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager

import pytest
import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Tab:
    """A page of a browser, and everything that it asked for and complained of."""

    def __init__(self, address):
        self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self.count, self.requests, self.complaints = 0, [], []
        for domain in ("Page", "Network", "Runtime", "Log", "Audits"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.count:
                assert "error" not in message, message
                return message["result"]
            self.note(message)

    def note(self, message):
        about = message.get("params", {})
        if message["method"] == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(about["exceptionDetails"]["text"])
        elif message["method"] == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(about["entry"]["text"])
        elif message["method"] == "Audits.issueAdded" and about["issue"]["code"] == "ContentSecurityPolicyIssue":
            self.complaints.append(json.dumps(about["issue"]["details"]))

    def run(self, script):
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script):
        """Waits until an expression holds, and returns its value."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            value = self.run(f"!!({script})")
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"never: {script}\n{self.run('document.body.innerText')[:2000]}\n{self.complaints}")

    def fill(self, selector, text):
        """Types into a field, as a user does: the page sees every key."""
        self.run(f"document.querySelector({selector!r}).focus()")
        self.call("Input.insertText", text=text)


FLAGS = [
    "--headless=new",
    # Root may not have a sandbox; the page is our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--remote-debugging-port=0",
]


def start(folder):
    """A browser, and the port at which it is driven. None if it ended before it had one, as browsers do on a machine that is short of something."""
    folder.mkdir()
    log = (folder / "log").open("w")
    process = subprocess.Popen([CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"], stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
    reported = folder / "DevToolsActivePort"
    while process.poll() is None:
        if reported.exists() and reported.read_text().count("\n"):
            return process, reported.read_text().split("\n")[0]
        time.sleep(0.1)
    return None


@contextmanager
def browser(folder):
    started = next(filter(None, (start(folder / str(attempt)) for attempt in range(3))), None)
    assert started, "the browser does not start:\n" + (folder / "2" / "log").read_text()
    process, port = started
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as listed:
            (page,) = [target for target in json.load(listed) if target["type"] == "page"]
        yield Tab(page["webSocketDebuggerUrl"])
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def tab(tmp_path_factory, service):
    assert CHROMIUM, "no chromium: script/bootstrap installs it"
    with browser(tmp_path_factory.mktemp("browser")) as tab:
        tab.call("Page.navigate", url=f"{service.url}/docs")
        tab.wait("document.querySelectorAll('.opblock').length > 0")
        yield tab


def test_it_shows_every_operation(tab, document):
    count = sum(len(item) for item in document["paths"].values())
    assert tab.run("document.querySelectorAll('.opblock').length") == count
    for service in document["tags"]:
        assert tab.run(f"!!document.getElementById('operations-tag-{service['name']}')"), service["name"]


def test_with_a_key_a_call_can_be_tried(tab, service):
    key = service.key()
    tab.run("document.querySelector('.auth-wrapper .authorize').click()")
    tab.wait("document.querySelector('.auth-container input')")
    tab.fill(".auth-container input", key)
    tab.run("document.querySelector('.auth-container button.authorize').click()")
    tab.wait("[...document.querySelectorAll('.auth-container button')].some((button) => button.innerText === 'Logout')")
    tab.run("document.querySelector('.modal-ux .close-modal').click()")

    operation = "#operations-PortfolioService-PortfolioService_ListPortfolios"
    tab.run(f"document.querySelector('{operation} .opblock-summary-control').click()")
    tab.wait(f"document.querySelector('{operation} .execute')")
    tab.run(f"document.querySelector('{operation} .execute').click()")
    tab.wait(f"document.querySelector('{operation} .live-responses-table .response-col_status')")
    assert tab.run(f"document.querySelector('{operation} .live-responses-table tbody .response-col_status').innerText").startswith("200")
    answered = tab.run(f"document.querySelector('{operation} .live-responses-table .highlight-code').innerText")
    assert '"portfolios": []' in answered


def test_it_asks_nobody_but_the_service_and_breaks_no_rule_of_its_policy(tab, service):
    assert tab.run("document.title") == "Reference of the API"
    assert [url for url in tab.requests if not url.startswith((service.url, "data:"))] == []
    assert any(url.endswith("/openapi.json") for url in tab.requests)
    assert tab.complaints == []


def test_its_policy_lets_no_script_in_that_stands_in_the_page(tab):
    tab.run("const script = document.createElement('script'); script.textContent = 'window.injected = 1'; document.body.append(script)")
    assert tab.run("window.injected === undefined")
    assert tab.run("fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => String(error))").startswith("TypeError")
    # The browser has reported both, which shows that the tests before would have noticed.
    tab.wait("true")
    assert any("script-src" in complaint for complaint in tab.complaints) and any("connect-src" in complaint for complaint in tab.complaints)
