"""What every result file says of its run, and how a page shows that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from linearize.report.claims import DECIDED, Verdict, table
from linearize.report.node import ResultsError
from linearize.report.schema import Axes
from linearize.report.section import Section, configuration, facts


@dataclass(frozen=True, kw_only=True)
class Run:
    """The head of an experiment's results, which are a subclass of it; S seeds."""

    schema: int = 1
    experiment: str
    preset: str
    versions: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    seeds: Annotated[tuple[int, ...], Axes("S", some=True)]
    model: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    """Of measuring; None where that was interrupted."""
    claims: tuple[Verdict, ...] = ()

    @property
    def model_name(self) -> str:
        """For a page's lead.

        Raises:
            ResultsError: the file does not say it.
        """
        if "name" not in self.model:
            raise ResultsError("key 'model/name' is missing")
        return str(self.model["name"])

    def facts(self, tasks: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Names and values for below a page's lead."""
        return facts(self.preset, self.model, tasks, self.seeds, self.seconds)

    def verdicts(self, title: str = "Claims of the papers", caption: str = DECIDED) -> Section:
        """The section of a page that shows the claims; the caption says how they are decided."""
        return Section("claims", title, (table(self.claims, caption),))

    @property
    def blocks(self) -> Mapping[str, object]:
        """What the last section of a page folds away, by title."""
        return {"Configuration": self.config, "Versions": self.versions, "Model": self.model}

    @property
    def configuration(self) -> Section:
        """The last section of a page: configuration, versions and model."""
        return Section("configuration", "Configuration and versions", (configuration(self.blocks),))
