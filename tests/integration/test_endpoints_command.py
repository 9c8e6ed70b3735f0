"""`intelliflow endpoints`: added, shown without secrets, rotated, switched off and on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from command_line import Operator, operator
from notifications_worker.channels.webhook_signature import AsymmetricKey, read_key

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["operator"]

URL = "https://hooks.example.com/T0/path-secret"
NOBODY = "8f14e45f-ceea-467f-a8f1-2b0b0c6f0c2e"
FALLBACK = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def add(operator: Operator, *more: str, url: str = URL, tenant: str = "t-1") -> Any:
    return operator.json(f"endpoints add {url} --tenant {tenant}", *more)


def row(operator: Operator, endpoint: str) -> Mapping[str, Any]:
    cursor = operator.database.execute("SELECT * FROM tenant_webhook_endpoint WHERE id = %s", [endpoint])
    names = [column.name for column in cursor.description or ()]
    return dict(zip(names, cursor.fetchone() or (), strict=True))


def test_an_endpoint_is_added_with_all_it_wants_and_a_usable_secret(operator: Operator) -> None:
    wishes = ("--events", "lead.*", "deal.won", "--ordered", "--rate", "5/s", "--permanent", "400", "422")
    added = add(operator, *wishes, "--header", "X-Api-Key: k-1")

    stored = row(operator, added["id"])
    assert (stored["url"], stored["event_patterns"], stored["ordered"]) == (URL, ["lead.*", "deal.won"], True)
    assert (stored["rate_per_second"], stored["permanent_statuses"]) == (5.0, [400, 422])
    assert stored["headers"] == {"X-Api-Key": "k-1"}
    assert stored["secret"] == added["secret"]
    assert added["key"] == read_key(added["secret"]).id


def test_of_an_asymmetric_key_only_the_public_part_is_shown(operator: Operator) -> None:
    added = add(operator, "--asymmetric")

    key = read_key(row(operator, added["id"])["secret"])
    assert isinstance(key, AsymmetricKey)
    assert added["publicKey"] == key.public
    assert "whsk_" not in str({name: value for name, value in added.items() if name != "key"})


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("add http://127.0.0.1/hook --tenant t-1", 5, "no worker would send there"),
        ("add https://[::ffff:10.0.0.1]/ --tenant t-1", 5, "no worker would send there"),
        ("add ftp://a.example/ --tenant t-1", 5, "not one with https"),
        ("add https://a.example/ --tenant t-1 --permanent 200", 2, "not a status from 400 to 599"),
        ("add https://a.example/ --tenant t-1 --header Cookie:x", 2, "Cookie is not for an endpoint to choose"),
        ("add https://a.example/ --tenant t-1 --events le*ad", 2, "tenant_webhook_endpoint_event_patterns_check"),
        ("add https://a.example/ --tenant t-1 --rate 5000", 2, "tenant_webhook_endpoint_rate_per_second_check"),
        ("show nobody", 2, "not an endpoint's id"),
        (f"show {NOBODY}", 3, "no endpoint"),
        (f"rotate {NOBODY} --apply", 3, "no endpoint"),
        (f"disable {NOBODY} --apply", 3, "no endpoint"),
        (f"enable {NOBODY}", 3, "no endpoint"),
    ],
)
def test_what_cannot_be_done_is_told_by_code_and_sentence(operator: Operator, line: str, code: int, said: str) -> None:
    ended = operator.run(f"endpoints {line}")
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


def test_a_url_is_a_tenants_once(operator: Operator) -> None:
    add(operator)
    assert operator.run(f"endpoints add {URL} --tenant t-1").code == 1
    add(operator, tenant="t-2")
    assert [one["tenantId"] for one in operator.json("endpoints list")] == ["t-1", "t-2"]
    assert [one["tenantId"] for one in operator.json("endpoints list --tenant t-2")] == ["t-2"]


def test_neither_secrets_nor_what_may_be_one_are_shown_unasked(operator: Operator) -> None:
    added = add(operator, "--header", "Authorization: Bearer hunter2")
    for line in ("list", f"show {added['id']}", "list -o json"):
        shown = operator.run(f"endpoints {line}").out
        assert "hooks.example.com" in shown
        assert not [word for word in ("path-secret", "hunter2", added["secret"]) if word in shown]
    revealed = operator.json(f"endpoints show {added['id']} --reveal")
    assert (revealed["url"], revealed["headers"]) == (URL, {"Authorization": "Bearer hunter2"})
    assert added["secret"] not in str(revealed)


def test_a_rotation_shows_its_plan_first_and_keeps_the_old_key_for_a_day(operator: Operator) -> None:
    added = add(operator)
    plan = operator.run(f"endpoints rotate {added['id']}")
    assert (plan.code, "do it with --apply" in plan.err) == (5, True)
    assert row(operator, added["id"])["secret"] == added["secret"]

    rotated = operator.json(f"endpoints rotate {added['id']} --apply")
    stored = row(operator, added["id"])
    assert (stored["secret"], stored["previous_secret"]) == (rotated["secret"], added["secret"])
    assert rotated["secret"] != added["secret"]
    assert rotated["previousKey"] == added["key"]
    left = operator.database.execute(
        "SELECT extract(epoch FROM previous_secret_until - now()) FROM tenant_webhook_endpoint"
    ).fetchone()
    assert left is not None
    assert 23.9 * 3600 < float(left[0]) <= 24 * 3600
    assert "end the one before it now" in operator.run(f"endpoints rotate {added['id']}").err


def test_an_endpoint_that_had_the_operators_secret_keeps_it_for_the_overlap(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_SIGNING_SECRET", FALLBACK)
    operator.database.execute("INSERT INTO tenant_webhook_endpoint (tenant_id, url) VALUES ('t-1', %s)", [URL])
    [one] = operator.json("endpoints list")
    assert one["key"] is None
    rotated = operator.json(f"endpoints rotate {one['id']} --overlap 2h --asymmetric --apply")
    assert row(operator, one["id"])["previous_secret"] == FALLBACK
    assert rotated["publicKey"].startswith("whpk_")


def test_an_endpoint_is_switched_off_with_a_reason_and_on_with_its_failures_forgotten(operator: Operator) -> None:
    added = add(operator)
    assert operator.run(f"endpoints disable {added['id']}").code == 5
    assert row(operator, added["id"])["active"]

    [off] = operator.json(f"endpoints disable {added['id']} --by ada --reason spam --apply")
    assert (off["state"], off["because"]) == ("disabled", "by ada: spam")
    assert operator.run(f"endpoints disable {added['id']} --apply").code == 1
    assert [one["id"] for one in operator.json("endpoints list --disabled")] == [added["id"]]

    operator.database.execute("UPDATE tenant_webhook_endpoint SET failing_since = now()")
    assert [one["id"] for one in operator.json("endpoints list --failing")] == [added["id"]]
    [on] = operator.json(f"endpoints enable {added['id']}")
    assert (on["state"], on["because"], on["failingSince"]) == ("active", None, None)
    assert operator.json("endpoints list --disabled") == []
    assert operator.json("endpoints list --failing") == []
