"""Definitions and inputs that are meant to do harm: an answer with a reason, soon, and nothing else."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker_runtime.egress import egress
from worker_runtime.expressions import ExpressionError
from worker_runtime.postgres import UnreadableJson, read_json
from worker_runtime.yaml_source import SourceError
from workflow_documents import WHOLE, workflow
from workflow_worker.definition import DefinitionError, load_definition, read_definition
from workflow_worker.steps.speech import Expression, Text
from workflow_worker.testing import Trial

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Settings:
    egress_allowed_cidrs: tuple[str, ...] = ()


HEAD = "name: x\nsteps: []\n"
# What took a process with it, raised what nobody expects, or took minutes or gigabytes.
HARMFUL: Mapping[str, tuple[str, str]] = {
    "brackets line by line": ("[\n" * 100_000, ":101: is nested too deeply"),
    "braces line by line": ("{\n" * 100_000, ":101: is nested too deeply"),
    "dashes": ("- " * 100_000, ":1: is nested too deeply"),
    "question marks": ("? \n" * 150_000, "holds more than 100000 values"),
    "a billion laughs": (
        "a: &a [x]\nb0: &b0 [*a]\n" + "".join(f"b{n}: &b{n} [{f'*b{n - 1},' * 9}]\n" for n in range(1, 12)),
        "holds more than 100000 values, aliases counted",
    ),
    "itself": ("a: &a [*a]\n", "is nested too deeply"),
    "itself merged": ("a: &a\n  <<: *a\n", "is nested too deeply"),
    "many digits": (f"{HEAD}output: {{a: {'9' * 5_000}}}\n", "this is no int"),
    "many hexadecimal digits": (f"{HEAD}output: {{a: 0x{'f' * 900}{'f' * 5_000}}}\n", "this is no int"),
    "hexadecimal": (f"{HEAD}output: {{a: 0x{'f' * 990}}}\noutputt: 1", "unknown key"),
    "minutes": (f"{HEAD}output: {{a: 1{':59' * 300_000}}}\n", "this is no int"),
    "keys nobody knows": (HEAD + "".join(f"k{n}: 1\n" for n in range(10_000)), "k99: unknown key"),
    "the same key": (f"{HEAD}output:\n" + "  a: 1\n" * 10_000, "more"),
    "steps nobody knows": (
        "name: x\nsteps:\n"
        + "".join(f"- {{id: {'ab' * 28}{n}, wait: {{seconds: 1}}}}\n" for n in range(490))
        + "output:\n"
        + "".join('- "' + "+".join(f"steps.{'ab' * 27}{m}x{n}" for m in range(50)) + '"\n' for n in range(40)),
        "there is no step",
    ),
    "python": ("name: !!python/object/apply:os.system [exit]\n", "could not determine a constructor"),
    "five megabytes": ("#" * 5_000_000, "has more than 4194304 bytes"),
}


def complaint(path: Path) -> str:
    with pytest.raises(SourceError) as error:
        load_definition(path)
    return str(error.value)


@pytest.mark.parametrize("name", HARMFUL)
def test_what_is_meant_to_do_harm_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    written, expected = HARMFUL[name]
    path = tmp_path / "x.yaml"
    path.write_text(written)
    said = complaint(path)
    assert expected in said
    assert len(said.splitlines()) <= 101


NO_JSON = (1 << 5_000, float("inf"), float("nan"), json.loads("[" * 500 + "]" * 500), {1: 2}, {3})


@pytest.mark.parametrize("value", NO_JSON)
def test_a_value_that_no_json_has_is_told_with_its_place(value: Any) -> None:
    with pytest.raises(DefinitionError, match=r"^output\.a"):
        read_definition({"name": "a", "steps": [], "output": {"a": value}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
# Words of the language beside anything, so that something is hit.
WORDS = """
input steps execution . [ ] ( ) { } | ~ + * ** % 'a' 9999999 join list map ('x') replace tojson __class__ format for if
not is , : 1e999 '\\x00' '\\ud800' // 0 - sum sort urlencode round upper split
"""
SOURCES = st.lists(st.sampled_from(WORDS.split()) | st.text(max_size=5), max_size=12).map(" ".join)
TEXTS = st.builds("{}{{{{ {} }}}}{}".format, st.text(max_size=5), SOURCES, st.text(max_size=5))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.text(max_size=200) | JSON.map(json.dumps) | st.binary(max_size=200))
def test_any_file_is_a_definition_or_a_complaint(tmp_path: Path, written: str | bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(written if isinstance(written, bytes) else written.encode("utf-8", "surrogatepass"))
    assert str(path) in complaint(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), value=JSON | SOURCES)
def test_any_place_may_hold_anything(data: st.DataObject, value: Any) -> None:
    document = json.loads(json.dumps(WHOLE))
    within = document
    while isinstance(within, (dict, list)) and within:
        key = data.draw(st.sampled_from(sorted(within) if isinstance(within, dict) else range(len(within))))
        holder, within = within, within[key]
        if data.draw(st.booleans()):
            break
    holder[key] = value
    with contextlib.suppress(DefinitionError):
        read_definition(document)


@settings(max_examples=300, deadline=None)
@given(source=SOURCES, text=TEXTS, value=JSON)
def test_any_expression_has_a_value_that_is_json_or_an_error(source: str, text: str, value: Any) -> None:
    names = {"input": value, "steps": {"a": value}, "execution": {}}
    for kind, written in ((Expression, source), (Text, text)):
        with contextlib.suppress(ExpressionError):
            json.dumps(kind(written).value(names), allow_nan=False)


@pytest.mark.parametrize("source", ["1e999", "-1e999", "[1e999]", "input.a or 1e400"])
def test_a_number_beyond_json_s_is_refused_when_it_is_written(source: str) -> None:
    for kind, written in ((Expression, source), (Text, f"{{{{ {source} }}}}")):
        with pytest.raises(ExpressionError, match="a number is too large"):
            kind(written)


LARGE = {"text": "\u20ac" * 3_000_000, "many": list(range(300_000)), "deep": json.loads("[" * 190 + "]" * 190)}


@pytest.mark.parametrize(
    "source",
    [
        *("input.many | sort | join(input.text)", "input.text ~ input.text", "input.text.split('') | list"),
        *("input.text | replace('\u20ac', input.text)", "input.many | map('string') | join | upper", "input.text * 9"),
        *("input.text.join(input.many)", "input == input.deep or input.many + input.many", "input.text | urlencode"),
        "input | tojson",
    ],
)
def test_much_data_is_no_way_to_much_work(source: str) -> None:
    with pytest.raises(ExpressionError) as error:
        Expression(source).value({"input": LARGE, "steps": {}, "execution": {}})
    assert len(str(error.value)) < 1_000


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "value"),
        [
            ("https://{{ input }}.shop.example/x", "evil.example/"),
            ("https://{{ input }}.shop.example/x", "evil.example?"),
            ("https://{{ input }}.shop.example/x", "evil.example#"),
            ("https://{{ input }}.shop.example/x", "me:you@evil.example/"),
            ("https://{{ input }}.shop.example/x", "evil.example:443/"),
            ("https://shop.example{{ input }}/x", "@evil.example"),
            ("https://shop.example:{{ input }}/x", "443@evil.example"),
            ("https://shop.example/orders/{{ input }}", "../refunds"),
            ("https://shop.example/orders/{{ input }}", "%2e%2E/refunds"),
            ("https://shop.example/orders/{{ input }}/x", ".."),
            ("https://shop.example/orders/{{ input | urlencode }}/x", ".."),
        ],
    )
    async def test_a_value_leads_nowhere_else(self, url: str, value: str) -> None:
        trial = Trial(workflow({"id": "a", "http": {"method": "GET", "url": url}}), value)
        ended = await trial.run()
        assert ended.status == "failed"
        assert trial.requests == []

    @pytest.mark.parametrize("value", ["a\r\nHost: evil", "a b", "a\\b", "a\x00b", "\x7f"])
    async def test_nor_into_the_request_s_head(self, value: str) -> None:
        url = "https://shop.example/?q={{ input }}"
        async with egress(Settings()) as client:
            trial = Trial(workflow({"id": "a", "http": {"method": "GET", "url": url}}), value, http=client)
            ended = await trial.run()
        sentence = "the URL holds a blank, a control character or a backslash"
        assert ended.error == f"EGRESS_REFUSED: step a: {sentence}"

    @pytest.mark.parametrize(
        "host",
        [
            *("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "[::ffff:a9fe:a9fe]", "[64:ff9b::7f00:1]"),
            *("2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost", "[fe80::1%25lo]", "0", "[::]", "10.0.0.1"),
        ],
    )
    async def test_nor_to_a_neighbour_by_any_spelling(self, host: str) -> None:
        http = {"method": "GET", "url": "https://{{ input }}/latest/meta-data"}
        async with egress(Settings()) as client:
            ended = await Trial(workflow({"id": "a", "http": http}), host, http=client).run()
        assert str(ended.error).startswith("EGRESS_REFUSED: step a: ")

    @pytest.mark.parametrize(
        ("url", "value", "sent"),
        [
            ("https://{{ input }}.shop.example/x", "de", "https://de.shop.example/x"),
            ("https://{{ input }}/x", "shop.example:8443", "https://shop.example:8443/x"),
            ("{{ input }}", "https://shop.example/a?b=/../c", "https://shop.example/a?b=/../c"),
            ("https://shop.example/{{ input | urlencode }}", "a/../b?c&d", "https://shop.example/a%2F..%2Fb%3Fc%26d"),
            ("https://shop.example/{{ input }}", "a/b...", "https://shop.example/a/b..."),
        ],
    )
    async def test_it_fills_its_place(self, url: str, value: str, sent: str) -> None:
        trial = Trial(workflow({"id": "a", "http": {"method": "GET", "url": url}}), value)
        assert (await trial.run()).status == "completed"
        assert trial.requests[0].url == sent


class TestStoredJson:
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("[" * 201 + "]" * 201, "is nested deeper than 200"),
            ('{"a":' * 5_000 + "1" + "}" * 5_000, "is nested deeper than 200"),
            ("9" * 5_000, "too many digits"),
            ("1" + "0" * 400 + ".5", "a number that is too large"),
            ("NaN", "a number that is too large"),
            ("{", "is not JSON"),
        ],
    )
    def test_what_cannot_be_handed_on_is_refused(self, text: str, why: str) -> None:
        with pytest.raises(UnreadableJson, match=why):
            read_json(text)

    @settings(max_examples=100, deadline=None)
    @given(value=JSON)
    def test_what_can_is_as_it_was(self, value: Any) -> None:
        try:
            text = json.dumps(value, allow_nan=False)
        except ValueError:
            return
        assert read_json(text) == json.loads(text)

    def test_the_deepest_is_read(self) -> None:
        assert read_json("[" * 200 + "]" * 200)
