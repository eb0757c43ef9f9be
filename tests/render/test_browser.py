"""The mails as people see them, in a real browser: one Chromium for the whole module, cut off from the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postier.schemas.account import Brand
from postier.schemas.events import KINDS, Change, Entity, Recipient, Visitor
from postier.workers.render import preview
from tests.conftest import PATIENCE
from tests.render.helpers import ACCOUNT, CASES, example

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = [375, 1280]
LONGEST = 4 * PATIENCE * 1_000  # milliseconds: a loaded machine starts a browser slowly
LOGO = '<svg xmlns="http://www.w3.org/2000/svg" width="280" height="80"><rect width="280" height="80"/></svg>'
HOSTILE = (
    '"><script>document.title="ran"</script><img src=x onerror=\'document.title="ran"\'>'
    "<svg onload='document.title=\"ran\"'></svg></style></title>" + "w" * 150
)
# What a mail may hold of visible text and links, wider than the window or outside of it.
OVERFLOW = """() => [...document.querySelectorAll('body *')].filter(element => {
    const box = element.getBoundingClientRect();
    return box.width > 1 && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(element => element.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: mails are not looked at in a browser here")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: mails are not looked at"
    )
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS, timeout=LONGEST)
        yield found
        found.close()


@pytest.fixture(scope="module", params=WIDTHS)
def page(browser, request):
    context = browser.new_context(viewport={"width": request.param, "height": 800})
    context.set_default_timeout(LONGEST)
    context.route("**/*", lambda route: route.abort())
    context.route("**/logo.png", lambda route: route.fulfill(content_type="image/svg+xml", body=LOGO))
    yield context.new_page()
    context.close()


def show(page, kind, event, locale, account=ACCOUNT):
    page.set_content(preview(kind, event, account, locale)[2])
    folder = os.environ.get("POSTIER_SCREENSHOTS")
    if folder:
        page.screenshot(path=f"{folder}/{kind}.{locale}.{page.viewport_size['width']}.png", full_page=True)


def hostile(kind):
    text, link = HOSTILE, "https://school.example/" + "q" * 1500
    person = Recipient(address="ada@example.org", name=text[:128])
    match kind:
        case "account_validation":
            return example(kind, recipient=person, action_url=link, code=text[:64])
        case "reset_link":
            return example(kind, recipient=person, action_url=link, code="8" * 64, device=text)
        case "sender_confirmation":
            return example(kind, recipient=person, action_url=link, sender_name=text[:128])
        case "contact_form":
            address = "v" * 64 + "@" + "example." * 20 + "com"
            visitor = Visitor(name=text[:128], address=address)
            return example(kind, visitor=visitor, subject=text[:255], message=text + "\n" + "long" * 500)
        case "data_change":
            changes = tuple(Change(field=str(n), label=text[:200], old=text * 2, new="x" * 900) for n in range(3))
            entity = Entity(type="t", id="1", label=text[:300], url=link)
            return example(kind, recipients=(person,), entity=entity, changes=changes, actor=text[:200])
        case _:  # a new kind, until somebody fills its own fields
            return example(kind)


@pytest.mark.parametrize(("kind", "locale"), CASES)
def test_a_mail_fits_the_window_and_its_button_can_be_pressed(page, kind, locale):
    show(page, kind, KINDS[kind].example(), locale)
    assert page.evaluate(OVERFLOW) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.locator("h1").is_visible()
    assert page.evaluate("document.querySelector('img').naturalWidth") > 0
    if kind != "contact_form":
        button = page.locator(".action a")
        assert button.is_visible()
        assert button.bounding_box()["height"] >= 44  # a thumb's width
        assert "https://school.example/" in page.locator(".link").last.inner_text()


@pytest.mark.parametrize(("kind", "locale"), CASES)
def test_hostile_text_runs_nothing_and_breaks_no_layout(page, kind, locale):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.set_content(preview(kind, hostile(kind), ACCOUNT, locale)[2])
    page.wait_for_load_state("load")
    assert page.title() != "ran"
    assert page.locator("script, svg").count() == 0
    assert page.locator("img").count() == 1
    assert [url for url in requests if url != ACCOUNT.brand.logo_url] == []
    assert page.evaluate(OVERFLOW) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


CONTRAST = """() => {
    const rgb = text => text.match(/[\\d.]+/g).map(Number);
    const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) =>
        0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const background = element => {
        for (; element; element = element.parentElement) {
            const colour = rgb(getComputedStyle(element).backgroundColor);
            if (colour.length === 3 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const bad = [];
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
        if (!text || !element.checkVisibility({opacityProperty: true})) continue;
        const [one, other] = [rgb(getComputedStyle(element).color), background(element)].map(luminance);
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio < 4.5) bad.push([ratio.toFixed(2), text.slice(0, 60)]);
    }
    return bad;
}"""


@pytest.mark.parametrize("colour", ["#1f6f54", "#ffee00", "#101010", "#f5f5f5"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_readable_in_light_and_dark_with_any_brand_colour(page, scheme, colour):
    page.emulate_media(color_scheme=scheme)
    account = ACCOUNT.model_copy(update={"brand": Brand(name="Riverside School", colour=colour)})
    for kind in KINDS:
        page.set_content(preview(kind, KINDS[kind].example(), account, "en")[2])
        assert page.evaluate(CONTRAST) == [], kind
    page.emulate_media(color_scheme="light")
