from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from notifications_worker.templates import SHIPPED, Rendered, Templates, mistakes_in
from worker_runtime.outcome import PermanentError

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "{{ 7 * 7 }}{% include 'lead-welcome.txt.j2' %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, text in {"subject": "Hello {{ name }}", "txt": "Dear {{ name }}", "html": "<p>{{ name }}</p>"}.items():
        (tmp_path / f"hello.{part}.j2").write_text(text, encoding="utf-8")
    return tmp_path


def written(folder: Path, text: str) -> Path:
    (folder / "hello.txt.j2").write_text(text, encoding="utf-8")
    return folder


def error(templates: Templates, template_id: str, data: dict[str, Any]) -> str:
    with pytest.raises(PermanentError) as caught:
        templates.render(template_id, data)
    assert caught.value.code == "TEMPLATE_ERROR"
    return caught.value.sentence


@pytest.mark.parametrize("template_id", ["lead-welcome", "lead-assigned", "lead-converted"])
@pytest.mark.parametrize("extra", [{}, {"firstName": None, "company": None, "assigneeName": None, "accountName": None}])
def test_a_shipped_template_needs_no_more_than_the_lead(template_id: str, extra: dict[str, Any]) -> None:
    rendered = Templates().render(template_id, {"leadId": "L-1", **extra})

    assert "L-1" in rendered.text
    assert "L-1" in rendered.html
    assert rendered.subject
    assert "\n" not in rendered.subject
    assert "None" not in rendered.subject + rendered.text + rendered.html


def test_a_welcome_uses_what_is_known() -> None:
    rendered = Templates().render("lead-welcome", {"leadId": "L-1", "firstName": "Ada", "company": "Engines & Co"})

    assert rendered.subject == "Welcome, Ada"
    assert "on behalf of Engines & Co." in rendered.text
    assert "on behalf of Engines &amp; Co." in rendered.html


def test_only_html_is_escaped(folder: Path) -> None:
    rendered = Templates(folder).render("hello", {"name": "<b>&'"})

    assert (rendered.subject, rendered.text) == ("Hello <b>&'", "Dear <b>&'")
    assert rendered.html == "<p>&lt;b&gt;&amp;&#39;</p>"


def test_what_a_job_brings_is_never_a_template(folder: Path) -> None:
    assert Templates(folder).render("hello", {"name": EVIL}).text == f"Dear {EVIL}"


@pytest.mark.parametrize("template_id", ["nope", "../templates", "hello.txt.j2", "hello\n", "/etc/passwd"])
def test_an_unknown_template_is_named(folder: Path, template_id: str) -> None:
    sentence = error(Templates(folder), template_id, {})

    assert repr(template_id) in sentence
    assert "hello" in sentence


def test_a_missing_variable_is_named_with_its_template() -> None:
    assert error(Templates(), "lead-assigned", {}) == "template 'lead-assigned' (subject): 'leadId' is undefined"


@pytest.mark.parametrize(
    "text",
    [
        "{{ name.__class__.__mro__ }}",
        "{{ ''.__class__ }}",
        "{{ items.append(1) }}",
        "{{ range(10 ** 9) | list }}",
        "{{ 1 / 0 }}",
        "{{ name() }}",
        "{{ name | round }}",
    ],
)
def test_what_a_template_may_not_do_is_a_template_error_without_the_data(folder: Path, text: str) -> None:
    sentence = error(Templates(written(folder, text)), "hello", {"name": "Ada Lovelace", "items": []})

    assert sentence.startswith("template 'hello' (txt): ")
    assert "Ada" not in sentence


def test_a_template_that_is_no_template_is_named(folder: Path) -> None:
    assert "TemplateSyntaxError" in error(Templates(written(folder, "{% if %}")), "hello", {"name": "Ada"})


def test_what_grows_too_long_is_stopped(folder: Path) -> None:
    text = "{% for a in items %}{% for b in items %}{% for c in items %}{{ name }}{% endfor %}{% endfor %}{% endfor %}"
    templates = Templates(written(folder, text), max_characters=1000)

    assert "longer than 1000 characters" in error(templates, "hello", {"name": "Ada", "items": list(range(1000))})


def test_data_may_have_any_names(folder: Path) -> None:
    data = {"name": "Ada", "self": 1, "data": 2, "not a name": 3, "context": 4}

    assert Templates(folder).render("hello", data).text == "Dear Ada"


ENDLESS = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ENDLESS, "takes longer than 0.1 s"),
        (
            "{% macro m(n) %}{{ m(n-1) if n else '' }}{{ m(n-1) if n else '' }}{% endmacro %}{{ m(40) }}",
            "takes longer than 0.1 s",
        ),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError with this templateData"),
        ("{% for a in items recursive %}{{ loop(items) }}{% endfor %}", "RecursionError with this templateData"),
        ("{{ 9 ** (9 ** 9) }}", "makes something too large with **"),
        ("{{ [0] * 10 ** 9 }}", "makes something too large with *"),
        ("{{ 10 ** 9 * name }}", "makes something too large with *"),
        ("{{ lipsum(10 ** 9) }}", "'lipsum' is undefined"),
    ],
)
def test_a_template_that_would_never_end_ends(folder: Path, text: str, said: str) -> None:
    templates = Templates(written(folder, text), render_seconds=0.1)

    assert error(templates, "hello", {"name": "Ada", "items": [1]}) == f"template 'hello' (txt): {said}"


def test_what_is_small_may_be_multiplied(folder: Path) -> None:
    text = "{{ 6 * 7 }} {{ 2 ** 10 }} {{ '-' * 5 }} {{ 3 * [1] }} {{ 1.5 ** 2 }} {{ 2 * 1.5 }} {{ 2 ** -1 }}"

    assert (
        Templates(written(folder, text)).render("hello", {"name": "x"}).text == "42 1024 ----- [1, 1, 1] 2.25 3.0 0.5"
    )


async def test_a_loop_in_a_template_leaves_the_event_loop_alone(folder: Path) -> None:
    templates = Templates(written(folder, ENDLESS), render_seconds=0.3)
    rendering = asyncio.create_task(asyncio.to_thread(error, templates, "hello", {"name": "Ada"}))
    turns = 0
    while not rendering.done():
        await asyncio.sleep(0)
        turns += 1
    assert "takes longer" in await rendering
    assert turns > 5


def test_a_folder_of_ones_own_wins_over_the_shipped_ones_template_by_template(folder: Path) -> None:
    for part in ("subject", "txt"):
        (folder / f"lead-welcome.{part}.j2").write_text("Ours", encoding="utf-8")
    templates = Templates(folder, SHIPPED)

    # Not their HTML beside our text.
    assert templates.render("lead-welcome", {}) == Rendered("Ours", "Ours", "")
    assert templates.render("lead-assigned", {"leadId": "L-1"}) == Templates().render(
        "lead-assigned", {"leadId": "L-1"}
    )
    assert set(templates.found) == {"hello", "lead-assigned", "lead-converted", "lead-welcome"}


def test_a_template_may_extend_and_include_parts_of_its_folder(folder: Path) -> None:
    (folder / "_layout.html.j2").write_text("<body>{% block body %}{% endblock %}</body>", encoding="utf-8")
    (folder / "hello.html.j2").write_text(
        "{% extends '_layout.html.j2' %}{% block body %}{{ name }}{% endblock %}", encoding="utf-8"
    )

    assert Templates(folder).render("hello", {"name": "<Ada>"}).html == "<body>&lt;Ada&gt;</body>"
    assert mistakes_in(folder) == []


def test_everything_wrong_with_a_folder_is_told_at_once(folder: Path) -> None:
    (folder / "hello.html.j2").write_text("<p>\n{% if %}</p>", encoding="utf-8")
    (folder / "hello.txt.j2").write_text("a\nb\n{{ name | shout }}", encoding="utf-8")
    (folder / "alone.txt.j2").write_text("{% include '_nowhere.j2' %}", encoding="utf-8")
    (folder / "widow.html.j2").write_text("<p></p>", encoding="utf-8")
    (folder / "latin.txt.j2").write_bytes("Grüße".encode("latin-1"))
    (folder / "latin.subject.j2").write_text("x", encoding="utf-8")
    (folder / "notes.md").write_text("{% not a template", encoding="utf-8")

    assert mistakes_in(folder) == [
        "alone.txt.j2: there is no alone.subject.j2 beside it",
        "widow.html.j2: there is no widow.txt.j2 beside it",
        "alone.txt.j2: includes _nowhere.j2, which is not there",
        "hello.html.j2:2: Expected an expression, got 'end of statement block'",
        "hello.txt.j2:3: No filter named 'shout'.",
        "latin.txt.j2: cannot be read as UTF-8 (UnicodeDecodeError)",
    ]


def test_the_shipped_templates_have_no_mistakes() -> None:
    assert mistakes_in(SHIPPED) == []
