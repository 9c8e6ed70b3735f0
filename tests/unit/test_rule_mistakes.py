"""What is wrong with a rules file is told at once, each mistake with its line and the remedy."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from events_worker.actions import ACTIONS
from events_worker.rules import SHIPPED, RuleBook, Surroundings, load_rules
from rule_files import notify, refusal, rules_file
from worker_runtime.yaml_source import SourceError

if TYPE_CHECKING:
    from pathlib import Path

TYPES = ("lead.created", "lead.updated", "deal.won")
GOOD = "name: a, event: lead.created"
MAIL = "channel: EMAIL, recipient: {email: payload.email}, body: hi"


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("{name: a, chanel: EMAIL}", "rules.0.chanel: unknown key; did you mean channel?"),
        ("{name: a, sms: 1}", "rules.0.sms: unknown key; there are name, event, when, notify, ingest, webhook, "),
        ("{name: a}", "rules.0.event: is missing"),
        ("{event: a}", "rules.0.name: is missing"),
        ("{name: '', event: a}", "rules.0.name: is empty"),
        ("{name: 5, event: a}", "rules.0.name: must be a text: put it in quotes"),
        (f"{{{GOOD}}}", "rules.0: does nothing: it needs one of notify, ingest, webhook, workflow, job"),
        ("{name: a, event: 'lead. *'}", "rules.0.event: is neither a type (lead.created) nor a family (lead.*) nor *"),
        (f"{{{GOOD}, channel: FAX}}", "rules.0.channel: Input should be 'EMAIL', 'SMS', 'WEBHOOK' or 'SLACK'"),
        (f"{{{GOOD}, notify: {{channel: FAX}}}}", "rules.0.notify.channel: Input should be 'EMAIL', "),
        (f"{{{GOOD}, priority: high}}", "rules.0.priority: Input should be 'LOW', "),
        (f"{{{GOOD}, {MAIL}, notify: {{{MAIL}}}}}", "rules.0: has channel, recipient, body beside notify: write them"),
        (f"{{{GOOD}, notify: [{{{MAIL}}}]}}", "rules.0.notify: must be a mapping: lines of `key: value`"),
        (f"{{{GOOD}, notify: {{{MAIL}, recpient: 1}}}}", "notify.recpient: unknown key; did you mean recipient?"),
        (f"{{{GOOD}, when: 'payload.x ='}}", "rules.0.when: `payload.x =`: "),
        (f"{{{GOOD}, when: paylod.x}}", "rules.0.when: `paylod.x`: unknown name paylod (there are event, "),
        (f"{{{GOOD}, when: payload.x | shout}}", "rules.0.when: `payload.x | shout`: No filter named 'shout'"),
        (f"{{{GOOD}, when: range(3)}}", "rules.0.when: `range(3)`: unknown name range"),
        (f"{{{GOOD}, when: yes}}", "rules.0.when: must be an expression: put it in quotes"),
        (f"{{{GOOD}, body: 'Hi {{{{ payload.x'}}", "rules.0.body: `Hi {{ payload.x`: unexpected end of template"),
        (f"{{{GOOD}, recipient: {{fax: payload.x}}}}", "rules.0.recipient.fax"),
        (f"{{{GOOD}, ingest: }}", "rules.0.ingest.documentId: is missing"),
        (f"{{{GOOD}, ingest: {{options: {{ocr: no}}}}}}", "rules.0.ingest.options.ocr: Input should be 'auto', "),
        (f"{{{GOOD}, webhook: {{url: x}}}}", "rules.0.webhook.url: unknown key; there are source, priority"),
        (f"{{{GOOD}, workflow: {{begin: x}}}}", "rules.0.workflow.begin: unknown key; there are start, input, key, "),
        (f"{{{GOOD}, workflow: }}", "rules.0.workflow: needs either start (with input and key) or signal (with "),
        (f"{{{GOOD}, workflow: {{start: x, signal: y}}}}", "rules.0.workflow: needs either start (with input and key)"),
        (f"{{{GOOD}, workflow: {{start: x, data: {{}}}}}}", "rules.0.workflow: has data, which start does not take"),
        (
            f"{{{GOOD}, workflow: {{signal: x, key: payload.a, input: {{}}}}}}",
            "rules.0.workflow: has input, key, which signal does not take",
        ),
        (f"{{{GOOD}, workflow: {{signal: x}}}}", "rules.0.workflow: correlation is missing: it tells which executions"),
        (
            f"{{{GOOD}, workflow: {{start: x, input: {{a: paylod.x}}}}}}",
            "rules.0.workflow.input.a: `paylod.x`: unknown name",
        ),
        (
            f"{{{GOOD}, job: {{task: x, arguments: {{a: paylod.x}}}}}}",
            "rules.0.job.arguments.a: `paylod.x`: unknown name",
        ),
        (f"{{{GOOD}, job: {{task: {'x' * 129}}}}}", "rules.0.job.task: String should have at most 128 characters"),
        (f"{{{GOOD}, job: {{task: x, priority: 5}}}}", "rules.0.job.priority: Input should be 'LOW', "),
        (f"{{{GOOD}, job: {{task: x, delaySeconds: -1}}}}", "rules.0.job.delaySeconds: Input should be greater than"),
        (f"{{{GOOD}, job: {{task: x, delay_seconds: 1}}}}", "rules.0.job.delay_seconds: unknown key; did you mean del"),
        ("[name, a]", "rules.0: must be a mapping: lines of `key: value`"),
        ("{name: 2026-02-31}", "is not YAML: this is no timestamp: put quotes around a text"),
        (f"{{{GOOD}, body: {{{{ payload.x }}}}}}", "put quotes around a text with {{ }} in it"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, rule: str, complaint: str) -> None:
    told = refusal(rules_file(tmp_path, [rule]))
    assert any(line.startswith(f"{tmp_path}/rules.yaml:2: ") and complaint in line for line in told.splitlines()), told


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"recipient": "{id: payload.id}"}, "recipient.email is missing, EMAIL needs it"),
        ({"body": "hello"}, "needs either template (with data) or body (with subject)"),
        ({"template": None}, "needs either template"),
        ({"template": None, "body": "hello", "data": "{x: payload.x}"}, "data is for a template"),
    ],
)
def test_a_rule_says_something_to_somebody(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    assert f":2: rules.0: {complaint}" in refusal(rules_file(tmp_path, [notify("a", **changes)]))


def test_everything_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "rulez: []\n"
        "rules:\n"
        "  - {name: a, event: lead.created, channel: SMS, recipient: {phone: payload.phone}, bodi: hi}\n"
        "  - name: a\n"
        "    event: lead.created\n"
        "    when: payload.x and\n"
        "    when: payload.x\n"
        "    webhook:\n"
        "  - name: c\n"
        "    event: lead.created\n"
        "    job: {tusk: x}\n"
        "    ingest:\n"
        "      documentId: payload.id\n"
        "      sourceUrl: 5\n"
    )
    off = {"SMS": "buy a phone or", "WEBHOOK": "weave a web or", "JOB_QUEUE": "hire somebody or"}
    lines = [line.removeprefix(f"{path}:") for line in refusal(path, Surroundings(off)).splitlines()]
    assert lines == [
        "1: rulez: unknown key; did you mean rules?",
        "3: rules.0.bodi: unknown key; did you mean body?",
        "3: rules.0: SMS is switched off: buy a phone or remove the rule",
        "3: rules.0: needs either template (with data) or body (with subject)",
        "4: rules.1.name: a is the name of an earlier rule: ids are made of it",
        "7: when: is written twice",
        "8: rules.1.webhook: WEBHOOK is switched off: weave a web or remove the rule",
        "11: rules.2.job: JOB_QUEUE is switched off: hire somebody or remove the rule",
        "11: rules.2.job.task: is missing",
        "11: rules.2.job.tusk: unknown key; did you mean task?",
        "14: rules.2.ingest.sourceUrl: must be an expression: put it in quotes",
    ]


def test_what_deserves_a_look_is_a_warning(tmp_path: Path) -> None:
    rules = [
        notify("a", event="lead.craeted"),
        notify("b", event="leed.*"),
        notify("c", event="lead.*"),
        notify("d", event="'*'"),
        notify("e", event="quite.another"),
    ]
    path = rules_file(tmp_path, rules)
    warnings = load_rules(path, Surroundings(event_types=TYPES)).warnings
    assert warnings == [
        f"{path}:2: rules.0.event: lead.craeted has no contract; did you mean lead.created?",
        f"{path}:3: rules.1.event: leed.* has no contract; did you mean lead.*?",
        f"{path}:6: rules.4.event: quite.another has no contract",
    ]
    assert load_rules(path).warnings == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", ":1: must have the key `rules`"),
        ("rules: 3", ":1: must have the key `rules` with a list"),
        ("- a", ":1: must have the key `rules`"),
        ("rules: [1]", ":1: rules.0: must be a mapping"),
        ("rules:\n  - {a: 'b}\n", ":3: is not YAML: found unexpected end of stream"),
        ("rules:\n\t- a", ":2: is not YAML: found character '\\t' that cannot start any token"),
        ("rules: \x07", ":1: is not YAML: character '\\x07'"),
        ("rules: &a [*a]", ":1: is nested too deeply"),
        ("rules: " + "[" * 5_000, ":1: is nested too deeply"),
        ("- " * 500, ":1: is nested too deeply"),
        ("- " * 500_000, ":1: is nested too deeply"),
        ("".join(f"{' ' * depth}a:\n{' ' * depth}-\n" for depth in range(900)), ":101: is nested too deeply"),
        ("rules: !!python/object:os.system []", ":1: is not YAML: could not determine a constructor for the tag"),
        ("rules: !!bool perhaps", ":1: is not YAML: this is no bool"),
        ("rules: !!int " + "9" * 5_000, ":1: is not YAML: this is no int"),
        ("? [a, b]\n: c", ":1: a key must be a text"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    assert complaint in refusal(path)


def test_aliases_that_stand_for_too_much_are_refused(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in pairwise("abcdefghi")]
    path = tmp_path / "rules.yaml"
    path.write_text("\n".join(lines))
    assert "holds more than 100000 values, aliases counted" in refusal(path)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "rules.yaml")
    assert "cannot be read: Is a directory" in refusal(tmp_path)
    (tmp_path / "rules.yaml").write_bytes(b"rules: \xff")
    assert "is not UTF-8" in refusal(tmp_path / "rules.yaml")


def test_words_that_yaml_takes_for_something_else_are_keys(tmp_path: Path) -> None:
    assert ":2: rules.0.on: unknown key" in refusal(rules_file(tmp_path, ["{on: lead.created}"]))
    assert ":2: rules.0.7: unknown key" in refusal(rules_file(tmp_path, ["{7: lead.created}"]))


def test_a_rule_may_repeat_another_by_merging_it(tmp_path: Path) -> None:
    first = notify("a").replace("{", "&first {", 1)
    rules = load_rules(rules_file(tmp_path, [first, "{<<: *first, name: b, event: deal.won}"])).rules
    assert [(rule.name, rule.pattern) for rule in rules] == [("a", "lead.created"), ("b", "deal.won")]


# Whatever a person may have in that file.

NASTY = (
    "a lead.* payload.x {{ {% 9**9**9 ~ 2026-02-31 1:60 . = << *a &a !!int !!timestamp !!binary !!set !!bool EMAIL LOW"
    " 0x_ -.inf ' \" | > - ? : # \ud800 \x00"
)
SCALARS = st.sampled_from(NASTY.split(" ")) | st.text(max_size=8)
WORDS = st.sampled_from(
    [
        "rules",
        "name",
        "event",
        "when",
        "channel",
        "recipient",
        "email",
        "body",
        "data",
        "template",
        "options",
        "<<",
        *ACTIONS,
    ]
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(WORDS | SCALARS, inner), max_size=5).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=20,
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.binary(max_size=4) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=6),
    max_leaves=20,
)
ENTRIES = st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "event", "when", "channel", *ACTIONS), PLAIN))


def mutated(cuts: list[tuple[int, int, str]]) -> str:
    text = SHIPPED.read_text()
    for start, length, patch in cuts:
        at = start % len(text)
        text = text[:at] + patch + text[at + length :]
    return text


TEXTS = (
    st.text()
    | DOCUMENTS
    | DOCUMENTS.map("rules: [{}]".format)
    | st.lists(ENTRIES, max_size=3).map(lambda entries: yaml.safe_dump({"rules": entries}, allow_unicode=True))
    | st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 40), st.text(max_size=5)), max_size=4).map(mutated)
)


@given(TEXTS)
@example("rules: [{name: a, event: b, when: '" + "(" * 500 + "'}]")
@example("rules: [{name: a, event: b, when: '9**9**9**9'}]")
@example("rules: [{name: a, event: b, body: '" + "{% if x %}" * 60 + "'}]")
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_text_makes_the_loader_raise_anything_but_its_own_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        book = load_rules(path, Surroundings({"SMS": "x"}, TYPES))
    except SourceError as error:
        told = str(error).splitlines()
        assert told
        assert all(re.match(rf"{re.escape(str(path))}(:\d+)?: ", line) for line in told), told
    else:
        assert isinstance(book, RuleBook)
