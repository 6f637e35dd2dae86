"""The page at /docs: it works in a real browser without internet, and the browser is told to let it do nothing else."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.docs import MEDIA_TYPES
from tests.browser import Page, new_page, pixels_of
from tests.live import LiveService
from tests.some import some

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
COLOURS_MIN = 50
OPERATION = "#operations-deposits-announceDeposit"


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, service: LiveService, tmp_path: Path) -> Iterator[Page]:
    """The page in a browser's window of each size; nothing that it did was forbidden, and nothing left this host."""
    width, height = SIZES[request.param]
    with new_page(tmp_path / "profile") as shown:
        shown.open(f"{service.url}/docs", width=width, height=height)
        yield shown
        assert shown.said == []
        assert {url for url in shown.asked if not url.startswith((f"{service.url}/", "data:"))} == set()


def test_the_page_shows_every_operation(page: Page, service: LiveService) -> None:
    """Each operation of the contract by method and path, readable in a window of either size, within its width."""
    paths = service.client("").get("/openapi.json").json()["paths"]
    listed = {(method.upper(), path) for path, item in paths.items() for method in item}
    page.wait_for(".opblock", len(listed))
    shown = page.run(
        "[...document.querySelectorAll('.opblock-summary')].map(line => [line.querySelector('.opblock-summary-method')"
        ".textContent, line.querySelector('[data-path]').dataset.path])"
    )
    assert {(method, path) for method, path in shown} == listed
    assert len(shown) == len(listed) > 30
    width, _, colours = pixels_of(page.picture(scale=0.25))
    assert width > 80
    assert len(colours) > COLOURS_MIN, "the picture is blank"
    assert f"{service.url}/openapi.json" in page.asked


def test_an_operation_opens_and_can_be_tried(page: Page, service: LiveService) -> None:
    """Its parameters, an example that the service takes, its answers; a probe sent from the page is answered."""
    page.wait_for(OPERATION)
    page.run(f"document.querySelector('{OPERATION} .opblock-summary-control').click()")
    page.wait_for(f"{OPERATION} .responses-inner")
    example = page.run(
        f"document.querySelector('{OPERATION} .body-param__example, {OPERATION} .highlight-code').innerText"
    )
    posted = service.client().write("/v1/deposits", example.encode())
    assert posted.status_code == 201, (example, posted.text)
    page.run(f"document.querySelector('{OPERATION}').scrollIntoView()")
    assert len(pixels_of(page.picture(scale=0.25))[2]) > COLOURS_MIN
    assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    probe = "#operations-health-livez"
    page.run(f"document.querySelector('{probe} .opblock-summary-control').click()")
    page.wait_for(f"{probe} .try-out__btn")
    page.run(f"document.querySelector('{probe} .try-out__btn').click()")
    page.wait_for(f"{probe} .execute")
    page.run(f"document.querySelector('{probe} .execute').click()")
    page.wait_for(f"{probe} .live-responses-table")
    assert f"{service.url}/livez" in page.asked


def test_the_browser_sees_what_is_forbidden(service: LiveService, tmp_path: Path) -> None:
    """A style in the page and a script of another host are held back and told of: the tests above would see them."""
    with new_page(tmp_path / "profile") as page:
        page.open(f"{service.url}/docs", width=800, height=600)
        page.wait_for(".opblock")
        page.run("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\" id=styled>x</p>')")
        page.run("document.body.appendChild(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
        page.run(
            "new Promise(done => document.body.appendChild(Object.assign(document.createElement('script'),"
            " {src: 'http://127.0.0.2:9/x.js', onerror: done}))).then(() => true)"
        )
        assert page.run("window.ran") is None
        told = "\n".join(page.said)
        for directive in ("style-src-attr", "script-src-elem"):
            assert f"CSP {directive}" in told, told


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", *(f"/docs/assets/{name}" for name in MEDIA_TYPES)])
def test_a_browser_is_told_to_be_strict(service: LiveService, path: str) -> None:
    """No inline script or style, no other host, no frame, no guessing of types, no referrer."""
    headers = service.client("").get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("img-src") == "data:"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert {name for name, value in policy.items() if value == "'self'"} == {"script-src", "style-src", "connect-src"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_the_page_has_no_address_but_its_own(service: LiveService) -> None:
    """Each script and style sheet comes from here, is there, and is what its media type says."""
    client = service.client("")
    text = client.get("/docs", headers={"Accept": "text/html"}).text
    assert not re.search(r"(https?:)?//[a-z]", text)
    assets = re.findall(r"(?:src|href)=['\"](/docs/assets/[^'\"]+)", text)
    assert {asset.rpartition("/")[2] for asset in assets} == MEDIA_TYPES.keys()
    for asset in some(assets):
        answer = client.get(asset, headers={"Accept": "text/css,*/*;q=0.1"})
        assert (answer.status_code, len(answer.content) > 10) == (200, True)
        assert re.match(r"text/(javascript|css)", answer.headers["Content-Type"])


@pytest.mark.parametrize("name", ["x", "docs.py", "..%2Fdocs.py", "LICENSE-swagger-ui", "docs.html", "%00", "."])
def test_no_other_file_is_served(service: LiveService, name: str) -> None:
    """Only the files of the page."""
    assert service.client("").get(f"/docs/assets/{name}").status_code == 404
