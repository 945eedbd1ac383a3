"""How the same numbers come fast, safely and resumably: what a formula has no use for. No lecture shows it."""
