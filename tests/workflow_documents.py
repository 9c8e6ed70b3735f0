"""Definitions of workflows for tests, one after the other or at random."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

EMAIL = {"channel": "EMAIL", "recipient": {"email": "input.email"}, "template": "order-paid"}


def workflow(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A definition of these steps; those without an id get one."""
    named = [{"id": f"s{number}", **step} for number, step in enumerate(steps)]
    return {"name": "order-followup", "steps": named, **more}


WHOLE: dict[str, Any] = workflow(
    {"id": "greet", "notify": {**EMAIL, "data": {"order": "input.orderId"}}},
    {
        "id": "charge",
        "http": {
            "method": "POST",
            "url": "https://pay.example/charges/{{ input.orderId }}",
            "headers": {"X-Tenant": "{{ execution.organizationId }}"},
            "json": {"amount": "input.total", "fixed": 3, "more": ["input.orderId", True, None]},
            "expect": [200, 201],
        },
        "retry": {"attempts": 3, "delaysMs": [1000, 5000]},
        "timeoutMs": 10000,
    },
    {"id": "rest", "wait": {"seconds": 3600}},
    {
        "id": "paid",
        "wait_for_event": {
            "event": "invoice.paid",
            "correlation": "input.orderId",
            "timeoutSeconds": 86400,
            "onTimeout": "continue",
        },
    },
    {
        "id": "big",
        "condition": {
            "if": "steps.charge.body.amount > 100",
            "then": [{"id": "size_big", "set": {"size": "'big'"}}],
            "else": [{"id": "size_small", "set": {"size": "'small'"}}],
        },
    },
    {
        "id": "both",
        "parallel": {
            "branches": [
                [{"id": "left", "set": {"a": "steps.size_big.size or steps.size_small.size"}}],
                [{"id": "right", "call": {"function": "pricing.quote", "arguments": {"amount": "input.total"}}}],
            ]
        },
    },
    {"id": "child", "workflow": {"start": "other", "input": {"size": "steps.left.a"}}},
    trigger={"event": "order.created", "when": "payload.total > 100"},
    input={
        "type": "object",
        "required": ["orderId", "total"],
        "properties": {"orderId": {"type": "string", "pattern": "^[a-z0-9-]+$"}, "total": {"$ref": "#/$defs/money"}},
        "$defs": {"money": {"type": "integer", "minimum": 0}},
    },
    output={"size": "steps.left.a", "price": "steps.right.price", "child": "steps.child"},
)

# Trees of steps that work out numbers: each has the next free id, and may speak of what has surely run before it.
TREES = st.recursive(
    st.sampled_from(["set", "wait", "call"]),
    lambda inner: st.one_of(
        st.tuples(st.just("condition"), st.booleans(), st.lists(inner, max_size=3), st.lists(inner, max_size=3)),
        st.tuples(st.just("parallel"), st.lists(st.lists(inner, max_size=3), min_size=1, max_size=3)),
    ),
    max_leaves=12,
)


class Planted:
    """A definition grown from trees, and what its steps must come to by a reading of its own."""

    def __init__(self, trees: list[Any]) -> None:
        self.values: dict[str, int] = {}
        self._count = 0
        steps, seen = self._steps(trees, [], runs=True)
        last = " + ".join(f"steps.{one}.n" for one in seen) or "0"
        self.document = {"name": "planted", "steps": steps, "output": {"sum": last}}
        self.sum = sum(self.values[one] for one in seen)

    def _steps(self, trees: list[Any], before: list[str], *, runs: bool) -> tuple[list[dict[str, Any]], list[str]]:
        seen, steps = list(before), []
        for tree in trees:
            step, ran = self._step(tree, seen, runs=runs)
            steps.append(step)
            seen += ran
        return steps, seen

    def _step(self, tree: Any, seen: list[str], *, runs: bool) -> tuple[dict[str, Any], list[str]]:
        self._count += 1
        name = f"n{self._count}"
        match tree:
            case "wait":
                return {"id": name, "wait": {"seconds": self._count}}, []
            case "set" | "call":
                return self._number(name, tree, seen, runs=runs)
            case ("condition", chosen, then, otherwise):
                first, ran = self._steps(then, seen, runs=runs and chosen)
                second, ran_else = self._steps(otherwise, seen, runs=runs and not chosen)
                condition = {"if": "input.one == 1" if chosen else "input.one == 2", "then": first, "else": second}
                return {"id": name, "condition": condition}, (ran if chosen else ran_else)[len(seen) :]
            case (_, branches):
                grown = [self._steps(branch, seen, runs=runs) for branch in branches]
                parallel = {"branches": [steps for steps, _ in grown]}
                return {"id": name, "parallel": parallel}, [one for _, ran in grown for one in ran[len(seen) :]]
        raise AssertionError(tree)

    def _number(self, name: str, kind: str, seen: list[str], *, runs: bool) -> tuple[dict[str, Any], list[str]]:
        others = seen[-2:]
        source = " + ".join([str(self._count), *(f"steps.{other}.n" for other in others)])
        if runs:
            self.values[name] = self._count + sum(self.values[other] for other in others)
        written = {"n": source}
        if kind == "call":
            return {"id": name, "call": {"function": "same", "arguments": written}}, [name]
        return {"id": name, "set": written}, [name]
