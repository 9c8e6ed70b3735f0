from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import pytest

from events_worker.event import EventJob
from events_worker.expressions import Expression, ExpressionError, Text, names_of
from events_worker.handlers.routing import notification_id_of, notification_job
from events_worker.rules import SHIPPED, CompiledRule, RuleFailed, load_rules
from events_worker.yaml_source import SourceError

if TYPE_CHECKING:
    from pathlib import Path

    from worker_runtime.bullmq.producer import NewJob

EVENT_ID = "0b9f4f0e-7c0c-4a55-9c56-0f6f2f3f0001"
EMAIL = frozenset({"EMAIL"})
EVERYTHING = frozenset({"EMAIL", "SMS", "WEBHOOK"})


def event(event_type: str = "lead.created", event_id: str = EVENT_ID, **payload: Any) -> EventJob:
    return EventJob.model_validate(
        {
            "eventId": event_id,
            "eventType": event_type,
            "aggregateType": "lead",
            "aggregateId": "l-1",
            "tenantId": "t-1",
            "payload": payload,
            "metadata": {"correlationId": "c-1", "timestamp": "2026-01-01T10:00:00Z", "version": 1},
            "occurredAt": "2026-01-01T10:00:00Z",
            "sequence": 1,
        }
    )


def made(rules: list[CompiledRule], of: EventJob) -> list[NewJob]:
    names = names_of(of)
    return [notification_job(rule, of, names) for rule in rules if rule.applies(of.event_type, names)]


class TestShippedRules:
    def test_a_new_lead_is_welcomed(self) -> None:
        (job,) = made(
            load_rules(SHIPPED, EMAIL), event(leadId="l-1", email="ada@example.com", tenantId="t-1", firstName="Ada")
        )
        notification_id = str(uuid5(UUID(EVENT_ID), "lead-welcome"))
        assert (job.name, job.job_id, job.priority, job.lifo) == ("email", notification_id, 0, False)
        assert job.data == {
            "notificationId": notification_id,
            "tenantId": "t-1",
            "channel": "EMAIL",
            "priority": "NORMAL",
            "recipient": {"id": "l-1", "email": "ada@example.com"},
            "content": {
                "templateId": "lead-welcome",
                "templateData": {"leadId": "l-1", "firstName": "Ada", "company": None},
            },
            "metadata": {
                "eventId": EVENT_ID,
                "eventType": "lead.created",
                "rule": "lead-welcome",
                "correlationId": "c-1",
                "causationId": EVENT_ID,
            },
        }

    @pytest.mark.parametrize("event_type", ["lead.assigned", "lead.converted"])
    def test_an_owner_is_told_when_there_is_an_address(self, event_type: str) -> None:
        rules = load_rules(SHIPPED, EMAIL)
        told = made(rules, event(event_type, leadId="l-1", ownerId="o-1", ownerEmail="owner@example.com"))
        assert [job.data["recipient"]["email"] for job in told] == ["owner@example.com"]
        assert made(rules, event(event_type, leadId="l-1", ownerId="o-1", ownerEmail=None)) == []
        assert made(rules, event(event_type, leadId="l-1", ownerId="o-1")) == []

    def test_other_events_make_nothing(self) -> None:
        assert made(load_rules(SHIPPED, EMAIL), event("invoice.paid", email="ada@example.com")) == []


class TestRuleFiles:
    def test_urgent_goes_first_and_low_last(self, tmp_path: Path) -> None:
        path = rules_file(
            tmp_path, [rule("a", priority="URGENT"), rule("b", priority="LOW"), rule("c", priority="HIGH")]
        )
        jobs = made(load_rules(path, EMAIL), event(email="a@example.com"))
        assert [(job.lifo, job.priority) for job in jobs] == [(True, 0), (False, 100), (False, 0)]
        assert len({job.job_id for job in jobs}) == 3

    def test_a_text_instead_of_a_template(self, tmp_path: Path) -> None:
        text = "{channel: SMS, event: '*', name: a, recipient: {phone: payload.phone}, body: 'Hi {{ payload.name }}'}"
        path = rules_file(tmp_path, [text])
        (job,) = made(load_rules(path, EVERYTHING), event("x", phone="+491", name="Ada"))
        assert job.name == "sms"
        assert job.data["content"] == {"body": "Hi Ada"}

    @pytest.mark.parametrize(
        ("rules", "complaint"),
        [
            (["{name: a, chanel: EMAIL}"], ":2: rules.0.chanel: unknown key"),
            (["{name: a}"], ":2: rules.0.event: is missing"),
            (["{name: a, event: 'lead. *'}"], ":2: rules.0.event: is neither a type"),
            (["{name: a, channel: FAX}"], ":2: rules.0.channel: Input should be 'EMAIL', 'SMS' or 'WEBHOOK'"),
            (["{name: a, priority: high}"], ":2: rules.0.priority: Input should be 'LOW', "),
            (["{name: a, when: 'payload.x ='}"], ":2: rules.0.when: `payload.x =`: "),
            (["{name: a, when: paylod.x}"], ":2: rules.0.when: `paylod.x`: unknown name paylod (there are event, "),
            (["{name: a, when: payload.x | shout}"], ":2: rules.0.when: `payload.x | shout`: No filter named 'shout'"),
            (["{name: a, when: range(3)}"], ":2: rules.0.when: `range(3)`: unknown name range"),
            (["{name: a, body: 'Hi {{ payload.x'}"], ":2: rules.0.body: `Hi {{ payload.x`: unexpected end of template"),
            (["{name: a, recipient: {fax: payload.x}}"], ":2: rules.0.recipient.fax"),
        ],
    )
    def test_a_mistake_is_told_with_its_line(self, tmp_path: Path, rules: list[str], complaint: str) -> None:
        assert f"{tmp_path}/rules.yaml{complaint}" in refusal(rules_file(tmp_path, rules))

    def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(self, tmp_path: Path) -> None:
        path = rules_file(tmp_path, [rule("a"), "{name: b}", rule("c", prioritty="LOW")])
        lines = [line.removeprefix(f"{path}:").split(":")[0] for line in refusal(path).splitlines()]
        assert lines == sorted(lines)
        assert set(lines) == {"3", "4"}

    def test_a_name_may_be_used_once(self, tmp_path: Path) -> None:
        assert ":3: rules.1.name: a is the name of an earlier rule" in refusal(rules_file(tmp_path, [rule("a")] * 2))

    def test_a_channel_that_is_off_is_refused_with_the_remedy(self, tmp_path: Path) -> None:
        path = rules_file(tmp_path, [rule("a", channel="SMS", recipient="{phone: payload.phone}")])
        assert ":2: rules.0.channel: SMS is switched off: set ENABLE_SMS=true or remove the rule" in refusal(path)

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"recipient": "{id: payload.id}"}, "recipient.email is missing, EMAIL needs it"),
            ({"body": "hello"}, "needs either template (with data) or body (with subject)"),
            ({"template": None}, "needs either template"),
            ({"template": None, "body": "hello", "data": "{x: payload.x}"}, "data is for a template"),
        ],
    )
    def test_a_rule_says_something_to_somebody(self, tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
        assert f":2: rules.0: {complaint}" in refusal(rules_file(tmp_path, [rule("a", **changes)]))

    @pytest.mark.parametrize("text", ["", "rules: 3", "- a", "rules: [1]"])
    def test_a_file_of_another_shape_is_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "rules.yaml"
        path.write_text(text)
        assert str(path) in refusal(path)


class TestEventsThatDoNotFit:
    def test_a_missing_field_names_rule_and_expression(self, tmp_path: Path) -> None:
        rules = load_rules(rules_file(tmp_path, [rule("a")]), EMAIL)
        with pytest.raises(RuleFailed, match=r"rule a: recipient.email: `payload.email`: the event has no field email"):
            made(rules, event())

    @pytest.mark.parametrize("address", ["", "  ", None, 5, ["a@example.com"]])
    def test_an_address_is_a_text(self, tmp_path: Path, address: object) -> None:
        rules = load_rules(rules_file(tmp_path, [rule("a")]), EMAIL)
        with pytest.raises(RuleFailed, match=r"recipient.email: `payload.email`: is empty or not a text"):
            made(rules, event(email=address))

    def test_the_sentence_never_quotes_the_events_data(self) -> None:
        names = names_of(event(email="ada@example.com"))
        for source in ("payload.email | int + payload.x", "payload.email / 2", "payload[payload.email] ~ ''"):
            with pytest.raises(ExpressionError) as error:
                Expression(source).value(names)
            assert "ada" not in str(error.value)


class TestExpressions:
    @pytest.mark.parametrize(
        ("source", "value"),
        [
            ("payload.items", 3),
            ("payload.nothing or 'else'", "else"),
            ("payload.nothing.below or none", None),
            ("payload.name ~ '!'", "Ada!"),
            ("payload.name | upper", "ADA"),
            ("event.tenantId", "t-1"),
            ("metadata.version", "1"),
            ("{'a': payload.items}", {"a": 3}),
        ],
    )
    def test_values(self, source: str, value: object) -> None:
        assert Expression(source).value(names_of(event(items=3, name="Ada"))) == value

    @pytest.mark.parametrize(
        ("source", "truth"),
        [
            ("payload.items", True),
            ("payload.nothing", False),
            ("payload.nothing.below == 'x'", False),
            ("payload.items > 2 and payload.name != 'Bob'", True),
        ],
    )
    def test_truth(self, source: str, truth: object) -> None:
        assert Expression(source).truth(names_of(event(items=3, name="Ada"))) is truth

    @pytest.mark.parametrize(
        "source",
        [
            "payload.nothing",
            "payload.nothing > 3",
            "[payload.nothing]",
            "payload.name ~ payload.nothing",
            "payload.nothing | upper",
            "payload.name.__class__",
            "payload.keys()",
        ],
    )
    def test_no_value(self, source: str) -> None:
        with pytest.raises(ExpressionError):
            Expression(source).value(names_of(event(name="Ada")))

    def test_a_text_with_a_hole_is_refused(self) -> None:
        with pytest.raises(ExpressionError):
            Text("Dear {{ payload.nothing }}").value(names_of(event()))


def test_an_event_id_that_is_no_uuid_makes_ids_too() -> None:
    assert notification_id_of("evt-1", "a") == notification_id_of("evt-1", "a")
    assert len({notification_id_of(event_id, name) for event_id in ("evt-1", "evt-2") for name in "ab"}) == 4


def rule(name: str, **changes: Any) -> str:
    keys = {
        "event": "lead.created",
        "channel": "EMAIL",
        "recipient": "{email: payload.email}",
        "template": "t",
        "name": name,
    } | changes
    return "{" + ", ".join(f"{key}: {value}" for key, value in keys.items() if value is not None) + "}"


def rules_file(folder: Path, rules: list[str]) -> Path:
    path = folder / "rules.yaml"
    path.write_text("rules:\n" + "".join(f"  - {text}\n" for text in rules))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as error:
        load_rules(path, EMAIL)
    return str(error.value)
