"""The protocol of telemetry sources, and one reading of a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Total:
    """Which rails make up the power that an energy stands for.

    Attributes:
        rails: their sum is the total. A rail has a power, an energy counter, or both.
        scope: what that is the power of, in words: `the module`, `the GPU board`.
    """

    rails: tuple[str, ...]
    scope: str


@dataclass(frozen=True)
class Reading:
    """One moment. A value that could not be read is not there; it is never 0 instead.

    Attributes:
        power_w: rail -> watts.
        energy_j: rail -> joules since some moment of the past, never falling.
        clocks_mhz: `cpu`, `gpu`, `emc`, `memory` -> MHz.
        temperatures_c: sensor -> degrees Celsius.
        throttling: causes that throttle the clocks at this moment.
        events: cause -> times that it throttled the clocks since the machine started.
    """

    power_w: Mapping[str, float] = field(default_factory=dict)
    energy_j: Mapping[str, float] = field(default_factory=dict)
    clocks_mhz: Mapping[str, float] = field(default_factory=dict)
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    throttling: frozenset[str] = frozenset()
    events: Mapping[str, int] = field(default_factory=dict)


class SourceError(Exception):
    """A source that cannot be read now; the message is the reason that a person reads."""


class Source(Protocol):
    """Something that can be polled. Used by one thread at a time."""

    @property
    def name(self) -> str:
        """Where the values come from."""
        ...

    @property
    def total(self) -> Total | None:
        """Whose power is the energy of a measurement; None where nothing of the kind is here."""
        ...

    @property
    def reason(self) -> str:
        """Why there is no total, empty where there is one."""
        ...

    def read(self) -> Reading:
        """Everything that can be read now.

        Raises:
            SourceError: nothing can.
        """
        ...

    def others(self) -> list[str]:
        """Other processes on the device, in words; empty where there are none or none can be seen."""
        ...

    def close(self) -> None:
        """Give back what the source holds."""
        ...


class JoinedSource:
    """Several sources as one; the first that has a total gives it."""

    def __init__(self, *sources: Source) -> None:
        self._sources = sources
        with_total = next((source for source in sources if source.total is not None), None)
        self.name = " and ".join(source.name for source in sources)
        self.total = None if with_total is None else with_total.total
        reasons = dict.fromkeys(source.reason for source in sources if source.reason)
        self.reason = "" if with_total is not None else "; ".join(reasons)

    def read(self) -> Reading:
        """Readings of all; where two give the same value, the later source's counts."""
        readings = [source.read() for source in self._sources]
        return Reading(
            power_w={rail: value for reading in readings for rail, value in reading.power_w.items()},
            energy_j={rail: value for reading in readings for rail, value in reading.energy_j.items()},
            clocks_mhz={name: value for reading in readings for name, value in reading.clocks_mhz.items()},
            temperatures_c={name: value for reading in readings for name, value in reading.temperatures_c.items()},
            throttling=frozenset().union(*(reading.throttling for reading in readings)),
            events={name: value for reading in readings for name, value in reading.events.items()},
        )

    def others(self) -> list[str]:
        """Other processes that any of them sees."""
        return [words for source in self._sources for words in source.others()]

    def close(self) -> None:
        """Close all."""
        for source in self._sources:
            source.close()
