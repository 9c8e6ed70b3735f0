from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events_worker.conditions import Condition
from events_worker.expressions import Expression, ExpressionError, Text, names_of
from rule_files import event

ADA = names_of(event(items=3, name="Ada", tags=["a", "b"]))
PARTS = ("payload.items > 2", "payload.items > 9", "payload.no", "not payload.no", "payload.name == 'or (and'")


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
            ("payload.items * 2 % 4", 2),
        ],
    )
    def test_values(self, source: str, value: object) -> None:
        assert Expression(source).value(ADA) == value

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
        assert Expression(source).truth(ADA) is truth

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
            "payload.name * 1000000000000",
            "'%1000000000000d' % payload.items",
        ],
    )
    def test_no_value(self, source: str) -> None:
        with pytest.raises(ExpressionError):
            Expression(source).value(ADA)

    @pytest.mark.parametrize(
        ("source", "complaint"),
        [
            ("payload.x and", "unexpected 'end of template'"),
            ("paylod.x", "unknown name paylod (there are event, payload, metadata)"),
            ("range(3)", "unknown name range"),
            ("payload.x | shout", "No filter named 'shout'"),
            ("9 ** 9 ** 9 ** 9", "** is not part of this language"),
            ("(" * 300 + "1" + ")" * 300, "Error"),
            ("", "unexpected"),
        ],
    )
    def test_what_cannot_be_compiled(self, source: str, complaint: str) -> None:
        with pytest.raises(ExpressionError) as error:
            Expression(source)
        assert str(error.value).startswith(f"`{source}`: ")
        assert complaint in str(error.value)

    def test_a_text_with_a_hole_is_refused(self) -> None:
        with pytest.raises(ExpressionError):
            Text("Dear {{ payload.nothing }}").value(ADA)

    def test_the_sentence_never_quotes_the_events_data(self) -> None:
        names = names_of(event(email="ada@example.com"))
        for source in ("payload.email | int + payload.x", "payload.email / 2", "payload[payload.email] ~ ''"):
            with pytest.raises(ExpressionError) as error:
                Expression(source).value(names)
            assert "ada" not in str(error.value)


HOSTILE = names_of(event(text="x" * 200_000, list=list(range(50_000)), words=[str(number) for number in range(50_000)]))
TEN_TIMES = " | replace('a', 'aaaaaaaaaa')"


class TestWhatStrangersWrite:
    """Each of these would otherwise take gigabytes, or minutes."""

    @pytest.mark.parametrize(
        "source",
        [
            "'a'" + TEN_TIMES * 12,
            "payload.words | join(payload.text)",
            "payload.text.join(payload.words)",
            "payload.text.replace('x', payload.text)",
            "~".join(["payload.text"] * 300) + " | length",
            "+".join(["payload.text"] * 50) + " | length",
            "[" + ",".join(["payload.text[1:]"] * 250) + "] | length",
            "[" + ",".join(["payload"] * 300) + "]",
            "[" + ",".join(["payload"] * 300) + "] | tojson | length",
            "[" + ",".join(["payload"] * 300) + "] | string | length",
            "payload.list | select('in', payload.words) | list | length",
            "payload.list | map('replace', '1', payload.text) | list | length",
            "payload.list | map(attribute='" + ".".join(["a"] * 1000) + "', default=1) | list | length",
            " or ".join(["'q' in payload.words"] * 150),
            "payload.text | list | length",
            "*".join(["99999999999999999999"] * 70),
            "1 | round(100000000, 'ceil')",
            "[] | sum(start=payload.list)",
        ],
    )
    def test_costs_little_and_has_no_value(self, source: str) -> None:
        expression = Expression(source)
        with pytest.raises(ExpressionError) as error:
            expression.value(HOSTILE)
        assert any(word in str(error.value) for word in ("too", "for numbers"))

    @pytest.mark.parametrize(
        "source",
        [
            "{% for a in payload.list %}{% for b in payload.list %}{% endfor %}{% endfor %}",
            "{% for a in payload.text %}{% for b in payload.text %}{% endfor %}{% endfor %}",
            "{% for a in payload.list %}{% if payload.words == payload.list %}{% endif %}{% endfor %}",
            "{% for a in payload.list %}{{ payload.words | sort | length }}{% endfor %}",
            "{{ payload.text }}" * 6,
            "{{ [payload, payload, payload] }}",
        ],
    )
    def test_a_text_of_theirs_ends_soon(self, source: str) -> None:
        text = Text(source)
        with pytest.raises(ExpressionError, match="too"):
            text.value(HOSTILE)

    @pytest.mark.parametrize(
        "source",
        [
            *("'x' | center(1000000000)", "'%1000000000d' | format(1)", "'x' | indent(1000000000)", "[1] | random"),
            *("[1] | batch(1000000000, 'x') | list", "[1] | slice(1000000000) | list", "'x' | attr('upper')"),
            *("lipsum(1000)", "range(9)", "cycler(1)", "namespace()", "self", "dict(a=1)", "x" * 10_000),
        ],
    )
    def test_is_refused_where_it_is_written(self, source: str) -> None:
        with pytest.raises(ExpressionError):
            Expression(source)

    @pytest.mark.parametrize(
        "source",
        [
            "payload.name.center(1000000000)",
            "'{:1000000000}'.format(1)",
            "payload.name.zfill(1000000000)",
            "payload.name.expandtabs(1000000000)",
            "(1).to_bytes(1000000000, 'big')",
            "payload.name.encode()",
            "payload.items.__class__",
        ],
    )
    def test_has_the_methods_that_texts_need(self, source: str) -> None:
        with pytest.raises(ExpressionError):
            Expression(source).value(ADA)

    @pytest.mark.parametrize(
        "source",
        [
            "{% macro m() %}{% endmacro %}",
            "{% for a in payload.list recursive %}{{ loop(payload.list) }}{% endfor %}",
            "{% include 'x' %}",
            "{% import 'x' as y %}",
            "{% set x %}{{ payload.text }}{% endset %}",
            "{{ self.x }}",
            "{{ loop.index }}",
            "x" * 100_000,
        ],
    )
    def test_has_no_statements_of_template_pages(self, source: str) -> None:
        with pytest.raises(ExpressionError):
            Text(source)

    @given(st.text(alphabet="payload.items[]()|~+*/%{}',:0129 <=inotrfx", max_size=60))
    def test_whatever_it_is_it_has_a_value_or_says_why_not(self, source: str) -> None:
        for kind in (Expression, Text):
            with contextlib.suppress(ExpressionError):
                kind(source).value(ADA)


class TestWhatPeopleNeed:
    @pytest.mark.parametrize(
        ("source", "value"),
        [
            ("payload.name.lower().startswith('a')", True),
            ("payload.name.replace('d', 'dd')", "Adda"),
            ("', '.join(payload.tags)", "a, b"),
            ("payload.tags | map('upper') | list", ["A", "B"]),
            ("payload.tags | map('upper')", ["A", "B"]),
            ("payload.tags | select('in', ['b']) | first", "b"),
            ("payload.tags | reverse | join('-')", "b-a"),
            ("payload.tags + ['c']", ["a", "b", "c"]),
            ("payload.name + '!'", "Ada!"),
            ("payload.name[1:]", "da"),
            ("payload.tags[0]", "a"),
            ("payload.tags[-1]", "b"),
            ("payload.tags[5] or 'none'", "none"),
            ("payload['name']", "Ada"),
            ("[{'price': 2}, {'price': 3.5}] | sum(attribute='price')", 5.5),
            ("[{'k': 'a', 'n': 1}, {'k': 'b', 'n': 2}] | selectattr('n', 'gt', 1) | map(attribute='k') | list", ["b"]),
            ("{'b': 1, 'a': 2} | dictsort", [("a", 2), ("b", 1)]),
            ("payload.items | string | length", 1),
            ("'a b/c' | urlencode", "a%20b%2Fc"),
            ("{'a': [1, '<']} | tojson", '{"a": [1, "\\u003c"]}'),
            ("'<b>' | e", "&lt;b&gt;"),
            ("3.14159 | round(2)", 3.14),
            ("'12' | int + 1", 13),
            ("payload.nothing | default('x')", "x"),
            ("1 < payload.items <= 3", True),
        ],
    )
    def test_is_there(self, source: str, value: object) -> None:
        assert Expression(source).value(ADA) == value

    def test_a_text_may_list_things(self) -> None:
        source = "{% for tag in payload.tags if tag %}{{ loop.index }} {{ tag }}{{ ';' if loop.last }}{% endfor %}"
        assert Text(source).value(ADA) == "1 a2 b;"

    def test_the_fields_it_speaks_of_are_known(self) -> None:
        source = "payload.a.b > payload['c'] and payload[payload.name] and metadata.d"
        assert Expression(source).fields_of("payload") == {"a", "c", "name"}
        assert Text("{% if payload.a %}{{ payload.b }}{% endif %}").fields_of("payload") == {"a", "b"}


class TestWhyAConditionIsFalse:
    @pytest.mark.parametrize(
        ("source", "why"),
        [
            ("payload.no", "`payload.no` is false"),
            ("payload.items > 2 and payload.name == 'Bob'", "`payload.name == 'Bob'` is false"),
            ("payload.items > 9 and payload.name == 'Bob'", "`payload.items > 9` is false"),
            ("payload.no or payload.items > 9", "`payload.no` and `payload.items > 9` are false"),
            ("(payload.items > 2 and (payload.no))", "`payload.no` is false"),
            ("payload.items and (payload.no or payload.nope)", "`payload.no` and `payload.nope` are false"),
            ("(payload.no) and (payload.items)", "`payload.no` is false"),
            ("not payload.items and payload.name", "`not payload.items` is false"),
            ("payload.no or payload.items and payload.nope", "`payload.no` and `payload.nope` are false"),
            ("payload.no if payload.items and payload.name else true", None),
            ("payload.name in ['and', 'or', (1 and 2)]", None),
            ("payload.name == ' and ('", None),
            ("-payload.items > 0", None),
            ("payload.items is defined and payload.no is defined", "`payload.no is defined` is false"),
        ],
    )
    def test_it_names_the_smallest_parts(self, source: str, why: str | None) -> None:
        assert not Condition(source).truth(ADA)
        assert Condition(source).false_because(ADA) == (why or f"`{source}` is false")

    @given(
        st.recursive(
            st.sampled_from(PARTS),
            lambda inner: st.one_of(
                st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
                inner.map("({})".format),
            ),
            max_leaves=8,
        )
    )
    def test_whatever_it_names_is_false(self, source: str) -> None:
        condition = Condition(source)
        if not condition.truth(ADA):
            named = condition.false_because(ADA).split("`")[1::2]
            assert named
            assert not any(Expression(part).truth(ADA) for part in named)
