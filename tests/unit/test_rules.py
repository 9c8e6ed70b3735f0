"""What rules make of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import pytest

from events_worker.actions.action import RuleFailed
from events_worker.effects import PlannedDeferral, PlannedSignal, PlannedStart
from events_worker.rules import SHIPPED
from rule_files import EVENT_ID, effects, event, made, notify, rules_file, rules_in

if TYPE_CHECKING:
    from pathlib import Path

READ = "ingest: {documentId: payload.id, sourceUrl: payload.url%s}"
INGEST = "{name: read, event: document.uploaded, " + READ + "}"
DOCUMENT = {"id": "d-1", "url": "s3://bucket/d-1.pdf"}


class TestShippedRules:
    def test_a_new_lead_is_welcomed(self) -> None:
        (planned,) = made(
            rules_in(SHIPPED), event(leadId="l-1", email="ada@example.com", tenantId="t-1", firstName="Ada")
        )
        job, notification_id = planned.job, str(uuid5(UUID(EVENT_ID), "lead-welcome"))
        assert planned.queue == "EMAIL"
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
        rules = rules_in(SHIPPED)
        told = made(rules, event(event_type, leadId="l-1", ownerId="o-1", ownerEmail="owner@example.com"))
        assert [planned.job.data["recipient"]["email"] for planned in told] == ["owner@example.com"]
        assert made(rules, event(event_type, leadId="l-1", ownerId="o-1", ownerEmail=None)) == []
        assert made(rules, event(event_type, leadId="l-1", ownerId="o-1")) == []

    def test_other_events_make_nothing(self) -> None:
        assert made(rules_in(SHIPPED), event("invoice.paid", email="ada@example.com")) == []


class TestNotify:
    def test_urgent_goes_first_and_low_last(self, tmp_path: Path) -> None:
        rules = [notify("a", priority="URGENT"), notify("b", priority="LOW"), notify("c", priority="HIGH")]
        jobs = made(rules_in(rules_file(tmp_path, rules)), event(email="a@example.com"))
        assert [(planned.job.lifo, planned.job.priority) for planned in jobs] == [(True, 0), (False, 100), (False, 0)]
        assert len({planned.job.job_id for planned in jobs}) == 3

    def test_a_text_instead_of_a_template(self, tmp_path: Path) -> None:
        text = "{channel: SMS, event: '*', name: a, recipient: {phone: payload.phone}, body: 'Hi {{ payload.name }}'}"
        (planned,) = made(rules_in(rules_file(tmp_path, [text])), event("x", phone="+491", name="Ada"))
        assert (planned.queue, planned.job.name) == ("SMS", "sms")
        assert planned.job.data["content"] == {"body": "Hi Ada"}

    def test_with_or_without_the_word_notify_it_is_the_same_job(self, tmp_path: Path) -> None:
        short = notify("a")
        long = (
            "{name: a, event: lead.created, notify: {channel: EMAIL, recipient: {email: payload.email}, template: t}}"
        )
        of = event(email="a@example.com")
        assert made(rules_in(rules_file(tmp_path, [short])), of) == made(rules_in(rules_file(tmp_path, [long])), of)


class TestIngest:
    def job(self, tmp_path: Path, more: str = "", **payload: Any) -> dict[str, Any]:
        (planned,) = made(
            rules_in(rules_file(tmp_path, [INGEST % more])), event("document.uploaded", **DOCUMENT, **payload)
        )
        assert planned.queue == "TEXT_EXTRACTION"
        assert planned.job.job_id == str(uuid5(uuid5(UUID(EVENT_ID), "read"), "ingest"))
        data: dict[str, Any] = planned.job.data
        return data

    def test_what_is_needed(self, tmp_path: Path) -> None:
        assert self.job(tmp_path) == {"documentId": "d-1", "sourceUrl": "s3://bucket/d-1.pdf", "tenantId": "t-1"}

    def test_everything(self, tmp_path: Path) -> None:
        more = (
            ", format: \"'pdf'\", language: payload.language, userId: payload.by or none, priority: LOW,"
            " options: {ocr: auto, generateEmbeddings: true, extractMetadata: false, password: payload.key}"
        )
        job = self.job(tmp_path, more, language="de", by=None, key="geheim")
        assert job == {
            "documentId": "d-1",
            "sourceUrl": "s3://bucket/d-1.pdf",
            "tenantId": "t-1",
            "format": "pdf",
            "language": "de",
            "options": {"ocr": "auto", "generateEmbeddings": True, "extractMetadata": False, "password": "geheim"},
        }

    @pytest.mark.parametrize(
        ("more", "payload", "complaint"),
        [
            ("", {"id": 7}, "documentId: `payload.id`: is empty or not a text"),
            ("", {"url": None}, "sourceUrl: `payload.url`: is empty or not a text"),
            (", format: payload.format", {}, "format: `payload.format`: there is no field format"),
            (", language: payload.id | length", {}, "language: `payload.id | length`: is empty or not a text"),
            (", options: {password: payload.key}", {}, "options.password: `payload.key`: there is no field key"),
        ],
    )
    def test_an_event_that_does_not_fit(
        self, tmp_path: Path, more: str, payload: dict[str, Any], complaint: str
    ) -> None:
        rules = rules_in(rules_file(tmp_path, [INGEST % more]))
        with pytest.raises(RuleFailed) as failure:
            made(rules, event("document.uploaded", **DOCUMENT | payload))
        assert str(failure.value) == f"rule read: {complaint}"


class TestWorkflow:
    ID = str(uuid5(uuid5(UUID(EVENT_ID), "flow"), "workflow"))

    def planned(self, tmp_path: Path, written: str, **payload: Any) -> Any:
        rules = rules_in(rules_file(tmp_path, [f"{{name: flow, event: '*', workflow: {{{written}}}}}"]))
        (effect,) = effects(rules, event("order.created", **payload))
        return effect

    def test_a_start_is_given_the_event_unless_the_rule_says_what(self, tmp_path: Path) -> None:
        start = self.planned(tmp_path, "start: follow-up", total=5)
        assert start == PlannedStart(self.ID, "t-1", "follow-up", start.given, "flow")
        assert start.given["event"]["eventType"] == "order.created"
        assert (start.given["payload"], start.given["metadata"]["correlationId"]) == ({"total": 5}, "c-1")
        chosen = self.planned(
            tmp_path, "start: follow-up, input: {order: payload.id, by: payload.by or none}, key: payload.id", id="o-1"
        )
        assert chosen == PlannedStart(self.ID, "t-1", "follow-up", {"order": "o-1", "by": None}, "flow", "o-1")
        assert self.planned(tmp_path, "start: follow-up, input: {}").given == {}

    def test_a_signal_has_the_payload_unless_the_rule_says_what(self, tmp_path: Path) -> None:
        signal = self.planned(tmp_path, "signal: paid, correlation: payload.invoice", invoice=4711)
        assert signal == PlannedSignal(self.ID, "t-1", "paid", "4711", {"invoice": 4711}, "flow")
        written = "signal: paid, correlation: event.aggregateId, data: {sum: payload.sum}"
        assert self.planned(tmp_path, written, sum=1.5) == PlannedSignal(
            self.ID, "t-1", "paid", "l-1", {"sum": 1.5}, "flow"
        )

    @pytest.mark.parametrize(
        ("written", "complaint"),
        [
            ("start: x, input: {a: payload.a}", "input.a: `payload.a`: there is no field a"),
            ("start: x, key: payload.flag", "key: `payload.flag`: is empty or not a text"),
            ("signal: x, correlation: payload.a", "correlation: `payload.a`: there is no field a"),
            ("signal: x, correlation: \"' '\"", "correlation: `' '`: is empty or not a text"),
            ("signal: x, correlation: payload.flag, data: {}", "correlation: `payload.flag`: is empty or not a text"),
        ],
    )
    def test_an_event_that_does_not_fit(self, tmp_path: Path, written: str, complaint: str) -> None:
        with pytest.raises(RuleFailed) as failure:
            self.planned(tmp_path, written, flag=True)
        assert str(failure.value) == f"rule flow: {complaint}"


class TestSeveralActions:
    RULE = (
        "{name: both, event: document.uploaded, when: payload.mail,"
        " notify: {channel: EMAIL, recipient: {email: payload.mail}, body: it is here},"
        " ingest: {documentId: payload.id, sourceUrl: payload.url}, webhook: }"
    )

    def test_each_makes_its_job_with_an_id_of_its_own(self, tmp_path: Path) -> None:
        rules = rules_in(rules_file(tmp_path, [self.RULE]))
        planned = made(rules, event("document.uploaded", mail="a@example.com", **DOCUMENT))
        assert [one.queue for one in planned] == ["EMAIL", "TEXT_EXTRACTION"]
        assert planned[0].job.job_id == str(uuid5(UUID(EVENT_ID), "both"))
        assert len({one.job.job_id for one in planned}) == 2
        assert made(rules, event("document.uploaded", **DOCUMENT)) == []

    def test_their_order_in_the_file_changes_no_id(self, tmp_path: Path) -> None:
        actions = ["notify: {channel: EMAIL, recipient: {email: payload.mail}, body: hi}", READ % ""]
        of = event("document.uploaded", mail="a@example.com", **DOCUMENT)
        ids = []
        for order in (actions, actions[::-1]):
            path = rules_file(tmp_path, ["{name: both, event: '*', " + ", ".join(order) + "}"])
            ids.append({one.job.job_id for one in made(rules_in(path), of)})
        assert ids[0] == ids[1]
        assert len(ids[0]) == 2


class TestEventsThatDoNotFit:
    def test_a_missing_field_names_rule_and_expression(self, tmp_path: Path) -> None:
        rules = rules_in(rules_file(tmp_path, [notify("a")]))
        with pytest.raises(RuleFailed, match=r"rule a: recipient.email: `payload.email`: there is no field email"):
            made(rules, event())

    def test_a_condition_without_an_answer_is_none(self, tmp_path: Path) -> None:
        rules = rules_in(rules_file(tmp_path, [notify("a", when="payload.score > 3")]))
        with pytest.raises(RuleFailed, match=r"rule a: when: `payload.score > 3`: there is no field score"):
            made(rules, event(email="a@example.com"))

    @pytest.mark.parametrize("address", ["", "  ", None, 5, ["a@example.com"]])
    def test_an_address_is_a_text(self, tmp_path: Path, address: object) -> None:
        rules = rules_in(rules_file(tmp_path, [notify("a")]))
        with pytest.raises(RuleFailed, match=r"recipient.email: `payload.email`: is empty or not a text"):
            made(rules, event(email=address))


def test_an_event_id_that_is_no_uuid_makes_ids_too(tmp_path: Path) -> None:
    rules = rules_in(rules_file(tmp_path, [notify("a"), notify("b")]))
    ids = [
        [planned.job.job_id for planned in made(rules, event(event_id=event_id, email="a@example.com"))]
        for event_id in ("evt-1", "evt-1", "evt-2")
    ]
    assert ids[0] == ids[1]
    assert len({*ids[0], *ids[2]}) == 4


class TestJob:
    ID = str(uuid5(uuid5(UUID(EVENT_ID), "effect"), "job"))

    def planned(self, tmp_path: Path, written: str, **payload: Any) -> Any:
        rules = rules_in(rules_file(tmp_path, [f"{{name: effect, event: '*', job: {{{written}}}}}"]))
        (effect,) = effects(rules, event("order.placed", **payload))
        return effect

    def test_a_task_alone_is_enough(self, tmp_path: Path) -> None:
        expected = PlannedDeferral(self.ID, "sync", {}, "default", 0, None, 0, "effect")
        assert self.planned(tmp_path, "task: sync") == expected

    def test_everything(self, tmp_path: Path) -> None:
        written = (
            "task: email.send, queue: email, priority: HIGH, lock: payload.order, delaySeconds: 60,"
            " arguments: {to: payload.email, data: {a: 1}}"
        )
        written = written.replace("{a: 1}", "payload.data or none")
        assert self.planned(tmp_path, written, email="ada@example.com", order=7, data={"a": [1]}) == PlannedDeferral(
            self.ID, "email.send", {"to": "ada@example.com", "data": {"a": [1]}}, "email", 10, "7", 60, "effect"
        )

    def test_the_more_urgent_the_higher(self, tmp_path: Path) -> None:
        words = ("LOW", "NORMAL", "HIGH", "URGENT")
        numbers = [self.planned(tmp_path, f"task: x, priority: {word}").priority for word in words]
        assert numbers == sorted(set(numbers))
        assert numbers[1] == 0

    @pytest.mark.parametrize(
        ("written", "payload", "complaint"),
        [
            ("arguments: {to: payload.email}", {}, "arguments.to: `payload.email`: there is no field email"),
            ("lock: payload.order", {"order": None}, "lock: `payload.order`: is empty or not a text"),
            ("lock: payload.order", {"order": "x" * 1001}, "lock: is longer than 1000 bytes"),
        ],
    )
    def test_an_event_that_does_not_fit(
        self, tmp_path: Path, written: str, payload: dict[str, Any], complaint: str
    ) -> None:
        with pytest.raises(RuleFailed) as failure:
            self.planned(tmp_path, f"task: x, {written}", **payload)
        assert str(failure.value) == f"rule effect: {complaint}"
