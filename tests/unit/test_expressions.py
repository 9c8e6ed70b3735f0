from __future__ import annotations

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
