from __future__ import annotations

import html
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from jinja2 import StrictUndefined

from postier.schemas.account import Account, Brand, Sender
from postier.schemas.errors import RenderError
from postier.schemas.events import KINDS, Change, Entity, Recipient, Visitor
from postier.schemas.templates import __path__ as template_folders
from postier.workers import compile_templates
from postier.workers.colours import contrast, ink_on, readable_on
from postier.workers.render import Renderer, brand_fields, preview
from postier.workers.templates import Sandbox, Template, spelled, template_set, templates_for, when_en, when_fr
from tests.render.helpers import ACCOUNT, CASES, bodies, example, rendered
from tests.schemas.test_kinds import PLUGIN


def test_every_kind_has_whole_templates_in_both_languages():
    assert len(CASES) >= 10
    for kind, locale in CASES:
        assert template_set(kind, locale) is not None, f"{kind} has no templates in {locale}"


@pytest.mark.parametrize(("kind", "locale"), CASES)
def test_every_kind_renders_from_its_example(kind, locale):
    subject, text, page = preview(kind, KINDS[kind].example(), ACCOUNT, locale)
    assert subject.strip() == subject != ""
    assert "\n" not in subject
    for body in (subject, text, page):
        assert not re.search(r"\{\{|\{%|None|True|False", body)
    assert f'lang="{locale}"' in page
    assert page.isascii()


@pytest.mark.parametrize(("kind", "locale"), CASES)
def test_html_and_text_say_the_same_links_and_codes(kind, locale):
    event = KINDS[kind].example()
    _, text, page = preview(kind, event, ACCOUNT, locale)
    for _, url in event.links():
        assert url in text
        assert f'href="{html.escape(url)}"' in page
        if "unsubscribe" not in url:
            assert f">{html.escape(url)}</a>" in page  # spelled out under the button
    if getattr(event, "code", None):
        assert event.code in text
        assert f"<span>{event.code}</span>" in page


def test_committed_html_is_what_the_mjml_compiles_to(capsys):
    pytest.importorskip("mrml")
    assert compile_templates.main(["--check"]) == 0, capsys.readouterr().err


def test_check_says_when_html_and_mjml_differ(tmp_path):
    pytest.importorskip("mrml")
    sources = tmp_path / "mjml"
    sources.mkdir()
    (sources / "note.en.mjml").write_text("<mjml><mj-body><mj-text>é</mj-text></mj-body></mjml>", "utf-8")
    found = compile_templates.stale(sources, tmp_path)
    assert [path.name for path in found] == ["note.en.html"]
    assert "&#233;" in found[tmp_path / "note.en.html"]
    (tmp_path / "note.en.html").write_text(found[tmp_path / "note.en.html"], "ascii")
    assert compile_templates.stale(sources, tmp_path) == {}


def test_compiled_html_asks_nobody_for_anything_but_the_logo():
    for kind, locale in CASES:
        page = preview(kind, KINDS[kind].example(), ACCOUNT, locale)[2]
        assert re.findall(r'(?:src|url\()="?([^") ]+)', page) == [ACCOUNT.brand.logo_url]
        assert "<link" not in page
        assert "@import" not in page


def test_the_recipients_language_goes_before_the_accounts():
    event = KINDS["reset_link"].example()
    french = Renderer(ACCOUNT.model_copy(update={"locale": "fr"}))
    assert rendered(event, "fr").subject.startswith("Réinitialisez")
    assert rendered(event, None, french).subject.startswith("Réinitialisez")
    assert rendered(event, "en", french).subject.startswith("Reset")
    assert rendered(event, None).subject.startswith("Reset")


def test_a_language_without_templates_falls_back_to_english():
    assert templates_for("reset_link", "de", None).locale == "en"


def test_an_unknown_kind_is_a_render_error():
    for kind in ("no_such_kind", "../account", "reset_link.en"):
        with pytest.raises(RenderError, match="no templates"):
            templates_for(kind, "en")


def test_a_set_with_a_missing_file_is_a_render_error(tmp_path, monkeypatch):
    (tmp_path / "half.en.txt").write_text("x")
    monkeypatch.setattr("postier.workers.templates.files", lambda package: tmp_path)
    with pytest.raises(RenderError, match=r"no template half\.en\.subject"):
        template_set("half", "en")


def test_a_missing_field_names_template_and_field_but_no_value():
    event = KINDS["reset_link"].example()
    template = Template(
        templates_for("reset_link", "en").text._environment, "bad.txt", "{{ code }} {{ no_such_field }}"
    )
    with pytest.raises(RenderError) as caught:
        template.render(dict(event.__dict__))
    assert str(caught.value) == "bad.txt: 'no_such_field' is undefined"
    assert caught.value.__cause__ is None
    nested = Template(templates_for("reset_link", "en").text._environment, "bad.txt", "{{ recipient.nickname }}")
    with pytest.raises(RenderError, match="nickname") as caught:
        nested.render(dict(event.__dict__))
    assert event.recipient.address not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ recipient.__class__.__mro__ }}",
        "{{ recipient['__class__'] }}",
        "{{ recipient.model_dump() }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ '{0.__class__}'.format(recipient) }}",
        "{{ recipient|attr('__class__') }}",
        "{{ self.__init__.__globals__ }}",
        "{{ changes.append(1) }}",
        "{% include 'reset_link.en.txt' %}",
        "{% import 'os' as os %}",
        "{{ range(10) }}",
        "{{ 'x' * 2000000 }}",
    ],
)
def test_a_template_reaches_nothing_but_the_fields(source):
    template = Template(Sandbox(undefined=StrictUndefined), "hostile", source)
    with pytest.raises(RenderError, match=r"^hostile: "):
        template.render({"recipient": Recipient(address="ada@example.org"), "changes": []})


def test_times_are_told_in_utc_and_in_the_readers_language():
    moment = datetime(2026, 11, 22, 15, 5, 59, tzinfo=timezone(timedelta(hours=1)))
    assert when_en(moment) == "22 November 2026 at 14:05 UTC"
    assert when_fr(moment) == "22 novembre 2026 à 14 h 05 UTC"
    assert when_fr(datetime(2026, 8, 1, 9, 0, tzinfo=UTC)) == "1er août 2026 à 9 h 00 UTC"


@pytest.mark.parametrize("text", ["à bientôt", "A & <é>", "日本 👩‍👩‍👧", "plain"])
def test_text_spelled_for_html_is_ascii_and_reads_the_same(text):
    assert spelled(text).isascii()
    assert html.unescape(spelled(text)) == text
    assert spelled(spelled(text)) == spelled(text)


def test_a_french_page_is_written_in_ascii_at_once():
    fields = {
        **KINDS["reset_link"].example().__dict__,
        **brand_fields(ACCOUNT).html,
        "recipient": KINDS["reset_link"].example().recipient,
    }
    assert templates_for("reset_link", "fr").html.render({**fields, "mail_subject": spelled("Réinitialisez")}).isascii()


@pytest.mark.parametrize("colour", ["#ffff00", "#1f6f54", "#000000", "#ffffff", "#777777", "#ff0000", "#00ffff"])
def test_any_brand_colour_stays_readable(colour):
    assert contrast(ink_on(colour), colour) >= 4.5
    for background in ("#ffffff", "#1f2429"):
        assert contrast(readable_on(background, colour), background) >= 4.5


def test_contrast_is_the_one_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_the_accounts_brand_is_in_the_mail_and_has_a_name_without_one():
    plain = Account(name="bare", driver="smtp", sender=Sender(address="post@shop.example"))
    event = KINDS["reset_link"].example()
    assert rendered(event, renderer=Renderer(plain)).subject == "Reset your shop.example password"
    branded = plain.model_copy(update={"brand": Brand(name="A & B", colour="#ffcc00")})
    mail = rendered(event, renderer=Renderer(branded))
    assert mail.subject == "Reset your A & B password"
    assert "A &amp; B" in mail.html
    assert "background:#ffcc00;color:#000000" in mail.html
    assert "<img" not in mail.html


def test_masked_values_never_leave():
    event = example(
        "data_change", changes=(Change(field="pin", label="PIN", old="secret-1", new="secret-2", masked=True),)
    )
    for locale in ("en", "fr"):
        mail = rendered(event, locale)
        text, page = bodies(mail)
        assert "secret" not in text + page + mail.subject
        assert "••• → •••" in text
        assert "••• → •••" in html.unescape(page)


def test_absent_values_are_told_apart_from_empty_text():
    changes = (Change(field="a", label="A", new="x"), Change(field="b", label="B", old="y"))
    text, _ = bodies(rendered(example("data_change", changes=changes)))
    assert "    (empty) → x" in text
    assert "    y → (empty)" in text


@pytest.mark.parametrize("purpose", ["signup", "invite", "email_change", "recheck"])
def test_each_purpose_of_a_validation_has_its_own_words(purpose):
    pages = {
        p: rendered(example("account_validation", purpose=p)) for p in ("signup", "invite", "email_change", "recheck")
    }
    others = {p: mail for p, mail in pages.items() if p != purpose}
    assert all(pages[purpose].subject != other.subject for other in others.values())
    assert all(pages[purpose].text != other.text for other in others.values())


@pytest.mark.parametrize("locale", ["en", "fr"])
@pytest.mark.parametrize("gone", [("action_url",), ("code",), ("ip",), ("device",), ("code", "ip", "device")])
def test_a_reset_without_optional_fields_leaves_no_gap(locale, gone):
    mail = rendered(example("reset_link", **dict.fromkeys(gone)), locale)
    assert "\n\n\n" not in mail.text
    assert "None" not in mail.text + mail.html
    assert ("href" in mail.html) == ("action_url" not in gone)


@pytest.mark.parametrize(("kind", "locale"), CASES)
def test_texts_have_no_gaps_and_no_stray_spaces(kind, locale):
    text = rendered(KINDS[kind].example(), locale).text
    assert "\n\n\n" not in text
    assert not re.search(r"[ \t]\n", text.replace("\n-- \n", "\n"))
    assert "\n-- \n" in text


def test_without_links_there_is_no_button_and_no_unsubscribing():
    entity = Entity(type="t", id="1", label="Room")
    mail = rendered(example("data_change", entity=entity, unsubscribe_url=None))
    assert "href" not in mail.html
    assert "https://" not in mail.text


def test_a_nameless_visitor_has_no_empty_row():
    mail = rendered(example("contact_form", visitor=Visitor(address="v@example.com")))
    assert "Name:" not in mail.text
    assert ">Name<" not in mail.html
    assert mail.sender.name == "Visitor via Riverside School"


def test_the_visitors_lines_stay_lines_and_are_marked_as_quoted():
    mail = rendered(example("contact_form", message="one\n\n<b>two</b>\nthree & more"))
    assert "> one\n>\n> <b>two</b>\n> three & more\n" in mail.text
    assert "one<br>\n<br>\n&lt;b&gt;two&lt;/b&gt;<br>\nthree &amp; more" in mail.html


@pytest.mark.parametrize(("old", "closed"), [
    ("\u202bpaid\u200f", "\u202bpaid\u200f\u202c"),  # an embedding and a mark turned "paid → due" into "due → paid"
    ("\u2067paid\u200f", "\u2067paid\u200f\u2069"),
    ("\u202a\u2068\u202bx", "\u202a\u2068\u202bx\u202c\u2069\u202c"),
    ("\u202a\u2067x\u202c\u202by\u2069z", "\u202a\u2067x\u202c\u202by\u2069z\u202c"),  # its end ends all in it
    ("\u202a+33 1 23\u202c", "\u202a+33 1 23\u202c"),
    ("\u2069\u202c é", "\u2069\u202c é"),
    ("\u202bone\ntwo", "\u202bone\ntwo"),  # its paragraph ended before our words
    ("one\n\u202btwo", "one\n\u202btwo\u202c"),
])  # fmt: skip
def test_an_old_value_cannot_turn_the_arrow_after_it_round(old, closed):
    mail = rendered(example("data_change", changes=(Change(field="f", label="Bill", old=old, new="due"),)))
    assert "\n    {} → due\n".format(closed.replace("\n", "\n    ")) in mail.text
    shown = html.unescape(mail.html)
    assert f">{closed}</span> → <strong>due".replace("\n", "<br>\n") in shown


def test_templates_are_part_of_the_package():
    folder = compile_templates.TEMPLATES
    assert str(folder) in list(template_folders)
    for kind, locale in CASES:
        for ending in ("subject", "txt", "html"):
            assert (folder / f"{kind}.{locale}.{ending}").is_file()
        assert (folder / "mjml" / f"{kind}.{locale}.mjml").is_file()


def test_a_kind_of_another_package_is_rendered_by_the_templates_of_that_package(tmp_path):
    package = tmp_path / "ping_plugin"
    (package / "templates").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "ping.py").write_text(PLUGIN)
    for ending, text in {"subject": "Ping", "txt": "Ping of {{ brand_name }}\n", "html": "<p>Ping</p>\n"}.items():
        (package / "templates" / f"ping.en.{ending}").write_text(text)
    described = tmp_path / "ping_plugin-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: ping-plugin\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[postier.events]\nping = ping_plugin.ping:Ping\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from postier.schemas.account import Account, Sender\n"
        "from postier.schemas.events import KINDS\n"
        "from postier.workers.render import preview\n"
        "account = Account(name='a', driver='null', sender=Sender(address='a@school.example', name='School'))\n"
        "print(preview('ping', KINDS['ping'].example(), account, 'fr'))\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("('Ping', 'Ping of ")
