"""Every scenario by its name, `group: name`."""

from interop.scenarios.doubles import DOUBLES
from interop.scenarios.ends import ENDS
from interop.scenarios.faults import FAULTS
from interop.scenarios.flows import FLOWS
from interop.scenarios.limits import LIMITS
from interop.scenarios.operators import OPERATORS
from interop.scenarios.orders import ORDERS
from interop.scenarios.retention import RETENTION
from interop.scenarios.retries import RETRIES
from interop.scenarios.schedules import SCHEDULES

GROUPS = {
    "ends": ENDS,
    "retries": RETRIES,
    "orders": ORDERS,
    "limits": LIMITS,
    "doubles": DOUBLES,
    "retention": RETENTION,
    "flows": FLOWS,
    "schedules": SCHEDULES,
    "faults": FAULTS,
    "operators": OPERATORS,
}
SCENARIOS = {f"{group}: {scenario.name}": scenario for group, scenarios in GROUPS.items() for scenario in scenarios}
