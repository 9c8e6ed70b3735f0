from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from notifications_worker.templates import Templates
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
