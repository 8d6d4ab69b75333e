"""`hydra/sweeper=rows`: jobs are the rows of a table, and not the product of all values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf

from winnow.errors import UserError


class RowSweeper(BasicSweeper):
    """Hydra's basic sweeper over `winnow.sweeps.rows.expand`; every launcher works with it.

    rows: lines of overrides, one or more jobs each. params: swept with every row. max_batch_size: jobs handed to the
    launcher at once; None for all. only: key -> value or values: the other jobs are left out.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
        rows: Sequence[str] | None = None,
        only: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.rows = list(rows or [])
        if only is not None and not isinstance(only, Mapping):
            raise UserError(f"hydra.sweeper.only={only}: give keys and values, as {{method: consistency}}.")
        only = OmegaConf.to_container(only, resolve=True) if OmegaConf.is_config(only) else (only or {})
        self.only = {str(key): value for key, value in only.items()}
        self.arguments: list[str] = []

    def sweep(self, arguments: list[str]) -> Any:
        """Run all jobs; called by Hydra with the overrides of the command line."""
        self.arguments = list(arguments)
        return super().sweep(arguments)

    def split_arguments(self, overrides: Sequence, max_batch_size: int | None) -> list[list[list[str]]]:
        """Batches of jobs. `overrides`, where rows and command line can no longer be told apart, is not used."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from winnow.sweeps.rows import expand

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        params = {str(key): str(value) for key, value in self.params.items()}
        jobs = expand(self.rows, params, self.arguments, parser.parse_overrides, self.only)
        return list(self.split_overrides_to_chunks(jobs, max_batch_size))
