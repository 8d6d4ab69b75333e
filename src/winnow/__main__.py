"""`python -m winnow [overrides]`: Hydra in front of `pipeline.run`. `winnow table` and `winnow dashboard` look back."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from winnow.quiet import quiet

quiet()

import hydra  # noqa: E402  (after quiet: importing is when libraries begin to talk)
from hydra.core.hydra_config import HydraConfig  # noqa: E402
from hydra.types import RunMode  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from winnow.errors import UserError, user_sentence  # noqa: E402
from winnow.sweep import FAILED, FINISHED, note_failure  # noqa: E402

_raised: list[Exception] = []
CONF = Path(__file__).resolve().parents[2] / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(cfg: DictConfig) -> dict | float | None:
    from winnow import pipeline

    quiet()  # Hydra's own logging set-up is in force only now
    try:
        results = pipeline.run(cfg)
        return results if cfg.get("objective") is None else _objective(results, cfg.objective)
    except Exception as error:
        if HydraConfig.get().mode == RunMode.RUN:
            _raised.append(error)  # Hydra would print a report of its own before passing it on
            return None
        # A failed job of a sweep must not take the others with it; the sweep names it at the end.
        note_failure(Path(HydraConfig.get().runtime.output_dir), error)
        return None


def _objective(results: dict, name: str) -> float:
    """The number that a sweeper optimises."""
    if not isinstance(results.get(name), (int, float)):
        raise UserError(f"objective={name} is no number among the results of this run: {', '.join(results)}.")
    return float(results[name])


def _table_of_sweep() -> None:
    """After a sweep of an experiment: its table, with whatever has been run so far."""
    from winnow.experiments.publish import publish

    for sweep in FINISHED:
        if sweep["table"] is not None:
            publish(sweep["table"], sweep["folder"], sweep["scale"])


def main() -> None:
    """Console entry point: 0 when all went well, 1 with one sentence for what the user can mend."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us instead of being printed by Hydra
    warnings.filterwarnings("ignore", category=UserWarning, module="hydra")
    try:
        if sys.argv[1:2] in (["table"], ["dashboard"]):
            from winnow.experiments import commands

            return getattr(commands, sys.argv[1])(sys.argv[2:])
        _job()
        if _raised:
            raise _raised[0]
        _table_of_sweep()
    except KeyboardInterrupt:
        sys.exit("Interrupted. What was finished is in the store; the same command goes on from there.")
    except Exception as error:
        sentence = user_sentence(error)
        if sentence is None:
            raise
        sys.exit(f"error: {sentence}")
    if FAILED:
        sys.exit(f"error: {len(FAILED)} jobs of the sweep failed: {'; '.join(FAILED)}")


if __name__ == "__main__":
    main()
