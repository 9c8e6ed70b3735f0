"""What each event type promises, and how a payload of any known version becomes what the handlers know.

`catalogue` reads the YAML, `reading` judges and lifts payloads; `changes` compares two catalogues, and `sql`,
`asyncapi` and `reference` write what is generated from one.
"""

from events_worker.contracts.catalogue import SHIPPED, Catalogue, load_catalogue
from events_worker.contracts.reading import Accepted, Contracts, Violation, load_contracts

__all__ = ["SHIPPED", "Accepted", "Catalogue", "Contracts", "Violation", "load_catalogue", "load_contracts"]
